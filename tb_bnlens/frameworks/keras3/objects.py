"""Which objects of Keras are walked to put back what an extra pass or its trace changes; see ``capture.objects``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from tb_bnlens.capture.objects import Objects
from tb_bnlens.capture.randomness import draws_undone, others_may_draw
from tb_bnlens.capture.walk import Visit
from tb_bnlens.frameworks.keras3.library import Library


def objects_of(
    library: Library,
    parts: tuple[type, ...] = (),
    closed: tuple[type, ...] = (),
    visits: Mapping[type, Visit] | None = None,
) -> Objects:
    """Layers, losses and what is in them are walked; variables are not, since a pass writes none.

    Args:
        library: the generation of Keras.
        parts: more of the backend's that is walked.
        closed: more that is not.
        visits: how objects of the backend are walked.
    """
    keras: Any = library.keras
    known = (
        *(keras.layers.Layer, keras.losses.Loss, keras.metrics.Metric, keras.regularizers.Regularizer),
        *(keras.initializers.Initializer, keras.constraints.Constraint),
        getattr(keras, "Operation", keras.layers.Layer),  # Keras 2 has none
    )
    kept = (keras.optimizers.Optimizer, keras.callbacks.Callback, library.sequence)
    variable = (keras.Variable,) if hasattr(keras, "Variable") else ()
    return Objects((*known, *parts), (*kept, *variable, *closed), visits)


@contextlib.contextmanager
def called_undone(objects: Objects, *called: Any) -> Iterator[None]:
    """Undo what code of the user's does in the block: to what it reaches, and by draws of Python and NumPy.

    Args:
        objects: how it is walked.
        called: what is called.

    Raises:
        NotEvaluated: it cannot be undone.
    """
    with objects.put_back(*called) as walk, draws_undone(others_may_draw(), walk.may_draw, walk.may_wait):
        yield

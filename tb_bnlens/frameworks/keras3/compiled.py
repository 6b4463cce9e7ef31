"""A compiled loss and metrics that are not built yet, replaced by built copies, so that the model does not change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tb_bnlens.capture.randomness import draws_refused
from tb_bnlens.frameworks.keras3.library import Library

PARTS = ("_compile_loss", "_compile_metrics")


@contextlib.contextmanager
def built_apart(library: Library, model: Any, batch: Any) -> Iterator[None]:
    """Let a compiled model have a built loss and built metrics in the block.

    Keras builds them at the first ``fit`` or ``evaluate``, which a model that was loaded from a file has not seen.
    Building adds variables to the model, so it is done to copies, and the model gets its own back.

    Args:
        library: the model's.
        model: a built Keras model.
        batch: what the copies are built for.
    """
    unbuilt = {name: part for name in PARTS if (part := getattr(model, name, None)) is not None and not part.built}
    if not unbuilt:
        yield
        return
    # Keras would build the optimizer as well, which a check does without.
    kept = {**unbuilt, "optimizer": model.optimizer}
    try:
        # Where they cannot be built, as with a train_step that wants other targets, the measurement says so.
        with contextlib.suppress(Exception), draws_refused():
            for name, part in unbuilt.items():
                object.__setattr__(model, name, _copy(library, part))
            object.__setattr__(model, "optimizer", None)
            model._symbolic_build(data_batch=batch)
        object.__setattr__(model, "optimizer", kept["optimizer"])
        yield
    finally:
        for name, part in kept.items():
            object.__setattr__(model, name, part)


def _copy(library: Library, part: Any) -> Any:
    if hasattr(part, "_user_loss"):
        return type(part)(part._user_loss, part._user_loss_weights, output_names=part.output_names)
    metrics = (
        library.tree.map_structure(library.fresh, each) for each in (part._user_metrics, part._user_weighted_metrics)
    )
    return type(part)(*metrics, output_names=part.output_names)

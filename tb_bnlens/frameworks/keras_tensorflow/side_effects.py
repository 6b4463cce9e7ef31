"""What would make an extra pass through a model change its training: found before it is run, and refused."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.frameworks.keras3.library import Library

# Ops that change something outside the pass: a model that does so beyond Keras' variables (tf.Variable state,
# tf.random.Generator, Python callbacks, lookup tables) cannot be run an extra time without changing training.
_MUTATING_PREFIXES = ("Assign", "ResourceApply", "ResourceScatter", "RngSkip", "RngReadAndSkip", "LookupTableI")
_MUTATING_OPS = {"EagerPyFunc", "PyFunc", "WriteFile", "WriteSummary"}


def refuse_mutation(concrete: Any, but_variables: bool = False) -> None:
    """Raise ``NotEvaluated`` if a traced pass writes to anything outside itself, unless that is a variable it may."""
    prefixes = _MUTATING_PREFIXES[1:] if but_variables else _MUTATING_PREFIXES
    definition = concrete.graph.as_graph_def()
    for nodes in (definition.node, *(f.node_def for f in definition.library.function)):
        for node in nodes:
            if node.op in _MUTATING_OPS or node.op.startswith(prefixes):
                raise NotEvaluated(
                    f"the model changes state outside Keras' variables when it is called ({node.op} at "
                    f"{node.name!r}), so an extra pass would change training"
                )


def refuse_traced_calls(model: Any) -> None:
    """Raise ``NotEvaluated`` for a layer whose ``call`` is a ``tf.function``.

    It caches its trace by its arguments. Traced inside a stateless scope it would keep the scope's statistics and
    hand them to a later ``evaluate``.
    """
    for layer in model._flatten_layers():
        if isinstance(getattr(layer, "call", None), tf.types.experimental.PolymorphicFunction):
            raise NotEvaluated(
                f"{layer.name!r} has a call() under @tf.function, whose cached trace the probe would corrupt; "
                "take the decorator off (fit compiles the step anyway) to have the losses measured"
            )


def is_all_keras(library: Library, model: Any, loss: Any) -> bool:
    """Whether a pass runs Keras' own layers and losses only: none keeps traces, and none has to know a batch's size.

    Args:
        library: the model's.
        model: the model.
        loss: what stands in for the loss that it is compiled with, if anything does.
    """
    losses = library.tree.flatten(getattr(model, "loss", None) if loss is None else loss)
    return all(
        _is_keras(type(layer)) and not isinstance(layer, library.keras.layers.Lambda)
        for layer in model._flatten_layers()
    ) and all(part is None or isinstance(part, str) or _is_keras(getattr(part, "fn", part)) for part in losses)


def _is_keras(code: Any) -> bool:
    return str(getattr(code, "__module__", "")).startswith(("keras.", "tf_keras."))

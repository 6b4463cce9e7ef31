"""What would make an extra pass through a model change its training: found before it is run, and refused."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tb_bnlens.capture.errors import NotEvaluated

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

"""Whether a model runs only Keras' own code, about which more is known than about a user's."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

from tb_bnlens.frameworks.keras3.library import Library

STEPS = ("train_function", "train_tf_function", "test_function", "predict_function")
"""What a model holds and a pass does not call."""
KERAS = ("keras.", "tf_keras.")
"""How the modules of Keras' own code begin."""
FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def is_all_keras(library: Library, model: Any, loss: Any) -> bool:
    """Whether a pass runs Keras' own code only: none of it keeps traces, draws in Python or has to know a batch's size.

    Args:
        library: the model's.
        model: the model.
        loss: what stands in for the loss that it is compiled with, if anything does.
    """
    losses = library.tree.flatten(getattr(model, "loss", None) if loss is None else loss)
    return all(_is_keras_alone(library, op) for op in _operations(model)) and all(map(is_of_keras, losses))


def has_keras_metrics(library: Library, model: Any) -> bool:
    """Whether all metrics of a model, compiled ones included, are Keras' own."""
    if type(model).metrics is not library.keras.Model.metrics:
        return False
    compiled = getattr(model, "_compile_metrics", None) or getattr(model, "compiled_metrics", None)
    asked = [getattr(compiled, name, None) for name in ("_user_metrics", "_user_weighted_metrics")]
    return all(map(is_of_keras, [*library.tree.flatten(asked), *model.metrics]))


def trains_as_it_infers(library: Library, model: Any, loss: Any) -> bool:
    """Whether training mode differs from inference in what BatchNorm normalizes with, and in nothing else.

    Not so with dropout, with a layer that is called with ``training=`` in the model's graph, or with code of a user's.
    """
    operations = _operations(model)
    nodes = (n for op in operations for level in getattr(op, "_nodes_by_depth", {}).values() for n in level)
    return (
        is_all_keras(library, model, loss)
        and not any(_minds_the_mode(library, op) for op in operations)
        and not any("training" in node.arguments.kwargs for node in nodes)
    )


def _minds_the_mode(library: Library, operation: Any) -> bool:
    keras = library.keras
    if isinstance(operation, (keras.layers.BatchNormalization, keras.Sequential, keras.models.Model)):
        return False
    if type(operation) in (keras.layers.Dense, keras.layers.EinsumDense):
        return getattr(operation, "quantization_mode", None) is not None
    return bool(getattr(operation, "_call_has_training_arg", False))


def _operations(model: Any) -> list[Any]:
    """All layers and operations of a model, itself included."""
    layers = model._flatten_layers()
    return list({id(op): op for layer in layers for op in (layer, *getattr(layer, "operations", ()))}.values())


def _is_keras_alone(library: Library, operation: Any) -> bool:
    """Whether a layer or operation is Keras' own, and holds no code of others: an activation, a regularizer."""
    return (
        type(operation).__module__.startswith(KERAS)
        and not isinstance(operation, library.keras.layers.Lambda)
        and str(type(operation).call.__module__).startswith(KERAS)
        and all(map(is_of_keras, _held([held for name, held in vars(operation).items() if name not in STEPS])))
    )


def _held(value: Any) -> Iterator[Any]:
    """What lists and dictionaries hold."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        for part in value:
            yield from _held(part)
    else:
        yield value


def is_of_keras(thing: Any) -> bool:
    """Whether calling this runs Keras' code only: a wrapper of a function may be Keras' own and the function not."""
    if not callable(thing):
        return True
    parts = [thing, *(getattr(thing, name, thing) for name in ("fn", "_fn"))]
    codes = (part if isinstance(part, FUNCTIONS) else type(part) for part in parts)
    return all(str(getattr(code, "__module__", "")).startswith(KERAS) for code in codes)

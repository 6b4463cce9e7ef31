"""Keras 2, which runs on TensorFlow alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.frameworks.keras2.library import LIBRARY
from tb_bnlens.frameworks.keras2.outcomes import ContainerOutcomes
from tb_bnlens.frameworks.keras2.scope import TensorScope, tensor_scope
from tb_bnlens.frameworks.keras3.backend import Engine, Statistics
from tb_bnlens.frameworks.keras3.own_code import is_all_keras
from tb_bnlens.frameworks.keras_tensorflow.common import OnTensorFlow, TensorFlowEngine
from tb_bnlens.frameworks.keras_tensorflow.side_effects import refuse_mutation, refuse_traced_calls
from tb_bnlens.metadata import KERAS_2


class Keras2Engine(TensorFlowEngine):
    """Runs functions as graphs in which no variable is made."""

    _owned: Sequence[Any] = ()

    @contextlib.contextmanager
    def writing_to(self, variables: Sequence[Any]) -> Iterator[None]:
        """Let functions in the block write to these variables, if they use no other ones."""
        before, self._owned = self._owned, variables
        try:
            yield
        finally:
            self._owned = before

    def trace(self, function: Callable[..., Any], batch: Any, *others: Any) -> bool:
        """Trace it for these arguments; see ``Tracer``."""
        if tf.config.functions_run_eagerly():
            raise NotEvaluated("under tf.config.run_functions_eagerly(True) a pass would draw the numbers of training")
        with tf.variable_creator_scope(_refuse_variable):
            return super().trace(function, batch, *others)

    def _refuse(self, concrete: Any) -> None:
        owned = {id(variable) for variable in self._owned}
        used = [id(variable) for variable in concrete.graph.variables]
        refuse_mutation(concrete, but_variables=bool(used) and owned.issuperset(used))


class Keras2Backend(OnTensorFlow):
    """See ``keras3.backend.Backend``."""

    framework = KERAS_2
    packages = ("tensorflow", "tf_keras")

    def engine(self, model: Any, loss: Callable[..., Any] | None = None) -> Keras2Engine:
        """An engine for functions that call this model."""
        refuse_traced_calls(model)
        return Keras2Engine(self.library, is_all_keras(self.library, model, loss), self.put_back(model, loss))

    def scope(
        self, model: Any, variables: Sequence[tuple[Any, Any]], statistics: Statistics
    ) -> contextlib.AbstractContextManager[TensorScope]:
        """Tensors in place of variables."""
        return tensor_scope(model, statistics)

    def moments(self, layer: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
        """Fused layers average the unbiased variance and normalize with the biased one; others have one variance."""
        inputs = tf.cast(tf.cast(args[0], layer.compute_dtype), layer._param_dtype)
        axes = [i for i in range(len(inputs.shape)) if i not in layer.axis]
        if not layer.fused:
            mask = kwargs.get("mask", args[2] if len(args) > 2 else None)
            mean, variance = layer._moments(inputs, axes, keep_dims=False, mask=mask)
            return mean, variance, variance
        mean, variance = tf.nn.moments(inputs, axes)
        count = tf.cast(tf.size(inputs) / tf.size(variance), variance.dtype)
        return mean, variance, variance * count / tf.maximum(count - 1, 1)

    def outcomes(self, model: Any, engine: Engine, loss: Callable[..., Any] | None) -> ContainerOutcomes:
        """Loss and metrics of this model."""
        return ContainerOutcomes(self, model, engine, loss)

    def predictions(self, model: Any, x: Any, training: bool) -> Any:
        """Call the model in this mode, as ``train_step`` does."""
        return model(x, training=training)

    def built_apart(self, model: Any, batch: Any) -> contextlib.AbstractContextManager[None]:
        """Nothing to do: losses and metrics are always copies."""
        return contextlib.nullcontext()

    def trains_as_it_infers(self, model: Any, loss: Callable[..., Any] | None) -> bool:
        """Nothing is known of it."""
        return False

    def traces_steps(self, model: Any) -> bool:
        """It does, unless the model runs eagerly."""
        return True


def _refuse_variable(_create: Any, **_arguments: Any) -> Any:
    raise NotEvaluated("a part of the model is not built yet, and a pass would build it")


BACKEND = Keras2Backend(LIBRARY)

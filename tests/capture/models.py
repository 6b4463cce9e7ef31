"""Small models, one for each way in which BatchNorm meets the rest of Keras."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

FEATURES = 6
STEPS = 5
"""Length of the sequences."""


def batch_norm(name: str | None = None, **options: Any) -> Any:
    return keras.layers.BatchNormalization(name=name, **{"momentum": 0.9, **options})


def sequential(**options: Any) -> Any:
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(5),
            batch_norm("a", **options),
            keras.layers.ReLU(),
            keras.layers.Dense(4),
            batch_norm("b", **options),
            keras.layers.Dense(1),
        ]
    )


def functional(*layers: Any) -> Any:
    """Two BatchNorm layers with other layers between them."""
    inputs = keras.Input((FEATURES,))
    x = batch_norm("a")(keras.layers.Dense(5)(inputs))
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, keras.layers.Dense(1)(batch_norm("b")(x)))


class Subclassed(keras.Model):  # type: ignore[misc]
    """Not built before its first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(5)
        self.norms = [batch_norm("a"), batch_norm("b")]
        self.out = keras.layers.Dense(1)

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.dense(x)
        for norm in self.norms:
            x = norm(x, training=training)
        return self.out(x)


def nested() -> Any:
    def part(name: str) -> Any:
        return keras.Sequential([keras.layers.Dense(5), batch_norm("bn"), keras.layers.ReLU()], name=name)

    inputs = keras.Input((FEATURES,))
    inner = keras.Sequential([part("part"), part("other")], name="inner")
    return keras.Model(inputs, keras.layers.Dense(1)(part("part")(inner(inputs))))


def axis_one() -> Any:
    inputs = keras.Input((FEATURES,))
    x = keras.layers.Reshape((3, 2))(inputs)
    x = batch_norm("a", axis=1)(keras.layers.Dense(4)(x))
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(x)))


def shared() -> Any:
    inputs = keras.Input((FEATURES,))
    norm, dense = batch_norm("shared"), keras.layers.Dense(5)
    x = norm(dense(inputs)) + norm(3.0 * dense(inputs) + 1.0)
    return keras.Model(inputs, keras.layers.Dense(1)(batch_norm("once")(x)))


def time_distributed() -> Any:
    inputs = keras.Input((STEPS, FEATURES))
    x = keras.layers.TimeDistributed(batch_norm("a"))(keras.layers.Dense(4)(inputs))
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(x)))


def masked(channels: int = 4) -> Any:
    inputs = keras.Input((STEPS, FEATURES))
    x = keras.layers.Masking()(inputs)
    x = batch_norm("a")(keras.layers.Dense(channels)(x))
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(x)))


def masked_outputs() -> Any:
    """A value for every step, so that the mask reaches the loss."""
    inputs = keras.Input((STEPS, FEATURES))
    x = batch_norm("a")(keras.layers.Dense(4)(keras.layers.Masking()(inputs)))
    return keras.Model(inputs, keras.layers.Dense(1)(x))


class Cell(keras.layers.Layer):  # type: ignore[misc]
    """A recurrent cell that normalizes its state at every step."""

    state_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(4)
        self.norm = batch_norm("in_cell")

    def build(self, shape: Any) -> None:
        self.dense.build((shape[0], shape[-1] + 4))
        self.norm.build((shape[0], 4))

    def call(self, x: Any, states: Any, training: bool = False) -> Any:
        state = self.norm(self.dense(keras.ops.concatenate([x, states[0]], -1)), training=training)
        return state, [state]


def recurrent() -> Any:
    inputs = keras.Input((STEPS, FEATURES))
    x = keras.layers.RNN(Cell())(inputs)
    return keras.Model(inputs, keras.layers.Dense(1)(batch_norm("outside")(x)))


class UnderFunction(keras.layers.Layer):  # type: ignore[misc]
    """A layer whose call is compiled on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = batch_norm("inside")

    def build(self, shape: Any) -> None:
        self.norm.build(shape)

    @tf.function
    def call(self, x: Any, training: bool = False) -> Any:
        return self.norm(x, training=training)


class CallsFunction(keras.layers.Layer):  # type: ignore[misc]
    """A layer that hands its work to a compiled method."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = batch_norm("inside")

    def build(self, shape: Any) -> None:
        self.norm.build(shape)

    @tf.function
    def work(self, x: Any, training: bool) -> Any:
        return self.norm(x, training=training)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.work(x, training)


def dict_inputs() -> Any:
    inputs = {name: keras.Input((FEATURES,), name=name) for name in ("left", "right")}
    x = keras.layers.Concatenate()([keras.layers.Dense(3)(i) for i in inputs.values()])
    return keras.Model(inputs, keras.layers.Dense(1)(batch_norm("a")(x)))


def several_outputs() -> Any:
    inputs = keras.Input((FEATURES,))
    x = batch_norm("a")(keras.layers.Dense(5)(inputs))
    outputs = {
        "value": keras.layers.Dense(1, name="value")(x),
        "kind": keras.layers.Dense(3, activation="softmax", name="kind")(x),
    }
    return keras.Model(inputs, outputs)


class AddsLoss(keras.layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        self.add_loss(1e-2 * keras.ops.mean(keras.ops.square(x)))
        return x


def regularized() -> Any:
    inputs = keras.Input((FEATURES,))
    x = keras.layers.Dense(5, kernel_regularizer="l2", activity_regularizer="l1")(inputs)
    x = batch_norm("a", gamma_regularizer="l2", beta_regularizer="l2")(x)
    return keras.Model(inputs, keras.layers.Dense(1)(x))


class Counts(keras.layers.Layer):  # type: ignore[misc]
    """Writes its own Keras variable whenever it is called."""

    def build(self, _shape: Any) -> None:
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, x: Any) -> Any:
        self.calls.assign(self.calls + 1.0)
        return x


class CountsOutside(keras.layers.Layer):  # type: ignore[misc]
    """Writes a TensorFlow variable, which no scope of Keras holds back."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = tf.Variable(0.0, trainable=False)

    def call(self, x: Any) -> Any:
        self.calls.assign_add(1.0)
        return x + 0.0 * self.calls


class PythonInside(keras.layers.Layer):  # type: ignore[misc]
    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def call(self, x: Any) -> Any:
        y = tf.numpy_function(lambda a: a, [x], tf.float32)
        return x + 0.0 * tf.stop_gradient(tf.ensure_shape(y, x.shape))


class TensorFlowNoise(keras.layers.Layer):  # type: ignore[misc]
    """Draws from TensorFlow's own stateful generator."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x + tf.random.normal(tf.shape(x), stddev=0.1) if training else x


class OwnStep(keras.Model):  # type: ignore[misc]
    """A train_step that uses the compiled loss."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


class OwnLoss(keras.Model):  # type: ignore[misc]
    """A train_step whose loss Keras knows nothing of."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(y - self(x, training=True)))
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def own(kind: Any) -> Any:
    model = functional()
    return kind(model.inputs, model.outputs)


def frozen() -> Any:
    model = functional()
    model.get_layer("a").trainable = False
    return model


class InferenceInside(keras.Model):  # type: ignore[misc]
    """Calls one of its layers in inference mode, though it is trainable."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.a, self.b = keras.layers.Dense(5), batch_norm("a"), batch_norm("b")
        self.out = keras.layers.Dense(1)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.out(self.b(self.a(self.dense(x), training=False), training=training))


def without_batch_norm() -> Any:
    return keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(5), keras.layers.Dense(1)])

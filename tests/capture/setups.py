"""The matrix: every way to train that the lens must not change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.capture import models

SAMPLES, BATCH = 32, 8


def arrays(samples: int = SAMPLES, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(1.0, 2.0, (samples, models.FEATURES)).astype(np.float32)
    return x, x[:, :1] - 0.5 * x[:, 1:2] + 0.1 * rng.normal(size=(samples, 1)).astype(np.float32)


def sequences(per_step: bool = False) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 2.0, (SAMPLES, models.STEPS, models.FEATURES)).astype(np.float32)
    x[::3, -2:] = 0.0  # masked
    y = x.mean(-1, keepdims=True)
    return x, (y if per_step else y.mean(1))


def from_arrays(x: Any, y: Any, **extra: Any) -> dict[str, Any]:
    return {"x": x, "y": y, "batch_size": BATCH, **extra}


def plain(samples: int = SAMPLES) -> dict[str, Any]:
    return from_arrays(*arrays(samples))


def dataset(samples: int = SAMPLES, shuffled: bool = False) -> dict[str, Any]:
    data = tf.data.Dataset.from_tensor_slices(arrays(samples))
    return {"x": (data.shuffle(samples, seed=3) if shuffled else data).batch(BATCH)}


def endless(steps: int = 4) -> dict[str, Any]:
    return {"x": tf.data.Dataset.from_tensor_slices(arrays()).repeat().batch(BATCH), "steps_per_epoch": steps}


class Pieces(keras.utils.PyDataset):  # type: ignore[misc]
    def __init__(self, samples: int = SAMPLES) -> None:
        super().__init__()
        self.x, self.y = arrays(samples)

    def __len__(self) -> int:
        return -(-len(self.x) // BATCH)

    def __getitem__(self, index: int) -> Any:
        part = slice(BATCH * index, BATCH * index + BATCH)
        return self.x[part], self.y[part]


def generator() -> dict[str, Any]:
    def endlessly() -> Iterator[Any]:
        x, y = arrays()
        while True:
            for start in range(0, len(x), BATCH):
                yield x[start : start + BATCH], y[start : start + BATCH]

    return {"x": endlessly(), "steps_per_epoch": 4}


def dicts() -> dict[str, Any]:
    x, y = arrays()
    return from_arrays({"left": x, "right": 2.0 * x[::-1]}, y)


def outputs() -> dict[str, Any]:
    x, y = arrays()
    return from_arrays(x, {"value": y, "kind": (y[:, 0] > 0).astype(np.int32) + (y[:, 0] > 2)})


def kinds(**extra: Any) -> dict[str, Any]:
    x, y = arrays()
    return from_arrays(x, (y > 0).astype(np.float32), **extra)


def weighted() -> dict[str, Any]:
    return from_arrays(*arrays(), sample_weight=np.linspace(0.1, 2.0, SAMPLES).astype(np.float32))


def with_validation() -> dict[str, Any]:
    return {**plain(), "validation_data": arrays(16, seed=9)}


def in_policy(policy: str, build: Callable[[], Any]) -> Any:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return build()
    finally:
        keras.config.set_dtype_policy(before)


def sgd(**options: Any) -> Callable[[], Any]:
    """Adam would turn the rounding noise of a zero gradient, of a bias before BatchNorm, into whole steps."""
    return lambda: keras.optimizers.SGD(0.01, momentum=0.5, **options)


@dataclass(frozen=True)
class Setup:
    """One way to train; see ``runs.py`` for what is asked of it.

    Args:
        name: for the test's id.
        model: builds it.
        data: builds the arguments of ``fit``.
        compile: arguments of ``compile``, a callable where each model needs a new one.
        not_evaluated: pattern of the reason why the losses are not; empty where they have to be there.
        lens: further arguments of BNLens.
        tolerance: of the recovered batch statistics, in batch standard deviations.
        uncounted: names of layers whose updates cannot be counted, so that their batches are not judged.
        compare: whether an eager run draws the same random numbers, so that its batch statistics are the same.
        built: whether the optimizer has its variables before the first step. Keras traces a step twice that makes them.
    """

    name: str
    model: Callable[[], Any] = models.functional
    data: Callable[[], dict[str, Any]] = plain
    compile: dict[str, Any] = field(default_factory=dict)
    not_evaluated: str = ""
    lens: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 2e-5
    uncounted: tuple[str, ...] = ()
    compare: bool = True
    built: bool = True

    def make(self, reference: bool = False) -> Any:
        keras.backend.clear_session(free_memory=False)  # the same names, too
        keras.utils.set_random_seed(5)
        model = self.model()
        options: dict[str, Any] = {"loss": "mse", "optimizer": sgd(), "jit_compile": False, **self.compile}
        if reference:
            options |= {"jit_compile": False, "run_eagerly": True, "steps_per_execution": 1}
        model.compile(**{k: v() if k == "optimizer" else v for k, v in options.items()})
        if self.built and model.built:
            model.optimizer.build(model.trainable_variables)
        return model


Dropout = keras.layers.Dropout
DROPOUT = Setup("dropout", lambda: models.functional(Dropout(0.5)))

SETUPS = (
    Setup("sequential", models.sequential, built=False),
    Setup("functional"),
    Setup("adam", compile={"optimizer": keras.optimizers.Adam}, compare=False, built=False),
    Setup("subclassed", models.Subclassed),
    Setup("nested", models.nested),
    Setup("axis_1", models.axis_one),
    Setup("mask", models.masked, lambda: from_arrays(*sequences())),
    Setup("mask_one_channel", lambda: models.masked(1), lambda: from_arrays(*sequences())),
    Setup("mask_to_loss", models.masked_outputs, lambda: from_arrays(*sequences(per_step=True))),
    Setup("synchronized", partial(models.sequential, synchronized=True)),
    Setup("renorm", partial(models.sequential, renorm=True)),
    Setup("shared", models.shared),
    Setup("time_distributed", models.time_distributed, lambda: from_arrays(*sequences())),
    Setup(
        "rnn_cell",
        models.recurrent,
        lambda: from_arrays(*sequences()),
        not_evaluated="in_cell.*loop or separate function",
        uncounted=("in_cell",),
    ),
    Setup("tf_function_call", lambda: models.functional(models.UnderFunction()), not_evaluated="@tf.function"),
    Setup(
        "tf_function_inside",
        lambda: models.functional(models.CallsFunction()),
        not_evaluated="state outside Keras' variables",
        uncounted=("inside",),
    ),
    Setup("frozen", models.frozen),
    Setup("inference_inside", models.InferenceInside),
    Setup("momentum_0.999", partial(models.sequential, momentum=0.999)),
    Setup("momentum_1", partial(models.sequential, momentum=1.0)),
    Setup("momentum_0", partial(models.sequential, momentum=0.0)),
    Setup("no_batch_norm", models.without_batch_norm),
    Setup("jit_compile", compile={"jit_compile": True}, built=False),
    Setup("run_eagerly", compile={"run_eagerly": True}, built=False),
    Setup("run_eagerly_dataset", data=dataset, compile={"run_eagerly": True}),
    Setup("executions_of_2", compile={"steps_per_execution": 2}),
    Setup("executions_of_3", data=dataset, compile={"steps_per_execution": 3}),
    Setup("executions_of_3_ragged", data=partial(plain, 44), compile={"steps_per_execution": 3}),
    Setup("executions_of_3_ragged_dataset", data=partial(dataset, 30), compile={"steps_per_execution": 3}, built=False),
    Setup("executions_of_3_endless", data=partial(endless, 6), compile={"steps_per_execution": 3}),
    # Keras makes six steps an epoch of the four that were requested; the eager run makes four.
    Setup("executions_of_3_overshoot", data=endless, compile={"steps_per_execution": 3}, compare=False),
    Setup(
        "executions_of_3_float16",
        lambda: in_policy("mixed_float16", models.functional),
        partial(dataset, 40),
        compile={"steps_per_execution": 3},
        tolerance=2e-3,
    ),
    Setup("executions_of_3_jit", data=partial(dataset, 44), compile={"steps_per_execution": 3, "jit_compile": True}),
    Setup("mixed_float16", lambda: in_policy("mixed_float16", models.functional), tolerance=2e-3),
    Setup("mixed_bfloat16", lambda: in_policy("mixed_bfloat16", models.functional), tolerance=2e-2),
    Setup("bfloat16", lambda: in_policy("bfloat16", models.functional), compare=False),
    Setup("float64", lambda: in_policy("float64", models.functional)),
    Setup("accumulation", compile={"optimizer": sgd(gradient_accumulation_steps=2)}, built=False),
    Setup("ema", compile={"optimizer": sgd(use_ema=True, ema_overwrite_frequency=3)}, built=False),
    Setup("ragged", data=partial(plain, 30)),
    Setup("ragged_dataset", data=partial(dataset, 30)),
    Setup("last_batch_of_one", data=partial(dataset, 25)),
    Setup("dict_inputs", models.dict_inputs, dicts),
    Setup(
        "several_outputs",
        models.several_outputs,
        outputs,
        {"loss": {"value": "mse", "kind": "sparse_categorical_crossentropy"}, "loss_weights": {"value": 1, "kind": 2}},
    ),
    Setup("sample_weight", data=weighted),
    Setup("class_weight", data=lambda: kinds(class_weight={0: 1.0, 1: 3.0})),
    Setup("add_loss", lambda: models.functional(models.AddsLoss())),
    Setup("regularizers", models.regularized),
    Setup("metrics", compile={"metrics": ["mae"], "weighted_metrics": ["mse"]}),
    Setup("train_step", lambda: models.own(models.OwnStep)),
    Setup("train_step_no_loss", lambda: models.own(models.OwnLoss), compile={"loss": None}, not_evaluated="no loss"),
    Setup("dropout", lambda: models.functional(Dropout(0.5), keras.layers.GaussianNoise(0.1))),
    Setup("dropout_jit", lambda: models.functional(Dropout(0.5)), compile={"jit_compile": True}, compare=False),
    Setup("dropout_eager", lambda: models.functional(Dropout(0.5)), compile={"run_eagerly": True}),
    Setup("dropout_executions_of_3", lambda: models.functional(Dropout(0.5)), compile={"steps_per_execution": 3}),
    Setup("tensorflow_noise", lambda: models.functional(models.TensorFlowNoise()), compare=False),
    Setup(
        "tensorflow_noise_eager",
        lambda: models.functional(models.TensorFlowNoise()),
        compile={"run_eagerly": True},
        compare=False,
    ),
    Setup("keras_state", lambda: models.functional(models.Counts())),
    Setup(
        "outside_state",
        lambda: models.functional(models.CountsOutside()),
        not_evaluated="state outside Keras' variables",
    ),
    Setup(
        "python_inside",
        lambda: models.functional(models.PythonInside()),
        not_evaluated="state outside Keras' variables",
    ),
    Setup("spectral_norm", lambda: models.functional(keras.layers.SpectralNormalization(keras.layers.Dense(3)))),
    Setup("dataset", data=dataset),
    Setup("dataset_shuffled", data=partial(dataset, shuffled=True)),
    Setup("endless_dataset", data=endless),
    Setup("py_dataset", data=lambda: {"x": Pieces()}),
    Setup("py_dataset_ragged", data=lambda: {"x": Pieces(30)}),
    Setup("generator", data=generator),
    Setup("validation", data=with_validation),
    Setup("lens_validation", lens={"validation_data": arrays(16, seed=9)}),
    Setup("lens_probe_data", lens={"probe_data": arrays(16, seed=9)}),
)

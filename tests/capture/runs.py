"""Train with the lens and without, and see what the lens saw."""

from __future__ import annotations

import contextlib
import functools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_bnlens import BNLens
from tb_bnlens.capture.measure import Measurement
from tb_bnlens.frameworks.keras3.feed import PeekingTrainFunction
from tb_bnlens.frameworks.keras3.layers import KerasLayer, find_layers
from tb_bnlens.history import History
from tb_bnlens.moments.windows import Windows
from tb_bnlens.reader import open_logdir, read_run
from tests.capture.setups import DROPOUT, Setup

EPOCHS = 2


def lens(directory: Path, **options: Any) -> BNLens:
    """At full density, silent, and without mercy for faults."""
    return BNLens(str(directory / "run"), **{"overhead": math.inf, "on_error": "raise", "verbose": 0, **options})


def record(directory: Path, run: str = "run") -> History:
    return read_run(open_logdir(directory), "", run)


def fit(setup: Setup, *callbacks: Any, model: Any = None, epochs: int = EPOCHS) -> Any:
    model = setup.make() if model is None else model
    with strange_datasets():
        history = model.fit(**setup.data(), epochs=epochs, verbose=0, callbacks=list(callbacks))
    model.shown = {k: v for k, v in history.history.items()}
    return model


def built(model: Any, x: Any, y: Any) -> Any:
    """The model with the variables that its first step would make. Keras traces a step twice that makes some."""
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(x, y, model(x))
    model.reset_metrics()
    return model


@contextlib.contextmanager
def strange_datasets() -> Iterator[None]:
    """Keras warns about data that end early or cannot be shuffled, which some set-ups want."""
    import warnings

    with warnings.catch_warnings():
        for message in (
            ".*shuffle=True. was passed",
            ".*ran out of data",
            ".*will be ignored",
            ".*is not compiled",
            ".*does not apply to tf.data",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


# --- the same to the bit --------------------------------------------------------------------------------


def state(model: Any) -> dict[str, Any]:
    """All that a model keeps, and what ``fit`` has shown, by path."""
    kept: dict[str, Any] = {}
    generators = [s.state for layer in model._flatten_layers() for s in getattr(layer, "_seed_generators", [])]
    kinds = {"weights": model.weights, "optimizer": model.optimizer.variables, "seeds": generators}
    for kind, variables in (*kinds.items(), ("metrics", model.metrics_variables)):
        for i, variable in enumerate(variables):
            kept[f"{kind} {i} {variable.path}"] = np.asarray(variable).copy()
    kept["shown"] = getattr(model, "shown", None)
    kept["python"] = random.random()
    kept["numpy"] = np.random.random()  # noqa: NPY002 the global generator is what a user's code may draw from
    return kept


@functools.cache
def alone(epochs: int = EPOCHS) -> dict[str, Any]:
    """How DROPOUT ends without the lens. It is trained once in a process."""
    return state(fit(DROPOUT, epochs=epochs))


def assert_unharmed(model: Any, epochs: int = EPOCHS) -> None:
    """A training of DROPOUT ended as without the lens, and nothing of the lens is left in the model."""
    ended = state(model)  # before another training sets the generators
    assert_clean(model)
    assert_same(alone(epochs), ended)


def assert_same(without: dict[str, Any], with_lens: dict[str, Any]) -> None:
    assert list(without) == list(with_lens)
    different = [key for key, value in without.items() if not _equal(value, with_lens[key])]
    assert not different, f"training with the lens ended elsewhere: {different}"


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(np.array_equal(a[k], b[k], equal_nan=True) for k in a)
    return bool(np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f"))


def assert_clean(model: Any) -> None:
    assert not isinstance(model.train_function, PeekingTrainFunction)
    for layer in model._flatten_layers():
        assert "call" not in vars(layer), f"{layer.name} is still patched"


# --- what the lens saw ----------------------------------------------------------------------------------


@dataclass
class Window:
    first: int
    last: int
    updates: Any
    mean: Any
    variance: Any
    rounding: Any
    """What float32 rounding of the two snapshots makes of the recovered statistics."""


@dataclass
class Seen:
    windows: list[Window] = field(default_factory=list)
    batches: list[Any] = field(default_factory=list)
    together: list[list[Any]] = field(default_factory=list)
    """With the ones that were probed beside it, where batches are small."""


@contextlib.contextmanager
def spying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """Collect every window that is recovered, and every batch that is probed."""
    seen = Seen()
    add, pair = Windows.add, Measurement.pair

    def spy_add(self: Any, snapshot: Any, step: int, updates: Any, *rest: Any, **more: Any) -> Any:
        if np.any(updates > 0):
            recovered = self._recovery.recover(self.last, snapshot, updates)
            size = sum(np.abs(s.mean) + np.abs(s.spread) for s in (self.last, snapshot))
            total = self._recovery._segments.per_channel(self._recovery.weights(updates)[1])
            with np.errstate(divide="ignore"):  # a layer that stood still
                rounding = np.finfo(np.float32).eps * size / total
            window = Window(self.step, step, np.array(updates), recovered.mean, recovered.variance, rounding)
            seen.windows.append(window)
        return add(self, snapshot, step, updates, *rest, **more)

    def spy_pair(self: Any, batches: Any, *rest: Any) -> Any:
        seen.batches.append(batches[0])
        seen.together.append(batches)
        return pair(self, batches, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Windows, "add", spy_add)
        patch.setattr(Measurement, "pair", spy_pair)
        yield seen


# --- the same again, by other means ---------------------------------------------------------------------


class Reference(keras.callbacks.Callback):  # type: ignore[misc]
    """Batch statistics of an eager run, as the layers compute them: step by step, layer by layer, call by call."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[int, list[tuple[Any, Any]]]] = []
        self.now: dict[int, list[tuple[Any, Any]]] = {}

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.now = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps.append(self.now)

    @contextlib.contextmanager
    def listening(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        moments = keras.layers.BatchNormalization._moments

        def listen(layer: Any, inputs: Any, mask: Any) -> Any:
            mean, variance = moments(layer, inputs, mask)
            if tf.executing_eagerly() and hasattr(mean, "numpy"):
                pair = np.ravel(mean.numpy()).astype(np.float64), np.ravel(variance.numpy()).astype(np.float64)
                self.now.setdefault(id(layer), []).append(pair)
            return mean, variance

        with monkeypatch.context() as patch:
            patch.setattr(keras.layers.BatchNormalization, "_moments", listen)
            yield

    def window(self, tracked: KerasLayer, first: int, last: int) -> tuple[Any, Any] | None:
        """What the moving statistics of a layer were chasing between two steps: newest batches weigh most."""
        pairs = [pair for step in self.steps[first:last] for pair in step.get(id(tracked.layer), [])]
        if not pairs:
            return None
        beta, epsilon = tracked.layer.momentum, tracked.layer.epsilon
        weights = np.asarray([beta ** (len(pairs) - 1 - i) for i in range(len(pairs))])
        weights /= weights.sum()
        means, variances = (np.stack(part) for part in zip(*pairs, strict=True))
        if tracked.renorm:
            return weights @ means, np.square(weights @ np.sqrt(variances + epsilon)) - epsilon
        return weights @ means, weights @ variances


def reference(setup: Setup, monkeypatch: pytest.MonkeyPatch, epochs: int = EPOCHS) -> tuple[Any, Reference]:
    listener = Reference()
    tf.config.run_functions_eagerly(True)
    try:
        with listener.listening(monkeypatch):
            model = fit(setup, listener, model=setup.make(reference=True), epochs=epochs)
    finally:
        tf.config.run_functions_eagerly(False)
    return model, listener


def assert_windows(setup: Setup, seen: Seen, model: Any, listener: Reference) -> None:
    """Every recovered window holds what the reference run says, or nothing."""
    layers = find_layers(model)
    stops = np.cumsum([t.channels for t in layers])[:-1]
    worst = 0.0
    for window in seen.windows:
        split = [np.split(part, stops) for part in (window.mean, window.variance, window.rounding)]
        for tracked, mean, variance, rounding in zip(layers, *split, strict=True):
            expected = listener.window(tracked, window.first, window.last)
            if expected is None or tracked.name.split("/")[-1] in setup.uncounted:
                assert np.all(np.isnan(mean)) and np.all(np.isnan(variance)), f"{tracked.name}: {mean}"
                continue
            scale = np.sqrt(expected[1] + tracked.layer.epsilon)
            apart = np.maximum(np.abs(mean - expected[0]) / scale, np.abs(variance - expected[1]) / scale**2)
            error = np.max(apart - rounding / np.minimum(scale, scale**2))
            assert error < setup.tolerance, f"{tracked.name}, steps {window.first} to {window.last}: off by {error}"
            worst = max(worst, error)
    print(f"{setup.name}: {len(seen.windows)} windows, worst {worst:.1e}")


def evaluated(model: Any, batch: Any) -> float:
    x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
    # Keras 3.3 continues the running mean of what was evaluated or trained before.
    model.reset_metrics()
    return float(model.test_on_batch(x, y, weight, return_dict=True)["loss"])

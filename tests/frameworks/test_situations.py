"""Situations that any Keras can get into: what is told of them, beside a truth found without the lens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tb_bnlens
from tb_bnlens.report import run_report
from tests.frameworks.test_keras import record

FEATURES, KINDS, BATCH = 32, 4, 32
WATCHED: dict[str, Any] = {"overhead": 1.0, "on_error": "raise", "verbose": 0}


def pictures(gain: float = 1.0, offset: float = 0.0) -> tuple[Any, Any]:
    """Rows around one picture for each class."""
    rng = np.random.default_rng(0)
    shown = rng.random((KINDS, FEATURES)) ** 2
    kind = rng.integers(0, KINDS, 704)
    rows = shown[kind] + 0.4 * rng.normal(size=(len(kind), FEATURES))
    return (gain * rows + offset).astype("float32"), kind.astype("int32")


def dense(keras: Any, momentum: float, drop: float = 0.0, units: tuple[int, ...] = (24, 16)) -> Any:
    inputs = x = keras.Input((FEATURES,))
    for width in units:
        x = keras.layers.Dense(width)(keras.layers.Dropout(drop)(x) if drop else x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=momentum)(x))
    return keras.Model(inputs, keras.layers.Dense(KINDS)(x))


@dataclass(frozen=True)
class Trained:
    """A model, what the record says of it, and the data."""

    model: Any
    report: Any
    data: tuple[Any, Any]

    def inference(self) -> float:
        return float(self.model.evaluate(*self.data, batch_size=len(self.data[0]), verbose=0))

    def renewed(self) -> float:
        """Inference with the statistics of all rows, dropout off: one pass of all with momentum 0."""
        layers = [
            part for part in self.model._flatten_layers() if type(part).__name__ in ("BatchNormalization", "Dropout")
        ]
        kept = [(part, dict(vars(part))) for part in layers]
        weights = self.model.get_weights()
        for part in layers:
            if hasattr(part, "rate"):
                part.rate = 0.0
            else:
                part.momentum = 0.0
        try:
            self.model(self.data[0], training=True)
            return self.inference()
        finally:
            for part, before in kept:
                for name in ("rate", "momentum"):
                    if name in before:
                        setattr(part, name, before[name])
            self.model.set_weights(weights)

    def causes(self) -> dict[str, Any]:
        return {
            f["rule"]: f
            for f in self.report["findings"]
            if f["status"] == "fail" and f["severity"] in ("warning", "error") and not f["explained_by"]
        }


def train(
    keras: Any,
    build: Callable[[], Any],
    where: Path,
    *callbacks: Any,
    data: tuple[Any, Any] | None = None,
    constant: float = 0.0,
    **options: Any,
) -> Trained:
    keras.utils.set_random_seed(3)
    model = build()
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loss = (lambda y, p: cross_entropy(y, p) + constant) if constant else cross_entropy
    model.compile(keras.optimizers.Adam(5e-3), loss)
    x, y = pictures() if data is None else data
    given = {"batch_size": BATCH, "epochs": 6, "verbose": 0, **options}
    model.fit(x, y, callbacks=[*callbacks, tb_bnlens.BNLens(str(where), **WATCHED)], **given)
    return Trained(model, run_report(record(where)), (x, y))


def test_a_healthy_training_is_silent(keras: Any, tmp_path: Path) -> None:
    found = train(keras, lambda: dense(keras, 0.9), tmp_path)
    assert found.inference() < 1.3 * found.renewed()
    assert found.causes() == {}, found.report["verdict"]


def test_statistics_that_lag(keras: Any, tmp_path: Path) -> None:
    """An offset of the loss, as likelihoods have, hides nothing of it, and the printed code cures it."""
    constant = 10.0
    found = train(keras, lambda: dense(keras, 0.999), tmp_path, constant=constant, epochs=4)
    renewed = found.renewed() - constant
    assert found.inference() - constant > 2 * renewed
    causes = found.causes()
    assert causes.keys() == {"momentum-too-high"} and causes["momentum-too-high"]["severity"] == "error"
    exec(causes["momentum-too-high"]["rescue"], {"model": found.model, "data": found.data})
    assert found.inference() - constant < 1.3 * renewed


def test_training_that_stops_early(keras: Any, tmp_path: Path) -> None:
    stop = keras.callbacks.EarlyStopping(monitor="loss", patience=0, min_delta=10.0)
    found = train(keras, lambda: dense(keras, 0.999), tmp_path, stop, epochs=200)
    assert found.inference() > 1.5 * found.renewed()
    assert found.causes().keys() == {"momentum-too-high"}
    assert found.report["ended"] == "early"


def test_rows_sorted_by_class(keras: Any, tmp_path: Path) -> None:
    x, y = pictures()
    order = np.argsort(y, kind="stable")
    build = lambda: dense(keras, 0.99)  # noqa: E731
    found = train(keras, build, tmp_path, data=(x[order], y[order]), shuffle=False, epochs=8)
    assert found.inference() > 0.5
    told = {f["rule"]: f for f in found.report["findings"] if f["status"] == "fail"}
    assert "shuffle" in told["unlike-batches"]["fix"], found.report["verdict"]
    assert "momentum-too-high" not in found.causes()


def test_dropout_before_batchnorm(keras: Any, tmp_path: Path) -> None:
    found = train(keras, lambda: dense(keras, 0.9, 0.6, (96, 96, 96)), tmp_path, epochs=10)
    assert found.inference() > 2 * found.renewed()
    assert found.causes().keys() == {"variance-shift"}, found.report["verdict"]


def test_batchnorm_in_training_mode_for_good(keras: Any, tmp_path: Path) -> None:
    class Always(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm = keras.layers.BatchNormalization(momentum=0.9)
            self.first, self.last = keras.layers.Dense(24), keras.layers.Dense(KINDS)

        def call(self, x: Any) -> Any:
            return self.last(keras.activations.relu(self.norm(self.first(x), training=True)))

    found = train(keras, Always, tmp_path)
    alone = found.model.predict(found.data[0][:1], verbose=0)
    assert not np.allclose(alone, found.model.predict(found.data[0][:32], verbose=0)[:1], atol=0.1)
    assert "ignores-statistics" in found.causes(), found.report["verdict"]


def test_a_frozen_base_and_a_head_that_lags(keras: Any, tmp_path: Path) -> None:
    """The base's statistics are far from the batches, and training has seen them so."""
    former = train(keras, lambda: dense(keras, 0.9), tmp_path / "former")
    base = keras.Model(former.model.inputs, former.model.layers[-2].output)
    base.trainable = False

    def build() -> Any:
        inputs = keras.Input((FEATURES,))
        x = keras.layers.Dense(16)(base(inputs))
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.999, name="head")(x))
        return keras.Model(inputs, keras.layers.Dense(KINDS)(x))

    found = train(keras, build, tmp_path / "latter", data=pictures(2.0, 1.0))
    causes = found.causes()
    assert causes.keys() == {"momentum-too-high"}, found.report["verdict"]
    assert causes["momentum-too-high"]["layers"] == ["head"]

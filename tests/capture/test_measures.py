"""What is measured, against closed forms, NumPy and a second training run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_bnlens import Recorder
from tb_bnlens.history import History
from tb_bnlens.metadata import FORECAST_POINTS, REPLAY_MOMENTUMS, replay_row
from tb_bnlens.reader import open_logdir, read_channels
from tests.capture import models
from tests.capture.runs import built, evaluated, lens, record, spying

FEATURES = models.FEATURES


def model(momentum: float) -> Any:
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    inputs = keras.Input((FEATURES,))
    x = models.batch_norm("first", momentum=momentum)(inputs)
    x = models.batch_norm("second", momentum=momentum)(keras.layers.Dense(5, activation="tanh")(x))
    made = keras.Model(inputs, keras.layers.Dense(1)(x))
    made.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
    return built(made, *numbers(2))


def numbers(samples: int, size: int = 16, by_class: bool = False, drift: float = 0.0) -> tuple[Any, Any]:
    """Inputs with mean 4 and standard deviation 2, so that a start at 0 and 1 is far off."""
    rng = np.random.default_rng(1)
    x = rng.normal(4.0, 2.0, (samples, FEATURES)).astype(np.float32)
    batch = np.arange(samples)[:, None] // size
    x += np.float32(2.0) * ((batch % 7 % 3) - 1) if by_class else 0
    x += np.float32(drift) * batch
    return x, (x[:, :1] - x[:, 1:2]).astype(np.float32)


def run(path: Path, momentum: float, steps: int = 60, size: int = 16, more: Any = None, **data: Any) -> History:
    x, y = numbers(steps * size, size, **data)
    model(momentum).fit(x, y, batch_size=size, shuffle=False, verbose=0, callbacks=[lens(path, **(more or {}))])
    return record(path)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> tuple[History, Path]:
    path = tmp_path_factory.mktemp("slow")
    return run(path, 0.99), path


def test_replay_is_what_another_momentum_gives(slow: tuple[History, Path], tmp_path: Path) -> None:
    """A run at 0.99 replayed at 0.9 against one that was trained at 0.9: the same weights, the same inference."""
    replayed, _ = slow
    real = run(tmp_path, 0.9)
    np.testing.assert_array_equal(replayed.loss("batch"), real.loss("batch"))
    full = np.isfinite(replayed.loss("replay_0.9"))
    assert full[-1]
    np.testing.assert_allclose(replayed.loss("replay_0.9")[full], real.loss("inference")[full], rtol=2e-4)
    assert np.all(replayed.loss("inference")[full] > 1.5 * real.loss("inference")[full])
    at = np.isin(replayed.steps, real.steps)
    np.testing.assert_allclose(replayed.row("replay_0.9")[at], real.row("distance_rms"), rtol=2e-3, atol=2e-4)


def test_replay_at_its_own_momentum_is_itself(slow: tuple[History, Path]) -> None:
    read, _ = slow
    full = np.isfinite(read.loss("replay_0.99"))
    np.testing.assert_allclose(read.loss("replay_0.99")[full], read.loss("inference")[full], rtol=2e-4)
    np.testing.assert_allclose(read.row("replay_0.99"), read.row("distance_rms"), rtol=2e-3, atol=2e-4)
    by_momentum = [read.loss(replay_row(m))[full][-1] for m in REPLAY_MOMENTUMS]
    assert by_momentum[-1] > by_momentum[2], "0.999 is far off where 0.9 has arrived"


def test_forecast_is_the_geometric_decay(slow: tuple[History, Path]) -> None:
    """Advanced n updates the moving statistics are ``mu + beta^n (m - mu)``; the loss goes to the recalibrated."""
    read, _ = slow
    steps = np.array([read.loss(f"forecast_step_{i}")[-1] for i in range(FORECAST_POINTS)])
    losses = np.array([read.loss(f"forecast_{i}")[-1] for i in range(FORECAST_POINTS)])
    assert np.all(np.isfinite(losses)) and np.all(np.diff(steps) > 0)
    inference, recalibrated = read.loss("inference")[-1], read.loss("recalibrated")[-1]
    assert inference > losses[0] > losses[-1] and abs(losses[-1] - recalibrated) < 0.05 * (inference - recalibrated)
    # The horizon is the steps that the slowest layer needs by the distance: twice as far the loss has converged.
    assert steps[-1] == pytest.approx(2 * steps[-2], abs=1)


def test_forecast_against_more_training(tmp_path: Path) -> None:
    """With the weights held still the forecast is what comes."""
    made = model(0.99)
    made.optimizer.learning_rate = 0.0
    made.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    x, y = numbers(100 * 16)
    made.fit(x[:800], y[:800], batch_size=16, shuffle=False, verbose=0, callbacks=[lens(tmp_path)])
    read = record(tmp_path)
    points = {int(read.loss(f"forecast_step_{i}")[-1]): read.loss(f"forecast_{i}")[-1] for i in range(FORECAST_POINTS)}
    n, forecast = next((n, value) for n, value in points.items() if n >= 40)
    before = made.evaluate(x[:800], y[:800], verbose=0)
    x, y = numbers((50 + n) * 16)
    made.fit(x[800:], y[800:], batch_size=16, shuffle=False, verbose=0)
    after = made.evaluate(x[:800], y[:800], verbose=0)
    share = (read.loss("inference")[-1] - forecast) / (read.loss("inference")[-1] - read.loss("recalibrated")[-1])
    target = made.evaluate(x, y, verbose=0)
    assert 0 < share <= 1.05 and before > after > 0.9 * target


def test_noise_of_single_batches(slow: tuple[History, Path]) -> None:
    read, _ = slow
    assert read.last("noise_updates")[0] > 30
    assert read.last("noise_mean")[0] == pytest.approx(1 / math.sqrt(16), rel=0.15)
    assert read.last("noise_variance")[0] == pytest.approx(math.sqrt(2 / 16), rel=0.25)


def test_distance_against_numpy(slow: tuple[History, Path]) -> None:
    read, path = slow
    channels = read_channels(open_logdir(path), "", "run", 0)
    mu, v, m, s = (channels.row(r)[-1] for r in ("batch_mean", "batch_variance", "moving_mean", "moving_variance"))
    x = numbers(60 * 16)[0]
    np.testing.assert_allclose(mu, x[-20 * 16 :].mean(0), atol=0.1)
    np.testing.assert_allclose(m, 0.0 * 0.99**60 + 4.0 * (1 - 0.99**60), rtol=0.1)
    eps = 1e-3
    w = np.hypot(np.sqrt((v + eps) / (s + eps)) - 1, (mu - m) / np.sqrt(s + eps))
    assert read.last("distance_rms")[0] == pytest.approx(np.sqrt(np.mean(w**2)), rel=1e-4)
    assert read.last("distance_max")[0] == pytest.approx(w.max(), rel=1e-4)
    assert read.last("worst_channel")[0] == np.argmax(w)
    error = np.maximum(np.abs(mu - m) / np.sqrt(v + eps), np.abs(s - v) / v)
    assert read.last("error_max")[0] == pytest.approx(error.max(), rel=1e-4)


def test_unlike_batches(tmp_path: Path, slow: tuple[History, Path]) -> None:
    similar = slow[0].last("between_within")[0]
    unlike = run(tmp_path, 0.9, by_class=True).last("between_within")[0]
    assert similar < 3 and unlike > 5, (similar, unlike)


def test_last_batch_of_an_epoch(tmp_path: Path) -> None:
    x, y = numbers(16 * 10 + 2)
    model(0.9).fit(x, y, batch_size=16, shuffle=False, epochs=2, verbose=0, callbacks=[lens(tmp_path)])
    read = record(tmp_path)
    at_end = read.row("epoch_end_distance")
    known = np.isfinite(at_end[:, 0])
    assert set(read.steps[known]) == {11, 22}
    assert at_end[known][-1, 0] > 1.2 * np.median(read.row("since_mean")[-7:-1, 0])
    assert read.manifest.batch_size == 16


def test_a_poisoned_batch(tmp_path: Path) -> None:
    x, y = numbers(16 * 20)
    x[100, 2] = np.nan
    made = model(0.9)
    made.fit(x, y, batch_size=16, shuffle=False, verbose=0, callbacks=[lens(tmp_path)])
    read = record(tmp_path)
    assert read.last("channels_nonfinite")[0] == 1
    hit = read.steps[read.row("window_nonfinite")[:, 0] > 0]
    assert list(hit) == [7]


def test_validation(tmp_path: Path) -> None:
    x, y = numbers(64)
    same = run(tmp_path / "same", 0.9, steps=40, more={"validation_data": (x, y)})
    shifted = (x + 3.0, y)
    for i, data in enumerate((shifted, tf.data.Dataset.from_tensor_slices(shifted).batch(16))):
        read = run(tmp_path / str(i), 0.9, steps=40, more={"validation_data": data})
        probed = np.isfinite(read.loss("inference", "validation"))
        assert probed[-1] and np.all(np.isfinite(read.loss("batch", "validation")[probed]))
        assert read.loss("batch_size", "validation")[-1] == 16
        assert read.last("validation_distance_rms")[0] > 1.0 > 0.6 > same.last("validation_distance_rms")[0]
        np.testing.assert_array_equal(read.loss("batch"), same.loss("batch"))


def test_attribution_finds_the_layer(tmp_path: Path) -> None:
    """Of two layers one is far off: alone on its moving statistics it makes the gap, the other does not."""
    made = model(0.9)
    made.get_layer("second").momentum = 0.9999
    x, y = numbers(60 * 16)
    made.fit(x, y, batch_size=16, shuffle=False, verbose=0, callbacks=[lens(tmp_path)])
    read = record(tmp_path)
    batch, inference = read.loss("batch")[-1], read.loss("inference")[-1]
    first, second = read.last("attribution")
    assert inference > 1.5 * batch and abs(second - inference) < 0.3 * (inference - batch)
    assert abs(first - batch) < 0.3 * (inference - batch)


def test_drift_keeps_its_sign(tmp_path: Path, slow: tuple[History, Path]) -> None:
    drifting = run(tmp_path, 0.99, steps=240, drift=0.05)
    assert drifting.last("lag_cosine")[0] > 0.95
    assert drifting.last("shift")[0] > 5 * drifting.last("shift_noise")[0]


def test_batches_of_mixed_sizes_are_alike(tmp_path: Path) -> None:
    """The mean of a batch of 4 varies four times as much as the mean of a batch of 16; both are drawn the same way."""
    x, y = numbers(1200)
    sizes = np.resize([4, 32, 8], 80)
    stops = np.cumsum(sizes)
    made = model(0.9)
    with Recorder(made, str(tmp_path / "run"), overhead=math.inf, on_error="raise") as opened:
        for stop, size in zip(stops, sizes, strict=True):
            batch = x[stop - size : stop], y[stop - size : stop]
            made.train_on_batch(*batch)
            opened.record(*batch)
    assert record(tmp_path).last("between_within")[0] == pytest.approx(1.0, abs=0.6)


def test_a_loss_that_has_to_know_the_size_of_the_batch(tmp_path: Path) -> None:
    """``fit`` traces it for batches of one size, so the passes must too."""

    def of_known_size(y: Any, y_pred: Any) -> Any:
        return tf.reduce_sum(tf.square(y - y_pred)) / float(y.shape[0])

    made = model(0.9)
    made.compile(keras.optimizers.SGD(0.01), of_known_size, jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices(numbers(64)).batch(16, drop_remainder=True)
    made.fit(data, shuffle=False, epochs=5, verbose=0, callbacks=[lens(tmp_path)])
    read = record(tmp_path)
    assert "losses" not in read.manifest.not_evaluated
    assert "the size of the batch" in read.evidence[-1].not_evaluated["pooled"]
    for kind in ("training", "batch", "inference"):
        assert np.all(np.isfinite(read.loss(kind)))


@pytest.mark.parametrize(("size", "together"), [(2, 4), (3, 3), (8, 1)])
def test_small_batches_are_probed_together(
    size: int, together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss is over eight samples at the least, each batch normalized by itself."""
    made = model(0.9)
    x, y = numbers(60 * size, size)
    with spying(monkeypatch) as seen:
        made.fit(x, y, batch_size=size, shuffle=False, verbose=0, callbacks=[lens(tmp_path)])
    assert all(len(batches) <= together for batches in seen.together)
    before, last = seen.together[-2:]
    assert together == 1 or not {id(batch) for batch in before[1:]} & {id(batch) for batch in last[1:]}
    assert len(last) == together and len({bytes(batch[0].numpy()) for batch in last}) == together
    read = record(tmp_path)
    assert read.loss("batch_size")[-1] == size
    assert read.loss("inference")[-1] == pytest.approx(np.mean([evaluated(made, batch) for batch in last]), rel=1e-5)
    alone = [float(keras.losses.MeanSquaredError()(b[1], made(b[0], training=True))) for b in last]
    assert read.loss("batch")[-1] == pytest.approx(np.mean(alone), rel=1e-4)
    assert np.isfinite(read.loss("recalibrated_now")[-1]) and np.isfinite(read.loss("updated")[:-1]).all()

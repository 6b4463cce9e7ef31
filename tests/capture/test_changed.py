"""Data that change in the course of training: the run is judged by the batches since then."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_bnlens import Recorder
from tb_bnlens.capture.changed import newer_kind
from tb_bnlens.history import History
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.segments import Segments
from tb_bnlens.moments.statistics import BatchMoments
from tb_bnlens.report.build import run_report
from tests.capture.runs import lens, record

CHANNELS = (16, 8)


def batches(kinds: Any, size: int = 32, seed: int = 0) -> BatchMoments:
    """Statistics of normal rows whose standard deviation in the first layer is given for each batch."""
    random = np.random.default_rng(seed)
    found = []
    for kind in kinds:
        rows = random.normal(size=(size, sum(CHANNELS)))
        rows[:, : CHANNELS[0]] *= kind
        found.append(Moments(rows.mean(0), rows.var(0)))
    return BatchMoments(found, [size] * len(found))


def found(kinds: Any, **options: Any) -> int | None:
    return newer_kind(batches(kinds, **options), Segments(CHANNELS), np.full(sum(CHANNELS), 1e-3))


@pytest.mark.parametrize(
    ("kinds", "first"),
    [
        ([0.2] * 19 + [1.0] * 5, 19),
        ([1.0] * 5 + [0.2] * 19, 5),
        ([0.2] * 10 + [1.0] * 10 + [5.0] * 4, 20),  # what was before need not be of one kind
        ([0.2] * 9 + [5.0] * 3, 9),
        ([1.0] * 24, None),
        ([0.2, 5.0] * 12, None),  # they take turns
        ([5.0] * 8 + [0.2] * 8 + [5.0] * 8, None),  # and come back
        ([0.2] * 23 + [5.0], None),  # one batch may be any
        ([0.2] * 4 + [5.0] * 2, None),  # two kinds of six batches may stand so by chance
        (np.geomspace(0.2, 5.0, 24), None),  # they move all the time
    ],
)
def test_the_first_batch_of_a_newer_kind(kinds: Any, first: int | None) -> None:
    assert found(kinds) == first


@pytest.mark.parametrize(
    ("kinds", "first"),
    [
        ([5.0] * 8 + [0.2] * 8 + [5.0] * 8, 16),
        ([5.0] * 17 + [0.2] * 4 + [5.0] * 3, 21),
        ([5.0] * 19 + [0.2] * 2 + [5.0] * 3, None),  # two of 24 may follow each other by chance
        (([5.0] * 4 + [0.2] * 4) * 3, None),  # they take turns
        ([5.0, 0.2, 0.2, 5.0, 5.0], None),  # so may five batches of two kinds by chance
    ],
)
def test_in_a_stream_the_data_may_have_been_others_for_a_while(kinds: Any, first: int | None) -> None:
    assert newer_kind(batches(kinds), Segments(CHANNELS), np.full(sum(CHANNELS), 1e-3), is_stream=True) == first


def test_batches_of_one_kind_have_no_newer_one() -> None:
    segments, epsilon = Segments(CHANNELS), np.full(sum(CHANNELS), 1e-3)
    for size, seed in itertools.product((4, 32), range(40)):
        alike = batches([1.0] * 24, size, seed)
        assert [newer_kind(alike, segments, epsilon, is_stream=stream) for stream in (False, True)] == [None, None]


# --- a real training -----------------------------------------------------------------------------------


def network(outputs: int = 1, loss: str = "mse") -> Any:
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((8,))
    for _ in range(2):
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.99)(keras.layers.Dense(24)(x)))
    model = keras.Model(inputs, keras.layers.Dense(outputs, activation="softmax" if outputs > 1 else None)(x))
    model.compile(keras.optimizers.Adam(3e-3), loss)
    return model


def looped(directory: Path, model: Any, data: Any) -> History:
    recorder = Recorder(model, str(directory / "run"), on_error="raise", verbose=0)
    for x, y in data:
        model.train_on_batch(x, y)
        recorder.record(x, y)
    recorder.close()
    return record(directory)


def two_kinds(first: int, second: int) -> list[Any]:
    """Batches whose inputs change, and whose targets do not."""
    random = np.random.default_rng(0)
    rows = [random.normal(size=(32, 8)).astype("float32") for _ in range(first + second)]
    targets = [np.tanh(z @ np.ones((8, 1)) / 2).astype("float32") for z in rows]
    return [(0.2 * z if k < first else z + 3.0, y) for k, (z, y) in enumerate(zip(rows, targets, strict=True))]


def test_a_run_is_judged_by_the_batches_since(tmp_path: Path) -> None:
    """No row is extreme among the rows of its phase."""
    history = looped(tmp_path, network(), two_kinds(200, 40))
    measured = history.evidence[-1]
    assert 200 < measured.batch_steps.min() and {"inference", "batch"} == set(measured.earlier)
    assert [e.step for e in history.manifest.events if e.kind == "data_changed"] == [measured.batch_steps[0]]
    inference, batch, recalibrated = (measured.mean(name) for name in ("inference", "batch", "recalibrated"))
    assert inference > 2 * batch > recalibrated
    told = run_report(history)
    assert {f["rule"]: f["severity"] for f in told["findings"] if f["status"] == "fail" and not f["explained_by"]} == {
        "unlike-batches": "error"
    }
    (found,) = (f for f in told["findings"] if f["rule"] == "unlike-batches")
    assert "The data changed by step 20" in found["summary"] and "recalibrate" in found["rescue"]
    assert found["rescue_loss"] == pytest.approx(recalibrated, rel=1e-3)
    assert "set_momentum(model, 0.9)" in found["fix"]


def test_what_comes_back_in_each_epoch_has_not_changed(tmp_path: Path) -> None:
    data = two_kinds(60, 40)
    x, y = (np.concatenate([batch[k] for batch in data]) for k in (0, 1))
    network().fit(x, y, epochs=2, shuffle=False, verbose=0, callbacks=[lens(tmp_path)])
    assert not record(tmp_path).evidence[-1].earlier


def test_nothing_comes_back_in_a_stream_of_one_epoch(tmp_path: Path) -> None:
    data = two_kinds(200, 40)
    x, y = (np.concatenate([batch[k] for batch in data]) for k in (0, 1))
    network().fit(x, y, shuffle=False, verbose=0, callbacks=[lens(tmp_path)])
    assert 200 < record(tmp_path).evidence[-1].batch_steps.min()


def test_a_change_since_which_too_few_batches_were_kept_is_told(tmp_path: Path) -> None:
    history = looped(tmp_path, network(), two_kinds(232, 8))
    assert history.evidence[-1].batch_steps.min() < 200 and not history.evidence[-1].earlier
    (event,) = (event for event in history.manifest.events if event.kind == "data_changed")
    assert 232 < event.step <= 234
    detail = run_report(history)["verdict"]
    assert f"The data changed by step {event.step}, and 2 of the" in detail and "Recalibrate on data like" in detail


def test_one_class_after_another_is_an_order(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    data = [(random.normal(size=(32, 8)) + 3.0 * (k >= 60), np.full((32, 1), int(k >= 60))) for k in range(100)]
    history = looped(tmp_path, network(2, "sparse_categorical_crossentropy"), data)
    assert not history.evidence[-1].earlier


def test_whole_batches_are_no_extreme_rows(tmp_path: Path) -> None:
    """One batch in six is of another contrast: its rows are extreme beside the others', and not among themselves."""
    data = [(tf.constant(z * (12.0 if k % 6 == 1 else 1.0)), y) for k, (z, y) in enumerate(two_kinds(0, 120))]
    history = looped(tmp_path, network(), data)
    measured = history.evidence[-1]
    assert measured.layers["extreme_share"][0] > 0.05 and "ordinary" not in measured.passes
    assert measured.layers["dominance_mixed"][0] < 2.0 < measured.layers["dominance_max"][0]
    told = {f["rule"]: f["status"] for f in run_report(history)["findings"]}
    assert told["dominated-statistics"] == "pass" and told["unlike-batches"] == "fail"

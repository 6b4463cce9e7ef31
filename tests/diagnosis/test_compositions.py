"""Real trainings about what batches hold: faults are named, look-alikes raise nothing, rescues and fixes cure."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

keras = pytest.importorskip("keras")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import tb_bnlens  # noqa: E402
from tb_bnlens.report.schema import Overview  # noqa: E402
from tests.diagnosis import compositions  # noqa: E402
from tests.diagnosis.compositions import FAULTS, LOOK_ALIKES  # noqa: E402
from tests.diagnosis.real_runs import Build, Trained  # noqa: E402
from tests.diagnosis.test_real_runs import raised, record  # noqa: E402

QUICK = {"hard-wired in one layer", "padded with another value", "unscaled rows", "closed branch", "lognormal inputs"}
NOTED = {
    "dropout after": {"dropout-gap"},  # a third of the units is dropped, which is worth a note
}
"""Look-alikes -> notes about something else."""


def cases(names: Any) -> list[Any]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


Recorded = Callable[[str], tuple[Overview, Trained]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Train a fault once and report on it. Its rescue may change the model, so one test applies it."""
    return functools.cache(lambda name: record(FAULTS[name][0], tmp_path_factory.mktemp("faulty")))


@pytest.mark.parametrize("name", cases(FAULTS))
def test_the_cause_is_named(name: str, recorded: Recorded) -> None:
    _, cause, severities = FAULTS[name]
    told = raised(recorded(name)[0])
    assert told.get(cause) in severities, told
    assert {rule for rule, severity in told.items() if severity != "info"} <= {cause}, told


@pytest.mark.parametrize("name", cases(LOOK_ALIKES))
def test_what_looks_alike_raises_nothing(name: str, tmp_path: Path) -> None:
    told, _ = record(LOOK_ALIKES[name], tmp_path)
    found = raised(told)
    assert found.keys() <= NOTED.get(name, set()) and set(found.values()) <= {"info"}, told["verdict"]


# --- what is printed, executed -------------------------------------------------------------------------


def printed(name: str, recorded: Recorded) -> tuple[dict[str, Any], Any, Any]:
    """The finding of a fault's cause, and the model and data as they are then."""
    report, (model, data) = recorded(name)
    found = next(f for f in report["findings"] if f["rule"] == FAULTS[name][1])
    assert found["status"] == "fail", report["verdict"]
    return dict(found), model, data


def run(code: str, model: Any, data: Any) -> dict[str, Any]:
    scope = {"model": model, "data": data}
    exec(compile(code, "printed", "exec"), scope)
    return scope


def gone(build: Build, cause: str, directory: Path) -> None:
    report, _ = record(build, directory / "repaired")
    assert cause not in raised(report), report["verdict"]
    assert report["severity"] in ("none", "info"), report["verdict"]


def rows_of(data: Any) -> Any:
    """Inputs and targets of one epoch; the next one comes in another order."""
    return (np.concatenate([np.asarray(part) for part in parts]) for parts in zip(*data, strict=True))


def test_rows_alone_and_in_batches_agree_after_the_rescue(recorded: Recorded) -> None:
    found, model, data = printed("hard-wired in one layer", recorded)
    x, y = rows_of(data)

    def apart() -> float:
        return float(np.abs(model.predict_on_batch(x[:64]) - model.predict(x[:64], batch_size=1, verbose=0)).max())

    kept = model.get_weights()
    assert apart() > 0.1
    model.set_weights(kept)  # predicting has moved the statistics
    run(found["rescue"], model, data)
    assert apart() < 1e-3
    promised = found["evidence"]["moving"]["value"]
    assert np.mean(np.square(model.predict(x, verbose=0) - y)) == pytest.approx(promised, rel=0.3)


def test_rows_of_weight_0_left_out_of_the_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a slow machine: few batches are judged then, and one in seven is padded.
    monkeypatch.setattr("tb_bnlens.capture.prober.JUDGEMENT_SECONDS", 1e-9)
    found, model, data = printed("padded with another value", lambda name: record(FAULTS[name][0], tmp_path))
    before = model.evaluate(data, verbose=0)
    run(found["rescue"], model, data.repeat(4))
    assert model.evaluate(data, verbose=0) < 0.7 * before


def test_statistics_without_the_dominating_rows(recorded: Recorded) -> None:
    """The statistics serve ordinary rows and ruin the rows left out; the mean over all rows shows it."""
    found, model, data = printed("unscaled rows", recorded)
    assert not found["rescue"] and "so that is no rescue" in found["summary"] and "clip_by_value" in found["fix"]
    x, y = rows_of(data)
    ordinary = np.abs(x).max(axis=1) < 10

    def losses() -> list[float]:
        return [float(model.evaluate(x[rows], y[rows], verbose=0)) for rows in (ordinary, slice(None))]

    before = losses()
    tb_bnlens.recalibrate(model, tf.data.Dataset.from_tensor_slices((x[ordinary], y[ordinary])).batch(32))
    assert losses()[0] < 0.5 * before[0] and losses()[1] > 2 * before[1]


def again(fault: Callable[..., Trained]) -> Callable[[str], Callable[[str], Trained]]:
    """The same training with the data that a fix makes of those it was given."""

    def build(code: str) -> Callable[[str], Trained]:
        def repair(model: Any, data: Any) -> Trained:
            return model, compositions.of_known_size(run(code, model, data)["data"])

        return lambda directory: fault(directory, repair=repair)

    return build


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("padded with another value", lambda r, **more: compositions.padded(r, 16, -5.0, 2, **more)),
        ("unscaled rows", compositions.unscaled_rows),
        ("memorized", compositions.memorized),
        ("batches of 2", lambda r, **more: compositions.micro_batches(r, **more)),
    ],
)
def test_the_fix_cures(name: str, fault: Callable[..., Trained], recorded: Recorded, tmp_path: Path) -> None:
    found, _, _ = printed(name, recorded)
    gone(again(fault)(found["fix"]), FAULTS[name][1], tmp_path)


@pytest.mark.slow
def test_without_time_distributed(recorded: Recorded, tmp_path: Path) -> None:
    found, _, _ = printed("over time", recorded)
    assert "no TimeDistributed" in found["fix"] and "norm_a" not in found["fix"]
    gone(LOOK_ALIKES["the whole sequence"], FAULTS["over time"][1], tmp_path)


@pytest.mark.slow
def test_with_the_mode_passed_on(recorded: Recorded, tmp_path: Path) -> None:
    found, _, _ = printed("hard-wired", recorded)
    assert "training=training" in found["fix"]
    gone(lambda r: compositions.hard_wired(r, (False, False)), FAULTS["hard-wired"][1], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "repaired"),
    [
        ("sorted images", "images, shuffled"),
        ("sorted by target", "targets, shuffled"),
        ("sorted, two classes", "two classes, shuffled"),
    ],
)
def test_shuffled(name: str, repaired: str, recorded: Recorded, tmp_path: Path) -> None:
    found, _, _ = printed(name, recorded)
    assert ".shuffle(" in found["fix"]
    gone(LOOK_ALIKES[repaired], FAULTS[name][1], tmp_path)

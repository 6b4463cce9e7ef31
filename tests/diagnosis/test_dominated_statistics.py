"""A few rows that set the statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.history import History, PassResult
from tb_bnlens.metadata import LAYER_INDEX
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, behind, causes, dominated, finding, level, measured, run

CAUSE = "dominated-statistics"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, dominated)


def test_ordinary_rows_lose() -> None:
    history = dominated()
    assert causes(history) == {CAUSE: "error"}
    assert behind(history, "batch-noise") == behind(history, "unlike-batches") == CAUSE
    found = finding(history, CAUSE)
    assert "20 times their median" in found["summary"]
    assert "larger" not in found["fix"].lower() and "clip_by_value" in found["fix"]


@pytest.mark.parametrize(
    "rows",
    [
        # Ordinary rows do not suffer, or as much as chance explains.
        {"inference-robust": {"median": 0.0, "q10": -0.1, "q90": 0.1}},
        {"inference-robust": {"median": 0.6, "q10": -30.0, "q90": 30.0}},
        # Statistics of all batches restore it: they are old.
        {"inference-recalibrated": {"median": 1.3, "q10": 1.2, "q90": 1.4}},
    ],
)
def test_what_looks_alike(rows: Mapping[str, Mapping[str, float]]) -> None:
    assert CAUSE not in causes(dominated(rows=rows))


def test_what_inference_loses_may_lie_in_fewer_than_half_of_the_rows() -> None:
    """A classifier that predicts one class for all does well on the median row where half are of that class."""
    calm = {"inference-robust": {"median": 0.0, "q10": -0.1, "q90": 0.1}}
    median_row = dominated(rows=calm)
    share = {"extreme_share": [0.004] * 3}

    def with_ordinary(loss: float) -> History:
        (found,) = median_row.evidence
        sizes = found.passes["batch"].sizes
        passes = {**found.passes, "ordinary": PassResult(np.full(len(sizes), loss), sizes, {})}
        layers = {**found.layers, **{name: np.asarray(values) for name, values in share.items()}}
        return replace(median_row, evidence=(replace(found, passes=passes, layers=layers),))

    history = with_ordinary(1.1)
    assert causes(history) == {CAUSE: "error"} and behind(history, "unlike-batches") == CAUSE
    assert "Inference loss is 2.4; with the statistics of ordinary rows, 1.1" in finding(history, CAUSE)["summary"]
    assert CAUSE not in causes(median_row) and CAUSE not in causes(with_ordinary(2.0))


@pytest.mark.parametrize(
    ("share", "loss", "rescued"), [(0.02, 1.2, True), (0.02, 31.0, False), (0.44, None, False), (None, None, False)]
)
def test_a_rescue_that_drops_rows_is_measured_on_all_rows(
    share: float | None, loss: float | None, rescued: bool
) -> None:
    """Statistics of the ordinary rows may be far worse for the others, which are rows to be predicted as well."""
    history = dominated()
    (found,) = history.evidence
    sizes = found.passes["batch"].sizes
    of_ordinary = {} if loss is None else {"ordinary": PassResult(np.full(len(sizes), loss), sizes, {})}
    row = {} if share is None else {"extreme_share": np.full(3, share)}
    seen = replace(found, passes={**found.passes, **of_ordinary}, layers={**found.layers, **row})
    told = finding(replace(history, evidence=(seen,)), CAUSE)
    assert causes(history) == {CAUSE: "error"} and "clip_by_value" in told["fix"]
    assert ("inference loss 1.2" in told["rescue"]) is rescued and bool(told["rescue"]) is rescued
    assert told["rescue_loss"] == (loss if rescued else None)
    assert ("no rescue" in told["summary"]) is (loss == 31.0) and ("44%" in told["summary"]) is (share == 0.44)


def test_batches_of_another_kind_are_no_rows() -> None:
    """New compositions of the same rows are dominated as well, if it is rows that do it."""
    history = dominated()
    (found,) = history.evidence

    def mixed(times: float) -> History:
        layers = {**found.layers, "between_within": np.full(3, 0.5), "dominance_mixed": np.array([times, 1.0, 1.0])}
        return replace(history, evidence=(replace(found, layers=layers),))

    assert causes(mixed(18.0)) == {CAUSE: "error"}
    assert causes(mixed(1.1)) == {"unlike-batches": "error"}
    assert "20 times their median, and 1.1 times in new batches" in finding(mixed(1.1), "unlike-batches")["summary"]


def test_the_limit_of_the_evidence_is_in_its_own_unit() -> None:
    """An ordinary row's loss is lower than the mean, and so is what it is held against."""
    rows = {
        "batch": {"mean": 1.0, "q01": 0.0, "median": 0.1},
        "inference-robust": {"median": 0.3, "q10": 0.25, "q90": 0.35},
        "inference-recalibrated": {"median": 0.0, "q10": -0.1, "q90": 0.1},
    }
    history = dominated(rows=rows)
    assert causes(history) == {CAUSE: "error"}
    assert finding(history, CAUSE)["evidence"]["part"]["limit"] == pytest.approx(0.05)


@pytest.mark.parametrize("size", [8, 32])
def test_batches_of_normal_rows_are_below_the_limit(size: int) -> None:
    """The variance of a few rows is skewed: its mean lies far above its median."""
    rng = np.random.default_rng(0)
    variances = rng.chisquare(size - 1, (200, 24, 64)) / (size - 1)
    largest = (variances.mean(1) / np.median(variances, axis=1)).max(1)
    facts = Facts(measured(level(), batches=24, size=size, inference=1.0, batch=1.0))
    assert facts.composition is not None
    assert np.mean(largest > facts.composition.dominance_limit) <= 0.01


def test_batches_of_few_rows_do_not_tell() -> None:
    """Pairs of rows behind a ReLU are skewed, and the median of their variances sharpens what a network predicts."""
    assert CAUSE not in causes(dominated(size=2)) and CAUSE in causes(dominated(size=8))


def in_unmeasured(errors: Sequence[float], **other: Any) -> History:
    """The statistics' error against the latest batches at the last records; the measured batches are ordinary."""
    history = run(CALM)
    layers = history.layers.copy()
    layers[-len(errors) :, :, LAYER_INDEX["error_p95"]] = np.array(errors)[:, None]
    passes = {"inference": 3.0, "batch": 1.0, "recalibrated": 1.0, "put_right__settled": 1.0, "replay_0.5": 1.0}
    groups = {"updating": (0, 1, 2), "settled": (0, 1, 2)}
    rows = {"error_p95": [500.0] * 3, "update_explained": [1.0] * 3, "extreme_share": [0.0] * 3}
    return measured(replace(history, layers=layers), groups=groups, layers=rows, **{**passes, **other})


def test_a_rare_row_that_no_measured_batch_holds() -> None:
    """While its batch is among the latest, these agree with the moving statistics; between, they are far off."""
    history = in_unmeasured([500.0, 0.5, 400.0, 500.0])
    found = finding(history, CAUSE)
    assert causes(history) == {CAUSE: "error"} and found["share"] == pytest.approx(1.0)
    assert "unlike all others" in found["summary"] and "clip_by_value" in found["fix"]
    assert "recalibrate" in found["rescue"] and "inference loss 1" in found["rescue"]
    # Where the filter of the printed rescue leaves out measured rows, what it gives was not measured.
    (seen,) = history.evidence
    many = replace(seen, layers={**seen.layers, "extreme_share": np.full(3, 0.4)})
    assert "clip_by_value" in (told := finding(replace(history, evidence=(many,)), CAUSE))["fix"] and not told["rescue"]
    # Batches that move away and stay away are drift. Without harm there is no finding.
    assert CAUSE not in causes(in_unmeasured([0.5, 5.0, 50.0, 500.0]))
    assert CAUSE not in causes(in_unmeasured([500.0, 0.5, 400.0, 500.0], inference=1.02))


def test_measured_batches_that_explain_the_harm_are_named_first() -> None:
    """Where extreme rows are frequent, the statistics come and go with them in the course too."""
    course = in_unmeasured([500.0, 0.5, 400.0, 500.0])
    (seen,), (held,) = course.evidence, dominated().evidence
    layers, samples = {**held.layers, **seen.layers, "between_within": np.ones(3)}, {**seen.samples, **held.samples}
    passes = {**held.passes, **seen.passes}
    both = replace(course, evidence=(replace(seen, layers=layers, samples=samples, passes=passes),))
    assert causes(both) == {CAUSE: "error"}
    assert "is 20 times their median" in finding(both, CAUSE)["summary"]


def test_history_without_many_batches() -> None:
    def status(history: History) -> str:
        return str(finding(history, CAUSE)["status"])

    assert status(level()) == "not_evaluated"

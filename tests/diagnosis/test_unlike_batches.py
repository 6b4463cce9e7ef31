"""Batches that are sorted, or domains that alternate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tb_bnlens.analysis.composition import UNMET
from tb_bnlens.history import Event, History, PassResult
from tb_bnlens.report.build import run_report
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, behind, causes, finding, level, measured, of_torch, put, rows, run, summary
from tests.simulation import SimLayer, band_locator

CAUSE = "unlike-batches"
TURNS = SimLayer(samples=32, between=1.0)
SORTED = SimLayer(samples=32, between=1.0, block=60)

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(TURNS, gain=2.0))


def test_batches_that_alternate() -> None:
    history = run(TURNS, gain=2.0)
    assert causes(history) == {CAUSE: "error"}
    assert "or come from domains in turn" in summary(history, CAUSE)


def test_the_fix_knows_arrays_and_batches_that_are_groups() -> None:
    fix = finding(run(TURNS, gain=2.0), CAUSE)["fix"]
    assert "model.fit(x, y, batch_size=32, shuffle=True)" in fix and "where `data` is a tf.data pipeline" in fix
    assert "Where a batch is one group by design" in fix
    assert "where an item of `data.dataset` is a row" in finding(of_torch(run(TURNS, gain=2.0)), CAUSE)["fix"]


def test_batches_that_are_sorted() -> None:
    history = run(SORTED, gain=2.0)
    assert CAUSE in causes(history)
    assert "drift" not in causes(history)
    assert "The data are sorted" in summary(history, CAUSE)


def test_without_a_gap_it_is_a_note() -> None:
    assert causes(run(TURNS, gain=0.0)) == {CAUSE: "info"}


def test_batches_of_one_kind_pass() -> None:
    assert finding(run(CALM), CAUSE)["status"] == "pass"


# --- measured on many batches --------------------------------------------------------------------------


def sorted_batches(start: float = 1.5, between: float = 9.0, phases: Any = None, **passes: Any) -> History:
    """Batches that differ, at a loss of 1 that began at so much."""
    history = put(level(), "batch", [start] * 3, first=0)
    means = {"inference": 1.0, "batch": 1.0, "recombined": 1.0, "recalibrated": 1.0, **passes}
    history = measured(history, layers={"between_within": [between] * 3}, **means)
    if phases is not None:
        history = replace(history, evidence=(replace(history.evidence[0], batch_phases=np.repeat(phases, 4)),))
    return history


def test_little_is_learned() -> None:
    history = sorted_batches()
    assert causes(history) == {CAUSE: "warning"}
    assert "learned little" in summary(history, CAUSE)
    assert causes(sorted_batches(start=9.0)) == {CAUSE: "info"}


def test_batch_statistics_do_better_on_the_same_rows_mixed() -> None:
    history = sorted_batches(start=9.0, recombined=0.7)
    assert causes(history) == {CAUSE: "warning"}
    assert "0.7 instead of 1" in summary(history, CAUSE)


def test_losses_tell_classes_that_statistics_do_not() -> None:
    """What is sorted may differ in the labels alone."""
    classes = np.repeat([0.1, 1.0, 1.9], 4) + 0.01 * np.arange(12)
    mixed = 1.0 + 0.05 * np.resize([1.0, -1.0], 12)
    history = sorted_batches(9.0, 0.5, inference=classes, batch=classes, recalibrated=classes, recombined=mixed)
    assert causes(history) == {CAUSE: "warning"}
    assert "as if the same rows were shuffled" in summary(history, CAUSE)
    assert "far worse than others" in summary(history, CAUSE)
    assert finding(history, CAUSE)["layers"] == []


def test_batches_that_differ_by_chance_come_in_no_order() -> None:
    """Mixup with one share for a batch makes easy and hard batches of the same rows, and so does no other statistic."""
    mixed = 1.0 + 0.05 * np.resize([1.0, -1.0], 12)
    classes = np.repeat([0.1, 1.0, 1.9], 4) + 0.01 * np.arange(12)
    shares = np.resize([0.1, 1.9, 1.0], 12) + 0.01 * np.arange(12)
    for losses, found in ((classes, {CAUSE: "warning"}), (shares, {})):
        own = {"inference": losses, "batch": losses, "recalibrated": losses}
        assert causes(sorted_batches(9.0, 0.5, recombined=mixed, recombined_inference=mixed, **own)) == found
    # Normalizing by the batch alone tells these apart.
    assert causes(sorted_batches(9.0, 0.5, batch=shares, recombined=mixed, recombined_inference=1.0)) != {}


IN_TURN = np.resize([1.0, 0.2], 12) + 0.01 * np.arange(12)
ALIKE = 0.6 + 0.05 * np.resize([1.0, -1.0], 12)


def sources(inference: Any = IN_TURN, **passes: Any) -> History:
    """Batch statistics adapt to each source, and new batches of the rows of both are worse than those of training."""
    own = {"batch": 0.1 + 0.01 * np.resize([1.0, 2.0, 3.0], 12), "recombined": 0.7 + ALIKE - 0.6}
    means = {"recalibrated": inference, "recombined_inference": ALIKE, **own, **passes}
    return sorted_batches(9.0, 0.9, inference=inference, **means)


def test_sources_in_turn_are_not_learned_by_heart() -> None:
    """Their means differ no more than those of random rows may, and inference serves one of them."""
    history = sources()
    assert causes(history) == {CAUSE: "error"}
    assert "serves some batches and not others" in summary(history, CAUSE)
    assert run_report(history)["headline"].startswith("Inference loss is")


def test_what_makes_no_source_of_batches() -> None:
    # New batches of the same rows differ as much.
    assert causes(sources(recombined_inference=IN_TURN)) == {"memorized-batches": "info"}
    # The early batches are those of data that changed since.
    assert causes(sources(np.sort(IN_TURN)[::-1])) == {}
    # Some batches are harder by themselves, whatever normalizes them, and fixed statistics serve better.
    assert CAUSE not in causes(sources(batch=IN_TURN + 0.1))


def of_one_class(swapped: Any = 0.3, between: float = 0.2, **passes: Any) -> History:
    """Batches of one class each: means and losses do not differ; new compositions do worse than those of training."""
    means = {"inference": 0.49, "batch": 0.28, "recombined": 0.47, "recalibrated": 0.49, "mismatched": 0.73, **passes}
    return sorted_batches(9.0, between, swapped=swapped, scatter=0.01, **means)


def test_targets_tell_classes_that_neither_statistics_nor_losses_do() -> None:
    """Each batch is of one class. The company of a row tells its target, which is no memory of that very batch."""
    history = of_one_class()
    assert causes(history) == {CAUSE: "warning"}
    said = summary(history, CAUSE)
    assert "0.28 with their own targets, 0.3 with those of other rows of the batch and 0.73" in said
    assert "shuffle" in finding(history, CAUSE)["fix"]
    assert causes(of_one_class(inference=0.281, recalibrated=0.281, recombined=0.281)) == {CAUSE: "info"}


def test_targets_of_mixed_batches_tell_nothing() -> None:
    assert causes(of_one_class(swapped=0.72)) == {"memorized-batches": "info"}
    # Six batches with targets of other rows of theirs scatter too.
    by_chance = 0.3 + np.resize([2.0, -2.0], 12)
    assert causes(of_one_class(swapped=by_chance)) == {"memorized-batches": "info"}


def test_a_loss_that_compares_rows_changes_with_their_company() -> None:
    """Triplets of a sampler of few kinds are harder than those of random rows, on fixed statistics too."""
    passes = {"inference": 1.0, "batch": 1.0, "recombined": 0.5, "recombined_inference": 0.5}
    history = sorted_batches(start=9.0, **passes)
    assert causes(history) == {CAUSE: "info"}
    assert "compares the rows" in summary(history, CAUSE)
    assert "DataLoader" not in finding(history, CAUSE)["fix"]
    # Half of what training loses is the loss' own, and the rest is not.
    assert causes(sorted_batches(start=9.0, **{**passes, "recombined": 0.1})) == {CAUSE: "warning"}


def test_no_momentum_is_advised_where_new_statistics_do_not_serve() -> None:
    history = band_locator(layers=3)
    passes: dict[str, Any] = {"inference": 3.0, "batch": 1.0, "recombined": 1.0}
    layers = {"between_within": [9.0] * 3}
    groups = {"updating": (0, 1, 2), "from_start": (0, 1, 2)}
    stale, sorted_too = (
        measured(history, layers=layers, groups=groups, recalibrated=r, put_right__from_start=r, **passes)
        for r in (1.0, 2.8)
    )
    assert "momentum-too-high" in causes(stale) and CAUSE not in causes(stale)
    assert CAUSE in causes(sorted_too) and "momentum-too-high" not in causes(sorted_too)


def in_two_of(unlike: float = 9.0, rows: float = 400.0) -> History:
    """Inference loses 0.9 in the mean, all of it in two of twelve batches."""
    inference = np.r_[np.full(10, 1.0), 6.4, 6.4]
    samples = {"batch": {"mean": 1.0, "q01": 0.0}, "inference-batch": {"mean": 0.9, "deviation": 2.0, "count": rows}}
    return sorted_batches(9.0, unlike, inference=inference, recalibrated=1.8, samples=samples)


def test_what_lies_in_a_few_unlike_batches_is_no_chance() -> None:
    history = in_two_of()
    assert causes(history) == {CAUSE: "warning"}
    assert "1 of 12 hold half" in summary(history, CAUSE)
    assert causes(in_two_of(unlike=0.5)) == {}
    assert causes(in_two_of(rows=10.0)) == {CAUSE: "info"}


def test_a_trend_is_told_apart_from_the_loss_at_the_start() -> None:
    """Targets rise along the data, so those of other rows of a batch are nearly right, and half of the loss is left."""
    history = sorted_batches(start=2.0, mismatched=1.02)
    said = summary(history, CAUSE)
    assert "with the targets of other rows the loss is 1.02, with their own 1." in said
    assert "at the start" not in said


def test_the_last_batch_of_an_epoch_is_far_off_in_sorted_data_whatever_its_size() -> None:
    history = rows(sorted_batches(inference=3.0), epoch_end_distance=8.0, since_min=0.5)
    assert "short-last-batch" not in causes(history)
    assert "short-last-batch" in causes(rows(sorted_batches(between=0.5), epoch_end_distance=8.0, since_min=0.5))


def test_a_rare_kind_may_be_missing() -> None:
    """Of twelve batches, none is of a kind of 22% in one case of 20."""
    history = sorted_batches(start=9.0)
    assert (1 - 0.2209) ** 12 == pytest.approx(UNMET, rel=0.01)
    assert "fewer than 22% of all batches" in summary(history, CAUSE)


def test_a_longer_memory_is_not_advised_for_data_in_order() -> None:
    def told(between: float, momentum: float) -> dict[str, str]:
        passes: dict[str, Any] = {"inference": 4.0, "batch": 1.0, "recalibrated": 3.5, "replay_0.997": 1.4}
        history = run(SimLayer(momentum=momentum, samples=8), gain=1.0, steps=1200, planned=1200)
        return causes(measured(history, layers={"between_within": [between]}, **passes))

    assert told(0.5, 0.6) == {"momentum-too-low": "error"}
    assert told(9.0, 0.6) == {CAUSE: "error"}
    assert "momentum-too-low" in told(9.0, 0.1), "a momentum that is too low for any data"


def test_sites_in_turn() -> None:
    """The statistics know the data of the last fit alone; those of all sites serve all."""
    inference = np.repeat([5.0, 3.0, 1.0], 4) + 0.1 * np.resize([1.0, -1.0], 12)
    history = sorted_batches(9.0, phases=(0, 1, 2), inference=inference, recalibrated=0.9)
    assert causes(history) == {CAUSE: "error"}
    found = finding(history, CAUSE)
    assert "know the last fit's data" in found["summary"]
    assert "0.9 (measured on 12 batches)" in found["rescue"] and ".shuffle(" in found["fix"]


def test_a_rescue_that_gives_nothing_is_not_printed() -> None:
    inference = np.repeat([5.0, 3.0, 1.0], 4) + 0.1 * np.resize([1.0, -1.0], 12)
    found = finding(sorted_batches(9.0, phases=(0, 1, 2), inference=inference, recalibrated=inference - 0.01), CAUSE)
    assert (found["rescue"], found["rescue_loss"]) == ("", None) and ".shuffle(" in found["fix"]


def test_several_fits_of_the_same_data() -> None:
    history = sorted_batches(9.0, 0.9, phases=(0, 1, 2), inference=1.0 + 0.1 * np.resize([1.0, -1.0], 12))
    assert causes(history) == {}


# --- data that changed in the course of training -------------------------------------------------------


def changed(past: float = 3.0, since: int = 30, momentum: float = 0.99, layers: Any = None, **passes: Any) -> History:
    """The measured batches are those of the last steps, and inference gives so much on those before."""
    history = measured(
        run(SimLayer(momentum=momentum), steps=1000),
        layers={"between_within": [0.5] * 3, **(layers or {})},
        groups={"updating": (0, 1, 2), "settled": (0, 1, 2)},
        scatter=0.01,
        **{"batch": 1.0, "recombined": 1.0, **passes},
    )
    (found,) = history.evidence
    sizes = np.full(19, 32)
    earlier = {"inference": PassResult(np.full(19, past), sizes), "batch": PassResult(np.full(19, 1.0), sizes)}
    steps = np.linspace(found.step - since + 1, found.step, len(found.batch_sizes)).astype(np.int64)
    return replace(history, evidence=(replace(found, batch_steps=steps, earlier=earlier),))


def test_statistics_from_before_a_change_are_the_cause() -> None:
    history = changed(inference=3.0, recalibrated=1.0, put_right__settled=1.0)
    assert causes(history) == {CAUSE: "error"}
    assert behind(history, "train-inference-gap") == CAUSE
    said, found = summary(history, CAUSE), finding(history, CAUSE)
    assert "changed by step 971" in said and "74% is from before" in said and "inference loss is 1 instead of 3" in said
    assert "set_momentum(model, 0.9)" in found["fix"] and found["rescue_loss"] == pytest.approx(1.0)


def test_what_is_no_longer_in_use_is_a_note() -> None:
    """A network that serves the present data may have left earlier ones behind on purpose."""
    history = changed(past=80.0, inference=1.0, recalibrated=1.0)
    assert causes(history) == {CAUSE: "info"}
    assert "On batches from before, inference loss is 80 and 1 with batch statistics" in summary(history, CAUSE)
    assert not finding(history, CAUSE)["rescue"] and "Only if" in finding(history, CAUSE)["fix"]
    assert causes(changed(past=1.0, inference=1.0, recalibrated=1.0)) == {}


def test_a_change_long_ago_explains_nothing() -> None:
    long_ago = changed(since=900, past=1.0, inference=3.0, recalibrated=1.0, put_right__settled=1.0)
    assert CAUSE not in causes(long_ago) and causes(long_ago) != {}
    # A shorter memory serves, so the statistics lag behind what has moved since.
    lags = {"inference": 3.0, "recalibrated": 1.0, "put_right__settled": 1.0, "replay_0.5": 1.0}
    apart = {"error_p95": [1.0] * 3}
    assert causes(changed(since=900, past=1.0, layers=apart, **lags)) == {"drift": "error"}
    assert causes(changed(since=30, past=1.0, layers=apart, **lags)) == {CAUSE: "error"}
    noisy = changed(past=1.0, inference=3.0, recalibrated=3.0, put_right__settled=3.0)
    assert CAUSE not in causes(noisy) and causes(noisy) != {}


def test_too_few_batches_since_a_change_cannot_clear_the_run() -> None:
    history = changed(inference=0.9, recalibrated=0.9)
    (found,) = history.evidence
    steps = found.batch_steps
    event = Event(int(steps[-2]), "data_changed", "the batches that were kept from here on are of another kind")
    late = replace(
        history,
        evidence=(replace(found, earlier={}),),
        manifest=replace(history.manifest, events=(event,)),
    )
    report = run_report(late)
    assert "No BatchNorm problem found" not in report["headline"] and "little of the present data" in report["headline"]
    assert f"changed by step {steps[-2]}, and 2 of the {len(steps)}" in report["verdict"]
    before = replace(late, evidence=(replace(found, earlier={}, batch_steps=steps - 2000),))
    assert "No BatchNorm problem found" in run_report(before)["headline"]

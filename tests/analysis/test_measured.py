"""The measurement on many batches as the analysis reads it, and the yardstick that has no zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tb_bnlens.analysis import metrics, yardstick
from tb_bnlens.analysis.enough import is_calm
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.loss_gap import NOTE_HARM
from tb_bnlens.analysis.measured import Measured
from tb_bnlens.analysis.rival import standard_error
from tb_bnlens.history import History, PassResult
from tb_bnlens.metadata import LOSS_INDEX, LOSS_ROWS
from tb_bnlens.report import run_report
from tests.diagnosis.runs import level, measured, put


def rows_of(losses: Any) -> dict[str, float]:
    return {"mean": float(np.mean(losses)), "q01": float(np.quantile(losses, 0.01))}


def changed(offset: float, times: float, gap: float) -> History:
    """A run of falling loss whose inference is so far above, with the loss scaled and something added to it."""

    def loss(x: Any) -> Any:
        return times * np.asarray(x) + offset

    rng = np.random.default_rng(3)
    single = rng.exponential(0.08, 768)
    history = level()
    fall = 0.08 + 2.2 * np.exp(-np.arange(len(history.losses)) / 3)
    replays = [name for name in LOSS_ROWS if name.startswith("replay")]
    for kind in ("training", "batch", "inference", "recalibrated", "recalibrated_now", *replays):
        put(history, kind, loss(fall), first=0)
    history.losses[:, 1] = np.nan
    batches = rng.normal(0.08, 0.01, 24)
    return measured(
        history,
        batches=24,
        batch=loss(batches),
        inference=loss(batches + gap + rng.normal(0, gap / 5, 24)),
        samples={"batch": rows_of(loss(single))},
    )


@pytest.mark.parametrize("gap", [0.002, 0.02, 0.06, 0.5])
def test_severity_depends_neither_on_an_offset_nor_on_a_scale(gap: float) -> None:
    usual = Facts(changed(0.0, 1.0, gap)).gap.harm
    severity = run_report(changed(0.0, 1.0, gap))["severity"]
    for offset in (0.0, 1.0, 10.0, 1000.0, -1.0, -1000.0):
        for times in (1.0, 0.01, 100.0):
            # Losses are recorded in float32, whose precision at an offset of 1000 is 1e-4.
            assert Facts(changed(offset, times, gap)).gap.harm == pytest.approx(usual, rel=0.05)
            assert run_report(changed(offset, times, gap))["severity"] == severity


@pytest.mark.parametrize(("there", "calm"), [(0.29, True), (0.16, False)])
def test_a_drop_that_few_rows_may_give_by_chance_is_not_calm(there: float, calm: bool) -> None:
    """More batches than those of a first look tell whether the accuracy drops."""
    shares = {"inference": {"accuracy": there}, "batch": {"accuracy": 0.29}, "recalibrated": {"accuracy": 0.29}}
    history = measured(level(), batches=8, size=32, metrics=shares, inference=1.05, batch=1.0, recalibrated=1.0)
    found = Facts(history).measured
    assert found is not None and found.over_rival.harm < NOTE_HARM  # it is no more than chance gives
    assert is_calm(history) is calm


def test_a_loss_near_zero_is_calm() -> None:
    """What is left after a fall from 2.2 by four orders of magnitude may double."""

    def near(inference: float) -> float:
        history = changed(0.0, 1.0, 0.1)
        history.losses[-15:, 0, LOSS_INDEX["batch"]] = 2.3e-4
        losses = Facts(history).losses
        return replace(losses, unit=2.3e-4).harm(inference - 2.3e-4)

    assert near(4.6e-4) < 0.5 < near(1e-3)


def test_the_unit_is_the_mean_where_rows_fall_off_exponentially_from_zero() -> None:
    single = np.random.default_rng(0).exponential(0.3, (400, 32))
    usual = measured(level(), inference=1.0, batch=single.mean(1), samples={"batch": rows_of(single)}, batches=400)
    without = measured(level(), inference=1.0, batch=single.mean(1), samples={}, batches=400)
    assert yardstick.unit(usual.evidence[0]) == pytest.approx(0.3, rel=0.05)
    assert yardstick.unit(without.evidence[0]) == pytest.approx(0.3, rel=0.1)
    assert np.isnan(
        yardstick.unit(measured(level(), inference=1.0, batch=[1.0, 1.0], batches=2, samples={}).evidence[0])
    )


def test_one_batch_in_every_step_has_no_deviation() -> None:
    """All data, such as a graph, are the batch: what its losses differ by is rounding, and no unit."""
    losses = 1.0 + 1e-8 * np.arange(12)
    history = measured(level(), inference=1.18, batch=losses, recalibrated=1.0, samples={})
    assert np.isnan(yardstick.unit(history.evidence[0]))
    assert Facts(history).gap.harm == pytest.approx(0.18, rel=0.1)


@pytest.mark.parametrize(("mean", "easiest", "meant"), [(1.0, 0.0, True), (10.3, 10.0, False), (-2.0, -5.0, False)])
def test_ratios_are_told_where_rows_come_down_to_zero(mean: float, easiest: float, meant: bool) -> None:
    history = measured(level(), inference=mean + 1, batch=mean, samples={"batch": {"mean": mean, "q01": easiest}})
    assert Facts(history).losses.natural_zero is meant


# --- passes ---


def evidence_of(**means: Any) -> Measured:
    found = Facts(measured(level(), **means)).measured
    assert found is not None
    return found


def test_parts_add_up() -> None:
    found = evidence_of(inference=3.0, batch=1.0, with_dropout=2.5, recalibrated=1.5, scatter=0.2)
    stale, mode = found.part(("inference", "with_dropout")), found.part(("with_dropout", "recalibrated"))
    assert (stale.value, mode.value) == pytest.approx((0.5, 1.0))
    both = found.part(("inference", "with_dropout"), ("with_dropout", "recalibrated"))
    assert both.value == pytest.approx(1.5) and found.share(both) == pytest.approx(0.75)
    assert found.part(("inference", "robust")).known is False


def test_a_gap_within_its_standard_error_does_not_count() -> None:
    assert not evidence_of(inference=2.0, batch=1.0, scatter=2.0).over_rival.significant
    assert evidence_of(inference=2.0, batch=1.0, scatter=1.0).over_rival.significant
    assert standard_error(np.array([1.0]), np.array([8])) != standard_error(np.array([1.0]), np.array([8]))


def test_new_compositions_are_the_rival_where_batches_are_known_by_heart() -> None:
    similar = {"between_within": [0.9, 1.1, 1.0]}
    assert evidence_of(inference=2.0, batch=1.0, recombined=2.1, layers=similar).rival == "recombined"
    assert evidence_of(inference=2.0, batch=1.0, recombined=1.0, layers=similar).rival == "batch"
    sorted_rows = {"between_within": [9.0, 1.0, 1.0]}
    assert evidence_of(inference=2.0, batch=1.0, recombined=2.1, layers=sorted_rows).rival == "batch"


def test_training_view_is_the_rival_where_it_leaves_layers_on_their_statistics() -> None:
    assert evidence_of(inference=2.0, batch=3.0, batch_as_trained=1.0).rival == "batch_as_trained"
    # With dropout, training is near neither.
    view = evidence_of(inference=2.0, batch=3.0, batch_as_trained=1.0, training=[2.9, 3.4] * 4, batches=8)
    assert view.rival == "batch_as_trained"


def test_frozen_layers_that_normalize_with_the_batch_are_seen_in_the_training_pass() -> None:
    """A layer class of the user's own, as in Keras before TensorFlow 2: inference was held against its own fault."""
    found = evidence_of(inference=4.8, batch=0.35, batch_as_trained=4.8, training=0.35)
    assert found.rival == "batch" and found.over_rival.value == pytest.approx(4.45)


def test_poison_does_not_hide_the_rest() -> None:
    found = evidence_of(inference=np.nan, put_right__nonfinite=3.0, put_right__from_start=1.5, batch=1.0)
    assert np.isinf(found.over_rival.value) and found.judged == "put_right:nonfinite"
    assert found.undone("put_right:from_start").value == pytest.approx(1.5)
    assert found.share(found.undone("put_right:nonfinite")) == 1.0
    assert found.share(found.undone("put_right:from_start")) == pytest.approx(0.75)


def test_what_comes_long_before_the_end_judges_nothing() -> None:
    history = measured(level(), inference=2.0, batch=1.0)
    old = replace(history.evidence[0], step=100)
    assert Facts(replace(history, evidence=(old,))).measured is None
    assert Facts(history).over and not Facts(level()).over


# --- metrics ---


@pytest.mark.parametrize(
    ("before", "after", "rows", "harm"),
    [
        (0.984, 0.856, 768, 1.0),
        (0.95, 0.93, 10**6, 0.0),
        (0.97, 0.945, 10**6, 0.5),
        (0.97, 0.945, 100, 0.0),
        (0.5, 0.39, 10**6, 1.0),
        (0.9, 0.95, 10**6, 0.0),
    ],
)
def test_a_drop_of_accuracy_is_harm(before: float, after: float, rows: int, harm: float) -> None:
    def result(value: float, name: str = "accuracy") -> PassResult:
        return PassResult(np.ones(4), np.full(4, rows // 4), {name: value, "mae": 3.0})

    assert metrics.harm(result(after), result(before)) == harm
    assert metrics.harm(result(after, "mean_error"), result(before, "mean_error")) == 0.0


def test_the_step_as_good_as_inference() -> None:
    history = changed(0.0, 1.0, 0.5)
    batch = history.loss("batch")
    step = Facts(history).as_at_step
    assert step is not None and batch[history.loss_steps >= step].max() <= 0.58 < batch[history.loss_steps < step].min()
    losses = run_report(history)["losses"]
    assert losses["as_at_step"] == step and losses["share_undone"] == pytest.approx(1 - step / 600)
    assert losses["batches"] == 24 and losses["inference"] == pytest.approx(0.58, rel=0.1)


def test_no_step_is_as_good_as_inference_where_hardly_anything_is_undone() -> None:
    history = changed(0.0, 1.0, 0.5)
    batch = history.losses[:, 0, LOSS_INDEX["batch"]]
    batch[:] = np.where(history.loss_steps < 590, 0.9, 0.1)
    assert Facts(history).as_at_step is None
    batch[:] = np.where(history.loss_steps < 500, 0.9, 0.1)
    assert Facts(history).as_at_step == history.loss_steps[history.loss_steps >= 500][0]


def test_compositions_known_by_heart_show_in_ranks_where_a_few_losses_are_very_large() -> None:
    old = np.linspace(0.001, 0.002, 12)
    new = np.array([0.01] * 9 + [0.2, 0.5, 2.0])
    found = Facts(
        measured(level(), batch=old, recombined=new, inference=np.full(12, 0.03), recalibrated=0.004)
    ).measured
    assert found is not None and found.memorized and found.rival == "recombined"
    by_chance = Facts(measured(level(), batch=old, recombined=old[::-1] + 1e-4, inference=0.03, recalibrated=0.004))
    assert by_chance.measured is not None and not by_chance.measured.memorized


def test_a_drop_of_accuracy_counts_where_the_loss_does_not_stand_out() -> None:
    """Many rows turn wrong while their losses hardly change, as in a network that is sure of nothing."""

    def gap(accuracy: float) -> Any:
        shown = {"inference": {"accuracy": accuracy}, "batch": {"accuracy": 0.77}}
        facts = Facts(measured(level(), scatter=0.5, inference=1.02, batch=1.0, metrics=shown))
        assert facts.as_at_step is None
        return facts.gap

    assert gap(0.57).at_least(1.0) and not gap(0.75).significant


@pytest.mark.parametrize(("share", "significant"), [(0.3, True), (0.9, False)])
def test_what_few_rows_carry_takes_more_than_two_standard_errors(share: float, significant: bool) -> None:
    """One pair of 64 that is told apart wrongly: a third of the batches have it, and the mean is no normal value."""
    rows = {"count": 384.0, "mean": 1 / 3, "deviation": 2.5, "share_of_top": share}
    history = measured(
        level(),
        inference=[2.0] * 4 + [1.0] * 8,
        batch=1.0,
        recalibrated=[1.99] * 4 + [1.0] * 8,
        samples={"batch": {"mean": 1.0, "q01": 0.9}, "inference-batch": rows},
        layers={"noise_mean": [0.2] * 3, "between_within": [0.5] * 3},
    )
    assert Facts(history).gap.significant == significant
    # The best fixed statistics leave a part of the gap, so they are no surer.
    named = {f["rule"] for f in run_report(history)["findings"] if f["status"] == "fail"}
    assert ("batch-noise" in named) == significant

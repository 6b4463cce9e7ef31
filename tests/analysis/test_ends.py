"""How a run has ended, and losses that are missing, as the analysis reads them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tb_bnlens.analysis.lag import table
from tb_bnlens.analysis.last_probes import measure
from tb_bnlens.analysis.outlook import outlook
from tb_bnlens.history import Manifest
from tb_bnlens.metadata import LOSS_INDEX, LOSS_ROWS
from tb_bnlens.reader.manifest import parse_manifest
from tb_bnlens.report import run_report
from tests.diagnosis.runs import level, measured
from tests.simulation import Sim, SimLayer, simulate


@pytest.mark.parametrize(("ended", "remaining"), [("", 1600), ("early", 0), ("interrupted", 0), ("planned", 0)])
def test_nothing_remains_after_the_end(ended: str, remaining: int) -> None:
    history = simulate(Sim([SimLayer(momentum=0.999)], steps=400, planned=2000))
    history = replace(history, manifest=replace(history.manifest, ended=ended))
    found = outlook(history.manifest, measure(history), table(history), history.last_step)
    assert found.remaining == remaining and found.will_converge == (found.steps <= remaining > 0)


def test_an_end_is_read_and_an_unknown_one_is_none() -> None:
    def read(**more: object) -> Manifest:
        return parse_manifest(json.dumps({"layers": [], **more}))[0]

    assert (read().ended, read().ended_step) == ("", None)
    assert (read(ended="early", ended_step=88).ended, read(ended="early", ended_step=88).ended_step) == ("early", 88)
    assert read(ended="exploded").ended == read(ended=["early"]).ended == ""
    (event,) = read(events=[{"step": 3, "kind": "outside", "text": "", "layers": [1], "amounts": [0.5, "x"]}]).events
    assert event.amounts[0] == 0.5 and np.isnan(event.amounts[1])


@pytest.mark.parametrize(
    ("shown", "diverged"),
    [((3.0, 2.0, 1.0, np.nan), False), ((3.0, 2.0, np.nan, np.nan), True), ((3.0, 2.0, np.inf, np.inf), True)],
)
def test_losses_that_are_not_measured_are_no_divergence(shown: tuple[float, ...], diverged: bool) -> None:
    """The last probe comes after the last step, without the loss of fit's progress bar."""
    history = simulate(Sim([SimLayer()], not_evaluated={"losses": "no loss"}))
    losses = np.full((4, 2, len(LOSS_ROWS)), np.nan, np.float32)
    losses[:, 0, LOSS_INDEX["fit_loss"]] = shown
    history = replace(history, losses=losses, loss_steps=np.arange(4), loss_wall_times=np.arange(4.0))
    assert measure(history).diverged == diverged


@pytest.mark.parametrize(
    ("lost", "kept", "diverged"), [(1, None, False), (2, None, True), (2, 1.0, False), (1, np.nan, True)]
)
def test_a_loop_has_diverged_where_no_batch_has_a_loss(lost: int, kept: float | None, diverged: bool) -> None:
    """A batch without a label has none either, so the kept batches tell, or two probes."""
    history = level()
    for kind in ("training", "batch", "inference", "recalibrated"):
        history.losses[-lost:, 0, LOSS_INDEX[kind]] = np.nan
    history.losses[..., LOSS_INDEX["fit_loss"]] = np.nan
    evidence = None
    if kept is not None:
        losses = np.array([np.nan, kept, kept])
        (evidence,) = measured(history, inference=losses, batch=losses, training=losses, batches=3).evidence
    assert measure(history, evidence=evidence).diverged == diverged


@pytest.mark.parametrize(("ended", "steps"), [("interrupted", 60), ("interrupted", 0), ("early", 60)])
def test_an_interrupted_run_says_what_was_measured_last(ended: str, steps: int) -> None:
    history = simulate(Sim([SimLayer()], steps=400, planned=2000))
    measured = int(history.loss_steps[-1])
    history = replace(history, manifest=replace(history.manifest, ended=ended, ended_step=measured + steps))
    sentence = f"interrupted at step {measured + 60:,}, and the last measurement is of step {measured:,}"
    assert (sentence in run_report(history)["verdict"]) == (ended == "interrupted" and steps > 0)

"""Batches that the network knows by heart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.history import History
from tests.diagnosis.checks import silence_of
from tests.diagnosis.runs import causes, finding, level, measured, put

CAUSE = "memorized-batches"


def by_heart(inference: float = 0.9, recombined: float = 1.0, between: float = 0.9) -> History:
    return measured(
        level(),
        inference=inference,
        batch=0.1,
        recombined=recombined,
        recalibrated=inference,
        scatter=0.01,
        layers={"between_within": [between] * 3, "noise_mean": [0.2] * 3},
    )


test_silenced = silence_of(CAUSE, by_heart)


def test_it_is_a_note_and_inference_is_in_order() -> None:
    history = by_heart()
    assert causes(history) == {CAUSE: "info"}
    assert "shuffle" in finding(history, CAUSE)["fix"] and "set_random_seed" in finding(history, CAUSE)["fix"]
    assert "batch noise" in {r["cause"] for r in finding(history, CAUSE)["ruled_out"]}


@pytest.mark.parametrize(
    "changed",
    [
        {"recombined": 0.1},  # new batches do as well: the gap is real
        {"between": 9.0},  # the batches differ: mixing the rows is another task
        {"inference": 5.0},  # worse than on new batches, too
    ],
)
def test_what_looks_alike(changed: dict[str, float]) -> None:
    assert CAUSE not in causes(by_heart(**changed))


def uneven(elsewhere: float) -> History:
    """Rows of unlike losses hide how much more new compositions lose, and inference loses so much more than those."""
    rows, wave = np.resize([0.0, 0.0, 1.6, 1.6], 12), np.resize([0.05, -0.05], 12)
    new = 0.7 - elsewhere
    return measured(
        level(),
        inference=0.7 + rows + wave,
        batch=0.1 + rows,
        recombined=new + rows,
        recombined_inference=0.7 + rows + wave,
        layers={"between_within": [0.9] * 3, "noise_mean": [0.2] * 3},
    )


def test_what_inference_loses_is_compared_where_rows_differ_much() -> None:
    """As in pairs of images that are alike or not: the spread of the batches' losses exceeds what is learned by heart.

    A fault of the statistics costs as much on new batches.
    """
    assert causes(uneven(elsewhere=0.0)) == {CAUSE: "info"}
    assert causes(uneven(elsewhere=0.6)) == {"batch-noise": "warning"}


def test_new_compositions_of_a_loss_that_compares_rows_tell_nothing() -> None:
    """A graph whose nodes are mixed with those of others is another graph."""
    history = by_heart(inference=0.1)
    (found,) = history.evidence
    passes = {**found.passes, "recombined_inference": found.passes["recombined"]}
    mixed = replace(history, evidence=(replace(found, passes=passes),))
    by_rows, compared = (Facts(each).measured for each in (history, mixed))
    assert by_rows is not None and by_rows.rival == "recombined"
    assert compared is not None and compared.rival == "batch"


def test_rows_of_one_loss_are_judged_by_the_scale_of_the_run() -> None:
    """As where training has learned nothing: the easiest rows may be a rounding error above the mean of the batches."""
    history = put(by_heart(), "batch", [5.0, 4.0, 3.0], first=0)
    (found,) = history.evidence
    rows = {"batch": {"mean": found.passes["batch"].mean, "q01": found.passes["batch"].mean + 1e-6}}
    assert causes(replace(history, evidence=(replace(found, samples=rows),))) == {CAUSE: "info"}


def test_nothing_to_explain() -> None:
    assert causes(by_heart(inference=0.1)) == {}


def test_rows_that_belong_together_by_their_losses_are_of_several_kinds() -> None:
    """As in a stream whose data were others for a while: mixed rows do worse, and nothing was learned by heart."""

    def history(own: float, mixed: float) -> History:
        kinds = np.resize([1.0, -1.0, 1.0, 1.0, -1.0], 12)
        return measured(
            level(),
            inference=0.9 + own * kinds,
            batch=0.1,
            recombined=1.0,
            recombined_inference=0.9 + mixed * kinds,
            layers={"between_within": [0.9] * 3, "noise_mean": [0.2] * 3},
        )

    assert CAUSE in causes(history(0.1, 0.1)) and CAUSE not in causes(history(0.4, 0.1))

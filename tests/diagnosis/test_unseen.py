"""Trainings drawn at random: what is told of them against what is true of them.

Between what must be told and what must not lies a band where either is right; a truth over some hundred batches and
a verdict over some probes of one batch each have their noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

keras = pytest.importorskip("keras")

from tests.diagnosis.random_runs import Drawn, Truth, drawn, truth  # noqa: E402
from tests.diagnosis.test_real_runs import record  # noqa: E402

SEEDS = range(200, 260)
"""Not the ones that were examined while the rules were written (0 to 131)."""
HARMFUL, HARMLESS = 0.5, 0.2
"""Inference this much above batch mode and above what recalibration gives, and this little above both."""
FLOOR = 0.01
"""Losses are compared down to this share of the loss before training; below it nobody minds a ratio."""
ODD_ONES = 1
"""Trainings of all that may be judged otherwise: probes and truth are samples."""


def told(of: Drawn, seed: int, directory: Path) -> tuple[dict[str, str], Truth]:
    """Failures with their severity, and the truth of the same training."""
    keras.backend.clear_session(free_memory=False)
    report, (model, data) = record(of.train, directory / str(seed), seed)
    failures: dict[str, str] = {f["rule"]: f["severity"] for f in report["findings"] if f["status"] == "fail"}
    # A difference of the training mode alone is no matter of inference.
    failures.pop("dropout-gap", None)
    return failures, truth(of, model, data)


def misjudged(failures: dict[str, str], true: Truth) -> str:
    """Empty where what was told is right."""
    floor = FLOOR * true.start
    gap = (true.inference - true.batch) / max(true.batch, floor)
    stale = (true.inference - true.recalibrated) / max(true.recalibrated, floor)
    alarm = bool({"error", "warning"} & set(failures.values()))
    if min(gap, stale) >= HARMFUL and not alarm:
        return "missed"
    if gap <= HARMLESS and stale <= HARMLESS and alarm:
        return "false alarm"
    return ""


@pytest.mark.slow
def test_what_is_told_of_trainings_that_nobody_has_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def judged() -> Iterator[dict[str, Any]]:
        for seed in SEEDS:
            failures, true = told(drawn(seed), seed, tmp_path)
            yield {"seed": seed, "as": misjudged(failures, true), "told": failures, "true": true, "of": drawn(seed)}

    runs = list(judged())
    alarms = [run for run in runs if {"error", "warning"} & set(run["told"].values())]
    wrong = [run for run in runs if run["as"]]
    with capsys.disabled():
        print(
            f"\n{len(runs)} trainings drawn at random: {len(alarms)} with an error or a warning, {len(wrong)} misjudged"
        )
        print(*wrong, sep="\n")
    assert len(runs) // 10 <= len(alarms) <= len(runs) // 2, "a draw that is no test"
    assert len(wrong) <= ODD_ONES, wrong


def test_a_misjudged_training_is_noticed() -> None:
    broken, fine = Truth(9.0, 1.0, 1.0, 10.0), Truth(1.0, 1.0, 1.0, 10.0)
    assert misjudged({}, broken) == misjudged({"drift": "info"}, broken) == "missed"
    assert misjudged({"drift": "warning"}, fine) == "false alarm"
    assert not misjudged({"drift": "error"}, broken) and not misjudged({"drift": "info"}, fine)

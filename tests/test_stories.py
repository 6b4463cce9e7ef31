"""Each story of ``demo/`` is trained and read back through the report: the cause is named and its rivals are not.

The short ones run in ``make test`` with one seed; the long ones, and other seeds, are marked slow.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("keras")

from demo.__main__ import main as demo
from tb_bnlens.reader import open_logdir, read_run
from tb_bnlens.report import run_report

Report = dict[str, Any]
"""A report whose numbers are all there: ``schema.Overview`` allows for None."""
Tell = Callable[[str, str, int], Report]

OTHER_SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]


@pytest.fixture
def tell(story: Callable[[str, str, int], Path]) -> Tell:
    """Report on a run of a story, which is trained once."""

    def told(name: str, run: str, seed: int = 0) -> Report:
        record = story(name, run, seed)
        return dict(run_report(read_run(open_logdir(str(record.parent)), "", run)))

    return told


def raised(report: Report, *severities: str) -> set[str]:
    """Rules that failed on their own account, of these severities or of any."""
    return {
        f["rule"]
        for f in report["findings"]
        if f["status"] == "fail"
        and not f["explained_by"]
        and not f["silenced"]
        and (not severities or f["severity"] in severities)
    }


def finding(report: Report, rule: str) -> dict[str, Any]:
    return next(f for f in report["findings"] if f["rule"] == rule)


def broken_rules(report: Report) -> list[str]:
    return [f["summary"] for f in report["findings"] if f["status"] == "error"]


@pytest.mark.parametrize("seed", OTHER_SEEDS)
def test_frozen_layers_that_train_on_the_batch(tell: Tell, seed: int) -> None:
    report = tell("pretrained_base", "a-frozen-but-trained-on-batch-statistics", seed)
    losses = report["losses"]

    assert losses["training"] == pytest.approx(losses["batch"], rel=1e-3)
    assert losses["inference"] > 5 * losses["batch"]
    assert raised(report, "error", "warning") == {"frozen-mismatch"}
    blamed = finding(report, "frozen-mismatch")
    assert blamed["severity"] == "error"
    assert blamed["steps_to_converge"] == "never"
    assert "base/block_1_bn" in blamed["layers"]
    assert {layer["state"] for layer in report["layers"]} == {"frozen"}
    assert finding(report, "dropout-gap")["status"] != "fail"
    assert finding(report, "before-after-update")["status"] != "fail"
    assert not broken_rules(report)


@pytest.mark.parametrize("seed", OTHER_SEEDS)
def test_dropout(tell: Tell, seed: int) -> None:
    report = tell("pretrained_base", "b-dropout", seed)

    assert report["severity"] == "info"
    assert raised(report) == {"dropout-gap"}
    parts = finding(report, "dropout-gap")["evidence"]
    assert parts["dropout"]["value"] > 0.1 > parts["batchnorm"]["value"]
    assert not broken_rules(report)


@pytest.mark.parametrize("seed", OTHER_SEEDS)
def test_loss_before_the_update(tell: Tell, seed: int) -> None:
    report = tell("pretrained_base", "c-loss-before-the-update", seed)
    losses = report["losses"]

    assert losses["training"] == pytest.approx(losses["inference"])
    assert report["layers"] == []
    assert report["severity"] == "info"
    assert raised(report) == {"before-after-update"}
    parts = finding(report, "before-after-update")["evidence"]
    assert parts["update"]["value"] < -0.1
    assert parts["batchnorm"]["value"] == parts["dropout"]["value"] == 0
    assert not broken_rules(report)


@pytest.mark.parametrize("seed", OTHER_SEEDS)
def test_frozen_statistics_that_do_harm(tell: Tell, seed: int) -> None:
    report = tell("frozen_base", "harmful-dim-images", seed)
    losses = report["losses"]

    assert losses["training"] == pytest.approx(losses["inference"], rel=1e-3)
    assert losses["inference"] > 5 * losses["batch"]
    assert raised(report, "error", "warning") == {"frozen-mismatch"}
    blamed = finding(report, "frozen-mismatch")
    assert blamed["severity"] == "error"
    assert "base/block_1_bn" in blamed["layers"]
    assert "recalibrate" in blamed["fix"]
    assert not broken_rules(report)


@pytest.mark.parametrize("seed", OTHER_SEEDS)
def test_frozen_statistics_that_do_no_harm(tell: Tell, seed: int) -> None:
    report = tell("frozen_base", "harmless-strong-contrast", seed)

    assert max(layer["distance"] for layer in report["layers"]) > 0.5
    assert report["losses"]["inference"] < report["losses"]["batch"]
    assert report["severity"] == "info"
    assert raised(report) == {"frozen-mismatch"}
    assert not broken_rules(report)


def test_the_command_trains_and_reports_without_noise(
    demonstrated: subprocess.CompletedProcess[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = demonstrated
    assert "[frozen-base, run 1 of 2] harmful-dim-images" in done.stdout
    assert "Frozen moving statistics do not fit the data" in done.stdout
    assert "cannot be judged from the losses" in " ".join(done.stdout.split())
    assert done.stderr == ""

    monkeypatch.setattr(sys, "argv", done.args[2:])
    with pytest.raises(SystemExit, match="2"):
        demo()
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_band_locator(tell: Tell, seed: int) -> None:
    faulty = tell("band_locator", "momentum-0.999", seed)
    losses = faulty["losses"]

    assert losses["inference"] > 50 * losses["batch"]
    assert raised(faulty, "error", "warning") == {"momentum-too-high"}
    blamed = finding(faulty, "momentum-too-high")
    assert blamed["severity"] == "error"
    assert len(blamed["layers"]) > 40
    assert 1000 < blamed["steps_to_converge"] < 10000
    assert "0.9" in blamed["fix"]
    replayed = {r["momentum"]: r["loss"] for r in losses["replayed"]}
    assert replayed[0.9] < 5 * losses["batch"]
    assert not broken_rules(faulty)

    healthy = tell("band_locator", "momentum-0.9", seed)
    assert raised(healthy, "error", "warning") == set()
    assert not broken_rules(healthy)
    # The momentum does not touch training: what was replayed is what came to pass.
    assert replayed[0.9] == pytest.approx(healthy["losses"]["inference"], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_pose_network(tell: Tell, seed: int) -> None:
    fast = tell("pose_network", "rate-0.03", seed)
    assert fast["losses"]["inference"] > 5 * fast["losses"]["batch"]
    assert fast["losses"]["validation"]["inference"] > 5 * fast["losses"]["validation"]["batch"]
    assert raised(fast, "error", "warning") == {"drift"}
    blamed = finding(fast, "drift")
    assert blamed["severity"] == "error"
    assert blamed["steps_to_converge"] == "never"
    assert "learning_rate" in blamed["fix"]
    replayed = {r["momentum"]: r["loss"] for r in fast["losses"]["replayed"]}
    assert replayed[0.5] < fast["losses"]["inference"]
    assert not broken_rules(fast)

    lower_momentum = tell("pose_network", "rate-0.03-momentum-0.9", seed)
    assert raised(lower_momentum, "error", "warning") == {"drift"}
    assert not broken_rules(lower_momentum)

    cured = tell("pose_network", "rate-0.03-then-0.0001", seed)
    assert cured["losses"]["inference"] < 1.5 * cured["losses"]["batch"]
    assert raised(cured, "error", "warning") == set()
    assert not broken_rules(cured)

"""Each rule's limit matters: with the limit broken, the run that it decides is judged otherwise."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest

from tb_bnlens.history import History
from tb_bnlens.report import run_report
from tests.rules.test_rules import OFF, run, with_last_probe
from tests.simulation import SimLayer, band_locator, pose_network

Case = tuple[str, str, float, str, Callable[[], History]]
SHORT = {"epoch_end_distance": 1.4, "since_min": 0.1}

CASES: list[Case] = [
    ("analysis.loss_gap", "ERROR_HARM", 1e9, "train-inference-gap", lambda: band_locator(layers=3)),
    ("analysis.loss_gap", "GEOMETRIC_SHARE", 0.0, "train-inference-gap", lambda: near_zero()),
    ("analysis.lag", "NOISE_SIGMAS", 1e9, "momentum-too-high", lambda: band_locator(layers=3)),
    ("analysis.lag", "START_SHARE", 1e9, "momentum-too-high", lambda: band_locator(layers=3)),
    ("analysis.drift", "FALSE_ALARM_Z", 1e9, "drift", pose_network),
    (
        "analysis.batches",
        "ALIKE_LIMIT",
        1e9,
        "unlike-batches",
        lambda: run(SimLayer(samples=32, between=1.0), gain=2.0),
    ),
    ("rules.frozen_mismatch", "LARGE_DISTANCE", 1e9, "frozen-mismatch", lambda: run(OFF, gain=0.0)),
    ("rules.batch_noise", "NOISE_DISTANCE", 1e9, "batch-noise", lambda: run(SimLayer(samples=4), noise_penalty=2.0)),
    ("rules.momentum_too_low", "PASTED", 0.0, "momentum-too-low", lambda: run(SimLayer(momentum=0.1, samples=1e5))),
    ("rules.momentum_too_low", "NOISE_DISTANCE", 1e9, "momentum-too-low", lambda: jumping()),
    (
        "rules.alternating_domains",
        "NOISE_FACTOR",
        1e9,
        "alternating-domains",
        lambda: run(SimLayer(), noise_penalty=2.0, overrides={"call_alternation": 1.5}),
    ),
    (
        "rules.short_last_batch",
        "OUTLIER",
        1e9,
        "short-last-batch",
        lambda: run(SimLayer(momentum=0.7), overrides=SHORT),
    ),
    ("rules.short_last_batch", "SHARE", 1e9, "short-last-batch", lambda: run(SimLayer(momentum=0.7), overrides=SHORT)),
    (
        "rules.averaged_weights",
        "DEVIATIONS",
        1e9,
        "averaged-weights",
        lambda: with_last_probe(run(SimLayer(momentum=0.9)), inference=9.0, recalibrated=8.5),
    ),
    (
        "rules.collapsed_channels",
        "LEAST_SHARE",
        1.0,
        "collapsed-channels",
        lambda: run(SimLayer(collapsed=4), gain=0.0),
    ),
    ("rules.dropout_gap", "NOTE_HARM", 1e9, "dropout-gap", lambda: run(SimLayer(momentum=0.9), dropout=0.6)),
    (
        "rules.overfitting",
        "BATCH_SPREADS",
        1e9,
        "overfitting",
        lambda: run(SimLayer(momentum=0.9), validation=(5.0, 5.0)),
    ),
    ("rules.set_after_trace", "WINDOW_FACTOR", 1e9, "set-after-trace", lambda: traced()),
    ("rules.judging", "ESTIMATE_DISTANCE", 1e9, "momentum-too-high", lambda: band_locator(layers=3, probe=False)),
]


def near_zero() -> History:
    """A gap of a thousandth over a loss of a thousandth that came down from 20."""
    return run(SimLayer(momentum=0.9), batch_loss=1e-3, start_loss=20.0, gain=0.0, noise_penalty=1.2e-3)


def jumping() -> History:
    return run(SimLayer(momentum=0.1, samples=8), gain=10.0)


def traced() -> History:
    return run(SimLayer(momentum=0.9, graph_momentum=0.999, true_variance=0.05))


def outcome(history: History, rule: str) -> tuple[str, str]:
    found: dict[str, Any] = next(f for f in run_report(history)["findings"] if f["rule"] == rule)
    assert found["status"] != "error", found["summary"]
    return found["status"], found["severity"]


@pytest.mark.parametrize(("module", "limit", "broken", "rule", "build"), CASES, ids=[f"{c[0]}.{c[1]}" for c in CASES])
def test_a_broken_limit_changes_the_judgement(
    monkeypatch: pytest.MonkeyPatch, module: str, limit: str, broken: float, rule: str, build: Callable[[], History]
) -> None:
    history = build()
    before = outcome(history, rule)
    owner = importlib.import_module(f"tb_bnlens.{module}")
    original = getattr(owner, limit)
    # Rules import a limit by name, so it is broken wherever it is in use.
    for name in ("analysis.loss_gap", "analysis.lag", "analysis.drift", "analysis.batches", "rules.judging", module):
        user = importlib.import_module(f"tb_bnlens.{name}")
        if getattr(user, limit, None) == original:
            monkeypatch.setattr(user, limit, broken)
    assert outcome(history, rule) != before

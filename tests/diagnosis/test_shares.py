"""Several causes at once: each is judged by what putting its layers right takes away, measured on many batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.conditions import of_part
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.history import History
from tb_bnlens.report import run_report
from tests.diagnosis.runs import CALM, FROZEN_OFF, causes, finding, level, measured, put, run, summary
from tests.simulation import Sim, SimLayer, band_locator, simulate

START = {"updating": (0, 1, 2), "from_start": (0, 1, 2)}
FROZEN = SimLayer("frozen", state="frozen", true_mean=1.5, true_variance=3.0)
LAGGING = SimLayer("head", momentum=0.999, true_variance=0.05)


def lagging(**passes: Any) -> History:
    """Three layers whose start is left, at momentum 0.999."""
    usual = {"inference": 3.0, "batch": 1.0, "recalibrated": 0.9, "put_right__from_start": 0.9}
    history = band_locator(layers=3, steps=400, planned=4_000_000, batch_loss=1.0, start_loss=3.0, gain=1.0)
    return measured(history, groups=START, layers={"start_left": [0.67] * 3}, **{**usual, **passes})


# --- a start that is left ---


def test_after_the_end_nothing_is_warming_up() -> None:
    assert causes(lagging()) == {"momentum-too-high": "error"}
    assert finding(lagging(), "momentum-too-high")["share"] == 1.0


def test_steps_are_those_of_the_layers_that_lag() -> None:
    """The forecast of the loss is there at once where it holds frozen layers' statistics for right."""
    history = lagging()
    for name in ("forecast_0", "forecast_1", "forecast_2"):
        put(history, name, [1.0] * len(history.losses))
    steps = finding(history, "momentum-too-high")["steps_to_converge"]
    assert isinstance(steps, int) and steps > 1000


@pytest.mark.parametrize(
    ("replays", "advised"),
    [
        ({"replay_0.5": 1.00, "replay_0.9": 1.01, "replay_0.95": 1.00, "replay_0.99": 2.0}, 0.9),
        ({"replay_0.5": 1.00, "replay_0.95": 1.00, "replay_0.97": 1.01, "replay_0.99": 2.0}, 0.97),
        ({"replay_0.5": 1.00, "replay_0.9": 1.30, "replay_0.95": 1.40, "replay_0.99": 2.0}, 0.9),
        ({"replay_0.5": 1.00, "replay_0.9": 1.60, "replay_0.95": 1.70, "replay_0.99": 2.0}, 0.5),
        ({"replay_0.5": 1.6, "replay_0.9": 1.7}, None),
    ],
)
def test_a_customary_momentum_that_serves_is_advised_else_the_largest(replays: Any, advised: float | None) -> None:
    history = lagging(**replays)
    assert Facts(history).advised_momentum == advised
    fix = finding(history, "momentum-too-high")["fix"]
    assert (f"set_momentum(model, {advised:g})" in fix) if advised else "set_momentum" not in fix


def test_a_replay_within_its_standard_error_is_as_good() -> None:
    noise = np.resize([1.5, -1.5], 12)
    assert Facts(lagging(**{"replay_0.5": 1.0, "replay_0.95": 1.6 + noise})).advised_momentum == 0.95
    assert Facts(lagging(**{"replay_0.5": 1.0, "replay_0.95": 1.6 + noise / 50})).advised_momentum == 0.5


def test_a_momentum_that_gives_away_much_of_what_is_gained_does_not_serve() -> None:
    def advised(inference: float) -> float | None:
        return Facts(lagging(inference=inference, **{"replay_0.5": 1.0, "replay_0.9": 1.3})).advised_momentum

    assert (advised(2.4), advised(2.0)) == (0.9, 0.5)


def test_what_the_advice_gains_is_told_and_what_the_best_replay_would() -> None:
    told = finding(lagging(**{"replay_0.5": 1.00, "replay_0.9": 1.30}), "momentum-too-high")["summary"]
    assert "Replayed with momentum 0.9, inference loss would be 1.3 in place of 3 (1 with 0.5)." in told
    told = finding(lagging(**{"replay_0.5": 1.00, "replay_0.9": 1.01}), "momentum-too-high")["summary"]
    assert "inference loss would be 1.01 in place of 3." in told


def test_the_loss_that_a_rescue_promises_is_the_measured_one() -> None:
    assert "# inference loss 0.9 (measured on 12 batches)" in finding(lagging(), "momentum-too-high")["rescue"]


# --- beside statistics that are not finite ---


def poisoned(**passes: Any) -> History:
    layers = [SimLayer("a", momentum=0.999, true_variance=0.05), SimLayer("b", poisoned_at=150)]
    history = simulate(Sim(layers, steps=400, planned=400))
    usual = {"batch": 1.0, "recalibrated": 1.0, "put_right__from_start": 1.0, "put_right__updating": 1.0}
    groups = {"nonfinite": (1,), "updating": (0, 1), "from_start": (0,), "settled": (1,)}
    return measured(history, groups=groups, **{**usual, **passes})


def test_a_lag_beside_poison_is_named_too() -> None:
    both = poisoned(inference=np.nan, put_right__nonfinite=3.0)
    assert causes(both) == {"non-finite-statistics": "error", "momentum-too-high": "error"}
    alone = poisoned(inference=np.nan, put_right__nonfinite=1.02)
    assert causes(alone).get("momentum-too-high") in (None, "info")


def test_a_dead_channel_is_an_error_whatever_the_loss() -> None:
    assert causes(poisoned(inference=1.05, put_right__nonfinite=1.0))["non-finite-statistics"] == "error"


def test_nobody_says_that_a_batch_was_at_fault() -> None:
    found = finding(poisoned(inference=np.nan, put_right__nonfinite=3.0), "non-finite-statistics")
    assert "batch_step" not in found["evidence"]


# --- beside frozen layers ---


def frozen(initial: bool = False, **passes: Any) -> History:
    history = simulate(Sim([FROZEN, LAGGING], steps=300, planned=300))
    groups = {"frozen": (0,), "updating": (1,), "from_start": (1,)}
    share = {"initial_share": [float(initial), 0.0]}
    return measured(history, groups=groups, layers=share, **passes)


def test_a_frozen_layer_that_the_network_learned_with_is_harmless() -> None:
    """Put right alone it seems to help, since the head lags; once the head is right it does not."""
    history = frozen(
        inference=3.0,
        batch=1.4,
        batch_as_trained=1.0,
        recalibrated=1.0,
        recalibrated_all=1.3,
        put_right__from_start=1.0,
        put_right__frozen=1.8,
    )
    assert causes(history) == {"momentum-too-high": "error", "frozen-mismatch": "info"}
    found = finding(history, "frozen-mismatch")
    assert not found["fix"] + found["rescue"] and "the loss does not suffer" not in found["summary"].lower()
    assert "cannot be judged from the losses, since training runs on them too" in found["summary"]


def test_a_frozen_layer_that_training_suffers_from_too() -> None:
    history = frozen(inference=5.0, batch=1.0, batch_as_trained=5.0, recalibrated=5.0, recalibrated_all=1.1)
    found = finding(history, "frozen-mismatch")
    assert found["severity"] in ("warning", "error")
    assert "frozen=True" in found["rescue"] and "# inference loss 1.1 (measured on 12 batches)" in found["rescue"]


def test_statistics_of_0_and_1_were_never_loaded() -> None:
    passes: dict[str, Any] = {
        "inference": 1.0,
        "batch": 1.4,
        "batch_as_trained": 1.0,
        "recalibrated": 1.0,
        "recalibrated_all": 1.3,
    }
    assert "never loaded or trained" in summary(frozen(initial=True, **passes), "frozen-mismatch")
    assert "load_weights" in finding(frozen(initial=True, **passes), "frozen-mismatch")["fix"]
    assert "other data" in summary(frozen(**passes), "frozen-mismatch")


def test_a_target_network_has_no_statistics() -> None:
    history = run(SimLayer(state="never_updated", true_variance=0.05))
    history = measured(
        history,
        groups={"never_updated": (0, 1, 2), "initial": (0, 1, 2)},
        layers={"initial_share": [1.0] * 3},
        inference=4.0,
        batch=1.0,
        recalibrated=1.0,
        put_right__never_updated=1.0,
    )
    found = finding(history, "never-updated")
    assert (
        found["severity"] == "error" and "non_trainable_variables" in found["fix"] and "recalibrate" in found["rescue"]
    )


# --- the sizes of parts ---


def test_parts_of_a_gap() -> None:
    def of(part: float, inference: float, rival: float = 1.0) -> Severity:
        facts = Facts(lagging(inference=inference, batch=rival, put_right__from_start=inference - part))
        assert facts.parts is not None
        return of_part(facts, facts.parts.start)

    assert of(0.8, 2.5) is Severity.ERROR  # the main cause of an error
    assert of(0.6, 2.5) is Severity.WARNING  # enough by itself
    assert of(0.3, 2.5) is Severity.INFO  # a fifth of the gap
    assert of(0.7, 0.9) is Severity.WARNING  # no worse than batch statistics, and not what it could be
    assert of(0.3, 0.9) is Severity.NONE
    assert of(0.2, 1.2) is Severity.INFO


# --- what comes first ---


def test_the_headline_tells_metrics_and_training_undone() -> None:
    accuracy = {"inference": {"accuracy": 0.856, "mae": 0.3}, "batch": {"accuracy": 0.984, "mae": 0.11}}
    said = run_report(lagging(metrics=accuracy))["headline"]
    assert "(3 against 1, mean of 12 batches at step 400)" in said
    assert "accuracy 85.6% instead of 98.4%, mae 0.3 instead of 0.11" in said


def test_the_verdict_tells_when_batch_statistics_were_as_good() -> None:
    history = level()
    put(history, "batch", np.linspace(5.0, 1.0, len(history.losses)))
    reasons = run_report(measured(history, inference=3.0, batch=1.0))["reasons"]
    assert [
        r for r in reasons if r.startswith("With batch statistics the loss was down to this inference loss by about")
    ]


def test_the_headline_leaves_out_metrics_that_print_alike() -> None:
    same = {"inference": {"accuracy": 0.99996, "mae": 0.3}, "batch": {"accuracy": 1.0, "mae": 0.11}}
    said = run_report(lagging(metrics=same))["headline"]
    assert "accuracy" not in said and said.endswith(": mae 0.3 instead of 0.11.")
    for each in same.values():
        del each["mae"]
    assert run_report(lagging(metrics=same))["headline"].endswith("at step 400).")


def test_the_rival_is_named_where_it_is_another_than_batch_statistics() -> None:
    known = {"between_within": [1.0] * 3}
    history = measured(run(CALM), layers=known, inference=1.2, batch=0.2, recombined=1.1)
    assert "with batch statistics on new batches (1.1" in run_report(history)["headline"]
    assert causes(history) == {"memorized-batches": "info"}
    history = measured(run(FROZEN_OFF), groups={"frozen": (0, 1, 2)}, inference=3.0, batch=5.0, batch_as_trained=1.0)
    assert "where training uses them (3 against 1" in run_report(history)["headline"]

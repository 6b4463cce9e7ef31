"""When things are due, on a clock that the test turns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest

from tb_bnlens.capture.schedule import DENSE, FIRST, LAST_PROBES, QUIET_SECONDS, Schedule


@dataclass
class Simulated:
    """A training loop whose steps and recording take so many seconds, asking as Recorder does."""

    step_seconds: float
    costs: dict[str, float]
    overhead: float = 0.01
    planned: int | None = None
    skip: bool = True
    made: dict[str, list[int]] = field(default_factory=lambda: {k: [] for k in FIRST})
    asked: int = 0

    def __post_init__(self) -> None:
        self.now = 0.0
        self.schedule = Schedule(self.overhead, lambda: self.now)
        self.schedule.planned_steps = self.planned
        self.schedule.start()

    def work(self, kind: str, step: int) -> None:
        with self.schedule.timed(kind):
            self.now += self.costs.get(kind, 0.0)
        self.made[kind].append(step)

    def run(self, steps: int) -> Simulated:
        quiet_until = asked_at = 0.0
        for step in range(steps):
            if self.skip and step + 1 < quiet_until:
                self.now += self.step_seconds + QUIET_SECONDS
                continue
            self.asked += 1
            level = self.schedule.probe_due(step)
            if level is not None:
                self.work(level, step)
            self.now += self.step_seconds
            self.schedule.charge_quiet(int(step - asked_at))
            asked_at = step + 1
            if self.schedule.snapshot_due(step + 1):
                self.work("snapshot", step + 1)
                if self.schedule.record_due(step + 1):
                    self.work("record", step + 1)
            quiet_until = self.schedule.quiet_until(step + 1, tuple(k for k in FIRST if k != "record"))
        return self


COSTS = {"snapshot": 5e-4, "record": 2e-3, "probe": 3e-2, "full": 3e-1}
FREE = dict.fromkeys(COSTS, 0.0)


@pytest.mark.parametrize("step_seconds", [0.002, 0.02, 0.4])
@pytest.mark.parametrize("overhead", [0.01, 0.1])
def test_a_long_run_stays_within_its_budget(step_seconds: float, overhead: float) -> None:
    made = Simulated(step_seconds, COSTS, overhead).run(60_000)
    # What is always done comes on top, and weighs less the longer the run is.
    floor = Simulated(step_seconds, COSTS, 1e-9).run(60_000).schedule.spent
    training = 60_000 * step_seconds
    assert made.schedule.spent <= overhead * training + floor
    assert made.schedule.share == pytest.approx(made.schedule.spent / training, rel=0.02)


def test_a_million_steps_are_some_1300_records() -> None:
    made = Simulated(0.4, FREE).run(1_000_000).made
    assert 1_000 < len(made["record"]) < 1_500
    assert made["record"][:20] == list(range(1, 21))
    late = [b - a for a, b in zip(made["record"], made["record"][1:], strict=False) if a > 500_000]
    assert 500_000 / 128 <= min(late) and max(late) < 1.1 * 1_000_000 / 128 + 3


def test_a_run_too_short_for_its_budget_is_recorded_all_the_same() -> None:
    made = Simulated(0.001, COSTS, planned=400).run(400).made
    assert len(made["record"]) >= 15 and len(made["probe"]) >= 5
    assert made["probe"][-LAST_PROBES:] == [397, 398, 399]
    assert made["snapshot"][-DENSE:] == list(range(401 - DENSE, 401)), "the last steps are read one by one"


def test_little_is_done_unpaid_at_the_beginning_of_a_long_run() -> None:
    unknown, long = (Simulated(0.001, COSTS, planned=planned).run(1_000) for planned in (None, 500_000))
    assert long.schedule.spent < 0.5 * unknown.schedule.spent
    assert len(long.made["record"]) >= 7 and len(long.made["probe"]) >= 3
    whole = Simulated(0.001, COSTS, planned=40_000).run(40_000).made
    assert len(whole["record"]) >= 15 and len(whole["probe"]) >= 8


def test_every_step_is_read_before_a_full_probe() -> None:
    made = Simulated(1.0, COSTS).run(3_000).made
    assert made["full"]
    for step in made["full"]:
        assert set(range(step - DENSE + 1, step + 1)) <= set(made["snapshot"])


@pytest.mark.parametrize("overhead", [0.01, 0.3, math.inf])
@pytest.mark.parametrize("planned", [None, 5_000])
def test_what_is_skipped_unasked_would_not_have_been_due(overhead: float, planned: int | None) -> None:
    asked, skipped = (Simulated(0.02, FREE, overhead, planned, skip=skip).run(5_000) for skip in (False, True))
    assert skipped.made == asked.made
    assert skipped.asked < 0.7 * asked.asked


def test_once_the_budget_is_spent_most_steps_are_quiet() -> None:
    assert Simulated(0.002, COSTS).run(20_000).asked < 2_500


def test_records_of_a_large_network_are_farther_apart() -> None:
    small, large = Simulated(0.4, FREE), Simulated(0.4, FREE)
    large.schedule.fit_records(200_000)
    counts = [len(s.run(100_000).made["record"]) for s in (small, large)]
    assert counts[1] < counts[0] / 5


def test_an_overhead_that_is_no_share_is_refused() -> None:
    with pytest.raises(ValueError, match="overhead is 0"):
        Schedule(0)

"""When to record: dense at first, then spaced in proportion to the step, inside an overhead budget."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence

from tb_bnlens.metadata import Name

RECORD_SHARE = 0.4
"""Part of the budget for snapshots and records; the rest is for probes."""
SPACING = 128
"""Records are about step/SPACING apart, so a million steps are some 1,300 records; fewer of many layers."""
BURST = 3
"""Consecutive steps of a burst: two single-step windows side by side give the batch-to-batch noise."""
RECORD_BYTES = 3 * 2**18
"""What the packed records of a million steps hold, unless COARSEST spacing makes it more: TensorBoard keeps every
record of every run in memory, and a record of 50 layers is 10 kB. A wider spacing loses no event, as a record holds the
extremes since the one before."""
COARSEST = 7
PROBE_SPACING = 16
"""Probes are at least step/PROBE_SPACING apart, and full ones twice as far."""
FLOOR_SPACING = {"snapshot": 1 / 3, "record": 1 / 3, "probe": 2.0, "full": math.inf}
"""What is always done, budget or not, is this share of the step apart: some 15 records and 6 probes in 400 steps,
45 and 13 in a million. A run too short for its budget would have nothing to show otherwise."""
EARLY_PART, EARLY_TIMES = 1 / 100, 6.0
LONG_RUN = 10_000
"""In this part of a run that is known to be so long at least, that is so many times as far apart: the first thousand
steps of half a million are too short to pay for anything, and the later ones are not."""
FIRST = {"snapshot": 0, "record": 0, "probe": 1, "full": 100}
"""Steps of the first ones of each kind; there is nothing to replay or forecast at the very start."""
DENSE = 44
"""Every step is read this long before a full probe: the replay at momentum 0.9 then forgets coarser windows to 1%."""
LAST_PROBES = 3
"""Steps before the last one that are probed: a verdict should not hang on a single batch and dropout mask."""
LEARNING_RATE = 0.3
"""Weight of the newest cost in its running mean."""
PATIENCE = 1.0
"""Work that is not paid for yet is considered again this many of its spacings later. Asking costs some 80 us with
cold caches, 3% of a step of a few milliseconds."""


QUIET_SECONDS = 8e-6
"""What a step costs in which nothing is due, with cold caches: charged as it stands, since a clock in each such
step would cost as much again. Measured in the setting of tests/benchmarks/overhead.py at a load of 7: 8 to 9 us."""


class Level(Name):
    """How much is measured before a step."""

    PROBE = "probe"  # the paired losses
    FULL = "full"  # the replays and the forecast, too


class Cost:
    """Running mean and total of what one kind of work has taken, in seconds."""

    def __init__(self) -> None:
        self.mean = 0.0
        self.total = 0.0
        self._known = False

    def add(self, seconds: float) -> None:
        """Count one more piece of work."""
        self.total += seconds
        self.mean = self.mean + LEARNING_RATE * (seconds - self.mean) if self._known else seconds
        self._known = True


class Schedule:
    """Decides from the step and from measured costs; knows nothing of what is recorded.

    Args:
        overhead: share of training time that recording may take, > 0; ``inf`` records at full density.
        clock: seconds, monotonic.

    Raises:
        ValueError: overhead is not positive.
    """

    def __init__(self, overhead: float, clock: Callable[[], float] = time.perf_counter):
        if not overhead > 0:
            raise ValueError(f"overhead is {overhead!r}; it is a share of training time, e.g. 0.01, and has to be > 0")
        self.overhead = overhead
        self._clock = clock
        self._started: float | None = None
        self._first_step = 0
        self.costs = {kind: Cost() for kind in (*FIRST, "hooks")}
        self._last = dict.fromkeys(FIRST, 0)
        self._ask_at = dict(FIRST)
        self._burst_until = -1
        self._spacing = float(SPACING)
        self._full_at: int | None = None
        self.planned_steps: int | None = None
        """Steps that the loop will make in all, where known."""
        self._set_up = {"probe", "full", "hooks"}  # of these the probe itself tells tracing apart
        self.excluded = 0.0
        """Seconds of tracing, a one-time cost that is counted apart."""

    def fit_records(self, record_bytes: int) -> None:
        """Space records of this size so that those of a million steps hold about RECORD_BYTES."""
        # n(1 + ln(steps/n)) records are step/n apart, a record a step at first: some 11 n in a million.
        self._spacing = min(SPACING, max(COARSEST, RECORD_BYTES / (11 * max(record_bytes, 1))))

    def now(self) -> float:
        """The clock, in seconds."""
        return self._clock()

    def start(self, step: int = 0) -> None:
        """Training begins, or continues, at this step."""
        if self._started is None:
            self._started, self._first_step = self.now(), step

    @contextlib.contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Count the time of the block, tracing left out, as a cost of this kind."""
        started, excluded = self.now(), self.excluded
        try:
            yield
        finally:
            seconds = max(self.now() - started - (self.excluded - excluded), 0.0)
            if kind in self._set_up:
                self.costs[kind].add(seconds)
            else:
                # The first one traces and opens files, once: that says nothing of the times to come.
                self._set_up.add(kind)
                self.excluded += seconds

    @contextlib.contextmanager
    def all_timed(self) -> Iterator[None]:
        """Count what the block takes beyond what is timed within it: a look at the batch, the asking itself."""
        if self._started is None:
            yield
            return
        started, known = self.now(), self.spent + self.excluded
        try:
            yield
        finally:
            self.costs["hooks"].add(max(self.now() - started - (self.spent + self.excluded - known), 0.0))

    def charge_quiet(self, steps: int) -> None:
        """Count steps in which nothing was due."""
        self.costs["hooks"].total += QUIET_SECONDS * steps

    @property
    def elapsed(self) -> float:
        """Seconds since the start, tracing left out."""
        return 0.0 if self._started is None else max(self.now() - self._started - self.excluded, 0.0)

    @property
    def spent(self) -> float:
        """Seconds that recording has taken, tracing left out."""
        return sum(c.total for c in self.costs.values())

    @property
    def share(self) -> float:
        """Measured overhead: recording over the rest of the training time; NaN before any time has passed."""
        rest = self.elapsed - self.spent
        return self.spent / rest if rest > 0 else float("nan")

    @property
    def budget(self) -> float:
        """Seconds that snapshots, records and probes may have taken by now; the hooks are paid first."""
        return self.overhead * self.elapsed - self.costs["hooks"].total

    def _due(self, kind: str, step: int, apart: float, others: str, share: float, reserve: float = 0.0) -> bool:
        """Whether work of this kind is due: ``apart`` is its spacing, as a share of the step, where it is paid for."""
        if step < self._ask_at[kind]:
            return False
        last = self._last[kind]
        spent = self.costs[kind].total + self.costs[others].total + self.costs[kind].mean + reserve
        owed = spent - share * self.budget
        paid = owed <= 0
        due_at = max(FIRST[kind], last + max(1.0, (apart if paid else self._floor(kind, step)) * max(last, 1)))
        if step >= due_at:
            self._ask_at[kind] = step + math.ceil(max(1.0, apart * step))
            return True
        wait = max(1.0, PATIENCE * apart * step, self._earned_in(owed, share, step))
        self._ask_at[kind] = math.ceil(min(due_at, step + wait))
        return False

    def _floor(self, kind: str, step: int) -> float:
        """What is done unpaid is this share of the step apart."""
        planned = self.planned_steps or 0
        early = planned >= LONG_RUN and step < EARLY_PART * planned
        return FLOOR_SPACING[kind] * (EARLY_TIMES if early else 1.0)

    def _earned_in(self, owed: float, share: float, step: int) -> float:
        """Steps, from this one on, in which half of what is owed will be earned: the coming ones may be slower."""
        seconds = self.elapsed / max(step - self._first_step, 1)
        return owed / (2 * share * self.overhead * seconds) if owed > 0 and seconds > 0 else 0.0

    def quiet_until(self, step: int, kinds: Sequence[str]) -> float:
        """The first step that has to be considered: nothing is due before or after those between this one and it.

        Args:
            step: steps made so far.
            kinds: what is considered at all, of the keys of FIRST.
        """
        soon = [float(self._ask_at[kind]) for kind in kinds]
        soon += [ahead - DENSE for ahead in (self._full_at, self.planned_steps) if ahead is not None and ahead > step]
        return step if step <= self._burst_until else min(soon, default=math.inf)

    def snapshot_due(self, step: int) -> bool:
        """Whether to read the moving statistics after this step."""
        ahead = [s for s in (self._full_at, self.planned_steps) if s is not None]
        if step > self._burst_until and not any(0 <= s - step < DENSE for s in ahead):
            if not self._due("snapshot", step, 0.5 / SPACING, "record", RECORD_SHARE):
                return False
            self._burst_until = step + BURST - 1
        self._last["snapshot"] = step
        return True

    def record_due(self, step: int) -> bool:
        """Whether to write a record at this snapshot: at the end of a burst, except in the first, dense steps."""
        if step >= self._spacing and step < self._burst_until:
            return False
        # A little less than the spacing of two snapshots, or every third would be one.
        if not self._due("record", step, 0.95 / self._spacing, "snapshot", RECORD_SHARE):
            return False
        self._last["record"] = step
        return True

    def probe_due(self, step: int) -> Level | None:
        """What to measure before this step."""
        if self._full_at is not None and step >= self._full_at:
            self._full_at = None
            self._last["full"] = self._last["probe"] = step
            return Level.FULL
        if self.planned_steps is not None and 0 < self.planned_steps - step <= LAST_PROBES:
            self._last["probe"] = step
            return Level.PROBE
        # The last probe of the run is always made in full, so its cost is kept back.
        reserve = self.costs["full"].mean
        if self._due("full", step, 2.0 / PROBE_SPACING, "probe", 1 - RECORD_SHARE, reserve):
            self._full_at = self._last["full"] = step + DENSE
        if self._due("probe", step, 1.0 / PROBE_SPACING, "full", 1 - RECORD_SHARE, reserve):
            self._last["probe"] = step
            return Level.PROBE
        return None

    def left_for_probes(self) -> float:
        """Seconds of the probes' budget that are not spent."""
        return (1 - RECORD_SHARE) * self.budget - self.costs["probe"].total - self.costs["full"].total

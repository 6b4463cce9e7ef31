"""When to record: dense at first, then spaced in proportion to the step, inside an overhead budget."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

GRACE_SECONDS = 1.0
"""Time that recording may take however short the run is: one per cent of a minute buys nothing worth reading."""
RECORD_SHARE = 0.4
"""Part of the budget for snapshots and records; the rest is for probes."""
SPACING = 128
"""Records are about step/SPACING apart, so a million steps are some 1,300 records."""
SNAPSHOTS_PER_RECORD = 2
"""Bursts of snapshots between two records, whose extremes the next record holds."""
BURST = 3
"""Consecutive steps of a burst: two single-step windows side by side give the batch-to-batch noise."""
PROBE_SPACING = 16
"""Probes are at least step/PROBE_SPACING apart, and full ones twice as far."""
LEARNING_RATE = 0.3
"""Weight of the newest cost in its running mean."""


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

    def __init__(self, overhead: float, clock: object = time.perf_counter):
        if not overhead > 0:
            raise ValueError(f"overhead is {overhead!r}; it is a share of training time, e.g. 0.01, and has to be > 0")
        self.overhead = overhead
        self._clock = clock
        self._started: float | None = None
        self.costs = {"snapshot": Cost(), "record": Cost(), "probe": Cost(), "full": Cost()}
        self._next_record = self._next_snapshot = 0
        self._burst_until = -1
        self._next_probe, self._next_full = 1, 16
        self.excluded = 0.0
        """Seconds of tracing, a one-time cost that is told apart."""

    def now(self) -> float:
        """The clock, in seconds."""
        return float(self._clock())  # type: ignore[operator]

    def start(self) -> None:
        """Training begins, or goes on."""
        if self._started is None:
            self._started = self.now()

    @contextlib.contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Count the time of the block, tracing left out, as a cost of this kind."""
        started, excluded = self.now(), self.excluded
        try:
            yield
        finally:
            self.costs[kind].add(max(self.now() - started - (self.excluded - excluded), 0.0))

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
        """Seconds that recording may have taken by now."""
        return max(GRACE_SECONDS, self.overhead * self.elapsed)

    def _affords(self, kinds: tuple[str, ...], share: float, reserve: float = 0.0) -> bool:
        spent = sum(self.costs[k].total for k in kinds)
        return spent + self.costs[kinds[-1]].mean + reserve <= share * self.budget

    def snapshot_due(self, step: int) -> bool:
        """Whether to read the moving statistics after this step."""
        if step <= self._burst_until:
            return True
        if step < self._next_snapshot or not self._affords(("record", "snapshot"), RECORD_SHARE):
            return False
        spacing = max(1, step // (SPACING * SNAPSHOTS_PER_RECORD))
        self._next_snapshot = step + spacing
        if spacing >= BURST:
            self._burst_until = step + BURST - 1
        return True

    def record_due(self, step: int) -> bool:
        """Whether to write a record at this snapshot."""
        if step <= self._burst_until - 1 or step < self._next_record:
            return False
        if not self._affords(("snapshot", "record"), RECORD_SHARE):
            return False
        self._next_record = step + max(1, step // SPACING)
        return True

    def probe_due(self, step: int) -> str | None:
        """``"full"``, ``"probe"`` or None: what to measure before this step."""
        if step < self._next_probe:
            return None
        # The last probe of the run is always made in full, so its cost is kept back.
        reserve = self.costs["full"].mean
        if step >= self._next_full and self._affords(("probe", "full"), 1 - RECORD_SHARE, reserve):
            self._next_full = step + max(8, 2 * step // PROBE_SPACING)
            self._next_probe = step + max(1, step // PROBE_SPACING)
            return "full"
        if self._affords(("full", "probe"), 1 - RECORD_SHARE, reserve):
            self._next_probe = step + max(1, step // PROBE_SPACING)
            return "probe"
        return None

    def left_for_probes(self) -> float:
        """Seconds of the probes' budget that are not spent."""
        return (1 - RECORD_SHARE) * self.budget - self.costs["probe"].total - self.costs["full"].total

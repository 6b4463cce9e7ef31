"""How long work takes, whatever else the machine is doing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass
class OneTimeCost:
    """Seconds that tracing or compiling has taken so far."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """CPU time of this process in it."""

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Add what the block takes, unless it raises."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.add_since(wall, cpu)

    def add_since(self, wall: float, cpu: float) -> None:
        """Add what has gone by since these times of ``perf_counter`` and ``process_time``."""
        self.seconds += time.perf_counter() - wall
        self.cpu_seconds += time.process_time() - cpu


class Stopwatch:
    """Seconds of work since it was made, tracing left out.

    On a busy machine wall time counts what others do; CPU time does not. It does not see an accelerator's work, so
    it counts only where there is none, and the smaller of the two counts.

    Args:
        tracing: what is left out.
        accelerated: whether the model may run elsewhere than on the CPU.
        wall: a clock, in seconds.
        cpu: CPU time of the process, in seconds.
    """

    def __init__(
        self,
        tracing: OneTimeCost,
        accelerated: bool,
        wall: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.process_time,
    ):
        self._tracing, self._accelerated, self._wall, self._cpu = tracing, accelerated, wall, cpu
        self._started = self._now()

    def seconds(self) -> float:
        """Seconds of work so far."""
        wall, cpu = (now - then for now, then in zip(self._now(), self._started, strict=True))
        return wall if self._accelerated else min(wall, cpu)

    def _now(self) -> tuple[float, float]:
        return self._wall() - self._tracing.seconds, self._cpu() - self._tracing.cpu_seconds

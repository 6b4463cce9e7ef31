"""Time of one training among several that take turns."""

from __future__ import annotations

import time
from typing import Any


class OwnClock:
    """Seconds of one way's own steps: a lens must not take the other ways' time for training that it may share in."""

    def __init__(self) -> None:
        self._before = 0.0
        self._since: float | None = None

    def __enter__(self) -> None:
        self._since = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._before, self._since = self(), None

    def __call__(self) -> float:
        return self._before + (0.0 if self._since is None else time.perf_counter() - self._since)

    def keep_time_for(self, schedule: Any) -> None:
        """Have a lens count these seconds alone against its budget."""
        schedule._clock = self
        if schedule._started is not None:
            schedule._started = self()

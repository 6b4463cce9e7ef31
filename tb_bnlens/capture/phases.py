"""Several fits in one process: phases of one network's record, or different networks that share a directory."""

from __future__ import annotations

import itertools
import os
import weakref
from dataclasses import dataclass, field
from typing import Any

from tb_bnlens.capture.events import exists, is_remote
from tb_bnlens.capture.reservoir import Kept
from tb_bnlens.metadata import RUN_SUFFIX


@dataclass
class Phase:
    """How far the record of one network has come in one directory."""

    directory: str
    """What the record is written to, without its suffix."""
    fits: int = 0
    """Fits that have ended."""
    step: int = 0
    """Steps of the record at the end of the last fit."""
    iterations: int = 0
    """Count of the optimizer at that time."""
    optimizer: Any = None
    """Weak reference to that optimizer: ``compile`` makes another one, which counts from 0 again."""
    train_function: Any = None
    """Weak reference to what made its steps."""
    batches: list[Kept] = field(default_factory=list)
    """Training batches of earlier fits."""
    updates: Any = None
    """BatchNorm updates of each layer in earlier fits, [L]; None before the first."""
    attributes: Any = None
    """``trainable`` and ``momentum`` of each layer at the end of the last fit; None before the first."""

    def step_at(self, iterations: int, optimizer: Any) -> int:
        """The step of the record at this count of this optimizer."""
        if self.fits == 0:
            return iterations
        same = self.optimizer is not None and self.optimizer() is optimizer
        return self.step + iterations - (self.iterations if same else 0)

    def ends(
        self,
        step: int,
        iterations: int,
        optimizer: Any,
        train_function: Any,
        batches: list[Kept],
        updates: Any,
        attributes: Any = None,
    ) -> None:
        """Remember where a fit has ended."""
        self.fits += 1
        self.step, self.iterations, self.batches = step, iterations, batches
        self.updates, self.attributes = updates, attributes
        self.optimizer, self.train_function = _weak(optimizer), _weak(train_function)


def _weak(thing: Any) -> Any:
    return None if thing is None else weakref.ref(thing)


class Phases:
    """Which network records where. The state of this process, in one object."""

    def __init__(self) -> None:
        self._of_network: weakref.WeakKeyDictionary[Any, dict[str, Phase]] = weakref.WeakKeyDictionary()
        self._newest: dict[str, str] = {}
        """log_dir -> the directory that the last new network was given."""

    def phase(self, model: Any, log_dir: str, iterations: int) -> Phase:
        """Where the next fit of this model is recorded.

        A network continues its own record, and so does a resumed one, whose optimizer has counted steps. Any other
        one gets the next free ``<log_dir>/fit-2``, ``fit-3``, ... if another network has recorded here in this
        process (cross-validation, trials of a tuner).

        Args:
            model: the network.
            log_dir: as it was given to the lens.
            iterations: steps that its optimizer has counted.
        """
        key = log_dir if is_remote(log_dir) else os.path.abspath(log_dir)
        own = self._of_network.setdefault(model, {})
        if key not in own:
            directory = self._newest.get(key, log_dir)
            if key in self._newest and not iterations and _holds(directory):
                directory = _next_free(log_dir)
            self._newest[key] = directory
            own[key] = Phase(directory)
        return own[key]


def _next_free(log_dir: str) -> str:
    numbered = (f"{log_dir.rstrip('/')}/fit-{number}" for number in itertools.count(2))
    return next(directory for directory in numbered if not _holds(directory))


def _holds(directory: str) -> bool:
    return exists(f"{directory}/{RUN_SUFFIX}")


PHASES = Phases()

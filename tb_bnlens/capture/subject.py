"""What is judged: the layers of a model as they are, and the groups that are put right one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.metadata import State
from tb_bnlens.moments.moments import Mask, Moments
from tb_bnlens.moments.segments import Segments

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Subject:
    """The BatchNorm layers of a model at one moment."""

    segments: Segments
    epsilon: Array
    """[C_total]."""
    moving: Moments
    trained: Mask
    """Layers that training normalizes by the batch, [L]: neither frozen nor called in inference mode."""
    states: NDArray[np.int64]
    """Position in ``metadata.State``, [L]."""
    start_left: Array
    """Share of the start that is left in the moving statistics, [L]; NaN where it is not known."""
    tolerance: float = 0.1
    """Relative error that counts as converged."""
    replays: Mapping[str, Moments] = field(default_factory=dict)
    """Row of ``metadata.REPLAY_ROWS`` -> moving statistics at another momentum."""

    @property
    def trained_channels(self) -> Mask:
        """``trained`` for each channel, [C_total]."""
        return self.segments.per_channel(self.trained).astype(bool)

    def nonfinite(self) -> Mask:
        """Channels that make inference fail, [C_total]."""
        m, s = self.moving.mean, self.moving.variance
        return np.asarray(~np.isfinite(m) | ~np.isfinite(s) | (s < 0))

    def groups(self) -> dict[str, Mask]:
        """Groups of ``metadata.GROUPS`` that have channels, as masks over channels, [C_total]."""
        left = self.start_left > self.tolerance

        def of(layers: Any) -> Mask:
            return self.segments.per_channel(layers).astype(bool)

        states = {state: of(self.states == state.position) for state in State}
        untouched = self.segments.count(self.moving.are_new()) == self.segments.sizes
        found = {
            "nonfinite": self.nonfinite(),
            "initial": of(untouched),
            "frozen": states[State.FROZEN],
            "inference_mode": states[State.INFERENCE_MODE],
            "never_updated": states[State.NEVER_UPDATED],
            "updating": states[State.UPDATING],
            "from_start": states[State.UPDATING] & of(left),
            "settled": states[State.UPDATING] & of(~left),
        }
        return {name: mask for name, mask in found.items() if mask.any()}

    def layers_of(self, mask: Mask) -> tuple[int, ...]:
        """Indices of the layers that have channels in a mask."""
        return tuple(int(i) for i in np.flatnonzero(self.segments.count(mask)))

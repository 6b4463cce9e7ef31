"""What each layer does, beside what its flags say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.layers import TrackedLayer
from tb_bnlens.capture.probe import Probe
from tb_bnlens.capture.segments import Segments
from tb_bnlens.capture.snapshots import Snapshot, WindowRecovery
from tb_bnlens.capture.windows import Windows
from tb_bnlens.history import Layer
from tb_bnlens.metadata import STATES

Array = NDArray[np.floating[Any]]
STATE = {name: i for i, name in enumerate(STATES)}

MOMENTUM_ERROR = 0.02
"""The effective momentum is taken in place of the attribute where ``1 - momentum`` differs by more than this
share: the estimate is good to a few parts in a thousand (float32 rounding of one step at 0.999)."""


class LayerWatch:
    """Follows ``trainable``, ``momentum`` and the moving statistics themselves.

    Args:
        layers: the BatchNorm layers.
        segments: their channels.
        on_event: called with (kind, text, layer indices) when an attribute changes.
    """

    def __init__(
        self,
        layers: Sequence[TrackedLayer],
        segments: Segments,
        on_event: Callable[[str, str, Sequence[int]], None],
    ):
        self._layers, self._segments, self._on_event = layers, segments, on_event
        self._still = np.ones(len(layers), bool)
        self._coarse = np.asarray([t.coarse for t in layers], bool)
        self._attributes = self._read_attributes()
        self.probe: Probe | None = None
        """What the probe's traces know of calls and modes, once there is one."""

    @property
    def momenta(self) -> Array:
        """The layers' ``momentum`` attributes, [L]."""
        return np.asarray([momentum for _, momentum in self._attributes], np.float64)

    def _read_attributes(self) -> list[tuple[bool, float]]:
        return [(bool(t.layer.trainable), float(t.layer.momentum)) for t in self._layers]

    def look_for_changes(self) -> bool:
        """Report attributes that were set since the last look. Returns whether there were any."""
        now = self._read_attributes()
        if now == self._attributes:
            return False
        changes: dict[tuple[str, str], list[int]] = {}
        for i, (old, new) in enumerate(zip(self._attributes, now, strict=True)):
            if old[0] != new[0]:
                kind = "unfreeze" if new[0] else "freeze"
                changes.setdefault((kind, f"trainable set to {new[0]}"), []).append(i)
            if old[1] != new[1]:
                changes.setdefault(("momentum", f"momentum set from {old[1]:g} to {new[1]:g}"), []).append(i)
        for (kind, text), indices in changes.items():
            self._on_event(kind, text, indices)
        self._attributes = now
        return True

    def calls(self) -> Array:
        """Calls of each layer in a forward pass, [L]; NaN where they cannot be counted.

        Where no pass of the probe can be traced, the graph of a functional model tells; elsewhere one call is taken
        for granted, but not in a recurrent cell.
        """
        if self.probe is None or not self.probe.order:
            return np.asarray([np.nan if t.looped else float(t.calls or 1) for t in self._layers])
        calls = np.full(len(self._layers), np.nan)
        indices, counts = np.unique(self.probe.order, return_counts=True)
        calls[indices] = counts
        return calls

    def coarse(self) -> list[str]:
        """Layers whose single updates cannot be recovered, as their statistics are kept in half precision."""
        return [t.name for t in self._layers if t.coarse]

    def taken_for_granted(self) -> list[str]:
        """Layers that are updated once in a step for all that anyone knows."""
        if self.probe is not None and self.probe.order:
            return []
        known = self._still | np.asarray([t.looped or t.calls is not None for t in self._layers])
        return [t.name for t, yes in zip(self._layers, known, strict=True) if not yes]

    def uncounted(self) -> list[str]:
        """Layers that are updated, no one knows how often in a step."""
        unknown = np.isnan(self.calls()) & ~self._still & ~self._coarse
        return [t.name for t, yes in zip(self._layers, unknown, strict=True) if yes]

    def updates(self, before: Snapshot, after: Snapshot, steps: int) -> Array:
        """BatchNorm updates of each layer between two snapshots, [L]; NaN where they cannot be counted.

        Statistics that are bit-identical were not updated, whatever the flags say.
        """
        same = (before.mean == after.mean) & (before.spread == after.spread)
        same |= np.isnan(before.mean) & np.isnan(after.mean)
        self._still = self._segments.count(same) == self._segments.sizes
        return np.where(self._still, 0.0, np.where(self._coarse, np.nan, steps * self.calls()))

    def states(self, windows: Windows) -> Array:
        """Position in ``metadata.STATES`` of what each layer does, [L]."""
        probe = self.probe
        never = windows.updates == 0
        states = np.full(len(self._layers), float(STATE["unknown"]))
        for i, tracked in enumerate(self._layers):
            if not self._still[i]:
                states[i] = STATE["updating"]
            elif not tracked.layer.trainable:
                states[i] = STATE["frozen"]
            elif probe is not None and i in probe.trains:
                called = STATE["never_updated"] if never[i] else STATE["unknown"]
                states[i] = called if probe.trains[i] else STATE["inference_mode"]
            elif tracked.layer.momentum == 1.0:
                states[i] = STATE["never_updated"]
        # Statistics that are not a number stay not a number: that is poisoned, not frozen.
        poisoned = self._segments.count(~np.isfinite(windows.last.mean)) > 0
        states[poisoned & ~never] = STATE["updating"]
        return states

    def use_effective_momentum(self, effective: Array, recovery: WindowRecovery) -> Array:
        """Recover windows with the momentum that the moving statistics show, where it is not the attribute.

        Args:
            effective: estimates, [L], NaN where there is none.
            recovery: is given the momenta to use from now on.

        Returns:
            effective momenta for the record: the attribute itself where the estimate agrees with it.
        """
        beta = np.asarray([t.beta for t in self._layers])
        gain = np.asarray([t.gain for t in self._layers])
        differs = np.isfinite(effective) & (np.abs((1 - effective) - gain) > MOMENTUM_ERROR * np.maximum(gain, 1e-6))
        recovery.set_momenta(np.where(differs, effective, beta), np.where(differs, 1 - effective, gain))
        agreed = np.where(np.isnan(effective), np.nan, self.momenta)
        return np.where(differs, effective, agreed)

    def describe(self) -> list[Layer]:
        """The manifest's entries."""
        order: dict[int, int] = {}
        if self.probe is not None:
            order = {index: position for position, index in enumerate(dict.fromkeys(self.probe.order))}
        calls = np.nan_to_num(self.calls())
        return [t.describe(i, order.get(i, -1), int(calls[i])) for i, t in enumerate(self._layers)]


def replicas(windows: Windows | None) -> int:
    """Replicas that keep moving statistics of their own."""
    own: Any = None if windows is None else windows.last.replica_mean
    return 1 if own is None else len(own)

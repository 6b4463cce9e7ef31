"""What each layer does, beside what its flags say."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.passes import NoPasses, Runner
from tb_bnlens.history import Layer
from tb_bnlens.metadata import HALF_PRECISION, KERAS, EventKind, State
from tb_bnlens.moments.layers import TrackedLayer, gains, kept
from tb_bnlens.moments.recovery import Snapshot, WindowRecovery
from tb_bnlens.moments.segments import Segments
from tb_bnlens.moments.windows import Windows
from tb_bnlens.numbers import as_set

Array = NDArray[np.floating[Any]]

STEPS_COUNTED, FEWEST_COUNTED = 32, 5
"""The last so many single steps tell how often a step updates a layer, once there are the fewest."""
MOMENTUM_ERROR = 0.02
"""The effective momentum is taken in place of the attribute where ``1 - momentum`` differs by more than this
share: the estimate is good to a few parts in a thousand (float32 rounding of one step at 0.999)."""


class LayerWatch:
    """Follows ``trainable``, ``momentum`` and the moving statistics themselves.

    Args:
        layers: the BatchNorm layers.
        segments: their channels.
        on_event: called with (kind, text, layer indices) when an attribute changes.
        framework: as ``Manifest.framework``; the text says a momentum as its users set it.
    """

    def __init__(
        self,
        layers: Sequence[TrackedLayer],
        segments: Segments,
        on_event: Callable[[EventKind, str, Sequence[int]], None],
        framework: str = KERAS,
    ):
        self._layers, self._segments, self._on_event = layers, segments, on_event
        self._framework = framework
        self._still = np.ones(len(layers), bool)
        self._coarse = np.asarray([t.coarse for t in layers], bool)
        self._told = np.asarray([t.looped or t.calls is not None for t in layers], bool)
        self.attributes = self._read_attributes()
        """``trainable`` and ``momentum`` of each layer at the last look; NaN for a cumulative average."""
        self._counted = False
        self._of_a_step: deque[Array] = deque(maxlen=STEPS_COUNTED)
        self._more = np.zeros(len(layers), bool)
        self.runner: Runner = NoPasses()
        """What its passes have shown of calls and modes."""

    @property
    def momentums(self) -> Array:
        """The layers' ``momentum`` attributes, [L]; for a cumulative average, that of its next update."""
        pairs = zip(self._layers, self.attributes, strict=True)
        return np.asarray([t.momentum if t.cumulative else last for t, (_, last) in pairs], np.float64)

    def _read_attributes(self) -> list[tuple[bool, float]]:
        # A cumulative average has no momentum; the weight of its next update is another one at every step.
        return [(t.trainable, np.nan if t.cumulative else t.momentum) for t in self._layers]

    def look_for_changes(self) -> bool:
        """Report attributes that were set since the last look. Returns whether there were any."""
        now = self._read_attributes()
        if np.array_equal(now, self.attributes, equal_nan=True):
            return False
        changes: dict[tuple[EventKind, str], list[int]] = {}
        for i, (old, new) in enumerate(zip(self.attributes, now, strict=True)):
            if old[0] != new[0]:
                kind = EventKind.UNFREEZE if new[0] else EventKind.FREEZE
                changes.setdefault((kind, f"trainable set to {new[0]}"), []).append(i)
            if old[1] != new[1] and not (np.isnan(old[1]) or np.isnan(new[1])):
                was, is_now = (as_set(x, self._framework) for x in (old[1], new[1]))
                changes.setdefault((EventKind.MOMENTUM, f"momentum set from {was:g} to {is_now:g}"), []).append(i)
        for (kind, text), indices in changes.items():
            self._on_event(kind, text, indices)
        self.attributes = now
        return True

    @property
    def beta_and_gain(self) -> tuple[Array, Array]:
        """The momentum of each layer and ``1 - momentum`` as the next update uses them, [L] each."""
        return np.asarray([kept(t) for t in self._layers]), gains(self._layers)

    def momentum_changed(self) -> bool:
        """Whether a momentum was set since the last look."""
        now = np.asarray([momentum for _, momentum in self._read_attributes()])
        return not np.array_equal(now, [momentum for _, momentum in self.attributes], equal_nan=True)

    def compare_with(self, earlier: Sequence[tuple[bool, float]] | None) -> None:
        """Report what was set since an earlier fit, whose ``attributes`` these are; None where there was none."""
        if earlier is not None and len(earlier) == len(self.attributes):
            self.attributes = list(earlier)
            self.look_for_changes()

    def calls(self) -> Array:
        """Calls of each layer in a forward pass, [L]; NaN where they cannot be counted.

        Where no pass of the probe can be traced, the graph of a functional model tells; elsewhere one call is taken
        for granted, but not in a recurrent cell.
        """
        order = self._traced_order
        if not order:
            return np.asarray([np.nan if t.looped else float(t.calls or 1) for t in self._layers])
        calls = np.full(len(self._layers), np.nan)
        indices, counts = np.unique(order, return_counts=True)
        calls[indices] = counts
        return calls

    def caveats(self) -> list[str]:
        """What a reader has to know of how the updates of these layers are counted and read."""
        calls = self.calls()
        uncounted = np.isnan(calls) & ~self._still & ~self._coarse & (not self._counted)
        sentences = [
            f"How often {name!r} is updated in a step cannot be counted (it is called in a loop or in a "
            "separate function), so its batches are not judged."
            for name in self._names(uncounted)
        ]
        coarse = self._names(self._coarse)
        if coarse:
            sentences.append(
                f"{len(coarse)} layers ({coarse[0]!r} ...) {HALF_PRECISION}, from "
                "which batch statistics cannot be recovered: those of the probe stand in for them. Mixed precision "
                "(mixed_bfloat16 in Keras, autocast in PyTorch) keeps them in float32."
            )
        granted = [] if self._traced_order or self._counted else self._names(~(self._still | self._told))
        if granted:
            sentences.append(
                f"{len(granted)} layers ({granted[0]!r} ...) are taken to be called once in a step, since no pass "
                "could be traced to count it: of one that is shared the batch statistics are wrong."
            )
        return sentences

    def _names(self, chosen: NDArray[np.bool_]) -> list[str]:
        return [t.name for t, yes in zip(self._layers, chosen, strict=True) if yes]

    @property
    def _traced_order(self) -> Sequence[int]:
        return self.runner.order

    def updates(self, before: Snapshot, after: Snapshot, steps: int) -> Array:
        """BatchNorm updates of each layer between two snapshots, [L]; NaN where they cannot be counted.

        Statistics that are bit-identical were not updated, whatever the flags say.
        """
        self._counted = after.counts is not None
        same = (before.mean == after.mean) & (before.spread == after.spread)
        same |= np.isnan(before.mean) & np.isnan(after.mean)
        self._still = self._segments.count(same) == self._segments.sizes
        if before.counts is not None and after.counts is not None:
            # An update that leaves statistics as they are is one: constant data, momentum that keeps all.
            made = (after.counts - before.counts).astype(np.float64)
            # A count that goes back was loaded, with statistics that no update has led to.
            return np.where((self._coarse & (made > 0)) | (made < 0), np.nan, made)
        return np.where(self._still, 0.0, np.where(self._coarse, np.nan, steps * self.calls()))

    def updated_besides(self, updates: Array, steps: int, ended: bool) -> tuple[int, ...]:
        """Layers that count more updates than so many steps make; none where that is not known.

        A step makes the median of what single steps made lately. Validation in training mode adds to few of them, and
        a short group of accumulated batches takes from few. A single step with more is told at the next ordinary one.

        Args:
            updates: of each layer since the last snapshot, [L].
            steps: since then.
            ended: no step follows, so the last one may have gone on after it was shown; see ``rest_of_step``.
        """
        if not self._counted or steps < 1:
            return ()
        if steps == 1:
            self._of_a_step.append(np.where(updates > 0, updates, np.inf))
        usual = self._usual
        if usual is None:
            return ()
        more = updates >= usual * (steps + 1) if ended else updates > usual * steps
        # Where every step makes more from now on, as with a schedule of accumulation, nothing comes from elsewhere.
        if steps > 1:
            return tuple(map(int, np.flatnonzero(more & (updates % steps != 0))))
        besides, self._more = self._more & ~more, more
        return tuple(map(int, np.flatnonzero(besides)))

    def rest_of_step(self, before: Snapshot, after: Snapshot) -> NDArray[np.bool_]:
        """Layers that have counted updates since a step was shown, and fewer than a whole step makes, [L].

        A loop may call the model again after it has shown its batch, as one that trains a generator calls the
        discriminator.
        """
        if before.counts is None or after.counts is None or self._usual is None:
            return np.zeros(len(self._layers), bool)
        made = after.counts - before.counts
        return np.asarray((made > 0) & (made < self._usual) & np.isfinite(self._usual))

    @property
    def _usual(self) -> Array | None:
        """Updates of each layer in the median of single steps, [L]; infinite for a layer that no step updates.

        None while too few were seen.
        """
        if len(self._of_a_step) < FEWEST_COUNTED:
            return None
        counted = np.sort(self._of_a_step, axis=0)
        middle = (np.maximum(np.isfinite(counted).sum(0), 1) - 1) // 2
        return np.asarray(np.take_along_axis(counted, middle[None], 0)[0])

    def states(self, windows: Windows) -> Array:
        """Position in ``metadata.State`` of what each layer does, [L]."""
        runner = self.runner
        # A count goes up whatever the momentum keeps.
        never = (windows.updates == 0) | (np.asarray([t.momentum for t in self._layers]) == 1.0)
        states = np.full(len(self._layers), float(State.UNKNOWN.position))
        for i, tracked in enumerate(self._layers):
            if not self._still[i]:
                states[i] = State.UPDATING.position
            elif not tracked.trainable:
                states[i] = State.FROZEN.position
            elif i in runner.trains:
                called = State.NEVER_UPDATED.position if never[i] else State.UNKNOWN.position
                states[i] = called if runner.trains[i] else State.INFERENCE_MODE.position
            elif tracked.momentum == 1.0:
                states[i] = State.NEVER_UPDATED.position
        # Statistics that are not a number stay not a number: that is poisoned, not frozen.
        poisoned = self._segments.count(~np.isfinite(windows.last.mean)) > 0
        states[poisoned & ~never] = State.UPDATING.position
        return states

    def use_effective_momentum(self, effective: Array, recovery: WindowRecovery) -> Array:
        """Recover windows with the momentum that the moving statistics show, where it is not the attribute.

        Args:
            effective: estimates, [L], NaN where there is none.
            recovery: is given the momentum values to use from now on.

        Returns:
            effective momentum values for the record: the attribute itself where the estimate agrees with it.
        """
        beta, gain = self.beta_and_gain
        differs = np.isfinite(effective) & (np.abs((1 - effective) - gain) > MOMENTUM_ERROR * np.maximum(gain, 1e-6))
        recovery.set_momentums(np.where(differs, effective, beta), np.where(differs, 1 - effective, gain))
        agreed = np.where(np.isnan(effective), np.nan, self.momentums)
        return np.where(differs, effective, agreed)

    def describe(self) -> list[Layer]:
        """The manifest's entries."""
        order = {index: position for position, index in enumerate(dict.fromkeys(self._traced_order))}
        calls = np.nan_to_num(self.calls())
        return [t.describe(i, order.get(i, -1), int(calls[i])) for i, t in enumerate(self._layers)]


def replicas(windows: Windows) -> int:
    """Replicas that keep moving statistics of their own."""
    own = windows.last.replica_mean
    return 1 if own is None else len(own)

"""Layers whose statistics stay as they are, or do not do what the attributes say."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import effective
from tb_bnlens.analysis.facts.stale import StaleFacts
from tb_bnlens.analysis.fixed import constant_part
from tb_bnlens.analysis.lag import LARGE_DISTANCE
from tb_bnlens.analysis.loss_gap import NOTE_HARM, WARNING_HARM, Gap
from tb_bnlens.analysis.rival import in_training
from tb_bnlens.history import Event, History
from tb_bnlens.metadata import CUMULATIVE, OWN_STEP, EventKind

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


_BEGINS = (EventKind.START, EventKind.RESTART, EventKind.FIT)


class StillFacts(StaleFacts):
    """Constant and poisoned statistics, and attributes against what the statistics do."""

    # --- layers with constant statistics ---

    @cached_property
    def frozen(self) -> Mask:
        """Layers that are not trainable."""
        return self.layers.is_state("frozen")

    @cached_property
    def initial(self) -> Mask:
        """Layers whose statistics are exactly those of a new layer, 0 and 1."""
        return np.asarray(self.row("initial_share") == 1.0)

    @cached_property
    def called(self) -> Mask:
        """Trainable layers that training calls in inference mode."""
        return self.layers.is_state("inference_mode")

    @cached_property
    def never_updated(self) -> Mask:
        """Layers in training mode whose statistics are bit-identical to their start."""
        return self.layers.is_state("never_updated")

    @cached_property
    def never_by_batch(self) -> bool:
        """Whether no layer updates and the network does clearly better so than by the batch: it was trained so."""
        if self.measured is None or not self.never_updated.any() or self.layers.updating.any():
            return False
        return self.measured.gap("batch", "inference").at_least(NOTE_HARM)

    @cached_property
    def constant(self) -> Mask:
        """Layers whose statistics are constant and which training normalizes with them."""
        return self.layers.is_state("frozen", "inference_mode")

    @cached_property
    def constant_part(self) -> Gap:
        """What constant statistics cost, apart from lag and batch noise."""
        if self.parts is not None:
            return self.parts.constant
        return constant_part(self.losses, self.layers)

    @cached_property
    def trains_on_constant(self) -> bool:
        """Whether training runs on constant statistics as inference does, so that no loss tells what they cost it."""
        if self.measured is not None and self.evidence is not None:
            return in_training(self.evidence) == "batch_as_trained"
        return bool(self.constant.any()) and not self.training_escapes

    @property
    def constant_far(self) -> bool:
        """Whether some layer has constant statistics that are far off."""
        return bool((self.constant & (self.layers.distance >= LARGE_DISTANCE)).any())

    @cached_property
    def training_escapes(self) -> bool:
        """Whether inference is worse than training itself, which normalizes these layers with the batch."""
        return self.losses.gap("inference", "training").at_least(WARNING_HARM)

    @cached_property
    def unfreezing(self) -> Event | None:
        """The last event that unfroze a layer which is still called in inference mode."""
        found = [
            e
            for e in self.manifest.events
            if e.kind == "unfreeze" and (not e.layers or any(self.called[i] for i in e.layers))
        ]
        return found[-1] if found else None

    @cached_property
    def cumulative(self) -> Mask:
        """Updating layers whose statistics are the plain mean of all batches, with no momentum."""
        words = [layer.kind.partition("(")[2].rstrip(")").split(", ") for layer in self.manifest.layers]
        return np.asarray(self.layers.updating & np.array([CUMULATIVE in kind for kind in words], bool))

    # --- attributes against what the statistics do ---

    @cached_property
    def thawed(self) -> Mask:
        """Layers set to trainable after the step was traced, whose statistics stay constant."""
        events = self.manifest.events
        compiled = max(
            (e.step for e in events if e.kind in (EventKind.RECOMPILE, EventKind.RESTART, EventKind.START)), default=0
        )
        thawed = np.zeros(len(self.layers.names), bool)
        for event in events:
            # A flag set before the run's first trace is a matter of the call, not of the trace.
            if event.kind == EventKind.UNFREEZE and event.step > compiled:
                thawed[[i for i in event.layers if i < len(thawed)]] = True
        # The change is seen at the record that follows it, so the statistics have to stay constant to the end.
        constant = self.layers.is_state("inference_mode", "never_updated", "unknown")
        return np.asarray((thawed | self.left_out) & constant)

    @cached_property
    def left_out(self) -> Mask:
        """Trainable layers whose weights the optimizer was not built for, unless the model was compiled since."""
        found = np.zeros(len(self.layers.names), bool)
        for event in self.manifest.events:
            if event.kind == EventKind.RECOMPILE:
                found[:] = False
            elif event.kind == EventKind.LEFT_OUT:
                found[[i for i in event.layers if i < len(found)]] = True
        return found

    @cached_property
    def frozen_yet_updating(self) -> Mask:
        """Layers with trainable=False whose statistics move."""
        flag = np.array([layer.trainable for layer in self.manifest.layers], bool)
        return np.asarray(self.layers.updating & self.layers.is_state("updating") & ~flag)

    @cached_property
    def frozen_after_trace(self) -> Mask:
        """Layers that were frozen after the step was traced, as far as the record tells.

        A step of the user's own may set the flag itself, as that of a GAN does in turn. It does so when it is traced,
        in the first step of the record or in an earlier fit; other code may set it to and fro around each step.
        """
        found = self.frozen_yet_updating.copy()
        begins = min((e.step for e in self.manifest.events if e.kind in _BEGINS), default=0)
        own_step = OWN_STEP in self.manifest.notes
        for i in np.flatnonzero(found):
            events = [e for e in self.manifest.events if i in e.layers]
            frozen = [e.step for e in events if e.kind == EventKind.FREEZE]
            to_and_fro = any(e.kind == EventKind.UNFREEZE and e.step >= min(frozen, default=e.step + 1) for e in events)
            by_step = own_step and all(step == begins + 1 for step in frozen)
            found[i] = not (to_and_fro or by_step)
        return np.asarray(found)

    def off_momentum(self, factor: float) -> Mask:
        """Layers whose statistics show another momentum: windows ``1/(1-beta)`` that differ by more than the factor."""
        shown = ~np.isnan(self.layers.effective) & ~self.as_several_calls
        return self.layers.updating & effective.differs(self.layers.effective, self.layers.momentum, factor) & shown

    @cached_property
    def as_several_calls(self) -> Mask:
        """Layers that move as with two to four updates where the lens sees one, and whose momentum was not set, [L].

        A training step of the user's own may call a layer more often than a call of the model does.
        """
        several = effective.is_power(self.layers.effective, self.layers.momentum)
        was_set = any(e.kind == EventKind.MOMENTUM for e in self.manifest.events)
        return np.zeros_like(several) if was_set else several

    # --- statistics that are not finite ---

    @cached_property
    def nonfinite_since(self) -> int | None:
        """First record with a moving statistic that is not finite; None where there is none, and in a check."""
        return None if self.checked else _first(self.history, "channels_nonfinite")


def _first(history: History, row: str) -> int | None:
    counts = np.nan_to_num(history.row(row)) > 0
    return int(history.steps[int(counts.any(1).argmax())]) if counts.any() else None

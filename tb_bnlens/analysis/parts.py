"""The loss that each cause of the stale family takes, from interventions that were measured.

Inference minus its rival is cut up so that like is compared with like::

    inference - with_dropout      statistics of the past instead of the present, gathered as training gathers them
    with_dropout - recalibrated   statistics gathered with dropout and its like on, used with it off
    recalibrated - rival          batch noise, or compositions

The first is what layers that hold their start take (``put_right:from_start``) and a rest, which has one explanation.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import replays, robust
from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import WARNING_HARM, Gap
from tb_bnlens.analysis.measured import MOST, Measured
from tb_bnlens.history import Event, Manifest
from tb_bnlens.metadata import REPLAY_MOMENTUMS, TORCH, EventKind, replay_row

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

NOTHING = Gap(0.0, 0.0, 0.0)
EXPLAINED = 0.98
"""Squared cosine of a real update and the one expected of the batch: 1 but for rounding where that batch is all."""
MORE_UPDATES = 1.5
"""Updates a step that the decay shows, over the updates that the lens sees, from which there are more: the estimate is
good to a fifth (tests/capture/test_evidence.py), and there is no number between 1 and 2."""
REPORTED = 8
"""Changes that the recorder reports one by one; of those after them it reports every second, fourth, eighth one."""
SAME_MODE = 0.01
"""Distance between statistics with training-only layers on and off below which there are none before the layer."""


class Parts:
    """What each cause takes; zero where nothing of its kind is in the model, unknown where it was not measured.

    Args:
        measured: the passes.
        layers: at the end of the record.
        manifest: for its events.
        last_step: of the record.
        leapt: layers whose statistics moved all at once and still hold it, [L]; see ``sudden``.
        comes_and_goes: layers that a few batches set, which are unlike all others, [L]; see ``sudden``.
    """

    def __init__(
        self,
        measured: Measured,
        layers: LayerTable,
        manifest: Manifest,
        last_step: int,
        leapt: Mask | None = None,
        comes_and_goes: Mask | None = None,
    ):
        self._measured, self._layers, self._manifest, self._last = measured, layers, manifest, last_step
        none = np.zeros(len(layers.names), bool)
        self._leapt = none if leapt is None else leapt
        self._comes_and_goes = none if comes_and_goes is None else comes_and_goes

    # --- whole groups ---

    @cached_property
    def whole(self) -> Gap:
        """What BatchNorm costs, with channels that are not finite replaced."""
        return self._measured.gap(self._measured.judged, self._measured.rival)

    @cached_property
    def start(self) -> Gap:
        """What layers take that hold their start."""
        if not self.from_start.any():
            return NOTHING
        if self._all_from_start:
            return self._stale
        return self._measured.undone("put_right:from_start") if self._in_group("from_start").any() else NOTHING

    @cached_property
    def mode(self) -> Gap:
        """What statistics take that were gathered with training-only layers on."""
        return self._measured.part(("with_dropout", "recalibrated")) if self._measured.has("with_dropout") else NOTHING

    @cached_property
    def rest(self) -> Gap:
        """What the updating layers take besides; ``why`` says why."""
        if self._all_from_start:
            return NOTHING
        m = self._measured
        if not self._in_group("from_start").any():
            return self._stale
        if not m.has("put_right:settled"):
            return NOTHING
        pairs = [(m.judged, "put_right:settled")]
        return m.part(*pairs, ("recalibrated", "with_dropout")) if m.has("with_dropout") else m.part(*pairs)

    @property
    def _stale(self) -> Gap:
        """Statistics of the past instead of the present, gathered the same way."""
        m = self._measured
        if not (m.group("updating") or self._layers.updating.any()):
            return NOTHING
        return m.part((m.judged, "with_dropout" if m.has("with_dropout") else "recalibrated"))

    @cached_property
    def constant(self) -> Gap:
        """What layers take that training leaves on their statistics, once all others fit."""
        m = self._measured
        if m.has("recalibrated_all"):
            return m.gap("recalibrated", "recalibrated_all")
        # Where the time did not suffice for that: what training sees, against batch statistics in every layer.
        return m.gap("batch_as_trained", "batch") if m.has("batch_as_trained") else NOTHING

    @cached_property
    def never_updated(self) -> Gap:
        """What layers take that are in training mode and never update."""
        if not self._measured.group("never_updated"):
            return NOTHING
        apart = self._measured.undone("put_right:never_updated")
        return apart if apart.known else self._measured.undone("recalibrated")

    # --- layers ---

    @cached_property
    def from_start(self) -> Mask:
        """Layers that lag because they hold their start, [L].

        More than the tolerance of the start is left in them; or less, of a start so far off that it still explains
        their error.
        """
        return np.asarray(
            (self._in_group("from_start") & self._layers.lagging) | (self._layers.starting & ~self.forgets_faster)
        )

    @property
    def _all_from_start(self) -> bool:
        """Whether all that is stale is the start's: beside the group that was measured most lagging layers hold it too.

        Where the time did not suffice to put the group right alone, it is most of all lagging layers that decide.
        """
        apart = self._measured.has("put_right:from_start")
        beside = ~self._in_group("from_start") if apart else np.ones(len(self._layers.names), bool)
        held, lagging = self.from_start & beside, self._layers.lagging & beside
        return bool(held.any()) and 2 * int(held.sum()) > int(lagging.sum())

    @cached_property
    def unexplained(self) -> Mask:
        """Layers whose updates the batch that the lens saw does not explain, [L].

        The random draws of training-only layers before a layer differ from step to step, so those are left out.
        """
        explained, mode = self._row("update_explained"), self._row("mode_distance_rms")
        return np.asarray((explained < EXPLAINED) & ~(mode > SAME_MODE))

    @cached_property
    def updates_a_step(self) -> Array:
        """Updates in a step over the updates that the lens sees, [L]: as PyTorch counts them, else from the decay."""
        with np.errstate(all="ignore"):
            if self._manifest.framework == TORCH:
                calls = self._row("calls")
                return np.asarray(np.where(calls > 0, self._layers.updates_per_step / calls, np.nan))
            return np.asarray(np.log(self._row("decay_observed")) / np.log(self._row("decay_expected")))

    @cached_property
    def more_updates(self) -> Mask:
        """Layers that are updated more often than the lens sees, [L]; other batches of the same kind may do that.

        A batch explains a step toward any data while the statistics are far from all of them. So where it fails to
        explain one layer, it is no witness for another.
        """
        compared = ~np.isnan(self._row("update_explained"))
        return np.asarray((bool(self.unexplained.any()) | ~compared) & self._often)

    @cached_property
    def forgets_faster(self) -> Mask:
        """Layers that hold less of their start than the updates that the lens sees would leave, [L].

        Weights that move hide further updates of a layer. Where other data feed it, they show in another layer.
        """
        return np.asarray(self._often | (self.unexplained & bool(self._often.any())))

    @property
    def _often(self) -> Mask:
        return np.asarray(self.updates_a_step >= MORE_UPDATES)

    @cached_property
    def fed_otherwise(self) -> Mask:
        """Layers that other data than the batch update, or whose updates it cannot have made alone, [L]."""
        return np.asarray(self.unexplained | self.more_updates)

    @property
    def updates_known(self) -> bool:
        """Whether updates were compared with the batch's, one by one or by their decay."""
        return not np.isnan(np.fmin(self._row("update_explained"), self.updates_a_step)).all()

    @cached_property
    def by_mode(self) -> Mask:
        """Layers whose statistics fit those gathered with training-only layers on, and those without far less, [L]."""
        on, off = self._row("with_dropout_distance_rms"), self._row("distance_rms")
        return np.asarray((self._row("mode_distance_rms") > self._layers.tolerance) & (on < MOST * off))

    @cached_property
    def outside(self) -> Mask:
        """Layers whose statistics something changed between training steps, or all at once, and still hold it, [L]."""
        mask = np.array(self._leapt)
        events = [e for e in self._manifest.events if e.kind == EventKind.OUTSIDE]
        for event in events:
            # A step that calls a layer on other data may do so after it has shown its batch, the last step as well.
            of_step = self.fed_otherwise & (len(events) == 1 and event.step >= self._last)
            mask |= self._held(event) & ~of_step
        # What a callback does at the end of each epoch it also does after the last step, where no step follows.
        goes_on = bool(events) and self._goes_on([e.step for e in events])
        return np.asarray(mask | self._of(events[-1])) if goes_on else mask

    def _goes_on(self, steps: list[int]) -> bool:
        """Whether changes after these steps recur up to the end."""
        if len(steps) < 2:
            return False
        due = steps[-1] + float(np.median(np.diff(steps)))
        return self._last <= due or (len(steps) >= REPORTED and self._last < 2 * due)

    @cached_property
    def exchanged(self) -> bool:
        """Whether the weights were replaced, and the statistics are those before or came with them.

        Weights that are written between steps for another reason (clipping, for instance) do not keep a shorter memory
        from following them. A replay says nothing where the statistics were written as well: it averages what was
        there before.
        """
        if self.came_with_weights.any():
            return True
        kinds = {e.kind for e in self._manifest.events if self._held(e).any()}
        return EventKind.AVERAGED in kinds or (EventKind.REPLACED in kinds and not self.replay_helps)

    @cached_property
    def came_with_weights(self) -> Mask:
        """Layers whose statistics were replaced together with the weights, and still hold that, [L]."""
        replaced = [e for e in self._manifest.events if e.kind == EventKind.REPLACED and e.layers]
        return np.asarray(np.any([np.zeros(len(self._layers.names), bool), *map(self._held, replaced)], axis=0))

    @cached_property
    def drifting(self) -> Mask:
        """Layers that have forgotten their start and lag, [L].

        Batch noise may explain the error of each, and the loss tell all the same that the statistics are behind.
        """
        layers = self._layers
        told = self.rest.at_least(WARNING_HARM) and self.shorter_helps
        off = layers.updating & (layers.error > layers.tolerance)
        behind = off if told else layers.lagging
        return np.asarray(behind & ~self.from_start & ~self.unexplained & ~self.by_mode)

    @cached_property
    def set_by_few(self) -> Mask:
        """Layers whose statistics a few batches set that are not among the measured ones, [L].

        Their batch statistics leap there and back, and do not move steadily.
        """
        moves = self._layers.wandering | (self._layers.drifting & (self._layers.rate > 0.0))
        return np.asarray(self._comes_and_goes & self.drifting & ~moves)

    # --- why ---

    @cached_property
    def replay_helps(self) -> bool:
        """Whether a shorter memory, replayed, would take away half of the rest at least.

        Where those are not measured, it is whether the batch statistics were seen to move beyond their noise, and a
        longer memory does not help instead. That a layer lags is not enough: another call may have moved it.
        """
        shorter, used = self._shorter
        if shorter and not self._helped:
            if self.more_updates.any():
                # With several updates in a step the average forgets in fewer steps, and is less apt to lag.
                return False
            longer = [self._measured.undone(replay_row(m)) for m in replays.longer(REPLAY_MOMENTUMS, used)]
            averaged = any(gap.significant for gap in longer)
            moves = self._layers.drifting & (self._layers.rate > 0.0)
            return bool((moves & self.drifting).any()) and not averaged
        return self.shorter_helps

    @cached_property
    def shorter_helps(self) -> bool:
        """Whether a shorter memory was replayed, and takes away half of the rest at least."""
        return any(h.significant and h.size >= MOST * self.rest.size for h in self._helped)

    @property
    def _shorter(self) -> tuple[list[str], float]:
        """Replays of shorter memories than the layers use, and the momentum that these use, as Keras has it."""
        where = self._layers.updating & ~self.from_start
        used = float(np.min(self._layers.beta[where])) if where.any() else 0.0
        return [replay_row(m) for m in replays.shorter(REPLAY_MOMENTUMS, used)], used

    @cached_property
    def _helped(self) -> list[Gap]:
        return [self._measured.undone(name) for name in self._shorter[0] if self._measured.has(name)]

    def why(self, unlike: bool) -> str:
        """The explanation of the rest: ``outside``, ``exchanged``, ``unlike``, ``unseen``, ``few``, ``drift`` or none.

        Args:
            unlike: the batches are not draws of one kind, so statistics of some of them do not fit the others. Where
                those of all take most of the gap away, and steps are made of other data as well, it is these.
        """
        if self.outside.any():
            return "outside"
        if self.exchanged:
            return "exchanged"
        if unlike and not (self.fed_otherwise.any() and self._renewed_serve):
            return "unlike"
        if self.unexplained.any():
            return "unseen"
        if self.set_by_few.any():
            return "few"
        if self.replay_helps and self.drifting.any():
            return "drift"
        # No single update could be compared. Several batches of one kind leave statistics that only lag.
        return "unseen" if self.more_updates.any() else ""

    @property
    def _renewed_serve(self) -> bool:
        """Whether statistics of all measured batches take most of the gap away, and leave less than a warning.

        In blocks of one source each, their mean is better than the last block, and fits none.
        """
        left = self._measured.gap("recalibrated", self._measured.rival)
        return self.share(self.rest) >= MOST and left.known and not left.at_least(WARNING_HARM)

    def share(self, part: Gap) -> float:
        """A part over the whole, NaN where there is no whole."""
        return part.size / self.whole.size if self.whole.size > 0 and part.known else math.nan

    # --- short hands ---

    def _row(self, name: str) -> Array:
        row = self._measured.row(name)
        return row if len(row) else np.full(len(self._layers.names), np.nan)

    def _in_group(self, name: str) -> Mask:
        mask = np.zeros(len(self._layers.names), bool)
        mask[[i for i in self._measured.group(name) if i < len(mask)]] = True
        return mask

    def _held(self, event: Event) -> Mask:
        """Layers of an event whose moving statistics still hold more than the tolerance of it, [L]."""
        updates = max(self._last - event.step, 0) * np.nan_to_num(self._layers.updates_per_step, nan=1.0)
        with np.errstate(all="ignore"):
            left = np.power(self._layers.beta, updates)
        return np.asarray(self._of(event) & (left > self._layers.tolerance))

    def _of(self, event: Event) -> Mask:
        """Layers of an event, all where it names none, [L]."""
        mask = np.zeros(len(self._layers.names), bool)
        mask[[i for i in event.layers if i < len(mask)] if event.layers else slice(None)] = True
        return mask


def largest_amount(manifest: Manifest, kind: str) -> float:
    """How far the statistics of a layer moved at most in an event of this kind, in standard deviations; or NaN."""
    return robust.largest([x for e in manifest.events if e.kind == kind for x in getattr(e, "amounts", ())])

"""What was measured of a run: each figure once, by name. No limit decides anything here but those of the formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import advice, drift, effective, exchanged, metrics, outlook, replays, robust, yardstick
from tb_bnlens.analysis.arrival import NOISE_SIGMAS
from tb_bnlens.analysis.batches import Batches, batches
from tb_bnlens.analysis.composition import Composition
from tb_bnlens.analysis.fixed import best_average, constant_part
from tb_bnlens.analysis.lag import LayerTable, latest, table
from tb_bnlens.analysis.loss_gap import NOTE_HARM, WARNING_HARM, WINDOW, Gap, Losses, measure
from tb_bnlens.analysis.measured import UNKNOWN, Measured, final
from tb_bnlens.analysis.noise import noise_floor
from tb_bnlens.analysis.parts import Parts
from tb_bnlens.analysis.rival import spread_of_mean, trained
from tb_bnlens.analysis.sudden import Leap, leap
from tb_bnlens.history import Event, Evidence, History, Manifest
from tb_bnlens.metadata import REPLAY_MOMENTA, EventKind, Moment

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

FIRST_PROBES = 3
"""Probes that tell where the loss began, the highest of them: a single batch may be an easy one."""
PASS_OF_KIND = {"recalibrated_now": "recalibrated"}
"""Loss kind of a probe -> the pass on many batches that measures the same, where their names differ."""
PROBES_ONLY = ("recalibrated_long", "updated")
"""Loss kinds that no pass on many batches measures."""


class Facts:
    """The figures of one run, computed on first use.

    Where the run was measured on many batches at its end, losses and differences are those; the probes, a batch or a
    few each, tell the course over time, and stand in where there is no such measurement.

    Masks and per-layer figures are [L], in the manifest's order. Losses are in loss units, distances in batch
    standard deviations. A figure that was not measured is NaN, or ``UNKNOWN`` where it is a gap.
    """

    def __init__(self, history: History) -> None:
        self.history = history

    # --- the parts of the record ---

    @cached_property
    def manifest(self) -> Manifest:
        """What the recorder says of the run."""
        return self.history.manifest

    @cached_property
    def evidence(self) -> Evidence | None:
        """The measurement on many batches that the run is judged by, None where there is none."""
        return final(self.history)

    @cached_property
    def measured(self) -> Measured | None:
        """What it says of the losses, None where there is none or no loss could be measured."""
        if self.evidence is None or not np.isfinite(self.evidence.mean("batch")) or self.losses.diverged:
            return None
        return Measured(self.evidence, self.losses)

    @cached_property
    def composition(self) -> Composition | None:
        """What it says of the rows in a batch, None where there is none."""
        batch = self.history.loss("batch").astype(np.float64)
        first = batch[np.isfinite(batch)][:FIRST_PROBES]
        start = float(first.max()) if len(first) else math.nan
        return None if self.measured is None else Composition(self.measured, self.losses, start)

    @cached_property
    def parts(self) -> Parts | None:
        """What each cause of stale statistics takes, None where no interventions were measured."""
        if self.measured is None or not self.measured.has("inference", "recalibrated"):
            return None
        return Parts(self.measured, self.layers, self.manifest, self.last_step, self.leap.layers)

    @cached_property
    def leap(self) -> Leap:
        """Moving statistics that moved all at once between two records, and still hold it."""
        return leap(self.history, self.layers)

    @cached_property
    def rest_is(self) -> str:
        """See ``Parts.why``; empty where no interventions were measured."""
        return "" if self.parts is None else self.parts.why(self.batches_differ)

    @cached_property
    def batches_differ(self) -> bool:
        """Whether the batches are not draws of one kind, by their statistics or by their losses."""
        if self.measured is None or self.composition is None:
            return bool(self.batches.unlike.any())
        return not self.measured.alike or self.composition.losses_unlike

    @cached_property
    def losses(self) -> Losses:
        """The paired losses of the probes on training batches."""
        return measure(self.history, "train", self.evidence)

    @cached_property
    def validation(self) -> Losses:
        """The paired losses on validation data."""
        return measure(self.history, "validation")

    @cached_property
    def layers(self) -> LayerTable:
        """The layers at the end of the record."""
        return table(self.history, self.evidence)

    @cached_property
    def batches(self) -> Batches:
        """How far the batches differ from random draws."""
        return batches(self.history, self.layers)

    @cached_property
    def outlook(self) -> outlook.Outlook:
        """Steps that the run needs and steps that it has."""
        suffers = self.parts is not None and self.parts.start.at_least(NOTE_HARM)
        made = self.shown_steps if self.checked and not self.last_step else self.history.last_step
        return outlook.outlook(self.manifest, self.losses, self.layers, made, self.over, self.starting, suffers)

    @property
    def shown_steps(self) -> int:
        """Steps that have left so much of the initial statistics, in the median layer; 0 where that is not known."""
        layers = self.layers
        with np.errstate(all="ignore"):
            steps = np.log(layers.memory) / np.log(layers.beta) / layers.updates_per_step
        found = robust.median(steps[self.starting])
        return round(found) if math.isfinite(found) else 0

    @cached_property
    def over(self) -> bool:
        """Whether training has ended, as planned or not."""
        measured_last = self.evidence is not None and self.evidence.moment == Moment.END and self.at_last_step
        return measured_last or bool(getattr(self.manifest, "ended", ""))

    @cached_property
    def checked(self) -> bool:
        """Whether this is a check of one moment, so that nothing is known of the course of training."""
        return any(evidence.moment == Moment.CHECK for evidence in self.history.evidence)

    @property
    def at_last_step(self) -> bool:
        """Whether the measurement on many batches is of the last step."""
        return self.evidence is not None and self.evidence.step >= self.last_step

    @property
    def last_step(self) -> int:
        """The last step of the record, 0 where it is empty."""
        return self.history.last_step or 0

    @cached_property
    def first_step(self) -> int | None:
        """The first step of the record, None where it is empty."""
        return min((int(s[0]) for s in (self.history.steps, self.history.loss_steps) if len(s)), default=None)

    @property
    def has_layers(self) -> bool:
        """Whether the model has BatchNorm layers."""
        return bool(self.manifest.layers)

    # --- losses ---

    @cached_property
    def gap(self) -> Gap:
        """Inference minus batch statistics (``Measured.rival``): all that BatchNorm costs at inference."""
        return self.losses.gap("inference", "batch") if self.measured is None else self.measured.over_rival

    @property
    def evaluated(self) -> bool:
        """Whether inference and its rival were measured."""
        return self.losses.evaluated or self.gap.known

    @cached_property
    def stale(self) -> Gap:
        """Inference minus recalibrated: what newer statistics take away."""
        return self.undone("recalibrated")

    @cached_property
    def as_at_step(self) -> int | None:
        """The step that parts the probes whose loss with batch statistics is above the inference loss from those below.

        Training in batch mode was as good then as inference is now; no offset, scale or other monotone change of the
        loss moves it. Single probes scatter, so it is the step with the fewest probes on the wrong side. None where
        nothing is undone, where inference is worse than any probe before, and without a measurement on many batches.
        """
        if self.measured is None or not self.gap.significant:
            return None
        batch = self.history.loss("batch").astype(np.float64)
        known = np.isfinite(batch)
        above, steps = batch[known] > self.typical("inference"), self.history.loss_steps[known]
        wrong = np.concatenate([[0], np.cumsum(~above)]) + np.concatenate([np.cumsum(above[::-1])[::-1], [0]])
        parted = int(np.argmin(wrong))
        return int(steps[parted]) if 0 < parted < len(steps) else None

    @property
    def share_undone(self) -> float:
        """Share of the steps that inference undoes; NaN where that is not known."""
        step = self.as_at_step
        return math.nan if step is None or not self.last_step else max(1.0 - step / self.last_step, 0.0)

    @cached_property
    def measured_validation(self) -> Measured | None:
        """What the passes on many batches of validation data say, None where there are none."""
        if self.evidence is None or "inference" not in self.evidence.validation:
            return None
        # Of a typical row above the easiest ones, as for training; the easiest of all data are those of training.
        easiest = self.evidence.samples.get("batch", {}).get(yardstick.EASIEST, math.nan)
        batch = self.evidence.validation.get("batch")
        level = math.nan if batch is None else batch.mean - easiest
        scale = replace(self.losses, unit=float(np.fmax(self.losses.unit, level)))
        return Measured(self.evidence, scale, self.evidence.validation)

    @cached_property
    def validation_gap(self) -> Gap:
        """Inference minus batch statistics on validation data."""
        if self.measured_validation is not None:
            return self.measured_validation.gap("inference", "batch")
        return self.validation.gap("inference", "batch")

    @cached_property
    def both_probed(self) -> bool:
        """Whether the gap was measured on training and on validation data."""
        probed = self.validation.step is not None and self.validation.evaluated and self.losses.evaluated
        return probed or (self.validation_gap.known and self.gap.known)

    @cached_property
    def validation_scale(self) -> float:
        """Difference of harm 1 on validation data."""
        return self.validation.scale if self.measured_validation is None else self.measured_validation.scale

    def on_validation(self, kind: str) -> float:
        """A loss on validation data: the mean over many batches, else the median over the last probes."""
        if self.measured_validation is not None:
            return self.measured_validation.mean(kind)
        return self.validation.typical.get(kind, math.nan)

    @cached_property
    def validation_excess(self) -> Gap:
        """Inference loss on validation data minus that on training data."""
        value = self.on_validation("inference") - self.typical("inference")
        if self.measured is None or self.measured_validation is None:
            return Gap(value, self.losses.spread, self.losses.harm(value))
        here, there = (x.passes["inference"] for x in (self.measured, self.measured_validation))
        errors = [spread_of_mean(x) for x in (here, there)]
        harm = max(self.losses.harm(value), metrics.harm(there, here))
        return Gap(value, math.hypot(*errors), harm)

    def typical(self, kind: str) -> float:
        """Mean of a loss over many batches, else its median over the last probes."""
        found = self._mean(kind)
        return self.losses.typical.get(kind, math.nan) if math.isnan(found) else found

    def now(self, kind: str) -> float:
        """Mean of a loss over many batches, else the loss at the last probe that measured it."""
        found = self._mean(kind)
        return self.losses.now.get(kind, math.nan) if math.isnan(found) else found

    def _mean(self, kind: str) -> float:
        if self.measured is None or kind in PROBES_ONLY:
            return math.nan
        return self.measured.mean(PASS_OF_KIND.get(kind, kind))

    def row(self, name: str) -> Array:
        """A row of ``metadata.EVIDENCE_ROWS``, [L]; NaN where it was not measured."""
        found = np.empty(0) if self.evidence is None else self.evidence.layers.get(name, np.empty(0))
        return found if len(found) else np.full(len(self.layers.names), np.nan)

    @property
    def rival_loss(self) -> float:
        """The loss that inference is held against."""
        return self.typical("batch") if self.measured is None else self.measured.mean(self.measured.rival)

    @cached_property
    def replayed(self) -> dict[float, float]:
        """Momentum -> inference loss, had the momentum been this."""
        if self.measured is not None and self.measured.replayed:
            return self.measured.replayed
        return self.losses.replayed

    def lasting(self, kind: str) -> float:
        """Median of a loss over the last probes of any age."""
        return robust.median(self.losses.course.get(kind, np.empty(0))[-WINDOW:])

    def undone(self, intervention: str) -> Gap:
        """What an intervention takes away from the inference loss.

        Args:
            intervention: a pass of ``metadata.PASSES`` or ``put_right:GROUP``, or a loss kind of the probes.
        """
        if self.measured is not None and intervention not in PROBES_ONLY:
            return self.measured.undone(PASS_OF_KIND.get(intervention, intervention))
        return self.losses.gap("inference", intervention)

    def share(self, part: Gap) -> float:
        """A part of the loss over the gap, 0 to 1; NaN where either was not measured or there is no gap."""
        if self.measured is not None:
            return self.measured.share(part)
        whole = self.gap.value
        if not whole > 0.0 or not part.known:
            return math.nan
        if math.isinf(whole):
            return 1.0 if math.isinf(part.value) else 0.0
        return min(max(part.value / whole, 0.0), 1.0)

    @property
    def rescued(self) -> float:
        """Inference loss that ``recalibrate(model, data)`` was measured to give; NaN where it was not."""
        return self.typical("recalibrated")

    @property
    def rescued_with_frozen(self) -> float:
        """The same with ``frozen=True``; NaN where it was not measured."""
        return self.typical("recalibrated_all")

    @cached_property
    def warning_loss(self) -> float:
        """Difference of losses from which a gap is a warning."""
        return WARNING_HARM * self.losses.scale

    # --- the start ---

    @cached_property
    def starting(self) -> Mask:
        """Layers whose lag is explained by their initial statistics."""
        return self.layers.starting if self.parts is None else self.parts.from_start

    @cached_property
    def starting_count(self) -> int:
        """How many those are."""
        return int(self.starting.sum())

    @cached_property
    def drift_leads(self) -> bool:
        """Whether more lagging layers drift than hold their initial statistics."""
        return self.starting_count < int(self.layers.drifting.sum())

    @cached_property
    def start_leads(self) -> bool:
        """Whether more layers hold their initial statistics than drift."""
        return self.starting_count > int(self.drifting.sum())

    @cached_property
    def needed_steps(self) -> float:
        """Steps that the initial statistics need to be forgotten, from the start of the run; inf is never."""
        return self.outlook.last_step + self.outlook.steps

    @cached_property
    def start_updates(self) -> float:
        """Updates that the start still needs, in the median layer that holds it."""
        return self.outlook.steps * robust.median(self.layers.updates_per_step[self.starting])

    @cached_property
    def start_interval(self) -> tuple[float, float]:
        """80% interval of ``start_updates``."""
        per_step = robust.median(self.layers.updates_per_step[self.starting])
        low, high = self.outlook.interval
        return low * per_step, high * per_step

    @cached_property
    def needed_interval(self) -> tuple[float, float]:
        """80% interval of ``needed_steps``."""
        low, high = self.outlook.interval
        return self.outlook.last_step + low, self.outlook.last_step + high

    @cached_property
    def advised_momentum(self) -> float | None:
        """Momentum to try in a run of this length, None where no replay serves."""
        run = self.outlook.last_step + (self.outlook.remaining or 0)
        if self.measured is not None and self.measured.replayed:
            usable = outlook.usable_momentum(self.layers, run, self.starting)
            return replays.advised(self.measured, self.longest_memory, usable)
        return outlook.advised_momentum(self.layers, self.losses, run)

    @cached_property
    def longest_memory(self) -> float:
        """Greatest momentum of the updating layers."""
        return float(np.max(self.layers.beta[self.layers.updating], initial=0.0))

    @cached_property
    def advised_price(self) -> advice.WhatIf | None:
        """What the advised momentum would cost the median layer."""
        return (
            None if self.advised_momentum is None else outlook.price(self.advised_momentum, self.layers, self.starting)
        )

    @cached_property
    def advised_loss(self) -> float:
        """Inference loss replayed at the advised momentum."""
        return math.nan if self.advised_momentum is None else self.replayed.get(self.advised_momentum, math.nan)

    @cached_property
    def shrink(self) -> float:
        """Error that each update leaves, as a factor, over the second half of the record: the median starting layer."""
        half = len(self.history.steps) // 2
        if half < 1:
            return math.nan
        error, updates = (self.history.row(name)[half:, self.starting] for name in ("error_p50", "updates"))
        return robust.median(effective.shrink_per_update(error, updates))

    # --- drift ---

    @cached_property
    def pool_is_old(self) -> bool:
        """Whether the statistics move by more than a batch scatters within the pool that recalibration uses."""
        return bool(2 * self.layers.wandering.sum() > self.layers.updating.sum())

    @cached_property
    def drifting(self) -> Mask:
        """Layers whose batch statistics move away from the moving ones."""
        moving = self.layers.drifting | self.layers.wandering if self.pool_is_old else self.layers.drifting
        if self.parts is None:
            return moving
        return self.parts.drifting if self.rest_is == "drift" else moving & self.parts.drifting

    @cached_property
    def present_known(self) -> bool:
        """Whether statistics at the present weights were measured; they have no drift in them."""
        return self.parts is not None or self.losses.gap("recalibrated_now", "batch").known

    @cached_property
    def newest(self) -> Array:
        """Loss of the newest statistics there are over the window, [<= WINDOW].

        Without any at the present weights, the shortest averages have least drift in them.
        """
        where = self.drifting
        shorter: list[float] = []
        if not self.present_known and where.any():
            used = float(np.max(self.layers.beta[where]))
            shorter = [m for m in REPLAY_MOMENTA if m < used - 1e-9]
        return best_average(self.losses, ("recalibrated", "recalibrated_now"), shorter)

    @cached_property
    def newest_paired(self) -> bool:
        """Whether the newest statistics can be held against inference and batch statistics."""
        return len(self.losses.window.get("batch", np.empty(0))) > 0 and len(self.newest) > 0

    @cached_property
    def drift_cured(self) -> Gap:
        """What the newest statistics take away from the inference loss."""
        if self.parts is not None:
            return self.parts.rest
        return self.losses.judge(self.losses.window["inference"] - self.newest) if self.newest_paired else self.gap

    @cached_property
    def drift_left(self) -> Gap:
        """What the newest statistics leave over batch statistics."""
        if self.measured is not None and self.parts is not None:
            return self.measured.gap("recalibrated", self.measured.rival)
        return self.losses.judge(self.newest - self.losses.window["batch"]) if self.newest_paired else self.gap

    @cached_property
    def drift_rate(self) -> float:
        """Drift an update in batch standard deviations, of the median drifting layer."""
        return robust.median(self.layers.rate[self.drifting])

    @cached_property
    def significant_shift(self) -> Array:
        """Shift between pools, in multiples of its noise, that is no accident."""
        return drift.significance_limit(self.layers.channels)

    @cached_property
    def followed(self) -> float | None:
        """The largest replayed momentum that follows the drift closely enough, None where there is none."""
        if self.measured is not None and self.measured.replayed:
            return replays.advised(self.measured, self.longest_memory)
        batch = self.now("batch")
        good = [m for m, v in self.replayed.items() if self.losses.harm(v - batch) < WARNING_HARM]
        return max(good) if good else None

    @cached_property
    def following_momentum(self) -> float:
        """Momentum of least lag and noise at the measured drift; 1 where nothing drifts."""
        return outlook.following_momentum(self.layers)

    @cached_property
    def scheduled(self) -> bool:
        """Whether the learning rate changed during the run."""
        rates = self.history.loss("learning_rate")
        return len(np.unique(rates[~np.isnan(rates)])) > 1

    @cached_property
    def advised_learning_rate(self) -> float | None:
        """Learning rate at which the lag would be within tolerance, None where it is not known."""
        where = self.drifting
        lag = robust.median(self.layers.error[where])
        if self.pool_is_old:
            lag = max(lag, robust.median(self.layers.shift[where]))
        return advice.lower_learning_rate(self.now("learning_rate"), self.layers.tolerance, lag)

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
            if event.kind == "unfreeze" and event.step > compiled:
                thawed[[i for i in event.layers if i < len(thawed)]] = True
        # The change is seen at the record that follows it, so the statistics have to stay constant to the end.
        return np.asarray(thawed & self.layers.is_state("inference_mode", "never_updated", "unknown"))

    @cached_property
    def frozen_yet_updating(self) -> Mask:
        """Layers with trainable=False whose statistics move."""
        flag = np.array([layer.trainable for layer in self.manifest.layers], bool)
        return np.asarray(self.layers.updating & self.layers.is_state("updating") & ~flag)

    def off_momentum(self, factor: float) -> Mask:
        """Layers whose statistics show another momentum: windows ``1/(1-beta)`` that differ by more than the factor."""
        shown = ~np.isnan(self.layers.effective)
        return self.layers.updating & effective.differs(self.layers.effective, self.layers.momentum, factor) & shown

    # --- batches ---

    @cached_property
    def shared(self) -> Mask:
        """Layers that are called more than once in a step, where the calls were compared."""
        return ~np.isnan(self.layers.alternation)

    @cached_property
    def call_noise(self) -> float:
        """Largest distance between two calls on data of one kind, from batch noise.

        A single batch of n samples reads a distance of at most ``sqrt(1.5/n)``, the difference of two ``sqrt(3/n)``.
        """
        return math.sqrt(3.0 / (self.manifest.batch_size or 8))

    @cached_property
    def spread_over_random(self) -> float:
        """Largest spread of a layer's batch means, as a multiple of the most that random samples give."""
        return robust.largest(self.batches.overall)

    @cached_property
    def last_batch(self) -> Array:
        """Distance of the last, short batch of an epoch."""
        return latest(self.history, "epoch_end_distance")

    @cached_property
    def last_batch_left(self) -> Array:
        """What it leaves in the moving statistics."""
        return np.asarray((1.0 - self.layers.beta) * self.last_batch)

    @cached_property
    def usual_batch(self) -> Array:
        """Distance of a usual batch: median over the second half of the record."""
        late = self.history.row("since_min")[len(self.history.steps) // 2 :]
        return np.array([robust.median(column) for column in late.T])

    @cached_property
    def loss_after_last_batch(self) -> float:
        """Inference minus batch statistics at the end, right after the short batch, over the usual difference."""
        course = self.losses.course
        difference = course.get("inference", np.empty(0)) - course.get("batch", np.empty(0))
        if len(difference) < 3 or self.losses.step != self.history.last_step:
            return math.nan
        return float(difference[-1]) - robust.median(difference[:-1])

    # --- momentum too low ---

    @cached_property
    def lowest_momentum(self) -> float:
        """Of the updating layers."""
        return float(np.min(self.layers.beta[self.layers.updating]))

    def low(self, limit: float) -> Mask:
        """Updating layers of the lowest momentum, and those up to the limit."""
        return np.asarray(self.layers.updating & (self.layers.beta <= max(limit, self.lowest_momentum + 1e-6)))

    def best_higher(self, limit: float) -> float | None:
        """The replayed momentum above those layers' that has the least loss, None where none beats inference."""
        top = float(np.max(self.layers.beta[self.low(limit)]))
        higher = {m: v for m, v in self.replayed.items() if m > top + 1e-9}
        if not higher:
            return None
        best = min(higher, key=lambda m: higher[m])
        return best if higher[best] < self._as_used(top) else None

    def _as_used(self, momentum: float) -> float:
        """What a replay at a higher momentum is held against: inference, or the replay nearest to the one in use.

        A replay gives every layer one momentum. Where some have a higher one, it changes those as well.
        """
        if self.longest_memory <= momentum + 1e-6:
            return self.now("inference")
        nearest = min(self.replayed, key=lambda m: abs(math.log1p(-m) - math.log1p(-min(momentum, 0.999))))
        return min(self.now("inference"), self.replayed[nearest])

    @staticmethod
    def mirrored_momentum(momentum: float) -> float | None:
        """What somebody who pasted PyTorch's convention meant, None where that is no higher."""
        return 1.0 - momentum if 0.0 < momentum < 1.0 - momentum else None

    @cached_property
    def moving_scatter(self) -> Array:
        """Scatter of the moving statistics around their mean, as a distance, from batch noise."""
        return noise_floor(self.layers.scatter, self.layers.beta)

    @cached_property
    def jump(self) -> Gap:
        """Inference minus recalibrated that one probe in ten exceeds."""
        return self.losses.jump("inference", "recalibrated")

    @cached_property
    def jump_over_batch(self) -> Gap:
        """Inference minus batch statistics that one probe in ten exceeds."""
        return self.losses.jump("inference", "batch")

    # --- batch noise ---

    @cached_property
    def best_fixed(self) -> Array:
        """Loss of the fixed statistics that do best over the window, [<= WINDOW]."""
        return best_average(self.losses, ("recalibrated", "recalibrated_long", "recalibrated_now"))

    @cached_property
    def noise(self) -> Gap:
        """What no averaging takes away: the best fixed statistics minus batch statistics."""
        batch = self.losses.window.get("batch", np.empty(0))
        if len(self.best_fixed) != len(batch) or not len(batch):
            return UNKNOWN
        return self.losses.judge(self.best_fixed - batch)

    @cached_property
    def largest_scatter(self) -> float:
        """Distance of a single batch from the mean of all, in the noisiest layer."""
        return robust.largest(self.layers.scatter)

    # --- replicas ---

    @cached_property
    def replica_noise(self) -> Array:
        """Spread over replicas that batch noise explains.

        One sample a channel is the least there can be, which bounds the noise where it was not measured.
        """
        m, layers = self.manifest, self.layers
        share = (m.batch_size or m.replicas) / m.replicas
        single = np.fmax(layers.noise_mean * math.sqrt(m.replicas), 1.0 / math.sqrt(max(share, 1.0)))
        return np.asarray(NOISE_SIGMAS * noise_floor(np.where(np.isnan(single), 1.0, single), layers.beta))

    # --- exchanged weights ---

    @cached_property
    def exchange(self) -> exchanged.Exchange | None:
        """The probe after the last step against those during training, None where either is missing."""
        return exchanged.compare(self.history, self.losses, self.layers)

    # --- around BatchNorm ---

    @cached_property
    def dropout_rival(self) -> str:
        """Loss that training is held against for dropout: batch statistics, or inference where all layers are fixed."""
        if self.evidence is not None and self.measured is not None:
            return trained(self.evidence)
        return "inference" if not self.layers.names or self.constant.all() else "batch"

    @cached_property
    def dropout(self) -> Gap:
        """What dropout and other training-only layers add to the training loss."""
        if self.measured is not None and self.measured.has("training"):
            return self.measured.gap("training", self.dropout_rival)
        return self.losses.lasting_gap("training", self.dropout_rival)

    @cached_property
    def update(self) -> Gap:
        """Inference after the weight update minus inference before it, on the same batch."""
        return self.losses.lasting_gap("updated", "inference")

    @cached_property
    def averaging(self) -> Gap:
        """The loss that fit prints, an average over the epoch, minus the training loss now."""
        return self.losses.lasting_gap("fit_loss", "training")

    @cached_property
    def before_update(self) -> Gap:
        """The gap over the same probes as the two above."""
        return self.losses.lasting_gap("inference", "batch")

    @cached_property
    def dropout_before_update(self) -> Gap:
        """Training minus batch statistics over the same probes."""
        return self.losses.lasting_gap("training", "batch")

    # --- statistics that are not finite ---

    @cached_property
    def nonfinite_since(self) -> int | None:
        """First record with a moving statistic that is not finite; None where there is none, and in a check."""
        return None if self.checked else _first(self.history, "channels_nonfinite")


def _first(history: History, row: str) -> int | None:
    counts = np.nan_to_num(history.row(row)) > 0
    return int(history.steps[int(counts.any(1).argmax())]) if counts.any() else None

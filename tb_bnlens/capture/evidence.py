"""The measurement on many batches: every cause's intervention at the same weights, without side effects."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.extremes import extreme_rows
from tb_bnlens.capture.passes import Array, Outcome, Passes, Runner, moments_of
from tb_bnlens.capture.reservoir import Kept
from tb_bnlens.capture.samples import summary, summary_of_difference
from tb_bnlens.capture.spread import evenly
from tb_bnlens.capture.subject import Subject
from tb_bnlens.history import Evidence
from tb_bnlens.metadata import REPLAY_MOMENTUMS, REPLAY_ROWS, Moment
from tb_bnlens.moments.moments import Mask, Moments
from tb_bnlens.moments.statistics import BatchMoments, distance_rows, rms_distance

POOLED = 4
"""Times the usual batch size that ``pooled`` shows."""
LARGEST_POOLED = 512
"""Samples in a pooled batch at most: the noise of larger batches is seldom the fault, and memory may not hold them."""
SINGLE_ROWS = 64
"""Rows of the pass over single rows."""
MOMENTUM_OF_ROW = dict(zip(REPLAY_ROWS, REPLAY_MOMENTUMS, strict=True))
REPLAYS_AT_LEAST = 3
"""Momentum values that are replayed whatever time is left."""
FORGETS_IN, FORGOTTEN = 0.25, 0.03
"""A momentum serves a run if this share of its steps leaves no more than this share of the start."""
ROUGH = 6
"""Batches of a pass whose mean alone counts, and needs to be known to a third."""
REACTING = 2
"""Batches of a pass that asks whether the loss changes at all."""
MOST_EXTREME = 0.25
"""Where more rows are extreme, they are ordinary."""
UNMOVED = 1e-6
"""Relative difference of two losses that may be rounding."""
SEED = 20_150_211
PAIRS = (
    ("inference", "batch"),
    ("inference", "recalibrated"),
    ("inference", "batch_as_trained"),
    ("inference", "robust"),
    ("inference", "ordinary"),
)
"""Passes whose single-row losses are compared."""


class Judgement:
    """Runs the passes of ``metadata.PASSES`` on the batches of a reservoir.

    Args:
        runner: the model.
        subject: its BatchNorm layers.
        kept: training batches, at least one.
        validation: batches of validation data, if any.
        time_left: seconds that remain for passes that are not essential.
        strict: let faults out, for tests.
    """

    def __init__(
        self,
        runner: Runner,
        subject: Subject,
        kept: Sequence[Kept],
        validation: Sequence[tuple[Any, int]] = (),
        time_left: Callable[[], float] = lambda: math.inf,
        strict: bool = False,
    ):
        self._runner, self._subject, self._kept = runner, subject, tuple(kept)
        self._batches = [k.batch for k in kept]
        self._sizes = [k.size for k in kept]
        self._validation = tuple(validation)
        self._passes = Passes(runner, time_left, strict)
        self._on_validation = Passes(runner, time_left, strict)
        self._rows: dict[str, Array] = {}
        self._groups = subject.groups()
        self._nothing = np.zeros(len(subject.epsilon), bool)

    def look(self, step: int, moment: Moment, more_rows: Mapping[str, Array]) -> Evidence:
        """The essential passes alone. ``evidence`` does not repeat them."""
        self._describe(self._present)
        return self._packed(step, moment, more_rows)

    def evidence(
        self, step: int, moment: Moment, more_rows: Mapping[str, Array], interventions: bool = True
    ) -> Evidence:
        """Make the passes, the most telling ones first.

        Args:
            step: training steps made.
            moment: when it is made.
            more_rows: rows of ``metadata.EVIDENCE_ROWS`` that the caller knows, [L] each.
            interventions: make more than the essential passes.
        """
        present = self._present
        if present is not None and interventions:
            self._put_right(present)
            self._other_statistics(present)
            self._one_at_a_time(more_rows.get("batch_at_inference", np.zeros(1)))
            self._averaged_calls(present, more_rows.get("calls", np.ones(1)))
            self._other_batches(present)
            self._replays(step)
        self._describe(present)
        if self._validation:
            self._validate(present)
        return self._packed(step, moment, more_rows)

    def _packed(self, step: int, moment: Moment, more_rows: Mapping[str, Array]) -> Evidence:
        passes = self._passes
        layers = {**self._rows, **more_rows}
        return Evidence(
            step=step,
            moment=moment,
            batch_steps=np.array([k.step for k in self._kept], np.int64),
            batch_sizes=np.array(self._sizes, np.int64),
            batch_phases=np.array([k.phase for k in self._kept], np.int64),
            passes=dict(passes.results),
            validation=dict(self._on_validation.results),
            samples=self._samples(),
            layers={name: np.asarray(values, np.float64) for name, values in layers.items()},
            groups={name: self._subject.layers_of(mask) for name, mask in self._groups.items()},
            not_evaluated={
                **passes.not_evaluated,
                **{f"validation {name}": why for name, why in self._on_validation.not_evaluated.items()},
            },
        )

    # --- the parts -----------------------------------------------------------------------------------

    @cached_property
    def _present(self) -> _Present | None:
        """The pair that every verdict begins with, and the statistics at the present weights."""
        moving = self._subject.moving
        trained = self._subject.trained_channels
        self._run("inference", self._on(moving), essential=True, with_rows=True)
        everything = self._run("batch", self._by_batch(self._nothing), essential=True, with_rows=True)
        if not everything:
            return None
        as_trained = everything
        if not trained.all():
            as_trained = self._run("batch_as_trained", self._by_batch(~trained), essential=True, with_rows=True)
        if not as_trained:
            return None
        present = _Present(
            BatchMoments([moments_of(o) for o in as_trained], self._sizes),
            BatchMoments([moments_of(o) for o in everything], self._sizes),
            trained,
        )
        self._run(
            "recalibrated",
            lambda index, batch: self._runner.inference(batch, self._renewed(present.of_trained.mean(index))),
            essential=True,
            with_rows=True,
        )
        # The moving statistics average what this pass sees.
        if self._runner.trains_by_batch:
            self._passes.same_as("training", "batch")
            outcomes = everything
        else:
            outcomes = self._run("training", lambda _, batch: self._runner.training(batch), essential=True)
        if outcomes:
            present.in_training = BatchMoments([moments_of(o) for o in outcomes], self._sizes)
            self._under_dropout(present, present.in_training)
        self._without_padding(present)
        return present

    def _without_padding(self, present: _Present) -> None:
        """Inference on the statistics of the rows that count, where some have a weight of 0."""
        weights = [self._runner.weights(batch) for batch in self._batches]
        if not any(w is not None and np.any(np.asarray(w) == 0) for w in weights):
            return
        counted = self._of_rows(
            "counted",
            [
                np.arange(size) if w is None else np.flatnonzero(np.asarray(w))
                for w, size in zip(weights, self._sizes, strict=True)
            ],
        )
        if counted is not None:
            self._rows["counted_distance_rms"] = rms_distance(
                counted, present.of_trained.mean(), self._subject.segments, self._subject.epsilon
            )
            self._run("counted", self._on(self._renewed(counted)), essential=True)

    def _replays(self, step: int) -> None:
        """Inference on statistics of another momentum.

        The momentum values that forget the start in a quarter of the run come first. A few are made whatever time is
        left: advice must not depend on how busy the machine is.
        """
        memory = max(step, 1) * FORGETS_IN / math.log(1 / FORGOTTEN)

        def apart(name: str) -> float:
            return abs(math.log(memory * (1.0 - MOMENTUM_OF_ROW[name])))

        for i, name in enumerate(sorted(self._subject.replays, key=apart)):
            replay = self._subject.replays[name].or_else(self._subject.moving)
            self._run(name, self._on(replay), essential=i < REPLAYS_AT_LEAST)

    def _put_right(self, present: _Present) -> None:
        """Each group's share: put right alone at inference, and alone left wrong in batch mode."""
        moving, broken = self._subject.moving, self._subject.nonfinite()
        base = present.best().where(broken, moving)
        if broken.any():
            self._with(present, "put_right:nonfinite", broken, moving)
        made: dict[bytes, str] = {}
        for name, mask in self._groups.items():
            if name == "nonfinite":
                continue
            if mask.all() and self._is_one_group():
                self._passes.same_as(f"put_right:{name}", "recalibrated")
                self._passes.same_as(f"only:{name}", "inference")
                continue
            same = made.setdefault(mask.tobytes(), name)
            if same != name:
                self._passes.same_as(f"put_right:{name}", f"put_right:{same}")
                self._passes.same_as(f"only:{name}", f"only:{same}")
                continue
            self._with(present, f"put_right:{name}", mask, base)
            self._run(f"only:{name}", self._by_batch(mask, base))

    def _is_one_group(self) -> bool:
        """Whether putting all channels right is recalibration, and leaving all of them wrong is inference."""
        wired = any(self._runner.at_inference.values())
        return bool(self._subject.trained.all()) and not self._subject.nonfinite().any() and not wired

    def _with(self, present: _Present, name: str, mask: Mask, base: Moments) -> None:
        self._run(
            name,
            lambda index, batch: self._runner.inference(batch, present.best(index).where(mask, base).or_else(base)),
        )

    def _under_dropout(self, present: _Present, gathered: BatchMoments) -> None:
        """Inference on statistics that are gathered as the step gathers them: it tells a variance shift from a lag."""
        if np.array_equal(gathered.means, present.of_trained.means, equal_nan=True):
            self._passes.same_as("with_dropout", "recalibrated")  # there are no training-only layers before a BatchNorm
            return
        self._run(
            "with_dropout",
            lambda index, batch: self._runner.inference(batch, self._renewed(gathered.mean(index))),
            essential=True,
        )

    def _other_statistics(self, present: _Present) -> None:
        """Inference on statistics that were gathered in other ways."""
        moving, trained = self._subject.moving, self._subject.trained_channels
        self._run("robust", self._on(self._renewed(present.of_trained.median())), with_rows=True)
        self._without_extremes(present)
        self._perturb(present)
        if not trained.all():
            self._run(
                "recalibrated_all",
                lambda index, batch: self._runner.inference(batch, present.of_all.mean(index).or_else(moving)),
            )

    def _without_extremes(self, present: _Present) -> None:
        """Inference on the statistics of ordinary rows, where a few have inputs far outside of the others'."""
        columns = [self._runner.inputs(batch) for batch in self._batches]
        if any(c is None or c.shape[1:] != columns[0].shape[1:] for c in columns):  # type: ignore[union-attr]
            return
        extreme = extreme_rows(np.concatenate(columns))  # type: ignore[arg-type]
        if not 0 < extreme.mean() < MOST_EXTREME:
            return
        kept = np.split(~extreme, np.cumsum(self._sizes)[:-1])
        ordinary = self._of_rows("ordinary", [np.flatnonzero(rows) for rows in kept])
        if ordinary is not None:
            self._rows["ordinary_distance_rms"] = rms_distance(
                ordinary, present.of_trained.mean(), self._subject.segments, self._subject.epsilon
            )
            self._rows["extreme_share"] = np.full(len(self._subject.segments), extreme.mean())
            self._run("ordinary", self._on(self._renewed(ordinary)), essential=True, with_rows=True)

    def _perturb(self, present: _Present) -> None:
        """Inference on quite other statistics."""
        base = present.best().or_else(self._subject.moving)
        away = Moments(base.mean + np.sqrt(np.maximum(base.variance, 0) + self._subject.epsilon), 4 * base.variance)
        batches, sizes = self._batches[:REACTING], self._sizes[:REACTING]
        self._passes.run("perturbed", batches, sizes, self._on(away))

    def _one_at_a_time(self, batch_at_inference: Array) -> None:
        """Rows that have no batch, where a layer normalizes by the batch at inference; and what calling it right gives.

        A pass that does not react to the statistics is checked too, whatever the layers are called with.
        """
        wired = bool(np.any(batch_at_inference == 1))
        there, here = (self._passes.results.get(name) for name in ("perturbed", "inference"))
        unmoved = (
            there is not None
            and here is not None
            and np.allclose(there.losses, here.losses[: len(there.losses)], rtol=UNMOVED, atol=0.0, equal_nan=True)
        )
        if not (wired or unmoved or self._runner.always_by_batch):
            return
        rows = evenly(sum(self._sizes), SINGLE_ROWS)
        moving = self._subject.moving
        # Nothing else shows what such a layer costs: every other pass has a batch.
        self._composed("one_at_a_time", [rows[i : i + 1] for i in range(len(rows))], self._on(moving), essential=True)
        if wired:
            self._run("on_moving", self._by_batch(np.ones(len(self._nothing), bool), moving))

    def _averaged_calls(self, present: _Present, calls: Array) -> None:
        """Each batch on its own statistics, but the same ones in every call of a layer."""
        if np.any(calls > 1):
            own = present.of_trained
            self._run(
                "calls_averaged",
                lambda index, batch: self._runner.inference(
                    batch, self._renewed(Moments(own.means[index], own.variances[index]))
                ),
            )

    def _other_batches(self, present: _Present) -> None:
        """Batch mode on rows that training has not put together."""
        order = np.random.default_rng(SEED).permutation(sum(self._sizes))
        stops = np.cumsum(self._sizes)[:-1]
        as_trained = self._by_batch(~self._subject.trained_channels)
        if len(self._sizes) > 1:
            self._composed("recombined", np.split(order, stops), as_trained)
            own, other = np.split(np.arange(len(order)), stops), np.split(order, stops)
            few = evenly(len(own), ROUGH)
            self._composed("mismatched", [own[i] for i in few], as_trained, [other[i] for i in few])
            large = POOLED * max(self._sizes)
            whole = len(order) // large
            if whole and large <= LARGEST_POOLED:
                self._composed("pooled", np.split(order[: whole * large], whole), as_trained)
            else:
                self._passes.not_evaluated["pooled"] = "too few rows are kept, or too large batches"

    def _of_rows(self, name: str, rows: Sequence[NDArray[np.int64]]) -> Moments | None:
        """Statistics of some rows of each batch; None where they cannot be had, and ``not_evaluated`` says why."""
        found: list[Moments] = []
        sizes: list[int] = []

        def gather() -> None:
            for batch, chosen in zip(self._batches, rows, strict=True):
                if len(chosen) > 1:
                    (some,) = self._runner.compose([batch], [chosen])
                    outcome = self._runner.batch(some, self._subject.moving, ~self._subject.trained_channels)
                    found.append(moments_of(outcome))
                    sizes.append(len(chosen))

        self._passes.measured(name, gather)
        return BatchMoments(found, sizes).mean() if found and name not in self._passes.not_evaluated else None

    def _composed(
        self,
        name: str,
        rows: Sequence[NDArray[np.int64]],
        forward: Callable[[int, Any], Outcome],
        targets: Sequence[NDArray[np.int64]] | None = None,
        *,
        essential: bool = False,
    ) -> None:
        batches: list[Any] = []
        self._passes.measured(name, lambda: batches.extend(self._runner.compose(self._batches, rows, targets)))
        if batches:
            self._passes.run(name, batches, [len(r) for r in rows], forward, essential=essential)

    def _validate(self, present: _Present | None) -> None:
        moving = self._subject.moving
        batches, sizes = [b for b, _ in self._validation], [n for _, n in self._validation]
        run = self._on_validation.run
        run("inference", batches, sizes, self._on(moving), essential=True)
        outcomes = run("batch", batches, sizes, self._by_batch(self._nothing), essential=True)
        if present is not None:
            run(
                "recalibrated",
                batches,
                sizes,
                self._on(self._renewed(present.of_trained.mean())),
            )
        if outcomes:
            self._rows["validation_distance_rms"] = rms_distance(
                BatchMoments([moments_of(o) for o in outcomes], sizes).mean(),
                moving,
                self._subject.segments,
                self._subject.epsilon,
            )

    def _describe(self, present: _Present | None) -> None:
        """The rows of the layers."""
        segments, epsilon, moving = self._subject.segments, self._subject.epsilon, self._subject.moving
        self._rows["initial_share"] = segments.count(self._subject.initial()) / segments.sizes
        self._rows["nonfinite_share"] = segments.count(self._subject.nonfinite()) / segments.sizes
        if present is None:
            return
        reference = present.best()
        self._rows |= distance_rows(reference, moving, segments, epsilon)
        self._rows |= present.of_trained.spread_rows(segments, epsilon)
        if present.in_training is not None:
            noisy = present.in_training.mean()
            self._rows["mode_distance_rms"] = rms_distance(noisy, reference, segments, epsilon)
            self._rows["with_dropout_distance_rms"] = rms_distance(noisy, moving, segments, epsilon)
            with np.errstate(all="ignore"):
                ratio = (noisy.variance + epsilon) / (reference.variance + epsilon)
            (self._rows["mode_variance_p50"],) = segments.quantiles(ratio, (0.5,))

    def _samples(self) -> dict[str, dict[str, float]]:
        rows = self._passes.rows
        if "samples" in self._passes.not_evaluated:
            return {}
        found = {name: summary(rows.of(name)) for name in rows.losses}
        for a, b in PAIRS:
            if a in found and b in found:
                found[f"{a}-{b}"] = summary_of_difference(rows.of(a), rows.of(b))
        return found

    # --- short hands ---------------------------------------------------------------------------------

    def _run(
        self,
        name: str,
        forward: Callable[[int, Any], Outcome],
        *,
        essential: bool = False,
        with_rows: bool = False,
    ) -> list[Outcome]:
        return self._passes.run(name, self._batches, self._sizes, forward, essential=essential, with_rows=with_rows)

    def _on(self, moving: Moments) -> Callable[[int, Any], Outcome]:
        return lambda _, batch: self._runner.inference(batch, moving)

    def _renewed(self, moments: Moments) -> Moments:
        """These in the layers that training normalizes by the batch, the moving statistics in the others."""
        moving = self._subject.moving
        return moments.where(self._subject.trained_channels, moving).or_else(moving)

    def _by_batch(self, on_moving: Mask, moving: Moments | None = None) -> Callable[[int, Any], Outcome]:
        return lambda _, batch: self._runner.batch(batch, moving or self._subject.moving, on_moving)


class _Present:
    """Batch statistics at the present weights, with all layers in batch mode or with the trained ones alone."""

    def __init__(self, of_trained: BatchMoments, of_all: BatchMoments, trained: Mask):
        self.of_trained, self.of_all, self._trained = of_trained, of_all, trained
        self.in_training: BatchMoments | None = None

    def best(self, leave_out: int | None = None) -> Moments:
        """As training gathers them, with dropout off; for layers that training leaves alone, those of batch mode."""
        return self.of_trained.mean(leave_out).where(self._trained, self.of_all.mean(leave_out))

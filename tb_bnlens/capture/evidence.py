"""The measurement on many batches: every cause's intervention at the same weights, without side effects."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tb_bnlens.capture.bench import Bench, Present
from tb_bnlens.capture.changed import newer_kind
from tb_bnlens.capture.other_batches import one_at_a_time, other_batches, targets_changed
from tb_bnlens.capture.other_statistics import (
    averaged_calls,
    other_statistics,
    replays,
    under_dropout,
    without_padding,
)
from tb_bnlens.capture.passes import Array, Passes, Runner, moments_of
from tb_bnlens.capture.put_right import put_right
from tb_bnlens.capture.reservoir import Kept, Reservoir
from tb_bnlens.capture.samples import summary, summary_of_difference
from tb_bnlens.capture.subject import Subject
from tb_bnlens.history import Evidence, PassResult, trained
from tb_bnlens.metadata import Moment
from tb_bnlens.moments.statistics import BatchMoments, distance_rows

WORSE = 0.05
"""Inference is worse where its loss is this share of the loss above it."""
WORSE_THAN_SPREAD = 0.5
"""It is worse, too, where this share of the spread of batches' losses lies between: an offset does not change that."""
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
        self._subject, self._kept = subject, tuple(kept)

        def bench(batches: Sequence[Any], sizes: Sequence[int]) -> Bench:
            return Bench(runner, subject, batches, sizes, Passes(runner, time_left, strict))

        self._new_bench = bench
        self._bench = bench([k.batch for k in kept], [k.size for k in kept])
        self._validation = bench([b for b, _ in validation], [n for _, n in validation])
        self._groups = subject.groups()

    def look(self, step: int, moment: Moment, more_rows: Mapping[str, Array]) -> Evidence:
        """The essential passes alone. ``evidence`` does not repeat them."""
        self._describe(self._present)
        return self._packed(step, moment, more_rows)

    def evidence(
        self, step: int, moment: Moment, more_rows: Mapping[str, Array], interventions: bool = True
    ) -> Evidence:
        """Make the passes, the most telling ones first.

        Where inference is worse than batch statistics, all are made whatever time is left: the cause that is named
        must not depend on how busy the machine is.

        Args:
            step: training steps made.
            moment: when it is made.
            more_rows: rows of ``metadata.EVIDENCE_ROWS`` that the caller knows, [L] each.
            interventions: make more than the essential passes.
        """
        bench = self._bench
        if not len(self._subject.segments):
            self._without_layers()
            return self._packed(step, moment, {})
        present = self._present
        if present is not None and interventions:
            bench.passes.all_essential = self._validation.passes.all_essential = self.finds_inference_worse()
            put_right(bench, present, self._groups)
            other_statistics(bench, present)
            one_at_a_time(bench, more_rows.get("batch_at_inference", np.zeros(1)))
            averaged_calls(bench, present, more_rows.get("calls", np.ones(1)))
            other_batches(bench)
            replays(bench, step)
        self._describe(present)
        if self._validation.batches:
            self._validate(present)
        return self._packed(step, moment, more_rows)

    def _without_layers(self) -> None:
        """What tells that something else normalizes by the batch: both modes, and rows without a batch."""
        bench, moving = self._bench, self._subject.moving
        bench.run("inference", bench.on(moving), essential=True, with_rows=True)
        bench.passes.same_as("batch", "inference")
        bench.run("training", lambda _, batch: bench.runner.training(batch), essential=True)
        one_at_a_time(bench, np.zeros(1))

    def newer_kind(self, reservoir: Reservoir) -> int | None:
        """Step of the first batch from which on the data are of another kind than before; None where they are not.

        What changes within an epoch comes back in the next one, and batches of one class each may come in any order.

        Args:
            reservoir: knows whether data come again.
        """
        bench, subject, present = self._bench, self._subject, self._present
        steps = [k.step for k in self._kept]
        if present is None or len({k.phase for k in self._kept}) > 1 or steps != sorted(set(steps)):
            return None
        first = newer_kind(present.of_trained, subject.segments, subject.epsilon, reservoir.is_stream)
        if first is None or steps[-1] - steps[first - 1] < reservoir.comes_back_after:
            return None
        # Their passes are no part of the evidence.
        return None if targets_changed(self._new_bench(bench.batches, bench.sizes), first) else steps[first]

    def before(self, step: int) -> dict[str, PassResult]:
        """What inference and batch statistics give on the batches before this step."""
        earlier = np.array([k.step < step for k in self._kept])
        results = self._bench.passes.results
        return {
            name: PassResult(results[of].losses[earlier], results[of].sizes[earlier])
            for name, of in (("inference", "inference"), ("batch", trained(results)))
            if of in results
        }

    def without_loss(self) -> set[int]:
        """Steps of the batches that have no finite loss, as one without a label; none where no batch has one."""
        _ = self._present
        found = self._bench.passes.results.get("batch")
        lost = np.zeros(0, bool) if found is None else ~np.isfinite(found.losses)
        return set() if lost.all() else {k.step for k, yes in zip(self._kept, lost, strict=True) if yes}

    def finds_inference_worse(self) -> bool:
        """Whether inference is worse than batch statistics by more than healthy networks show."""
        results = self._bench.passes.results if self._present is not None else {}
        if not {"inference", "batch"} <= results.keys():
            return False
        inference, batch = results["inference"].mean, results["batch"].mean
        if not np.isfinite(inference):
            return True
        losses = results["batch"].losses
        enough = WORSE * abs(batch)
        if len(losses) > 1:
            enough = min(enough, WORSE_THAN_SPREAD * float(np.std(losses)))
        return bool(inference - batch > enough)

    def _packed(self, step: int, moment: Moment, more_rows: Mapping[str, Array]) -> Evidence:
        passes, on_validation = self._bench.passes, self._validation.passes
        layers = {**self._bench.rows, **more_rows}
        return Evidence(
            step=step,
            moment=moment,
            batch_steps=np.array([k.step for k in self._kept], np.int64),
            batch_sizes=np.array(self._bench.sizes, np.int64),
            batch_phases=np.array([k.phase for k in self._kept], np.int64),
            passes=dict(passes.results),
            validation=dict(on_validation.results),
            samples=self._samples(),
            layers={name: np.asarray(values, np.float64) for name, values in layers.items()},
            groups={name: self._subject.layers_of(mask) for name, mask in self._groups.items()},
            not_evaluated={
                **passes.not_evaluated,
                **{f"validation {name}": why for name, why in on_validation.not_evaluated.items()},
            },
        )

    @cached_property
    def _present(self) -> Present | None:
        """The pair that every verdict begins with, and the statistics at the present weights."""
        bench, sizes = self._bench, self._bench.sizes
        channels = self._subject.trained_channels
        bench.run("inference", bench.on(self._subject.moving), essential=True, with_rows=True)
        everything = bench.run("batch", bench.by_batch(bench.nothing), essential=True, with_rows=True)
        if not everything:
            return None
        as_trained = everything
        if not channels.all():
            as_trained = bench.run("batch_as_trained", bench.as_trained(), essential=True, with_rows=True)
        if not as_trained:
            return None
        present = Present(
            BatchMoments([moments_of(o) for o in as_trained], sizes),
            BatchMoments([moments_of(o) for o in everything], sizes),
            channels,
        )
        recalibrated = bench.on_each(lambda index: bench.renewed(present.of_trained.mean(index)))
        bench.run("recalibrated", recalibrated, essential=True, with_rows=True)
        # The moving statistics average what this pass sees.
        if bench.runner.trains_by_batch:
            bench.passes.same_as("training", "batch")
            outcomes = everything
        else:
            outcomes = bench.run("training", lambda _, batch: bench.runner.training(batch), essential=True)
        if outcomes:
            present.in_training = BatchMoments([moments_of(o) for o in outcomes], sizes)
            under_dropout(bench, present, present.in_training)
        without_padding(bench, present)
        return present

    def _validate(self, present: Present | None) -> None:
        bench, moving = self._validation, self._subject.moving
        bench.run("inference", bench.on(moving), essential=True)
        outcomes = bench.run("batch", bench.by_batch(bench.nothing), essential=True)
        if present is not None:
            bench.run("recalibrated", bench.on(bench.renewed(present.of_trained.mean())))
        if outcomes:
            seen = BatchMoments([moments_of(o) for o in outcomes], bench.sizes).mean()
            self._bench.describe({"validation_distance_rms": bench.distance(seen, moving)})

    def _describe(self, present: Present | None) -> None:
        """The rows of the layers."""
        bench, subject = self._bench, self._subject
        segments, epsilon, moving = subject.segments, subject.epsilon, subject.moving
        bench.describe(
            {
                "initial_share": segments.count(subject.moving.are_new()) / segments.sizes,
                "nonfinite_share": segments.count(subject.nonfinite()) / segments.sizes,
            }
        )
        if present is None:
            return
        reference = present.best()
        bench.describe(distance_rows(reference, moving, segments, epsilon))
        bench.describe(present.of_trained.spread_rows(segments, epsilon))
        if present.in_training is not None:
            noisy = present.in_training.mean()
            with np.errstate(all="ignore"):
                ratio = (noisy.variance + epsilon) / (reference.variance + epsilon)
            bench.describe(
                {
                    "mode_distance_rms": bench.distance(noisy, reference),
                    "with_dropout_distance_rms": bench.distance(noisy, moving),
                    "mode_variance_p50": segments.quantiles(ratio, (0.5,))[0],
                }
            )

    def _samples(self) -> dict[str, dict[str, float]]:
        passes = self._bench.passes
        if "samples" in passes.not_evaluated:
            return {}
        found = {name: summary(passes.rows.of(name)) for name in passes.rows.losses}
        for a, b in PAIRS:
            if a in found and b in found:
                found[f"{a}-{b}"] = summary_of_difference(passes.rows.of(a), passes.rows.of(b))
        return found

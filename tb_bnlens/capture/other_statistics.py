"""Inference on statistics that were gathered in other ways: what each way gives back tells what went wrong."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.capture.bench import Bench, Present
from tb_bnlens.capture.extremes import extreme_rows
from tb_bnlens.capture.passes import Array, has_uncounted_rows
from tb_bnlens.metadata import REPLAY_MOMENTUMS, REPLAY_ROWS
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.statistics import BatchMoments

MOMENTUM_OF_ROW = dict(zip(REPLAY_ROWS, REPLAY_MOMENTUMS, strict=True))
REPLAYS_AT_LEAST = 3
"""Momentum values that are replayed whatever time is left."""
FORGETS_IN, FORGOTTEN = 0.25, 0.03
"""A momentum serves a run if this share of its steps leaves no more than this share of the start."""
REACTING = 2
"""Batches of a pass that asks whether the loss changes at all."""
MOST_EXTREME = 0.25
"""Where more rows are extreme, they are ordinary."""


def without_padding(bench: Bench, present: Present) -> None:
    """The statistics of the rows that count, where some have a weight of 0."""
    weights = [bench.runner.weights(batch) for batch in bench.batches]
    if any(map(has_uncounted_rows, weights)):
        bench.on_rows(
            "counted",
            [
                np.arange(size) if w is None else np.flatnonzero(np.asarray(w))
                for w, size in zip(weights, bench.sizes, strict=True)
            ],
            present,
        )


def under_dropout(bench: Bench, present: Present, gathered: BatchMoments) -> None:
    """Statistics that are gathered as the step gathers them: they tell a variance shift from a lag."""
    if np.array_equal(gathered.means, present.of_trained.means, equal_nan=True):
        bench.passes.same_as("with_dropout", "recalibrated")  # no training-only layers stand before a BatchNorm
        return
    bench.run("with_dropout", bench.on_each(lambda index: bench.renewed(gathered.mean(index))), essential=True)


def other_statistics(bench: Bench, present: Present) -> None:
    """Medians, the statistics of ordinary rows, quite other ones, and those of frozen layers too."""
    moving, trained = bench.subject.moving, bench.subject.trained_channels
    bench.run("robust", bench.on(bench.renewed(present.of_trained.median())), with_rows=True)
    _without_extremes(bench, present)
    _perturb(bench, present)
    if not trained.all():
        bench.run("recalibrated_all", bench.on_each(lambda index: present.of_all.mean(index).or_else(moving)))


def _without_extremes(bench: Bench, present: Present) -> None:
    """The statistics of ordinary rows, where a few have inputs far outside of the others'."""
    columns = [bench.runner.inputs(batch) for batch in bench.batches]
    if any(c is None or c.shape[1:] != columns[0].shape[1:] for c in columns):  # type: ignore[union-attr]
        return
    extreme = extreme_rows(np.concatenate(columns))  # type: ignore[arg-type]
    bench.describe({"extreme_share": np.full(len(bench.subject.segments), extreme.mean())})
    each = np.split(extreme, np.cumsum(bench.sizes)[:-1])
    # Where most rows of a batch are extreme, the batch is of another kind. Few rows drawn at random are so placed.
    of_kinds = sum(int(rows.sum()) for rows in each if len(rows) > 1 and 2 * rows.sum() > len(rows))
    if not 0 < extreme.mean() < MOST_EXTREME or 2 * of_kinds > extreme.sum():
        return
    ordinary = [np.flatnonzero(~rows) for rows in each]
    bench.on_rows("ordinary", ordinary, present, with_rows=True)


def _perturb(bench: Bench, present: Present) -> None:
    """Quite other statistics."""
    base = present.best().or_else(bench.subject.moving)
    away = Moments(base.mean + np.sqrt(np.maximum(base.variance, 0) + bench.subject.epsilon), 4 * base.variance)
    batches, sizes = bench.batches[:REACTING], bench.sizes[:REACTING]
    bench.passes.run("perturbed", batches, sizes, bench.on(away), essential=True)


def averaged_calls(bench: Bench, present: Present, calls: Array) -> None:
    """Each batch on its own statistics, but the same ones in every call of a layer.

    Args:
        bench: makes the passes.
        present: the statistics of each batch.
        calls: calls of each layer in one pass, [L].
    """
    if np.any(calls > 1):
        own = present.of_trained
        each = bench.on_each(lambda index: bench.renewed(Moments(own.means[index], own.variances[index])))
        bench.run("calls_averaged", each)


def replays(bench: Bench, step: int) -> None:
    """The statistics that another momentum would have left.

    The momentum values that forget the start in a quarter of the run come first. A few are made whatever time is
    left: advice must not depend on how busy the machine is.

    Args:
        bench: makes the passes.
        step: training steps made.
    """
    memory = max(step, 1) * FORGETS_IN / math.log(1 / FORGOTTEN)

    def apart(name: str) -> float:
        return abs(math.log(memory * (1.0 - MOMENTUM_OF_ROW[name])))

    for i, name in enumerate(sorted(bench.subject.replays, key=apart)):
        replay = bench.subject.replays[name].or_else(bench.subject.moving)
        bench.run(name, bench.on(replay), essential=i < REPLAYS_AT_LEAST)

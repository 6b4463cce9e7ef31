"""The same rows in other batches, or in none: what a batch's company does for its loss."""

from __future__ import annotations

import numpy as np

from tb_bnlens.capture.bench import Bench, Rows
from tb_bnlens.capture.passes import Array, moments_of
from tb_bnlens.capture.spread import evenly
from tb_bnlens.moments.statistics import BatchMoments

POOLED = 4
"""Times the usual batch size that ``pooled`` shows."""
LARGEST_POOLED = 512
"""Samples in a pooled batch at most: the noise of larger batches is seldom the fault, and memory may not hold them."""
SINGLE_ROWS = 64
"""Rows of the pass over single rows."""
ROUGH = 6
"""Batches of a pass whose mean alone counts, and needs to be known to a third."""
OF_COMPANY = 0.5
"""Of what a row's own target does, the targets of its company do this share where a batch is of one class."""
UNMOVED = 1e-6
"""Relative difference of two losses that may be rounding."""
SEED = 20_150_211


def one_at_a_time(bench: Bench, batch_at_inference: Array) -> None:
    """Rows that have no batch, where a layer normalizes by the batch at inference; and what calling it right gives.

    A pass that does not react to the statistics is checked too, whatever the layers are called with.

    Args:
        bench: makes the passes.
        batch_at_inference: 1 for each layer that is known to, [L].
    """
    wired = bool(np.any(batch_at_inference == 1))
    there, here = (bench.passes.results.get(name) for name in ("perturbed", "inference"))
    unmoved = (
        there is not None
        and here is not None
        and np.allclose(there.losses, here.losses[: len(there.losses)], rtol=UNMOVED, atol=0.0, equal_nan=True)
    )
    if not (wired or unmoved or bench.runner.always_by_batch):
        return
    rows = evenly(sum(bench.sizes), SINGLE_ROWS)
    moving = bench.subject.moving
    # Nothing else shows what such a layer costs: every other pass has a batch.
    bench.composed("one_at_a_time", [rows[i : i + 1] for i in range(len(rows))], bench.on(moving), essential=True)
    if wired:
        bench.run("on_moving", bench.by_batch(~bench.nothing, moving))


def _each_anothers(rows: Rows) -> Rows:
    """For each row another one of its batch, drawn at random."""
    found = []
    for batch in rows:
        order = np.random.default_rng(SEED).permutation(len(batch))
        others = np.empty_like(batch)
        others[order] = batch[np.roll(order, 1)]
        found.append(others)
    return found


def targets_changed(bench: Bench, first: int) -> bool:
    """Whether targets tell the batches from this one on from those before, as where classes come one after another.

    Then the targets of other rows of a batch serve more than half as well as a row's own, against earlier ones.
    """
    own = np.split(np.arange(sum(bench.sizes)), np.cumsum(bench.sizes)[:-1])
    rows = [own[i] for i in first + evenly(len(own) - first, ROUGH)]
    earlier = np.random.default_rng(SEED).permutation(np.concatenate(own[:first]))
    of_earlier = [np.resize(earlier, len(batch)) for batch in rows]
    for name, targets in (("batch", rows), ("swapped", _each_anothers(rows)), ("mismatched", of_earlier)):
        bench.composed(name, rows, bench.as_trained(), targets)
    found = [bench.passes.results[x].mean for x in ("batch", "swapped", "mismatched") if x in bench.passes.results]
    return len(found) == 3 and found[2] - found[1] > OF_COMPANY * (found[2] - found[0])


def other_batches(bench: Bench) -> None:
    """Batch mode on rows that training has not put together."""
    sizes = bench.sizes
    if len(sizes) < 2:
        return
    order = np.random.default_rng(SEED).permutation(sum(sizes))
    stops = np.cumsum(sizes)[:-1]
    own, other = np.split(np.arange(len(order)), stops), np.split(order, stops)
    as_trained = bench.as_trained()
    # Nothing else tells that rows come in an order. That is a frequent fault, and no loss may show it.
    outcomes = bench.composed("recombined", other, as_trained, essential=True)
    if outcomes:
        mixed = BatchMoments([moments_of(o) for o in outcomes], [len(rows) for rows in other])
        spread = mixed.spread_rows(bench.subject.segments, bench.subject.epsilon)
        if spread:
            bench.describe({"dominance_mixed": spread["dominance_max"]})
    # A loss that compares the rows of a batch changes with their company on fixed statistics too.
    bench.composed("recombined_inference", other, bench.on(bench.subject.moving), essential=True)
    few = evenly(len(own), ROUGH)
    rows = [own[i] for i in few]
    # Where training runs on constant statistics no other loss tells whether it has learned with them.
    constant = not bench.subject.trained_channels.all()
    bench.composed("mismatched", rows, as_trained, [other[i] for i in few], essential=constant)
    bench.composed("swapped", rows, as_trained, _each_anothers(rows))
    large = POOLED * max(sizes)
    whole = len(order) // large
    if whole and large <= LARGEST_POOLED:
        bench.composed("pooled", np.split(order[: whole * large], whole), as_trained)
    else:
        bench.passes.not_evaluated["pooled"] = "too few rows are kept, or too large batches"

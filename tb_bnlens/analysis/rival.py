"""What inference is held against: a fair loss with batch statistics."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import drift, regrouped
from tb_bnlens.history import Evidence, PassResult, trained

ERRORS_APART = 3.09
"""New compositions do worse where they do so by more than this many standard errors: once in a thousand times by chance
(one-sided normal quantile). At 2 it was one of 45 trainings with reshuffled batches."""
GAPS_APART = 2.0
"""What inference loses on training's batches is due to these where new compositions lose so many standard errors less.
What a fault of the statistics takes is the same on both, and by chance one run in 45 passes this limit."""
BY_COMPANY = 0.5
"""Share of what a row's own target is better than any other by which the target of its company is, too."""
SAME_MODE = 0.1
"""Share of the difference between two passes within which training agrees with one of them, on every batch."""


def in_training(evidence: Evidence) -> str:
    """The pass that shows what training sees, without dropout.

    Frozen layers stay on their moving statistics, but one of the user's own class may normalize with the batch all the
    same. Then the training pass gives the loss of the pass with batch statistics everywhere, batch for batch.
    """
    passes = evidence.passes
    usual = trained(passes)
    if usual == "batch" or "training" not in passes or "batch" not in passes:
        return usual
    seen, batch, held = (passes[name].losses for name in ("training", "batch", usual))
    n = min(len(seen), len(batch), len(held))
    apart = np.abs(held[:n] - batch[:n])
    close = np.abs(seen[:n] - batch[:n]) <= SAME_MODE * apart
    return "batch" if n and bool(np.all(close & (apart > 0))) else usual


def spread_limit(evidence: Evidence) -> float:
    """``between_within`` that batches of rows drawn at random exceed in one of 1,000 cases; inf for single rows.

    A batch's own variance holds ``1 - 1/n`` of that between its n rows.
    """
    size = 1.0 / float(np.mean(1.0 / evidence.batch_sizes))
    return float(drift.variance_limit(len(evidence.batch_sizes) - 1)) * size / (size - 1.0) if size > 1.0 else np.inf


def unlike(evidence: Evidence) -> NDArray[np.bool_]:
    """Layers whose batch means differ by more than those of rows drawn at random, [L]; [0] where not measured."""
    return np.asarray(evidence.layers.get("between_within", np.empty(0)) > spread_limit(evidence))


def similar(evidence: Evidence) -> bool:
    """Whether the batches look like random draws of the rows, as far as so many batches can tell."""
    return not unlike(evidence).any()


def company_tells(evidence: Evidence) -> bool:
    """Whether a row's target shows in its company: the targets of other rows of its batch serve as well as its own.

    So it is where each batch holds one class. What the targets of other batches make worse is due to the batch.
    """
    strange, swapped = (evidence.passes.get(name) for name in ("mismatched", "swapped"))
    own = evidence.passes.get(trained(evidence.passes))
    if strange is None or swapped is None or own is None or len(strange.losses) != len(swapped.losses):
        return False
    of_batch = strange.losses - swapped.losses
    surely = strange.mean - swapped.mean > ERRORS_APART * standard_error(of_batch, strange.sizes)
    return bool(surely and strange.mean - swapped.mean > BY_COMPANY * (strange.mean - own.mean))


def rows_belong(evidence: Evidence) -> bool:
    """Whether the rows of a batch belong together by their losses on fixed statistics, as where data come from sources.

    Batches of the same rows drawn at random have a few bad rows as well, so that the two variances differ by little
    more than those of normal values do.
    """
    own, mixed = (evidence.passes.get(name) for name in ("inference", "recombined_inference"))
    if own is None or mixed is None or len(own.losses) != len(mixed.losses) or len(own.losses) < 3:
        return False
    with np.errstate(invalid="ignore"):
        return bool(np.var(own.losses) > variance_ratio_limit(len(own.losses)) * np.var(mixed.losses))


@functools.cache
def variance_ratio_limit(count: int) -> float:
    """Ratio of the variances of two samples of so many normal values that one in 1,000 exceeds (quantile of F).

    Example:
        >>> round(variance_ratio_limit(24))
        4
    """
    random = np.random.default_rng(0)
    ratios = np.divide(*(random.chisquare(count - 1, 100_000) for _ in range(2)))
    return float(np.quantile(ratios, 1.0 - 1e-3))


def gaps(evidence: Evidence) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What inference loses on each batch, [B], and on each new batch of the same rows, [B]; empty if not measured."""
    names = ("inference", trained(evidence.passes)), ("recombined_inference", "recombined")
    found = []
    for pair in names:
        here, there = (evidence.passes[name].losses if name in evidence.passes else np.empty(0) for name in pair)
        found.append(here - there if len(here) == len(there) else np.empty(0))
    own, mixed = found
    known = len(own) == len(mixed) and bool(np.isfinite([*own, *mixed]).all())
    return (own, mixed) if known else (np.empty(0), np.empty(0))


def served_apart(evidence: Evidence) -> bool:
    """Whether fixed statistics serve some of the batches and not others, in no order of time.

    So it is where sources take turns and each batch is of one: batch statistics adapt to it. Losses on fixed statistics
    then differ by more than those of the same rows mixed (one such run in 1,000 does), and so does what inference
    loses. Where the order goes with time the data may have changed, and early batches say little of the present ones.
    """
    own, mixed = gaps(evidence)
    if not len(own) or not own.mean() > 0.0:
        return False
    fixed, fixed_mixed = (evidence.passes[name].losses for name in ("inference", "recombined_inference"))
    in_order = fixed[np.argsort(evidence.batch_steps, kind="stable")]
    return _apart(*(tuple(x.tolist()) for x in (own, mixed, fixed, fixed_mixed, in_order)))


@functools.lru_cache(maxsize=256)  # a report needs the rival many times, and regrouping takes milliseconds
def _apart(*losses: tuple[float, ...]) -> bool:
    own, mixed, fixed, fixed_mixed, in_order = map(np.asarray, losses)
    return (
        regrouped.chance_of_ratio(fixed, fixed_mixed) <= regrouped.FALSE_ALARMS
        and regrouped.chance_of_ratio(own, mixed) <= regrouped.ORDERED
        and regrouped.chance_of_neighbours(in_order) > regrouped.ORDERED
    )


def memorized(evidence: Evidence) -> bool:
    """Whether new compositions of the same rows do worse than those of training, although these are random draws.

    What the loss itself makes of a new company is left out; where that is the larger part, nothing is known by heart.
    Where a batch is of one class, other compositions are another task, and batches of one class may do as well as ever.
    By the mean, or by the ranks of the batches: where a few new compositions are very bad, the mean's standard error is
    as large as the difference, and every new one may still be worse than every old one. Or by what inference loses,
    where rows differ so much that only differences between passes over the same rows tell.
    """
    new, old = (evidence.passes.get(name) for name in ("recombined", trained(evidence.passes)))
    if new is None or old is None or not similar(evidence) or company_tells(evidence) or served_apart(evidence):
        return False
    noise, company = float(np.hypot(spread_of_mean(new), spread_of_mean(old))), of_company(evidence)
    worse, losses = new.mean - company - old.mean, new.losses - company
    if abs(company) > abs(worse):
        return False
    by_rank = ranked_above(losses, old.losses) > ERRORS_APART
    return bool(worse > ERRORS_APART * noise or (worse > 0 and (by_rank or _costs_there_alone(evidence))))


def _costs_there_alone(evidence: Evidence) -> bool:
    """Whether inference is worse than batch statistics on training's batches, and clearly less so on new ones."""
    pairs = (("inference", trained(evidence.passes)), ("recombined_inference", "recombined"))
    if not all(name in evidence.passes for pair in pairs for name in pair):
        return False
    apart = [evidence.passes[a].losses - evidence.passes[b].losses for a, b in pairs]
    sizes = [evidence.passes[a].sizes for a, _ in pairs]
    there, elsewhere = (float(np.average(x, weights=n)) for x, n in zip(apart, sizes, strict=True))
    noise = math.hypot(*(standard_error(x, n) for x, n in zip(apart, sizes, strict=True)))
    return bool(there > 0.0 and there - elsewhere > GAPS_APART * noise)


def of_company(evidence: Evidence) -> float:
    """What new compositions of the rows change in the loss on fixed statistics, where only the loss can compare rows.

    0 for a loss that is a mean over rows, and where it was not measured. Triplets, contrasts and graphs have another.
    """
    new, old = (evidence.passes.get(name) for name in ("recombined_inference", "inference"))
    if new is None or old is None or not np.isfinite(change := new.mean - old.mean):
        return 0.0
    return float(change)


def rival(evidence: Evidence) -> str:
    """The pass that inference is held against.

    It is training's view of the network, or, where the network knows the compositions of its batches by heart, the
    loss on new compositions of the same rows: no batch at use will be one of those.
    """
    return "recombined" if memorized(evidence) else in_training(evidence)


def ranked_above(these: NDArray[np.float64], those: NDArray[np.float64]) -> float:
    """How many standard errors the ranks of these values lie above those of the others (Mann-Whitney).

    Example:
        >>> round(ranked_above(np.array([4.0, 5.0, 900.0]), np.array([1.0, 2.0, 3.0])), 2)
        1.96
    """
    above = np.sign(these[:, None] - those[None, :])
    n, m = above.shape
    return float(above.sum() / 2 / np.sqrt(n * m * (n + m + 1) / 12)) if n and m else 0.0


def spread_of_mean(result: PassResult) -> float:
    """Standard error of a pass's mean over independent batches; NaN for a single one."""
    return standard_error(result.losses, result.sizes)


def standard_error(values: NDArray[np.float64], sizes: NDArray[np.int64]) -> float:
    """Standard error of the mean of a sample over independent batches; NaN for a single batch.

    Example:
        >>> round(standard_error(np.array([1.0, 3.0, 2.0]), np.array([8, 8, 8])), 4)
        0.5774
    """
    count = len(values)
    if count < 2:
        return float("nan")
    weights = sizes / sizes.sum()
    with np.errstate(all="ignore"):
        apart = values - weights @ values
        variance = np.square(weights) @ np.square(apart) * count / (count - 1)
    return float(np.sqrt(variance))

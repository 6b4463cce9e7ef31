"""The batch from which on training had other data: a curriculum, another resolution, another source."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.capture.passes import Array
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.segments import Segments
from tb_bnlens.moments.statistics import BatchMoments, rms_distance

APART = 1.5
"""Every earlier batch lies more than so many times as far from the mean of the newer kind as each batch of that kind
from the mean of the others of it. A batch of few rows scatters by a third of its standard deviation."""
FEWEST = 2
"""Batches of the newer kind: one alone may be any batch."""
BY_CHANCE = 0.01
"""Probability that the batches of a kind that comes and goes are all the last ones."""


def newer_kind(moments: BatchMoments, segments: Segments, epsilon: Array, is_stream: bool = False) -> int | None:
    """The first of the last batches that are of another kind than those before, by their statistics in some layer.

    The last batches are like each other and unlike every earlier one. Data that are sorted or take turns show the same
    kind again, and a few extreme rows make a batch or two that lie anywhere. In a stream, in which nothing comes again,
    the first batches may be of the newer kind as well: the data were others for a while.

    Args:
        moments: of each batch, in the order of training, at the same weights.
        segments: the channels of all layers.
        epsilon: of each channel.
        is_stream: nothing comes again.

    Returns:
        Its index, or None where the data did not change, or too few batches tell.
    """
    count = len(moments.sizes)
    each = [Moments(m, v) for m, v in zip(moments.means, moments.variances, strict=True)]

    def apart(one: Moments, centre: Moments) -> Array:
        # The lesser of both directions: one of them has the narrower batch's scale.
        both = (rms_distance(a, b, segments, epsilon) for a, b in ((one, centre), (centre, one)))
        return np.fmin(*both)

    for first in range(count - FEWEST, 0, -1):
        newer = BatchMoments(each[first:], [int(n) for n in moments.sizes[first:]])
        centre = newer.mean()
        within = np.max([apart(one, newer.mean(i)) for i, one in enumerate(each[first:])], axis=0)
        far = np.array([APART * within < apart(one, centre) for one in each[:first]])
        for other in far.T:
            begin = _other_from(other)
            # Of the orders of so many batches of two kinds one is as this, or one for each length of the first part.
            orders = 1 if begin == 0 else count
            alone = begin == 0 or (is_stream and first - begin >= FEWEST)
            if alone and math.comb(count, first - begin) * BY_CHANCE >= orders:
                return first
    return None


def _other_from(other: Array) -> int:
    """Where the other batches begin, if they are the last ones; past the end if others stand before them or none does.

    Args:
        other: whether each batch is of another kind than the newer ones, [batches before those].
    """
    begin = len(other)
    while begin and other[begin - 1]:
        begin -= 1
    return len(other) if other[:begin].any() else begin

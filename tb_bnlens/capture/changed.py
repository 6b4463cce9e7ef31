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


def newer_kind(moments: BatchMoments, segments: Segments, epsilon: Array) -> int | None:
    """The first of the last batches that are of another kind than all before them, by their statistics in some layer.

    The last batches are like each other and unlike every earlier one. Data that are sorted or take turns show the same
    kind again, and a few extreme rows make a batch or two that lie anywhere.

    Args:
        moments: of each batch, in the order of training, at the same weights.
        segments: the channels of all layers.
        epsilon: of each channel.

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
        if math.comb(count, first) * BY_CHANCE < 1.0:
            continue
        newer = BatchMoments(each[first:], [int(n) for n in moments.sizes[first:]])
        centre = newer.mean()
        within = np.max([apart(one, newer.mean(i)) for i, one in enumerate(each[first:])], axis=0)
        if (APART * within < np.min([apart(one, centre) for one in each[:first]], axis=0)).any():
            return first
    return None

"""Batch statistics of many batches at the same weights: their mean, their spread, and what a layer's row says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.distance import LIVE_SHARE, convergence_error, mean_error, variance_error
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.segments import Segments

Array = NDArray[np.floating[Any]]


def of_pass(
    order: Sequence[int], means: Array, variances: Array, segments: Segments
) -> tuple[Moments, dict[int, list[Moments]]]:
    """Statistics of one pass, as ``mean_of_calls``, and those of each call of layers that are called more than once.

    Args: see ``calls_of``.
    """
    if list(order) == list(range(len(segments))):
        return Moments(means, variances).double(), {}  # a hundredth of the time that the layers take one by one
    calls = calls_of(order, means, variances, segments)
    return mean_of_calls(calls, segments), {i: c for i, c in calls.items() if len(c) > 1}


def mean_of_calls(calls: Mapping[int, Sequence[Moments]], segments: Segments) -> Moments:
    """Statistics of one pass, [C_total]: the mean over a layer's calls, NaN for layers that were not called.

    Args:
        calls: index of a layer -> statistics of each of its calls, [C] each.
        segments: the channels of all layers.
    """
    mean = np.full(len(segments.layer), np.nan)
    variance = mean.copy()
    for index, each in calls.items():
        part = slice(segments.starts[index], segments.stops[index])
        one = len(each) == 1  # as in most networks, where a mean of one takes most of the time
        mean[part] = each[0].mean if one else np.mean([call.mean for call in each], axis=0)
        variance[part] = each[0].variance if one else np.mean([call.variance for call in each], axis=0)
    return Moments(mean, variance)


def calls_of(order: Sequence[int], means: Array, variances: Array, segments: Segments) -> dict[int, list[Moments]]:
    """Statistics of each call of a pass, [C] each, by the index of its layer.

    Args:
        order: index of the layer of each call.
        means: of all calls, laid end to end.
        variances: likewise.
        segments: the channels of all layers.
    """
    stops = np.cumsum([int(segments.sizes[i]) for i in order])[:-1]
    calls: dict[int, list[Moments]] = {}
    for index, mean, variance in zip(order, np.split(means, stops), np.split(variances, stops), strict=False):
        calls.setdefault(index, []).append(Moments(mean, variance))
    return calls


class BatchMoments:
    """Statistics of single batches, [B, C_total] each, weighted by their samples.

    A batch whose statistics of a channel are not finite is left out of that channel.
    """

    def __init__(self, moments: Sequence[Moments], sizes: Sequence[int]):
        self.means = np.stack([m.mean for m in moments]).astype(np.float64)
        self.variances = np.stack([m.variance for m in moments]).astype(np.float64)
        self.sizes = np.asarray(sizes, np.float64)
        usable = np.isfinite(self.means) & np.isfinite(self.variances)
        self._weights = usable * self.sizes[:, None]
        self._total = self._weights.sum(axis=0)
        self._sums = [(self._weights * np.where(usable, x, 0.0)).sum(axis=0) for x in (self.means, self.variances)]

    def mean(self, leave_out: int | None = None) -> Moments:
        """Mean of all batches, or of all but one; NaN where there is none."""
        total, sums = self._total, self._sums
        if leave_out is not None and len(self.sizes) > 1:
            weight = self._weights[leave_out]
            total = total - weight
            own = (self.means[leave_out], self.variances[leave_out])
            sums = [s - np.where(weight > 0, weight * x, 0.0) for s, x in zip(sums, own, strict=True)]
        with np.errstate(all="ignore"):
            mean, variance = (np.where(total > 0, s / total, np.nan) for s in sums)
        return Moments(mean, variance)

    def median(self) -> Moments:
        """Median of the batches, which a few of them cannot move."""
        usable = np.isfinite(self.means) & np.isfinite(self.variances)
        known = usable.any(axis=0)
        mean, variance = np.full(known.shape, np.nan), np.full(known.shape, np.nan)
        mean[known] = np.nanmedian(np.where(usable, self.means, np.nan)[:, known], axis=0)
        variance[known] = np.nanmedian(np.where(usable, self.variances, np.nan)[:, known], axis=0)
        return Moments(mean, variance)

    def spread_rows(self, segments: Segments, epsilon: Array) -> dict[str, Array]:
        """How single batches differ from each other, row -> [L]."""
        if len(self.sizes) < 3:
            return {}
        v = self.mean().variance
        with np.errstate(all="ignore"):
            scale = np.sqrt(v + epsilon)
            live = v > LIVE_SHARE * epsilon
            between = np.var(self.means, axis=0, ddof=1)
            similar = v * np.mean(1 / self.sizes)
            ratio = np.where(live, between / similar, np.nan)
            sd = np.where(live, np.sqrt(between) / scale, np.nan)
            # In units of W a relative error of the variance counts half.
            scatter = np.std(self.variances, axis=0, ddof=1)
            error = np.where(live, np.hypot(sd, scatter / (2 * (v + epsilon))) / np.sqrt(len(self.sizes)), np.nan)
            relative = np.where(live, scatter / np.maximum(v, epsilon), np.nan)
            dominance = np.where(live, v / np.maximum(self.median().variance, LIVE_SHARE * epsilon), np.nan)
        (between_within,) = segments.quantiles(ratio, (0.5,))
        (noise_variance,) = segments.quantiles(relative, (0.5,))
        dominance_p50, dominance_max = segments.quantiles(dominance, (0.5, 1.0))
        return {
            "noise_mean": segments.rms(sd),
            "noise_variance": noise_variance,
            "reference_noise": segments.rms(error),
            "between_within": between_within,
            "dominance_p50": dominance_p50,
            "dominance_max": dominance_max,
        }


def distance_rows(reference: Moments, moving: Moments, segments: Segments, epsilon: Array) -> dict[str, Array]:
    """Moving statistics against a reference, row -> [L], by the formulas of ``metadata.LAYER_ROWS``."""
    mu, v, m, s = reference.mean, reference.variance, moving.mean, moving.variance
    rows: dict[str, Array] = {}
    with np.errstate(all="ignore"):
        live = v > LIVE_SHARE * epsilon
        w = reference.distance(moving, epsilon)
        rows["distance_rms"] = segments.rms(w)
        (rows["distance_p95"],) = segments.quantiles(w, (0.95,))
        e = convergence_error(mu, v, m, s, epsilon)
        rows["error_p50"], rows["error_p95"], rows["error_max"] = segments.quantiles(e, (0.5, 0.95, 1.0))
        for name, error in (
            ("mean_error", mean_error(mu, v, m, epsilon)),
            ("variance_error", variance_error(v, s, epsilon)),
        ):
            error = np.where(np.isfinite(error) & live, error, np.nan)
            (rows[f"{name}_p50"],) = segments.quantiles(error, (0.5,))
            (rows[f"{name}_p95"],) = segments.quantiles(np.abs(error), (0.95,))
    return rows


def rms_distance(a: Moments, b: Moments, segments: Segments, epsilon: Array) -> Array:
    """W between two sets of statistics, rms over channels, [L]."""
    return segments.rms(a.distance(b, epsilon))

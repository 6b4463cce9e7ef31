"""Series that are computed from the record: what the report says of a layer's last record, over the whole run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.convergence import steps_to_converge
from tb_bnlens.analysis.effective import differs
from tb_bnlens.analysis.lag import NOISE_SIGMAS, single_noise
from tb_bnlens.analysis.noise import pooled_noise
from tb_bnlens.analysis.renewal import renewal
from tb_bnlens.history import History
from tb_bnlens.metadata import STATES

CONSTANT = [STATES.index(name) for name in ("frozen", "inference_mode", "never_updated")]


def steps_to_converge_by_record(history: History) -> NDArray[np.float32]:
    """Updates until 95% of a layer's channels are within tolerance, [T, L]; inf is never, NaN is not known.

    A standing lag from drift is judged on the end of a run only, so where the report says *never* for that reason,
    this says what it would take if the drift stopped.
    """
    attribute = np.array([layer.momentum for layer in history.manifest.layers], np.float64)
    given = history.row("momentum")
    momentum = np.where(np.isnan(given), attribute, given)
    effective = _carried(history.row("momentum_effective"))
    with np.errstate(all="ignore"):
        beta = np.where(np.isnan(effective) | ~differs(effective, momentum), momentum, effective)
        error = history.row("error_p95")
        pool = history.row("pool_updates")
        measured = (_carried(history.row(name)).astype(np.float64) for name in ("noise_mean", "noise_variance"))
        singles = single_noise(history, *measured)
        noise = np.fmax(*(pooled_noise(single, beta, pool) for single in singles))
        tolerance = history.manifest.tolerance
        renewed = renewal(history, "error_p95", beta, np.arange(len(error)))
        steps = steps_to_converge(error, beta, tolerance, renewed=renewed, age=history.row("updates"))
        steps = np.where((error > tolerance) & (error <= NOISE_SIGMAS * noise), np.nan, steps)
        constant = np.isin(history.row("state"), CONSTANT) & (error > tolerance)
        never = constant | (history.row("channels_nonfinite") > 0)
    return np.where(never, np.inf, steps).astype(np.float32)


def variance_ratio_by_record(history: History) -> NDArray[np.float32]:
    """Moving over batch variance, both with epsilon and as geometric means over channels, [T, L].

    The ratio of the geometric means is the geometric mean of the channels' ratios, but for channels whose moving
    variance is NaN or negative: the recorder leaves those out of its mean. inf where one is infinite, NaN where either
    mean is not known.
    """
    with np.errstate(all="ignore"):
        return history.row("moving_variance_gm") / history.row("batch_variance_gm")


DERIVED: Mapping[str, Callable[[History], NDArray[np.float32]]] = {
    "steps_to_converge": steps_to_converge_by_record,
    "variance_ratio": variance_ratio_by_record,
}
"""Name of a series that is no row of the record -> what computes it."""


def _carried(row: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each value stands until the next one that was measured, [T, L]."""
    measured = np.where(np.isnan(row), 0, np.arange(len(row))[:, None])
    return np.take_along_axis(row, np.maximum.accumulate(measured, 0), 0) if len(row) else row

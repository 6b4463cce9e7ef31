"""Series that are computed from the record: what the report says of a layer's last record, over the whole run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.arrival import arrival
from tb_bnlens.history import History


def steps_to_converge_by_record(history: History) -> NDArray[np.float32]:
    """Updates until 95% of a layer's channels are within tolerance, [T, L]; inf is never, NaN is not known."""
    return arrival(history, ends=False).steps.astype(np.float32)


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
    "steps_to_converge_low": lambda history: arrival(history).low.astype(np.float32),
    "steps_to_converge_high": lambda history: arrival(history).high.astype(np.float32),
    "variance_ratio": variance_ratio_by_record,
}
"""Name of a series that is no row of the record -> what computes it."""

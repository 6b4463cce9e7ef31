"""What is asked of a BatchNorm layer, whatever framework it is from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from tb_bnlens.history import Layer
from tb_bnlens.moments.moments import Moments


class TrackedLayer(Protocol):
    """A built BatchNorm layer. ``momentum`` is the share that an update *keeps*, as in Keras; PyTorch's is 1 minus it.

    Attributes may change while the model trains, except for the ones that say what the layer is.
    """

    @property
    def name(self) -> str:
        """Unique path in the model."""

    @property
    def channels(self) -> int:
        """Length of its statistics."""

    @property
    def momentum(self) -> float:
        """The current attribute."""

    @property
    def epsilon(self) -> float:
        """What is added to the variance."""

    @property
    def trainable(self) -> bool:
        """Whether its flags let training update the statistics."""

    @property
    def renorm(self) -> bool:
        """Batch Renormalization: the moving average is of the standard deviation."""

    @property
    def coarse(self) -> bool:
        """Whether it keeps its statistics in two or three digits, which windows cannot be recovered from."""

    @property
    def cumulative(self) -> bool:
        """Whether its statistics are the plain mean of all batches so far, in place of one that forgets."""

    @property
    def looped(self) -> bool:
        """Whether it is part of a recurrent cell, which is called once a time step."""

    @property
    def calls(self) -> int | None:
        """Calls in a forward pass, where that is known without running one."""

    def describe(self, index: int, order: int = -1, calls: int = 1) -> Layer:
        """The manifest's entry for this layer."""


class ModelLayer(TrackedLayer, Protocol):
    """One with weights, in a model."""

    @property
    def lacks_statistics(self) -> bool:
        """Whether it has been trained and has the statistics of a new layer now; see ``without_statistics``."""


def described(layer: TrackedLayer, index: int, order: int, calls: int, **own: Any) -> Layer:
    """A manifest's entry: what every layer has, and what its framework says of it.

    Args:
        layer: the layer.
        index: of the layer in the manifest.
        order: of its first call in a forward pass, -1 where that is not known.
        calls: in a forward pass.
        own: further fields of ``Layer``; ``trainable`` where that is not the layer's attribute.
    """
    own.setdefault("trainable", layer.trainable)
    return Layer(index, layer.name, layer.channels, layer.momentum, layer.epsilon, order=order, calls=calls, **own)


def without_statistics(array: Callable[[Any], Any], offsets: Any, mean: Any, variance: Any) -> bool:
    """Whether a layer has the statistics of a new one, and offsets that a new one has only where they are random.

    Args:
        array: makes an array of one of the others.
        offsets: what it adds to each channel (beta), None where it adds nothing; a new layer adds the same to all.
        mean: moving mean, [C].
        variance: moving variance, [C].
    """
    if offsets is None:
        return False
    return bool(np.ptp(array(offsets)) > 0) and bool(Moments(array(mean), array(variance)).are_new().all())


def kept(layer: TrackedLayer) -> float:
    """Momentum as the float32 that the update multiplies the moving statistic with."""
    return float(np.float32(layer.momentum))


def gain(layer: TrackedLayer) -> float:
    """``1 - momentum``, rounded to float32 *after* the subtraction, as the update does."""
    return float(np.float32(1.0 - float(layer.momentum)))


def gains(layers: Any) -> Any:
    """``gain`` of each layer, [L]."""
    return np.asarray([gain(layer) for layer in layers], np.float64)

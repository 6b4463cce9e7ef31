"""Momentum, epsilon and flags of the layers, in the shape in which the capture side reads them off a Keras layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tb_bnlens.capture.layers import TrackedLayer
from tb_bnlens.importer.saved import CannotImport, Checkpoint, SavedLayer

KERAS_EPSILON = 1e-3


@dataclass
class LayerConstants:
    """Stands in for the Keras layer that a ``TrackedLayer`` holds.

    It changes as a layer's attributes do in training, when a later checkpoint's config says something else.
    """

    momentum: float
    epsilon: float
    renorm: bool
    synchronized: bool
    axis: int
    trainable: bool


class Constants:
    """Fills in what the files leave out, and follows what changes from one checkpoint to the next.

    Args:
        momentum: for every layer, in place of what the config says; None takes the config's.
        epsilon: likewise; Keras' default where neither says.
    """

    def __init__(self, momentum: float | None, epsilon: float | None):
        self._momentum, self._epsilon = momentum, epsilon
        self.epsilon_assumed = False

    def tracked(self, checkpoint: Checkpoint) -> list[TrackedLayer]:
        """The layers of the first checkpoint.

        Raises:
            CannotImport: a momentum is neither in the file nor given.
        """
        return [
            TrackedLayer(self._read(layer, checkpoint), layer.name, "", len(layer.mean)) for layer in checkpoint.layers
        ]

    def follow(self, tracked: Sequence[TrackedLayer], checkpoint: Checkpoint) -> None:
        """Set the attributes to what a later checkpoint says."""
        for layer, saved in zip(tracked, checkpoint.layers, strict=True):
            if saved.settings is not None:
                vars(layer.layer).update(vars(self._read(saved, checkpoint)))

    def _read(self, saved: SavedLayer, checkpoint: Checkpoint) -> LayerConstants:
        known = saved.settings
        momentum = known.momentum if self._momentum is None and known else self._momentum
        if momentum is None:
            raise CannotImport(
                f"{checkpoint.path}: it holds weights and no momentum (of {saved.name}); expected a config, as "
                ".keras files have, or --momentum (a layer's default is 0.99 in Keras)"
            )
        epsilon = known.epsilon if self._epsilon is None and known else self._epsilon
        self.epsilon_assumed |= epsilon is None
        return LayerConstants(
            momentum=momentum,
            epsilon=KERAS_EPSILON if epsilon is None else epsilon,
            renorm=saved.renorm,
            synchronized=known.synchronized if known else False,
            axis=known.axis if known else -1,
            trainable=known.trainable if known else True,
        )

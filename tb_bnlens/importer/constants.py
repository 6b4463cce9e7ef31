"""Momentum, epsilon and flags of the layers of a series of checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from tb_bnlens.history import Layer
from tb_bnlens.importer.saved import CannotImport, Checkpoint, SavedLayer

KERAS_EPSILON = 1e-3


@dataclass
class LayerConstants:
    """A layer as a checkpoint knows it; see ``moments.layers.TrackedLayer``.

    It changes as a layer's attributes do in training, when a later checkpoint's config says something else.
    """

    name: str
    channels: int
    momentum: float
    epsilon: float
    renorm: bool
    synchronized: bool
    axis: int
    trainable: bool
    kind: str = "BatchNormalization"
    coarse = False
    looped = False
    calls = 1

    def describe(self, index: int, order: int = -1, calls: int = 1) -> Layer:
        """The manifest's entry for this layer."""
        return Layer(
            index=index,
            name=self.name,
            channels=self.channels,
            momentum=self.momentum,
            epsilon=self.epsilon,
            axis=self.axis,
            kind=self.kind,
            trainable=self.trainable,
            order=order,
            calls=calls,
        )


class Constants:
    """Fills in what the files leave out, and follows what changes from one checkpoint to the next.

    Args:
        momentum: for every layer, in place of what the config says; None takes the config's.
        epsilon: likewise; Keras' default where neither says.
    """

    def __init__(self, momentum: float | None, epsilon: float | None):
        self._momentum, self._epsilon = momentum, epsilon
        self.epsilon_assumed = False

    def tracked(self, checkpoint: Checkpoint) -> list[LayerConstants]:
        """The layers of the first checkpoint.

        Raises:
            CannotImport: a momentum is neither in the file nor given.
        """
        return [self._read(layer, checkpoint) for layer in checkpoint.layers]

    def follow(self, tracked: Sequence[LayerConstants], checkpoint: Checkpoint) -> None:
        """Set the attributes to what a later checkpoint says."""
        for layer, saved in zip(tracked, checkpoint.layers, strict=True):
            if saved.settings is not None:
                read = self._read(saved, checkpoint)
                for field in fields(read):
                    setattr(layer, field.name, getattr(read, field.name))

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
            name=saved.name,
            channels=len(saved.mean),
            momentum=momentum,
            epsilon=KERAS_EPSILON if epsilon is None else epsilon,
            renorm=saved.renorm,
            synchronized=known.synchronized if known else False,
            axis=known.axis if known else -1,
            trainable=known.trainable if known else True,
        )

"""Momentum, epsilon and flags of the layers of a series of checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from tb_bnlens.history import Layer
from tb_bnlens.importer.saved import CannotImport, Checkpoint, SavedLayer
from tb_bnlens.moments.layers import described

KERAS_EPSILON = 1e-3
TORCH_EPSILON = 1e-5
FOR_TORCH = 0.5
"""A momentum above it is hardly one of PyTorch, which is the share of the new batch."""


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
    cumulative = False
    calls = 1

    def describe(self, index: int, order: int = -1, calls: int = 1) -> Layer:
        """The manifest's entry for this layer."""
        return described(self, index, order, calls, axis=self.axis, kind=self.kind)


class Constants:
    """Fills in what the files leave out, and follows what changes from one checkpoint to the next.

    Args:
        momentum: for every layer, in place of what the config says; None takes the config's.
        epsilon: likewise; the framework's default where neither says.
        torch: the checkpoints are PyTorch's, and the momentum is the share of the new batch.
    """

    def __init__(self, momentum: float | None, epsilon: float | None, *, torch: bool = False):
        self._given, self._epsilon, self._torch = momentum, epsilon, torch
        self._momentum = 1.0 - momentum if torch and momentum is not None else momentum
        self._epsilon_assumed = False

    def notes(self) -> list[str]:
        """Sentences on what was taken for granted."""
        sentences = []
        if self._epsilon_assumed:
            default = "PyTorch's default of 1e-05" if self._torch else "Keras' default of 0.001"
            sentences.append(f"The files do not say epsilon; {default} is taken for it.")
        if self._torch and self._given is not None:
            kept = 1 - self._given
            sentences.append(
                f"The momentum given, {self._given:g}, is PyTorch's: the share of the new batch. Variances are "
                "unbiased, as PyTorch's running_var is."
            )
            if self._given > FOR_TORCH:
                sentences.append(f"If {self._given:g} was meant as the share that is kept, give --momentum {kept:g}.")
        return sentences

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
            if checkpoint.torch:
                raise CannotImport(
                    f"{checkpoint.path}: a state dict holds no momentum; give --momentum as the layers of PyTorch were "
                    "built with (their default is 0.1)"
                )
            raise CannotImport(
                f"{checkpoint.path}: it holds weights and no momentum (of {saved.name}); expected a config, as "
                ".keras files have, or --momentum (a layer's default is 0.99 in Keras)"
            )
        epsilon = known.epsilon if self._epsilon is None and known else self._epsilon
        self._epsilon_assumed |= epsilon is None
        default = TORCH_EPSILON if self._torch else KERAS_EPSILON
        return LayerConstants(
            name=saved.name,
            channels=len(saved.mean),
            momentum=momentum,
            epsilon=default if epsilon is None else epsilon,
            renorm=saved.renorm,
            synchronized=known.synchronized if known else False,
            axis=known.axis if known else 1 if self._torch else -1,
            trainable=known.trainable if known else True,
        )

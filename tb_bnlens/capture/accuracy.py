"""The accuracy of a classification, where the user has given no metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.errors import NotEvaluated

IGNORED = 255
"""Label of what is outside of all classes in segmentation, besides negative ones."""


@dataclass(frozen=True)
class Right:
    """Rows whose largest score is that of their class, over batches."""

    why: str
    """Why there are no other metrics; the reason for no accuracy, too, where there is none."""
    right: float = 0.0
    counted: float = 0.0

    def more(self, scores: NDArray[Any], target: NDArray[Any], weights: Sequence[NDArray[Any]] = ()) -> Right:
        """The same with one more batch.

        Args:
            scores: [B, ..., C].
            target: the number of a class, [B, ...] or [B, ..., 1]; or 1 for the class and 0 for others, [B, ..., C].
                Negative numbers and 255, which losses ignore, do not count.
            weights: sample weights and masks, [B] or [B, ...]; what one of them has at 0 does not count, as padding.

        Raises:
            NotEvaluated: they are of another kind.
        """
        classes = scores.shape[-1] if scores.ndim > 1 else 0
        if classes < 2 or scores.dtype.kind != "f":
            raise NotEvaluated(self.why)
        found = self._numbers(target, scores.shape)
        counts = (found >= 0) & ((found != IGNORED) | (classes > IGNORED))
        if (found[counts] >= classes).any():
            raise NotEvaluated(self.why)  # the numbers are none of these scores'
        for one in weights:
            if one.shape not in (counts.shape, (*counts.shape, 1), counts.shape[:1]):
                raise NotEvaluated(self.why)
            counts &= one.reshape(one.shape[: counts.ndim] + (1,) * (counts.ndim - one.ndim)) != 0
        right = (np.argmax(scores, axis=-1) == found)[counts]
        return replace(self, right=self.right + float(right.sum()), counted=self.counted + float(len(right)))

    def _numbers(self, target: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        if target.dtype.kind in "iu" and target.shape in (shape[:-1], (*shape[:-1], 1)):
            return target.reshape(shape[:-1])
        one_hot = target.shape == shape and np.isin(target, (0, 1)).all() and (target.sum(axis=-1) == 1).all()
        if not one_hot:
            raise NotEvaluated(self.why)
        return np.asarray(np.argmax(target, axis=-1))

    def values(self) -> dict[str, float]:
        """The share that is right."""
        return {"accuracy": self.right / self.counted} if self.counted else {}

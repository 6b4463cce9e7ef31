"""When short batches come, in a loop that knows of no epochs."""

from __future__ import annotations


class ShortBatches:
    """Predicts the next short batch from the last two.

    What it does to the moving statistics shows where they are read before and after its step. That is wanted for
    the third one, the sixth, the twelfth and so on: an epoch may be of few steps.
    """

    def __init__(self) -> None:
        self._last = self._every = self._count = 0
        self._wanted = 3

    def meet(self, step: int, short: bool) -> bool:
        """Take note of the batch that this step was made on.

        Args:
            step: steps made so far, that one included.
            short: whether it had fewer samples than usual.

        Returns:
            Whether the statistics are wanted now, before or after the step on a short batch.
        """
        if not short:
            return self._count + 1 >= self._wanted and step + 1 == self._last + self._every
        expected = step == self._last + self._every
        self._every, self._last = step - self._last, step
        self._count += 1
        if not expected or self._count < self._wanted:
            return False
        self._wanted = 2 * self._count
        return True

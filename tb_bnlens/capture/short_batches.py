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
        self.expected: int | None = None
        """Step of the next short batch, where the statistics are wanted before and after it."""

    def meet(self, step: int, short: bool) -> bool:
        """Take note of the batch that this step was made on.

        Args:
            step: steps made so far, that one included.
            short: whether it had fewer samples than usual.

        Returns:
            Whether the statistics are wanted now, before or after the step on a short batch.
        """
        if not short:
            return step + 1 == self.expected
        was_expected = step == self._last + self._every
        self._every, self._last = step - self._last, step
        self._count += 1
        wanted = was_expected and self._count >= self._wanted
        if wanted:
            self._wanted = 2 * self._count
        self.expected = self._last + self._every if self._count + 1 >= self._wanted else None
        return wanted

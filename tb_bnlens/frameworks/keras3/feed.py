"""Look at the training batch on its way to the step: a wrapper of the model's ``train_function``."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.reasons import what_is
from tb_bnlens.frameworks.keras3.backend import Backend, Look
from tb_bnlens.frameworks.keras3.batches import KerasBatches

NO_LOOK = (
    "{}, so the training batch cannot be read without disturbing the input; pass probe_data=(x, y) to have the losses "
    "measured on it"
)
"""Of the cause."""


class Counter(Protocol):
    """Counts the steps of a ``fit``."""

    step: int


class Observer(Protocol):
    """What ``PeekingTrainFunction`` tells of a step. Where a method raises, the step is still made."""

    quiet: Counter | None
    """Counts the coming call, which is a step of the observed ``fit`` for which nothing is due. A call takes it."""

    @property
    def model(self) -> Any:
        """What the step trains."""

    @property
    def backend(self) -> Backend:
        """What it runs on."""

    def expects_step(self, state: Sequence[Any]) -> bool:
        """Whether this call, which is not quiet and gets this state, is a step of the observed ``fit``."""

    def before_step(self, look: Look) -> None:
        """The step is about to be made on what can be seen."""

    def after_step(self, logs: Any, seen: int) -> None:
        """The step is made; so many of its batches were seen."""

    def failed(self, error: BaseException) -> None:
        """The step itself raised."""

    def fault(self, error: Exception) -> None:
        """One of the other methods raised."""


class PeekingTrainFunction:
    """Stands in for ``model.train_function`` during one ``fit``.

    Args:
        inner: the function that ``fit`` would call: with the data, behind the model's state on JAX.
        observer: the lens.
    """

    def __init__(self, inner: Callable[..., Any], observer: Observer):
        self.inner = inner
        self.observer: Observer | None = observer
        """None makes this a plain call of ``inner``."""
        self._look = observer.backend.looks(inner)

    def __call__(self, *args: Any) -> Any:
        """Make the step, as ``inner`` does, with the observer looking on."""
        observer = self.observer
        if observer is None:
            return self.inner(*args)
        # Most steps are quiet. A call of a function takes 2 us in them, since its code has left the processor's caches.
        counter = observer.quiet
        expected = counter is not None
        look: Look | None = None
        state: Sequence[Any] = ()
        if counter is None:
            try:
                *state, data = args
                expected = observer.expects_step(state)
                if expected:
                    look = self._look(data)
                    with observer.backend.attached(observer.model, state):
                        observer.before_step(look)
            except Exception as error:
                observer.fault(error)
        else:
            observer.quiet = None
        # No call of the lens lies between this and the step, which has to be made whatever happens here.
        try:
            if look is not None and look.error is not None:
                raise look.error
            result = self.inner(*args) if look is None else self.inner(*state, look.given_back)
        except BaseException as error:
            if expected:
                with contextlib.suppress(Exception):
                    observer.failed(error)
            raise
        try:
            if counter is not None:
                counter.step += 1
            elif expected:
                _tell(observer, state, result, look)
        except Exception as error:
            observer.fault(error)
        return result


def _tell(observer: Observer, state: Sequence[Any], result: Any, look: Look | None) -> None:
    """Let the observer see what the step has made."""
    logs, after = (result[0], result[1:]) if state else (result, ())
    with observer.backend.attached(observer.model, after):
        observer.after_step(logs, 0 if look is None else len(look.taken))


class IteratorLook:
    """Elements taken from a Python iterator, and an iterator that gives them to the step again.

    Args:
        data: what ``fit`` hands to the step. Nothing is taken from what is no iterator.
        form: makes tensors of them.
        end: what an iterator raises at the end of the data.
    """

    def __init__(self, data: Any, form: KerasBatches, end: tuple[type[BaseException], ...] = (StopIteration,)):
        self._data, self._form, self._end = data, form, end
        self.taken: list[Any] = []
        """The elements themselves; fewer than wanted at the end of the data."""
        self.given_back: Any = data
        """What gives the step what was taken, and then the rest. No element is ever lost."""
        self.error: Exception | None = None
        """What the data raised."""

    def batches(self, count: int) -> list[Any]:
        """Up to ``count`` batches, as tensors. An error of the data is kept for the step.

        Raises:
            NotEvaluated: the data are no iterator.
        """
        self.take(count)
        return [self._form.tree.map_structure(self._tensor, element) for element in self.taken]

    def take(self, count: int) -> None:
        """Take up to ``count`` elements."""
        if not isinstance(self._data, Iterator):
            raise NotEvaluated(NO_LOOK.format(f"the step gets {what_is(self._data)}"))
        take, packed = self._source()
        for _ in range(count):
            # No code of the lens: what is raised here is the data's, and what is taken must not be lost.
            try:
                element = take()
            except self._end:
                return
            except Exception as error:
                self.error = error
                return
            self.taken.append(element if packed is None else packed(element))
            self.given_back = itertools.chain(self.taken, self._data)

    def _source(self) -> tuple[Callable[[], Any], Callable[[Any], Any] | None]:
        """What gives the next element, and what makes of it the one that the step gets; neither is of the lens."""
        return functools.partial(next, self._data), None

    def _tensor(self, leaf: Any) -> Any:
        return leaf if leaf is None else self._form.tensor(leaf)

"""The passes of a measurement on many batches: what they need of a framework, and how they are run and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.reasons import cause_of
from tb_bnlens.capture.spread import evenly
from tb_bnlens.capture.stopwatch import OneTimeCost
from tb_bnlens.history import PassResult
from tb_bnlens.moments.moments import Mask, Moments
from tb_bnlens.moments.recovery import Snapshot

Array = NDArray[np.floating[Any]]


@dataclass(eq=False)
class Ending:
    """Predictions whose end may change something, as objects with ``__del__`` do. The runner empties this in a pass."""

    value: Any


@dataclass(frozen=True)
class Outcome:
    """What one pass over one batch gives."""

    loss: float
    predictions: Any = None
    """Opaque to all but the runner."""
    moments: Moments | None = None
    """Batch statistics of the layers that were normalized by the batch, averaged over a layer's calls, in float64; NaN
    for the other layers. The variance is as the moving variance averages it (biased in Keras, unbiased in PyTorch)."""
    calls: Mapping[int, Sequence[Moments]] = field(default_factory=dict)
    """Layer index -> statistics of each call, [C] each, for layers that were called more than once."""
    after: Snapshot | None = None
    """Of a training pass: the moving statistics as the step would leave them, had it the momentum of ``gain``. None
    where they follow from ``moments``: each layer is called once, and none does more than average."""


def moments_of(outcome: Outcome) -> Moments:
    """The batch statistics of a pass.

    Raises:
        NotEvaluated: it gave none.
    """
    if outcome.moments is None:
        raise NotEvaluated("the pass gave no batch statistics")
    return outcome.moments


def has_uncounted_rows(weights: Array | None) -> bool:
    """Whether some rows of a batch have a weight of 0, as padding has."""
    return weights is not None and bool(np.any(np.asarray(weights) == 0))


class Runner(Protocol):
    """A model in a framework. No method changes the model; each raises ``NotEvaluated`` where it cannot be done.

    Channels of all layers lie in one vector, [C_total], in the order of the layers that the runner was made with.
    """

    @property
    def tracing(self) -> OneTimeCost:
        """What tracing or compiling has taken, counted apart from the passes."""

    @property
    def accelerated(self) -> bool:
        """Whether the model may run elsewhere than on the CPU."""

    @property
    def out_of_memory(self) -> tuple[type[Exception], ...]:
        """What a pass raises where memory ends."""

    loss_reason: str
    """Why passes give no loss; empty where they do. Their statistics are worth having without one."""

    @property
    def order(self) -> Sequence[int]:
        """Layer index of each BatchNorm call of one forward pass, in the order of execution; empty while unknown."""

    @property
    def trains(self) -> Mapping[int, bool]:
        """Layer index -> whether it runs in training mode when the model does; known after a training pass."""

    @property
    def always_by_batch(self) -> bool:
        """Whether a layer that is not among these normalizes by the batch in every mode, for it has no statistics."""

    @property
    def unreached(self) -> Sequence[str]:
        """Names of what else normalizes by the batch in inference mode: code and modules that no mode reaches."""

    @property
    def carries_state(self) -> bool:
        """Whether each row of a batch continues from the state that the batch before it left, as in a stateful RNN."""

    @property
    def trains_by_batch(self) -> bool:
        """Whether ``training`` gives what ``batch`` gives in every layer: nothing else minds the mode."""

    @property
    def at_inference(self) -> Mapping[int, bool]:
        """Layer index -> whether it normalizes by the batch when the model runs in inference mode."""

    @property
    def gain(self) -> Array:
        """``1 - momentum`` of each layer as a training pass uses it, [L]."""

    def trained(self) -> Mask:
        """Layers that normalize by the batch in training, [L]."""

    def count_calls(self, batch: Any) -> None:
        """Find ``order`` without running a pass, if that is possible."""

    def inference(self, batch: Any, moving: Moments) -> Outcome:
        """Every layer on these moving statistics, everything else in inference mode."""

    def batch(self, batch: Any, moving: Moments, on_moving: Mask | None = None) -> Outcome:
        """Every channel on the batch's statistics, but for those of the mask [C_total]; else in inference mode."""

    def training(self, batch: Any) -> Outcome:
        """As the training step does, with its batch statistics and what it would make of the moving ones."""

    def rows(self, batch: Any, predictions: Any, indices: NDArray[np.int64]) -> Array:
        """Loss of these rows of a batch, each as a separate batch, [len(indices)]."""

    def metric_state(self) -> Any:
        """The compiled metrics after a reset."""

    def update(self, state: Any, batch: Any, predictions: Any) -> Any:
        """The compiled metrics after one more batch."""

    def metrics(self, state: Any) -> dict[str, float]:
        """Their values."""

    def weights(self, batch: Any) -> Array | None:
        """Sample weights of a batch, [B]; None where it has none."""

    def inputs(self, batch: Any) -> Array | None:
        """Real-valued inputs of a batch, [B, F]; None where there are none."""

    def compose(
        self,
        batches: Sequence[Any],
        rows: Sequence[NDArray[np.int64]],
        targets: Sequence[NDArray[np.int64]] | None = None,
    ) -> list[Any]:
        """New batches of these rows of all batches laid end to end, with the targets of other rows where given."""


class NoPasses:
    """The ``Runner`` of a model that allows no pass: nothing is known of its calls."""

    tracing = OneTimeCost()
    accelerated = False
    out_of_memory: tuple[type[Exception], ...] = ()
    loss_reason = ""
    order: Sequence[int] = ()
    trains: Mapping[int, bool] = MappingProxyType({})
    always_by_batch = carries_state = trains_by_batch = False
    unreached: Sequence[str] = ()
    at_inference: Mapping[int, bool] = MappingProxyType({})
    gain: Array = np.zeros(0)

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise NotEvaluated("the model allows no pass")

    trained = count_calls = inference = batch = training = _refuse
    rows = metric_state = update = metrics = weights = inputs = compose = _refuse


@dataclass
class RowLosses:
    """Losses of single rows of several passes, the same rows in each."""

    most: int
    """Rows of one pass at most."""
    losses: dict[str, list[Array]] = field(default_factory=dict)

    def indices(self, sizes: Sequence[int], index: int) -> NDArray[np.int64]:
        """Which rows of a batch are taken: all, or some spread over it."""
        share = max(1, self.most // max(len(sizes), 1))
        return evenly(sizes[index], share)

    def of(self, name: str) -> Array:
        """All row losses of a pass."""
        return np.concatenate(self.losses[name])


class Passes:
    """Runs passes one after another, in the order of their importance, until the time is spent.

    Args:
        runner: the model.
        time_left: seconds that remain for passes that are not essential.
        strict: let faults out, for tests.
        most_rows: rows of a pass whose losses are taken one by one.
    """

    def __init__(self, runner: Runner, time_left: Callable[[], float], strict: bool = False, most_rows: int = 1024):
        self.runner, self._time_left, self._strict = runner, time_left, strict
        self.results: dict[str, PassResult] = {}
        self.not_evaluated: dict[str, str] = {}
        self.rows = RowLosses(most_rows)
        self.all_essential = False
        """Whether the coming passes are all made even where no time is left."""

    def run(
        self,
        name: str,
        batches: Sequence[Any],
        sizes: Sequence[int],
        forward: Callable[[int, Any], Outcome],
        *,
        essential: bool = False,
        with_rows: bool = False,
    ) -> list[Outcome]:
        """One pass over all batches.

        Args:
            name: what the result is kept under.
            batches: the data.
            sizes: samples in each.
            forward: called with (index, batch).
            essential: made even where no time is left.
            with_rows: keep the loss of single rows too.

        Returns:
            The outcomes without their predictions; none where the pass could not be made, and then
            ``not_evaluated`` says why.
        """
        if not (essential or self.all_essential) and self._time_left() <= 0:
            self.not_evaluated[name] = "no time was left"
            return []
        outcomes: list[Outcome] = []
        with _Caught(self, name):
            counted = _Metrics(self)
            for index, batch in enumerate(batches):
                outcome = forward(index, batch)
                counted.add(batch, outcome.predictions)
                if with_rows:
                    self._add_rows(name, index, batch, sizes, outcome.predictions)
                outcomes.append(Outcome(outcome.loss, None, outcome.moments))
            losses = np.array([o.loss for o in outcomes], np.float64)
            self.results[name] = PassResult(losses, np.array(sizes, np.int64), counted.values())
            return outcomes
        # Rows of some batches do not pair with those of all.
        self.rows.losses.pop(name, None)
        return []

    def same_as(self, name: str, other: str) -> None:
        """A pass that is another one under a second name."""
        if other in self.results:
            self.results[name] = self.results[other]
            if other in self.rows.losses:
                self.rows.losses[name] = self.rows.losses[other]
        elif other in self.not_evaluated:
            self.not_evaluated[name] = self.not_evaluated[other]

    def measured(self, name: str, by: Callable[[], None]) -> None:
        """Do something that may not be possible on this model; say so in ``not_evaluated`` then."""
        with _Caught(self, name):
            by()

    def _add_rows(self, name: str, index: int, batch: Any, sizes: Sequence[int], predictions: Any) -> None:
        if "samples" in self.not_evaluated:
            return
        with _Caught(self, "samples"):
            chosen = self.rows.indices(sizes, index)
            losses = np.asarray(self.runner.rows(batch, predictions, chosen), np.float64)
            weights = self.runner.weights(batch)
            counted = losses if weights is None else losses[np.asarray(weights)[chosen] > 0]
            self.rows.losses.setdefault(name, []).append(counted)


class _Metrics:
    """The compiled metrics over the batches of one pass; nothing where they cannot be had."""

    def __init__(self, passes: Passes):
        self._passes = passes
        self._state: Any = None
        if "metrics" not in passes.not_evaluated:
            with _Caught(passes, "metrics"):
                self._state = passes.runner.metric_state()

    def add(self, batch: Any, predictions: Any) -> None:
        if self._state is not None:
            state, self._state = self._state, None
            with _Caught(self._passes, "metrics"):
                self._state = self._passes.runner.update(state, batch, predictions)

    def values(self) -> Mapping[str, float]:
        if self._state is not None:
            with _Caught(self._passes, "metrics"):
                return self._passes.runner.metrics(self._state)
        return {}


class _Caught:
    """Turns what goes wrong in a block into a reason why a part is not evaluated."""

    def __init__(self, passes: Passes, name: str):
        self._passes, self._name = passes, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: Any, error: BaseException | None, _traceback: Any) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        if not isinstance(error, NotEvaluated) and self._passes._strict:
            return False
        known = isinstance(error, NotEvaluated)
        self._passes.not_evaluated[self._name] = str(error) if known else cause_of(error)
        return True

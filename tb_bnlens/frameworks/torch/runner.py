"""``passes.Runner`` for a PyTorch model: the same batch and weights, several normalizations, nothing written.

Each pass runs the model on clones of the running statistics. A hook in front of each BatchNorm module takes the
statistics of its input and puts them in the clones, and the module then runs in eval mode: that works for every
subclass, needs no collective call for ``SyncBatchNorm`` and tells channels apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.passes import Array, Ending, Outcome
from tb_bnlens.capture.reasons import cause_of, in_pass, why_no_loss_in_both
from tb_bnlens.capture.still import when_it_ends
from tb_bnlens.capture.stopwatch import OneTimeCost
from tb_bnlens.frameworks.torch import batches as of
from tb_bnlens.frameworks.torch import parts
from tb_bnlens.frameworks.torch.forward import call, left_out
from tb_bnlens.frameworks.torch.layers import TorchLayer, untracked, unwrapped
from tb_bnlens.frameworks.torch.modes import modes_of, modules_once
from tb_bnlens.frameworks.torch.normalized import (
    Own,
    Seen,
    arrays_of,
    at_normalization,
    end_to_end,
    hooked,
    write_given,
)
from tb_bnlens.frameworks.torch.outcomes import DERIVED_IN_MODEL, NO_GRADIENT, Outcomes, held, kind_of
from tb_bnlens.frameworks.torch.unreached import UnreachedCalls
from tb_bnlens.frameworks.torch.untouched import untouched
from tb_bnlens.frameworks.torch.writes import unseen
from tb_bnlens.moments.moments import Mask, Moments
from tb_bnlens.moments.recovery import Snapshot
from tb_bnlens.moments.segments import Segments
from tb_bnlens.moments.statistics import mean_of_calls


class TorchRunner:
    """Passes over one model.

    Args:
        model: the outermost module; the passes run on what is inside wrappers.
        layers: its BatchNorm modules.
        segments: their channels.
        loss: ``loss(predictions, target)``; without it the model's output has to hold one.
        metrics: name -> ``metric(predictions, target)``, or an object like those of torchmetrics.
        forward: ``forward(model, x)`` where the model is not called as ``forward.call`` says.
    """

    out_of_memory: tuple[type[Exception], ...] = (torch.OutOfMemoryError,)

    def __init__(
        self,
        model: Any,
        layers: Sequence[TorchLayer],
        segments: Segments,
        loss: Callable[..., Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        forward: Callable[..., Any] | None = None,
    ):
        self._model, _ = unwrapped(model)
        self._layers, self._segments = tuple(layers), segments
        self._forward = forward or call
        self._called = (self._model, self._forward, loss)
        self._outcomes = Outcomes(loss, metrics)
        self._held: list[Ending] = []
        self._kinds: dict[bool, str] = {}
        self._cause = ""
        devices = {p.device for p in parts.parameters(self._model)}
        self._device = devices.pop() if len(devices) == 1 else None
        self.tracing = OneTimeCost()
        self.accelerated = self._device is None or self._device.type != "cpu"
        self.loss_reason = ""
        self._with_loss: set[bool] = set()
        self.order: Sequence[int] = ()
        self.trains: dict[int, bool] = {}
        self.trains_by_batch = False
        self._untracked = bool(untracked(self._model))
        self._unreached: tuple[str, ...] | None = None
        self.carries_state = False
        self.at_inference = {i: False for i in range(len(layers))}
        self.gain = self._gain()
        self.rows, self.weights = self._outcomes.rows, self._outcomes.weights
        self.metric_state, self.update = self._outcomes.metric_state, self._outcomes.update
        self.metrics = self._outcomes.metrics
        self.compose, self.inputs = of.compose, of.inputs
        if any(type(p).__name__ == "DTensor" for p in parts.parameters(self._model)):
            raise NotEvaluated("the parameters are sharded over processes (DTensor), so one cannot run the model alone")

    @property
    def unreached(self) -> tuple[str, ...]:
        """See ``passes.Runner``; known after an inference pass."""
        return self._unreached or ()

    @property
    def always_by_batch(self) -> bool:
        """See ``passes.Runner``."""
        return self._untracked or bool(self.unreached)

    def trained(self) -> Mask:
        """Layers that normalize by the batch in training, for they are not in eval mode, [L]."""
        now = [parts.value_of(t.module, "training") for t in self._layers]
        return np.asarray([self.trains.get(i, mode) for i, mode in enumerate(now)], bool)

    def count_calls(self, batch: Any) -> None:
        """Updates are counted by the modules themselves, so there is nothing to find out."""

    # --- the passes ----------------------------------------------------------------------------------

    @in_pass("an inference pass")
    def inference(self, batch: Any, moving: Moments) -> Outcome:
        """Every layer on these running statistics, everything else in eval mode."""
        everything = np.ones(int(self._segments.sizes.sum()), bool)
        look = UnreachedCalls(self._model) if self._unreached is None else None
        loss, predictions, _ = self._run(batch, moving, everything, self._in_eval_mode(), look)
        if look is not None:
            self._unreached = tuple(look.names)
        return Outcome(loss, predictions)

    @in_pass("a pass with batch statistics")
    def batch(self, batch: Any, moving: Moments, on_moving: Mask | None = None) -> Outcome:
        """Every channel on the batch's statistics, but for those of the mask [C_total]; else in eval mode."""
        mask = np.zeros(int(self._segments.sizes.sum()), bool) if on_moving is None else on_moving
        loss, predictions, seen = self._run(batch, moving, mask, self._in_eval_mode())
        # With every layer on its moving statistics nothing is hooked, and no call is seen.
        self.order = tuple(seen.order) or self.order
        calls = arrays_of(seen.moments)
        return Outcome(
            loss, predictions, mean_of_calls(calls, self._segments), {i: c for i, c in calls.items() if len(c) > 1}
        )

    @in_pass("a training pass")
    def training(self, batch: Any) -> Outcome:
        """As the training step does: every module in the mode that it is in now."""
        self.trains = {i: bool(parts.value_of(t.module, "training")) for i, t in enumerate(self._layers)}
        self.gain = self._gain()
        moving = self._moving()
        trained = self._segments.per_channel(self.trained()).astype(bool)
        now = modes_of(self._model)
        loss, predictions, seen = self._run(batch, moving, ~trained, now)
        # What nothing calls or trains has no mode in training: a part of the network that is not used.
        used = {i for i, layer in enumerate(self._layers) if not seen.order or i in seen.order or layer.moved}
        self.trains = {i: mode for i, mode in self.trains.items() if i in used}
        calls = {i: c for i, c in arrays_of(seen.moments).items() if self.trains[i]}
        return Outcome(loss, predictions, mean_of_calls(calls, self._segments), after=self._after(moving, calls))

    def _run(
        self,
        batch: Any,
        moving: Moments,
        on_moving: Mask,
        given: Mapping[Any, bool],
        look: UnreachedCalls | None = None,
    ) -> tuple[float, Any, Seen]:
        seen, wanted = Seen(), dict(given)
        batch = of.on_device(batch, self._device)
        own = self._own(moving, on_moving, seen)
        for layer, mine in zip(self._layers, own, strict=True):
            # Half-precision buffers would round the statistics of the batch, which training does not do.
            wanted[layer.module] = layer.coarse and mine.wholly
        with contextlib.ExitStack() as stack:
            stack.enter_context(of.objects_put_back(batch))
            modules = [layer.module for layer in self._layers]
            stack.enter_context(untouched(wanted, modules, *self._called))
            self._let_go()
            write_given(modules, own)
            by_batch = any(mine.by_batch for mine in own)
            if by_batch:
                stack.enter_context(hooked(modules, own))
                stack.enter_context(at_normalization(self._layers, own))
            with look or contextlib.nullcontext(), _no_variance(), self._failure_told(batch.x):
                predictions = self._forward(self._model, batch.x)
            self._kinds[given[self._model]] = kind_of(predictions)
            if not by_batch:
                self._find_wired(own)
            loss = self._loss(predictions, batch, any(given.values()))
            predictions = self._hold(predictions)
        return loss, predictions, seen

    def _in_eval_mode(self) -> dict[Any, bool]:
        return dict.fromkeys(modules_once(self._model), False)

    def _hold(self, predictions: Any) -> Any:
        """Let the predictions end within a pass, or what follows the last one, if their end may change something."""
        kept = held(predictions)
        if kept is not predictions:
            if not self._held:
                when_it_ends(self._end_last)
            self._held.append(kept)
        return kept

    def _end_last(self) -> None:
        with untouched(self._in_eval_mode(), (), *self._called):
            self._let_go()

    def _let_go(self) -> None:
        for kept in self._held:
            kept.value = None
        self._held.clear()

    def _find_wired(self, own: Sequence[Own]) -> None:
        """A module in eval mode writes no statistics, unless its forward pass has the mode written into it."""
        if not own:
            return
        held = [layer.module.running_mean for layer in self._layers]
        with unseen(*held):
            # Buffers of half precision hold rounded ones.
            exact = all(now.dtype == mine.mean.dtype for mine, now in zip(own, held, strict=True))
            given = end_to_end(x.mean if exact else x.mean.to(now.dtype) for x, now in zip(own, held, strict=True))
            moved = (end_to_end(held) != given) & ~np.isnan(given)
        self.at_inference = dict(enumerate((self._segments.count(moved) > 0).tolist()))

    def _loss(self, predictions: Any, batch: Any, in_training: bool) -> float:
        try:
            loss = self._outcomes.loss(predictions, batch.y)
        except NotEvaluated as reason:
            # The statistics of the pass are worth having without it.
            self.loss_reason = str(reason)
            self._cause = "" if reason.__cause__ is None else cause_of(reason.__cause__)
            loss = float("nan")
        else:
            self._with_loss.add(in_training)
        inference, training = self._kinds.get(False), self._kinds.get(True)
        differ = inference != training or True in self._with_loss
        if self.loss_reason and inference and training and differ and False not in self._with_loss:
            self.loss_reason = why_no_loss_in_both(inference, training, self._cause)
        return loss

    @contextlib.contextmanager
    def _failure_told(self, x: Any) -> Iterator[None]:
        """A model may take targets as an argument that it needs in training mode alone, or derivatives."""
        try:
            yield
        except Exception as error:
            if NO_GRADIENT in str(error):
                raise NotEvaluated(DERIVED_IN_MODEL.format(cause_of(error))) from error
            missing = [name for name in left_out(self._model, x) if name in str(error)] if self._forward is call else []
            if not missing:
                raise
            raise NotEvaluated(
                f"the model fails without its argument {missing[0]!r} ({cause_of(error)}): pass all arguments of the "
                f"forward pass as the inputs of a batch, record((x, {missing[0]}), y)"
            ) from error

    # --- statistics ----------------------------------------------------------------------------------

    def _gain(self) -> Array:
        return np.asarray([1 - t.momentum for t in self._layers], np.float64)

    def _moving(self) -> Moments:
        both = ([parts.value_of(t.module, name) for t in self._layers] for name in ("running_mean", "running_var"))
        return Moments(*map(end_to_end, both))

    def _own(self, moving: Moments, on_moving: Mask, seen: Seen) -> list[Own]:
        if not self._layers:
            return []
        # As copies: a tensor made of an array shares its memory.
        flat = [torch.tensor(np.asarray(x, np.float32)) for x in (moving.mean, moving.variance)]
        flat.append(torch.tensor(np.asarray(on_moving, bool)))
        sizes = self._segments.sizes.tolist()
        devices = [parts.value_of(layer.module, "running_mean").device for layer in self._layers]
        of_device = {device: zip(*(x.to(device).split(sizes) for x in flat), strict=True) for device in set(devices)}
        each = {device: list(split) for device, split in of_device.items()}
        masked = self._segments.count(np.asarray(on_moving))
        by_batch, wholly = (masked < self._segments.sizes).tolist(), (masked == 0).tolist()
        return [
            Own(index, *each[device][index], by_batch=by_batch[index], wholly=wholly[index], seen=seen)
            for index, device in enumerate(devices)
        ]

    def _after(self, moving: Moments, calls: Mapping[int, Sequence[Moments]]) -> Snapshot:
        mean, variance = moving.mean.copy(), moving.variance.copy()
        for index, each in calls.items():
            part = slice(self._segments.starts[index], self._segments.stops[index])
            for seen in each:
                with np.errstate(invalid="ignore"):  # statistics that are not finite stay so
                    mean[part] += self.gain[index] * (seen.mean - mean[part])
                    variance[part] += self.gain[index] * (seen.variance - variance[part])
        return Snapshot(mean, variance)


@contextlib.contextmanager
def _no_variance() -> Iterator[None]:
    """A layer that normalizes by the batch refuses a single row; that is what a pass over one finds out."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise NotEvaluated(str(error)) from error
        raise

"""Run a model an extra time so that nothing of it is left: modes, tensors, Python objects, random state, caches."""

from __future__ import annotations

import contextlib
import functools
import operator
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn.parameter import UninitializedTensorMixin
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.noted import restore_all
from tb_bnlens.capture.objects import Objects
from tb_bnlens.capture.packages import is_closed
from tb_bnlens.capture.randomness import draws_undone, others_may_draw
from tb_bnlens.capture.still import found_once
from tb_bnlens.capture.walk import Visit, Walk
from tb_bnlens.frameworks.torch import parts
from tb_bnlens.frameworks.torch.draws import DrawsApart
from tb_bnlens.frameworks.torch.swapped import swap
from tb_bnlens.frameworks.torch.together import nothing_together
from tb_bnlens.frameworks.torch.writes import unseen, writes_undone

TENSORS = ("_parameters", "_buffers")
AUTOCAST = ("cpu", "cuda")
"""Kinds of devices whose autocast a pass may switch."""
LOGGERS = (
    ("torch.utils.tensorboard.writer", "SummaryWriter", ("add_",)),
    ("tensorboardX.writer", "SummaryWriter", ("add_",)),
    ("wandb.sdk.wandb_run", "Run", ("log", "_log")),
)
"""Module, class and how the names of its methods begin that write in the user's log."""
LIGHTNING = frozenset({"lightning", "pytorch_lightning"})
LOG = "log"
"""The method of a ``LightningModule``; ``log_dict`` calls it."""
GLOBAL_HOOKS = [hooks for name, hooks in vars(torch.nn.modules.module).items() if name.startswith("_global_")]


@contextlib.contextmanager
def modes(given: Mapping[Any, bool]) -> Iterator[None]:
    """Let modules be in training mode or not within the block.

    The flags are set as such. ``train()`` and ``eval()`` may be overridden and do more: merge weights, or freeze some.
    """
    held = [(parts.held_by(module), mode) for module, mode in given.items()]
    plain = [(own, mode) for own, mode in held if "training" in own]
    before = [own["training"] for own, _ in plain]
    # A property of the class, or a flag in C++.
    others = [module for module, (own, _) in zip(given, held, strict=True) if "training" not in own]
    others_before = [parts.value_of(module, "training") for module in others]
    try:
        for own, mode in plain:
            own["training"] = mode
        for module in others:
            _set_mode(module, given[module])
        yield
    finally:
        for (own, _), mode in zip(plain, before, strict=True):
            own["training"] = mode
        for module, mode in zip(others, others_before, strict=True):
            _set_mode(module, mode)
            parts.held_by(module).pop("training", None)


def _set_mode(module: Any, mode: bool) -> None:
    if not issubclass(type(module), torch.jit.ScriptModule):
        parts.held_by(module)["training"] = mode
    elif module._c.hasattr("training"):
        module._c.setattr("training", mode)


def modules_once(model: Any) -> list[Any]:
    """A module and all in it; looked for once in a measurement, whose passes put them back."""
    return found_once(parts.modules, model)


def _devices(model: Any) -> set[torch.device]:
    """Where the tensors of a model are."""
    return {p.device for m in modules_once(model) for kind in TENSORS for p in parts.own_tensors(m, kind)}


def modes_of(model: Any) -> dict[Any, bool]:
    """Every module and whether it is in training mode."""
    return {module: parts.value_of(module, "training") for module in modules_once(model)}


@contextlib.contextmanager
def unlogged(modules: Iterable[Any]) -> Iterator[None]:
    """Let modules of Lightning log nothing in the block: by what they log, training stops or goes slower."""
    here = not sys.modules.keys().isdisjoint(LIGHTNING)
    logging = [module for module in modules if _logs(type(module))] if here else []
    before = [parts.held_by(module).get(LOG) for module in logging]
    try:
        for module in logging:
            parts.held_by(module)[LOG] = _ignored
        yield
    finally:
        for module, own in zip(logging, before, strict=True):
            parts.held_by(module)[LOG] = own
            if own is None:
                del parts.held_by(module)[LOG]


def _logs(kind: Any) -> bool:
    classes = [cls for cls in kind.__mro__ if cls.__name__ == "LightningModule"]
    return any(cls.__module__.partition(".")[0] in LIGHTNING for cls in classes)


@contextlib.contextmanager
def silent_loggers() -> Iterator[None]:
    """Let ``LOGGERS`` write nothing in the block: a curve would get a point for each pass."""
    with contextlib.ExitStack() as stack:
        for module, name, prefixes in LOGGERS:
            cls = getattr(sys.modules.get(module), name, None)
            for method in [m for m in vars(cls) if m.startswith(prefixes)] if isinstance(cls, type) else ():
                swap(stack, cls, method, _ignored)
        yield


def _ignored(*_: Any, **__: Any) -> None:
    pass


@contextlib.contextmanager
def cloned_buffers(modules: Sequence[Any]) -> Iterator[None]:
    """Let modules have clones of their buffers within the block, which writes to those alone.

    ``torch.func.functional_call`` does the same in six times the time, most of it in looking for shared tensors.
    """
    before = [(module, buffers) for module in modules if (buffers := parts.held_by(module)["_buffers"])]
    clones = _clones([b for _, buffers in before for b in buffers.values() if b is not None])
    try:
        for module, buffers in before:
            parts.held_by(module)["_buffers"] = {name: clones.get(id(b)) for name, b in buffers.items()}
        yield
    finally:
        for module, buffers in before:
            parts.held_by(module)["_buffers"] = buffers


def _clones(tensors: Iterable[Any]) -> dict[int, Any]:
    """The clone of each tensor, by its id. Those of a kind are copied at once, into neighbouring memory."""
    kinds: dict[Any, dict[int, Any]] = {}
    for tensor in tensors:
        kinds.setdefault(_kind_of(tensor), {})[id(tensor)] = tensor
    clones: dict[int, Any] = {}
    for kind, alike in kinds.items():
        with unseen(*alike.values()):
            copies = [t.detach().clone() for t in alike.values()] if kind is None else _copied(list(alike.values()))
        clones.update(zip(alike, copies, strict=True))
    return clones


def _kind_of(tensor: Any) -> Any:
    """What tensors have in common that can be copied at once; None where one cannot."""
    dense = type(tensor) is torch.Tensor and tensor.layout == torch.strided and tensor.is_contiguous()
    usual = not (tensor.is_quantized or tensor.is_nested or tensor.is_inference() or torch.is_inference_mode_enabled())
    return (tensor.dtype, tensor.device) if dense and usual else None


def _copied(tensors: Sequence[Any]) -> list[Any]:
    with torch.no_grad():
        flat = torch.cat([t if t.dim() == 1 else t.reshape(-1) for t in tensors])
        # Each has a version of its own: autograd must not take a write to one for a write to all.
        pieces = torch.unsafe_split_with_sizes(flat, [t.numel() for t in tensors])
        return [x if t.dim() == 1 else x.view(t.shape) for x, t in zip(pieces, tensors, strict=True)]


@contextlib.contextmanager
def random_state(devices: set[torch.device], walk: Walk | None = None) -> Iterator[None]:
    """Undo draws from every global generator: of PyTorch on the CPU and on these devices, of NumPy and of Python.

    Args:
        devices: those.
        walk: what is known of the block.

    Raises:
        NotEvaluated: the block draws from a generator that another thread may draw from, and that cannot be undone.
    """
    apart = others_may_draw()
    with contextlib.ExitStack() as stack:
        stack.enter_context(draws_undone(apart, walk is None or walk.may_draw, walk is not None and walk.may_wait))
        stack.enter_context(DrawsApart() if apart else torch.random.fork_rng(devices=[]))
        for device in devices:
            if device.type != "cpu" and getattr(torch, device.type, None) is not None:
                stack.enter_context(torch.random.fork_rng(devices=[device], device_type=device.type))
        yield


@contextlib.contextmanager
def own_precision(devices: set[torch.device]) -> Iterator[None]:
    """Autocast as around the call, but with its own cache.

    Within one ``autocast`` block weights are cast once. What is cast here has no gradient, and the next step of
    training would be made on it.
    """
    with contextlib.ExitStack() as stack:
        for kind in {"cpu", *(device.type for device in devices)}:
            if torch.is_autocast_enabled(kind):
                dtype = torch.get_autocast_dtype(kind)
                stack.enter_context(torch.autocast(kind, dtype=dtype, cache_enabled=False))
        stack.enter_context(_own_parametrizations())
        if any(device.type == "cuda" for device in devices):
            # A shape that is new to the benchmark would be timed, and the choice kept for training.
            stack.enter_context(torch.backends.cudnn.flags(benchmark=False))
        yield


@contextlib.contextmanager
def _own_parametrizations() -> Iterator[None]:
    """Weights as ``torch.nn.utils.parametrize`` makes them: what is cached here has no gradient either."""
    cached, parametrize._cache = parametrize._cache, {}
    try:
        yield
    finally:
        parametrize._cache = cached


def _flushes(tiny: float = 5e-324) -> bool:
    """Whether this thread takes numbers for zero that are too small for all digits."""
    return tiny * 1.0 == 0.0


SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (_flushes, torch.set_flush_denormal),
    (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda kept: torch.use_deterministic_algorithms(kept[0], warn_only=kept[1]),
    ),
    (lambda: torch.backends.cudnn.benchmark, partial(setattr, torch.backends.cudnn, "benchmark")),
    (lambda: torch.backends.cudnn.deterministic, partial(setattr, torch.backends.cudnn, "deterministic")),
    *((partial(torch.is_autocast_enabled, kind), partial(torch.set_autocast_enabled, kind)) for kind in AUTOCAST),
    *((partial(torch.get_autocast_dtype, kind), partial(torch.set_autocast_dtype, kind)) for kind in AUTOCAST),
)
"""What holds for the whole process or thread, and how it is set. Not the precision of matrix products: where the user
has set it for one backend, reading that of all raises."""


@contextlib.contextmanager
def settings_undone() -> Iterator[None]:
    """Undo what the block sets for all code, such as the default type of tensors."""
    before = [get() for get, _ in SETTINGS]
    try:
        yield
    finally:
        now = [get() for get, _ in SETTINGS]
        if now != before:
            changed = zip(SETTINGS, before, now, strict=True)
            restore_all("a setting", [partial(put, then) for (_, put), then, since in changed if then != since])


def modes_around() -> tuple[Any, ...]:
    """The modes of PyTorch that are on, such as a ``FlopCounterMode`` around training."""
    return *_get_current_dispatch_mode_stack(), *_get_current_function_mode_stack()


def unseen_by_modes() -> contextlib.AbstractContextManager[Any]:
    """Undo what modes around training, such as a ``FlopCounterMode``, make of operations in the block."""
    found = modes_around()
    return OBJECTS.put_back(*found) if found else contextlib.nullcontext()


@contextlib.contextmanager
def undone(devices: set[torch.device], *called: Any, objects: Objects | None = None) -> Iterator[Walk]:
    """Undo what code of the user's does in the block: it draws, writes to tensors, changes objects. No gradients.

    Args:
        devices: where it runs.
        called: the objects that are called: modules, losses, functions.
        objects: how they are walked; as objects of PyTorch where it is not given.

    Raises:
        NotEvaluated: it cannot be undone; as far as that is known, the block is not run then.
    """
    walked = (objects or OBJECTS).put_back(*called, *GLOBAL_HOOKS, *modes_around())
    # The walk first: a draw that is stopped is looked for in every call that follows.
    owners = [thing.__self__ if type(thing) is types.MethodType else thing for thing in called]
    with torch.no_grad(), walked as walk, settings_undone(), random_state(devices, walk), writes_undone():
        with nothing_together(), silent_loggers(), _frames_cleared(), unlogged(owners):
            yield walk


@contextlib.contextmanager
def _frames_cleared() -> Iterator[None]:
    """Let what a failed block has made end with it: an exception holds the frames that it has left."""
    handled = sys.exc_info()[1]  # by code of the user's, whose frames stay
    try:
        yield
    except Exception as error:
        failed: BaseException | None = error
        while failed is not None and failed is not handled:
            traceback.clear_frames(failed.__traceback__)
            failed = failed.__context__
        raise


@contextlib.contextmanager
def untouched(given: Mapping[Any, bool], exchanged: Sequence[Any], model: Any, *called: Any) -> Iterator[None]:
    """Run a model and leave nothing, with compiled parts run eagerly: they would be compiled again.

    Args:
        given: every module in it, and whether it is in training mode within the block.
        exchanged: modules whose buffers are clones within the block.
        model: is called.
        called: what is called beside it.
    """
    devices = found_once(_devices, model)
    with contextlib.ExitStack() as stack:
        stack.enter_context(undone(devices, model, *called))
        stack.enter_context(own_precision(devices))
        stack.enter_context(cloned_buffers(exchanged))
        stack.enter_context(modes(given))
        stack.enter_context(unlogged(given))
        if hasattr(torch.compiler, "set_stance"):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


# --- objects of PyTorch -----------------------------------------------------------------------------------


def _visit_tensor(walk: Walk, tensor: Any) -> None:
    """What its memory holds is put back by ``writes_undone``; this is about the tensor as an object."""
    if isinstance(tensor, UninitializedTensorMixin):
        raise NotEvaluated("the model has lazy modules that no batch has reached, which an extra pass would build")
    walk.dictionary(vars(tensor))
    if (
        any(type(tensor) is kind for kind in (torch.Tensor, torch.nn.Parameter))
        and tensor.layout == torch.strided
        and tensor.is_leaf
    ):
        walk.together(_Leaves).add(tensor)
        return
    data, needs = tensor.data, tensor.requires_grad
    walk.keep(partial(_restore, tensor, data, needs, tensor.grad if tensor.is_leaf else None))


def _restore(tensor: Any, data: Any, needs: bool, grad: Any) -> None:
    if not _same_memory(tensor, data):
        tensor.data = data
    if tensor.is_leaf:
        if tensor.requires_grad != needs:
            tensor.requires_grad_(needs)
        if tensor.grad is not grad:
            tensor.grad = grad


class _Leaves:
    """Puts back tensors, as objects: most of those in a model are of one kind, and are looked at together."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._data: list[Any] = []
        self._needs: list[bool] = []
        self._grads: list[Any] = []

    def add(self, tensor: Any) -> None:
        """Take note of one."""
        self._tensors.append(tensor)
        self._data.append(tensor.data)
        self._needs.append(tensor.requires_grad)
        self._grads.append(tensor.grad)

    def __call__(self) -> None:
        tensors = self._tensors
        same = [t.requires_grad for t in tensors] == self._needs and all(t.is_leaf for t in tensors)
        if same and all(map(operator.is_, [t.grad for t in tensors], self._grads)) and self._same_memory():
            return
        noted = zip(tensors, self._data, self._needs, self._grads, strict=True)
        restore_all("a tensor", [partial(_restore, *one) for one in noted])

    def _same_memory(self) -> bool:
        try:
            return all(list(map(part, self._tensors)) == kept for part, kept in self._memory)
        except (NotImplementedError, RuntimeError):  # without a memory of their own
            return False

    @functools.cached_property
    def _memory(self) -> list[tuple[Callable[[Any], Any], list[Any]]]:
        # Those that are kept share it, so it does not move.
        return [(part, list(map(part, self._data))) for part in MEMORY]


MEMORY = (torch.Tensor.data_ptr, torch.Tensor.size, torch.Tensor.stride)
"""Where the values of a tensor are."""


def _same_memory(a: Any, b: Any) -> bool:
    try:
        return bool(a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride())
    except (NotImplementedError, RuntimeError):  # sparse, and others without a memory of their own
        return True


def _visit_generator(walk: Walk, generator: Any) -> None:
    if generator is not torch.default_generator and generator not in torch.cuda.default_generators:
        state = generator.get_state()
        walk.keep(lambda: generator.set_state(state) and None)


def _visit_optimizer(walk: Walk, optimizer: Any) -> None:
    """Its dictionaries; tensors in them are put back by ``writes_undone`` alone."""
    groups, state = optimizer.param_groups, optimizer.state
    walk.sequence(groups)
    for held in (vars(optimizer), state, *state.values(), *groups):
        walk.dictionary(held, follow=False)


def _visit_mode(walk: Walk, mode: Any) -> None:
    """A mode that is on sees each operation of a pass. That of a ``FlopCounterMode`` counts in an object beside it."""
    for held in (mode, *vars(mode).values()):
        if type(getattr(held, "__dict__", None)) is dict and (held is mode or is_closed(type(held))):
            walk.dictionary(vars(held))


def _visit_script(walk: Walk, module: Any) -> None:
    """Attributes of a scripted module are in C++, where a list is a copy of the one that is read."""
    inner = module._c
    kept = {name: inner.getattr(name) for name in module._concrete_type.get_attributes()}
    walk.part(vars(module))
    walk.then(module, *module.children(), *kept.values())

    def restore() -> None:
        for name, value in kept.items():
            inner.setattr(name, value)

    walk.keep(restore)


VISITS: dict[type, Visit] = {
    torch.jit.ScriptModule: _visit_script,
    TorchDispatchMode: _visit_mode,
    TorchFunctionMode: _visit_mode,
    torch.Tensor: _visit_tensor,
    torch.Generator: _visit_generator,
    torch.optim.Optimizer: _visit_optimizer,
}
PARTS = (
    torch.nn.Module,
    torch.optim.lr_scheduler.LRScheduler,
    torch.distributions.Distribution,
    torch.quasirandom.SobolEngine,
)
CLOSED = (torch.utils.data.DataLoader,)
PATCHED_IN = (torch, torch.Tensor, torch.nn.functional)
OBJECTS = Objects(PARTS, CLOSED, VISITS, PATCHED_IN)
DATASETS = Objects((*PARTS, torch.utils.data.Dataset), CLOSED, VISITS, PATCHED_IN)

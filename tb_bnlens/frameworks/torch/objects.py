"""How objects of PyTorch are walked and put back: tensors, generators, optimizers, modes, scripted modules."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.parameter import UninitializedTensorMixin
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.noted import restore_all
from tb_bnlens.capture.objects import Objects
from tb_bnlens.capture.packages import is_closed
from tb_bnlens.capture.walk import Visit, Walk


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
    """Puts back tensors, as objects: most in a model are of one kind, and are compared at once."""

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
        # ``_data`` shares this memory, so it does not move.
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

"""Undo what a pass writes to tensors that were there before it, wherever the code of a user's got hold of them.

A mode of PyTorch's dispatcher sees each operation of this thread. In front of one that writes in place, what is there
is copied: only what a pass writes costs anything. Code that writes past the dispatcher (a kernel bound with pybind,
NumPy in the memory of a tensor) is not seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.noted import restore_all

HIDDEN_VIEWS = ("_unsafe_view", "unsafe_chunk", "unsafe_split")
"""Operations that give a part of their input and do not say so."""
MOST_BYTES = 256 * 2**20
"""Of copies in one pass."""
STATISTICS = ("running_mean", "running_var")
"""What operations for batch normalization write in training, and not all of them say so."""


@dataclass(frozen=True)
class _Operation:
    """What an operation writes."""

    written: tuple[tuple[int, str], ...]
    """Position and name of the arguments that it writes."""
    if_training: tuple[int, str] | None
    """Position and name of the argument that tells whether it writes them, where it does so in training only."""
    fresh: bool
    """Whether its results are in memory of their own."""


_KNOWN: dict[int, tuple[Any, _Operation | None]] = {}


def _known(function: Any) -> _Operation | None:
    # By identity: an operation hashes itself in Python, at a tenth of what this mode takes for it.
    found = _KNOWN.get(id(function))
    if found is None:
        found = _KNOWN[id(function)] = function, _operation(function)
    return found[1]


def _operation(function: Any) -> _Operation | None:
    schema = getattr(function, "_schema", None)
    if schema is None:
        return None
    named = list(enumerate(schema.arguments))
    written = tuple((i, a.name) for i, a in named if a.alias_info is not None and a.alias_info.is_write)
    quietly = not written and "batch_norm" in schema.name
    if quietly:
        written = tuple((i, a.name) for i, a in named if a.name in STATISTICS)
    modes = [(i, a.name) for i, a in named if quietly and a.name in ("training", "train")]
    fresh = not any(r.alias_info for r in schema.returns) and not schema.name.rpartition("::")[2].startswith(
        HIDDEN_VIEWS
    )
    return _Operation(written, modes[0] if modes else None, fresh)


class _Watch(TorchDispatchMode):  # type: ignore[misc]
    """Copies what an operation is about to write."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # The wrapper takes 1.5 us for each operation. Dynamo passes by all code under such a mode in any case.
        return False

    def __init__(self) -> None:
        super().__init__()
        self._fresh: set[int] = set()
        self._saved: dict[Any, tuple[Any, Any, int | None]] = {}
        self._drawn: dict[Any, Any] = {}
        self._bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        known = _known(func)
        if known is None:
            return func(*args, **kwargs)
        if known.written:
            for tensor in _written(known, args, kwargs):
                self._save(tensor)
        generator = kwargs.get("generator")
        if generator is not None and generator not in self._drawn:
            self._drawn[generator] = generator.get_state()
        result = func(*args, **kwargs)
        return self._met(result) if known.fresh else result

    def undo(self) -> None:
        """Put back what was there.

        Raises:
            RuntimeError: some of it could not be.
        """
        saved = reversed(self._saved.items())
        restores: list[Callable[[], Any]] = [partial(_restore, where, *held) for where, held in saved]
        restores += [partial(generator.set_state, state) for generator, state in self._drawn.items()]
        restore_all("a tensor", restores)

    def _save(self, tensor: Any) -> None:
        memory = _memory(tensor)
        if memory in self._fresh:
            return
        # Each part of a tensor has its own key. Where parts overlap, the first copy is put back last.
        key = id(tensor) if memory is None else (memory, tensor.storage_offset(), tensor.shape, tensor.stride())
        if key not in self._saved:
            self._bytes += tensor.numel() * tensor.element_size()
            if self._bytes > MOST_BYTES:
                raise NotEvaluated(
                    f"the model writes in place to tensors of more than {MOST_BYTES // 2**20} MiB, which an extra pass "
                    "would have to copy"
                )
            self._saved[key] = tensor, tensor.detach().clone(), None if tensor.is_inference() else tensor._version

    def _met(self, result: Any) -> Any:
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self._fresh.add(_memory(tensor) or 0)
        return result


def _written(known: _Operation, args: Any, kwargs: Mapping[str, Any]) -> Iterator[Any]:
    if known.if_training is not None and not _given(*known.if_training, args, kwargs):
        return
    for position, name in known.written:
        given = _given(position, name, args, kwargs)
        for tensor in given if isinstance(given, tuple | list) else (given,):
            if isinstance(tensor, torch.Tensor):
                yield tensor


def _given(position: int, name: str, args: Any, kwargs: Mapping[str, Any]) -> Any:
    return args[position] if position < len(args) else kwargs.get(name)


def _memory(tensor: Any) -> int | None:
    """What tells whether two tensors share their memory; None where that is not known."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse
        return None


def _restore(where: Any, tensor: Any, before: Any, version: int | None) -> None:
    with torch.inference_mode() if tensor.is_inference() else torch.no_grad():
        if tensor.shape != before.shape:  # resized
            tensor.set_(tensor.untyped_storage(), *where[1:])
        tensor.copy_(before)
    if version is not None:
        _set_version(tensor, version)


def _set_version(tensor: Any, version: int) -> None:
    """Make a tensor look as if nothing had been written to it, as autograd asks before it uses it again."""
    change = getattr(torch._C._autograd, "_unsafe_set_version_counter", None)
    if change is None:
        return
    try:
        change((tensor,), (version,))
    except TypeError:  # PyTorch before 2.6
        change(tensor, version)


@contextlib.contextmanager
def writes_undone() -> Iterator[None]:
    """Undo what this thread writes to tensors in the block, and draws from generators that it passes to PyTorch.

    Raises:
        RuntimeError: some of it could not be undone. All else has been.
    """
    watch = _Watch()
    try:
        with watch:
            yield
    finally:
        watch.undo()


def unseen(*tensors: Any) -> contextlib.AbstractContextManager[None]:
    """A block that works on these tensors alone, in memory of the lens' own: no mode looks at its operations.

    A mode takes 17 us for each, and the lens makes more operations in a pass than a small network does.
    """
    guard = getattr(torch._C, "_DisableTorchDispatch", None)
    plain = all(type(tensor) in (torch.Tensor, torch.nn.Parameter) for tensor in tensors)
    return guard() if guard is not None and plain else contextlib.nullcontext()

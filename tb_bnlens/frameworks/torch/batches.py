"""What a batch is made of in PyTorch: nested tuples, lists and mappings of tensors."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tb_bnlens.capture.errors import NotEvaluated, Refused
from tb_bnlens.capture.reasons import what_is, with_article
from tb_bnlens.capture.spread import drawn_rows, require_iterable
from tb_bnlens.capture.spread import spread as spread_over
from tb_bnlens.frameworks.torch.objects import DATASETS, OBJECTS
from tb_bnlens.frameworks.torch.process import random_state
from tb_bnlens.moments.moments import Array

WHILE_TRAINING = "a list of batches, or tensors (x, y)"
MOST_HELD = 1000
"""Objects in a batch whose memory is counted, at most."""
_VALUES = (torch.Tensor, np.ndarray, np.generic, bool, int, float, complex, str, bytes)
_ROWWISE, _COLUMNWISE = (f"{name} values".split() for name in ("crow_indices col_indices", "ccol_indices row_indices"))
_SPARSE = {
    torch.sparse_coo: ("_indices", "_values"),
    **dict.fromkeys((torch.sparse_csr, torch.sparse_bsr), _ROWWISE),
    **dict.fromkeys((torch.sparse_csc, torch.sparse_bsc), _COLUMNWISE),
}
"""Layout of sparse tensors -> methods that give the tensors in which they hold their values."""
_BY_ROWS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)
"""Layouts whose rows can be taken one by one; a block holds several."""
EXPECTED = f"a DataLoader, {WHILE_TRAINING}"


@dataclass(frozen=True)
class Batch:
    """One batch as the model and the loss get it."""

    x: Any
    """``forward``'s input: a tensor, a tuple of its arguments, or a mapping."""
    y: Any = None
    """The loss' target; None where the model computes its own loss."""


def mapped(change: Callable[[Any], Any], batch: Any) -> Any:
    """The same structure with each tensor or array changed; all else stays."""
    if isinstance(batch, Batch):
        return Batch(mapped(change, batch.x), mapped(change, batch.y))
    if isinstance(batch, Mapping):
        return {key: mapped(change, value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(mapped(change, part) for part in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(mapped(change, part) for part in batch)
    return change(batch) if isinstance(batch, torch.Tensor | np.ndarray) else batch


def leaves(batch: Any) -> Iterator[Any]:
    """Every tensor and array of a batch, inputs first."""
    if isinstance(batch, Batch):
        yield from leaves(batch.x)
        yield from leaves(batch.y)
    elif isinstance(batch, Mapping):
        for part in batch.values():
            yield from leaves(part)
    elif isinstance(batch, tuple | list):
        for part in batch:
            yield from leaves(part)
    elif isinstance(batch, torch.Tensor | np.ndarray):
        yield batch


def length(leaf: Any) -> int | None:
    """Rows of a tensor or array; None where it has no dimensions. Nested tensors have no ``shape``."""
    return (leaf.size(0) if isinstance(leaf, torch.Tensor) else leaf.shape[0]) if leaf.ndim else None


def is_dense(leaf: Any) -> bool:
    """Whether a tensor or array holds a value for each index, in memory that can be indexed."""
    return not isinstance(leaf, torch.Tensor) or (leaf.layout == torch.strided and not leaf.is_nested)


def taken(leaf: Any, rows: Any) -> Any:
    """Rows of a tensor or array.

    Args:
        leaf: it.
        rows: a slice or indices.

    Raises:
        NotEvaluated: no rows can be had of it.
    """
    if is_dense(leaf):
        return leaf[rows]
    _require_rows(leaf)
    index = torch.arange(length(leaf) or 0, device=leaf.device)[rows]
    return leaf.to_sparse_coo().index_select(0, index).to_sparse(layout=leaf.layout)


def _joined(column: Sequence[Any]) -> Any:
    tensors = [torch.as_tensor(leaf) for leaf in column]
    if all(map(is_dense, tensors)):
        return torch.cat(tensors)
    for tensor in tensors:
        _require_rows(tensor)
    layout = tensors[0].layout
    return torch.cat([tensor.to_sparse_coo() for tensor in tensors]).to_sparse(layout=layout)


def _require_rows(leaf: Any) -> None:
    if not is_dense(leaf) and leaf.layout not in _BY_ROWS:
        kind = "nested tensors" if leaf.is_nested else f"tensors in the layout {leaf.layout}"
        raise NotEvaluated(f"the batches hold {kind}, whose rows BN Lens cannot take one by one")


def _bytes(leaf: Any) -> int:
    """Memory of a tensor or array."""
    if isinstance(leaf, torch.Tensor) and leaf.layout in _SPARSE:
        parts = [getattr(leaf, name)() for name in _SPARSE[leaf.layout]]
        return sum(int(part.nbytes) for part in parts)
    return int(leaf.nbytes)


def objects(batch: Any) -> list[Any]:
    """What of a batch is of a class that ``mapped`` does not know, as a graph is: a pass gets the object itself."""
    if isinstance(batch, Batch):
        return [*objects(batch.x), *objects(batch.y)]
    if isinstance(batch, Mapping | tuple | list):
        return [found for part in (batch.values() if isinstance(batch, Mapping) else batch) for found in objects(part)]
    return [] if batch is None or isinstance(batch, _VALUES) else [batch]


def objects_put_back(batch: Any) -> contextlib.AbstractContextManager[Any]:
    """Undo what a pass changes of the ``objects`` of a batch, on which training may go on.

    They are walked apart from the model, which is walked once for all batches.
    """
    found = objects(batch)
    return OBJECTS.put_back(*found) if found else contextlib.nullcontext()


def _held(thing: Any) -> int:
    """Memory of the tensors and arrays in the attributes of an object; without bound where one holds a step's graph."""
    waiting, met, total = [thing], dict[int, Any](), 0
    while waiting and len(met) < MOST_HELD:
        thing = waiting.pop()
        if id(thing) in met:
            continue
        met[id(thing)] = thing
        if isinstance(thing, torch.Tensor | np.ndarray):
            total += sys.maxsize if getattr(thing, "grad_fn", None) is not None else _bytes(thing)
        elif isinstance(thing, Mapping | list | tuple):
            waiting += thing.values() if isinstance(thing, Mapping) else thing
        elif not isinstance(thing, type | types.ModuleType | types.FunctionType):
            waiting += getattr(thing, "__dict__", {}).values()
    return total


def samples(batch: Any) -> int | None:
    """The first dimension of the first tensor that has one; None where none has."""
    first = batch.x if isinstance(batch, Batch) else batch
    if isinstance(first, torch.Tensor) and first.dim():
        return length(first)
    return next((length(leaf) for leaf in leaves(batch) if leaf.ndim), None)


class TorchBatches:
    """See ``capture.adapter.BatchFormat``."""

    def size(self, batch: Any) -> int | None:
        """Samples in a batch."""
        return samples(batch)

    def bytes(self, batch: Any) -> int:
        """Memory that a batch holds."""
        return sum(map(_bytes, leaves(batch))) + sum(_held(thing) for thing in objects(batch))

    def targets(self, batch: Any) -> list[NDArray[Any]]:
        """The tensors of ``y``; none where one is of a class of the user's: to read it may run code."""
        held = list(leaves(batch.y)) if isinstance(batch, Batch) else []
        plain = all(type(leaf) in (torch.Tensor, np.ndarray) and is_dense(leaf) for leaf in held)
        tensors = [torch.as_tensor(leaf).detach().cpu() for leaf in held] if plain else []
        return [(leaf.float() if leaf.dtype == torch.bfloat16 else leaf).numpy() for leaf in tensors]

    def kind(self, batch: Any) -> Any:
        """The types and ranks of its tensors, in order."""
        return tuple((str(leaf.dtype), leaf.ndim) for leaf in leaves(batch))

    def head(self, batch: Any, count: int) -> Any:
        """The first samples of a batch."""
        size = samples(batch)
        return mapped(lambda leaf: taken(leaf, slice(count)) if length(leaf) == size else leaf, batch)

    def copied(self, batch: Any) -> Any:
        """The batch as clones."""
        return mapped(lambda leaf: leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf.copy(), batch)

    def first(self, data: Any, size: int, most: int) -> list[Any]:
        """The first batches of a loader or list, or tensors cut into batches; see ``capture.adapter``."""
        return first_batches(data, size, most)


def rows_of(batch: Any, rows: Any) -> Any:
    """These rows of every tensor: a slice or indices."""
    return mapped(lambda leaf: taken(leaf, rows), batch)


def first_batches(data: Any, size: int, most: int) -> list[Any]:
    """At most so many batches of what a user passes as data.

    Global random state is put back, so that a shuffling loader gives training the same batches as without.

    Raises:
        Refused: reading it could change what training gets.
        TypeError: it is no data.
    """
    if isinstance(data, Iterator):
        raise Refused(f"{what_is(data)} gives each batch once; pass {EXPECTED}")
    shared = _shared(data)
    if shared:
        raise Refused(f"{shared}, so reading it could change what training gets; pass {WHILE_TRAINING}")
    with random_state({torch.device("cpu")}), contextlib.ExitStack() as stack:
        if isinstance(data, torch.utils.data.DataLoader):
            # Rows should not depend on how often they were read. Where they do, it is put back if it can be.
            with contextlib.suppress(NotEvaluated):
                stack.enter_context(DATASETS.put_back(data.dataset, data.collate_fn))
        return list(islice(batches_of(data, size), most))


def _shared(data: Any) -> str:
    """What of this data training may be reading too, beside the rows themselves; empty where there is nothing."""
    name = type(data).__name__
    if isinstance(data, torch.Tensor | np.ndarray | Sequence):
        return ""
    if not isinstance(data, torch.utils.data.DataLoader):
        return f"{with_article(name)} may keep a position or draw random numbers" if isinstance(data, Iterable) else ""
    if data.persistent_workers:
        return f"this {name} has persistent workers, which serve one iteration at a time"
    sampler, batch_sampler = getattr(data, "sampler", None), getattr(data, "batch_sampler", None)
    if data.generator is not None or getattr(sampler, "generator", None) is not None:
        return f"this {name} has its own generator"
    known = (torch.utils.data.SequentialSampler, torch.utils.data.RandomSampler)
    plain = type(batch_sampler) in (torch.utils.data.BatchSampler, type(None)) and type(sampler) in known
    return "" if plain else f"the sampler of this {name} may keep a position"


def batches_of(data: Any, size: int) -> Iterator[Batch]:
    """The batches of a loader or other iterable, or tensors cut into batches of ``size`` samples.

    Raises:
        TypeError: it is no data.
    """
    if isinstance(data, torch.Tensor | np.ndarray) or _is_pair(data):
        pair = packed(data)
        total = samples(pair) or 0
        for start in range(0, total, size):
            yield rows_of(pair, slice(start, start + size))
    else:
        require_iterable(data, EXPECTED)
        yield from (packed(batch) for batch in data)


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple) and len(data) <= 2 and all(isinstance(d, torch.Tensor | np.ndarray) for d in data)


def packed(batch: Any) -> Batch:
    """A batch as loaders give it: ``(x, y)``, or ``x`` alone; mappings hold what the model computes its loss from."""
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return Batch(*batch)
    if isinstance(batch, tuple | list) and len(batch) == 1:
        return Batch(batch[0])
    if isinstance(batch, tuple | list):
        raise TypeError(f"a batch is {what_is(batch)} of {len(batch)}; expected (x, y), x alone, or a mapping")
    return Batch(batch)


def on_device(batch: Any, device: torch.device | None) -> Any:
    """The batch as tensors. Those on the CPU go to the device, or stay where it is None."""

    def moved(leaf: Any) -> Any:
        tensor = torch.as_tensor(leaf)
        return tensor.to(device) if device is not None and tensor.device.type == "cpu" else tensor

    return mapped(moved, batch)


def spread(data: Any, most: int, size: int) -> list[Any]:
    """At most so many batches of data, spread over it; rows of tensors are drawn at random.

    Random state is put back afterwards.

    Args:
        data: a ``DataLoader`` or other iterable of batches, or tensors ``x`` or ``(x, y)``.
        most: batches wanted. Of a loader at most ``spread.READ`` times as many are read.
        size: of batches cut from tensors.

    Raises:
        TypeError: it is no data.
        ValueError: there is no batch in it.
    """
    with random_state({torch.device("cpu")}):
        if isinstance(data, torch.Tensor | np.ndarray) or _is_pair(data):
            pair = packed(data)
            data = [rows_of(pair, rows) for rows in drawn_rows(samples(pair) or 0, size)]
        require_iterable(data, EXPECTED)
        found = [packed(batch) for batch in spread_over(data, most)]
    if not found:
        raise ValueError("data gave no batch")
    return found


def inputs(batch: Batch) -> Array | None:
    """Real-valued inputs of a batch, [B, F]; None where there are none."""
    tensors = (torch.as_tensor(leaf) for leaf in leaves(batch.x))
    real = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.dim() and is_dense(tensor)]
    columns = [tensor.detach().float().reshape(len(tensor), -1).cpu().numpy() for tensor in real]
    if len({len(column) for column in columns}) != 1:
        return None
    return np.concatenate(columns, axis=1)


def _besides(batch: Any) -> Any:
    """A batch with None for each tensor."""
    return mapped(lambda _: None, batch)


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except Exception:  # values of the user's classes
        return False


def compose(
    batches: Sequence[Any],
    rows: Sequence[NDArray[np.int64]],
    targets: Sequence[NDArray[np.int64]] | None = None,
) -> list[Any]:
    """New batches of these rows of all batches laid end to end, with the targets of other rows where given.

    Raises:
        NotEvaluated: rows of different batches have different shapes, a tensor has no row for each sample, batches
            differ in what is no tensor, or there are no targets to exchange.
    """
    if any(not _same(_besides(batch), _besides(batches[0])) for batch in batches[1:]):
        raise NotEvaluated("the batches differ in values beside their tensors, as the name of a task")
    flat = [list(leaves(batch)) for batch in batches]
    columns = list(zip(*flat, strict=True))
    for column in columns:
        for leaf in column:
            _require_rows(leaf)
        if len({(tuple(leaf.shape[1:]), leaf.dtype) for leaf in column}) > 1:
            raise NotEvaluated("rows of different batches have different shapes")
    if any(len(set(map(length, of_one))) > 1 for of_one in flat):
        raise NotEvaluated("the batches hold tensors without a row for each sample")
    whole = [_joined(column) for column in columns]

    def composed(chosen: NDArray[np.int64]) -> Batch:
        parts = iter([taken(tensor, torch.as_tensor(chosen, device=tensor.device)) for tensor in whole])
        made = mapped(lambda _: next(parts), batches[0])
        assert isinstance(made, Batch)
        return made

    if targets is None:
        return [composed(chosen) for chosen in rows]
    if batches[0].y is None:
        raise NotEvaluated("the batches hold no targets")
    return [Batch(composed(chosen).x, composed(other).y) for chosen, other in zip(rows, targets, strict=True)]

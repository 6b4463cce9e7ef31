"""State dicts of PyTorch: ``.safetensors``, and what ``torch.save`` writes.

``.safetensors`` is read here, without a library: a JSON header and raw numbers. The other is a pickle, which PyTorch's
restricted reader (``weights_only=True``) loads, so that no code in it runs.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.importer.saved import (
    LONGEST_VECTOR,
    BadCheckpoint,
    Checkpoint,
    SavedLayer,
    first_line,
    key_order,
    uniquely_named,
)

MEAN, VARIANCE, COUNT = "running_mean", "running_var", "num_batches_tracked"
WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before the names of the model."""
STEPS = ("global_step", "step", "steps", "iteration", "iterations", "num_updates")
"""Under which training loops store their step, Lightning's first."""
DEEPEST = 3
"""How far below the file's top state dicts are looked for, as in ``{"state": {"model": ...}}``."""
LARGEST_HEADER = 100_000_000
"""Bytes, as the format itself has it."""
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}


def read_safetensors(path: Path) -> Checkpoint:
    """One ``.safetensors`` file; only the statistics in it are read.

    Raises:
        BadCheckpoint: it is not of this format.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            (length,) = struct.unpack("<Q", file.read(8))
            if not 0 < length <= min(LARGEST_HEADER, size - 8):
                raise ValueError(f"its header claims {length:,} bytes")
            header = json.loads(file.read(length))
            if not isinstance(header, dict):
                raise ValueError("its header is no JSON object")
            names = [n for n in header if n.rpartition(".")[2] in (MEAN, VARIANCE, COUNT, *STEPS)]
            state = {name: _tensor(file, header[name], 8 + length, size) for name in names}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error) as error:
        raise BadCheckpoint(f"it is no safetensors file, or a truncated one ({first_line(error)})") from error
    step = _step(state)
    return Checkpoint(path, uniquely_named(_layers(state)), _counted(state) if step is None else step, torch=True)


def read_torch(path: Path) -> Checkpoint:
    """One file of ``torch.save``: a state dict, or a dict that holds some.

    Raises:
        BadCheckpoint: it holds more than tensors and plain values, or is no such file.
        ModuleNotFoundError: PyTorch is not installed.
    """
    import torch

    try:
        _refuse_compressed(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        state = dict(_numbers(loaded, "", DEEPEST))
        step = _step(loaded if isinstance(loaded, Mapping) else {})
        return Checkpoint(path, uniquely_named(_layers(state)), _counted(state) if step is None else step, torch=True)
    except Exception as error:  # pickle, zipfile and PyTorch raise a dozen kinds, and one file must not cost the others
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise BadCheckpoint(
                "it holds other objects than tensors, which only their own code can load; save model.state_dict()"
            ) from error
        raise BadCheckpoint(f"PyTorch cannot read it ({first_line(error)})") from error


def _refuse_compressed(path: Path) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed, as torch.save never does")


def _numbers(value: Any, prefix: str, depth: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name -> array of the statistics in nested dicts."""
    if not isinstance(value, Mapping):
        return
    for key, item in value.items():
        if isinstance(item, Mapping) and depth:
            yield from _numbers(item, f"{prefix}{key}.", depth - 1)
        elif isinstance(key, str) and key.rpartition(".")[2] in (MEAN, VARIANCE, COUNT) and hasattr(item, "detach"):
            if item.numel() > LONGEST_VECTOR:
                raise ValueError(f"{key} has {item.numel():,} values")
            # NumPy has no bfloat16.
            yield prefix + key, item.detach().double().numpy()


def _layers(state: Mapping[str, NDArray[Any]]) -> list[SavedLayer]:
    found = []
    for name in sorted(state, key=key_order):
        owner, _, last = name.rpartition(".")
        other = state.get(f"{owner}.{VARIANCE}" if owner else VARIANCE)
        mean = np.asarray(state[name], np.float64)
        if last != MEAN or other is None or mean.ndim != 1 or mean.shape != np.shape(other):
            continue
        count = state.get(f"{owner}.{COUNT}" if owner else COUNT)
        updates = int(count) if count is not None and np.shape(count) == () and np.isfinite(count) else None
        layer = SavedLayer(_path(owner), mean, np.asarray(other, np.float64), updates=updates)
        found.append(layer)
    return _in_one_model(found)


def _path(owner: str) -> str:
    parts = owner
    for wrapper in WRAPPERS:
        parts = parts.removeprefix(wrapper)
    return parts or "batch_norm"


def _in_one_model(layers: list[SavedLayer]) -> list[SavedLayer]:
    """Without the dict that holds them all, as ``state_dict.`` or ``model.module.``."""
    heads = {layer.name.split(".")[0] for layer in layers if "." in layer.name}
    if layers and len(heads) == 1 and all("." in layer.name for layer in layers):
        (head,) = heads
        if head in ("state_dict", "model", "model_state_dict", "net", "network", "module", "_orig_mod"):
            return _in_one_model([layer.renamed(layer.name.partition(".")[2]) for layer in layers])
    return layers


def _step(loaded: Mapping[Any, Any]) -> int | None:
    for name in STEPS:
        value: Any = loaded.get(name)
        number = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
        if isinstance(number, int) and not isinstance(number, bool):
            return number
    return None


def _counted(state: Mapping[str, NDArray[Any]]) -> int | None:
    """Batches that the layers have counted, which are steps where each is called once in a step."""
    counts = [int(v) for name, v in state.items() if name.rpartition(".")[2] == COUNT and np.shape(v) == ()]
    return min(counts, default=None)


def _tensor(file: Any, entry: Any, start: int, size: int) -> NDArray[Any]:
    dtype, shape, (first, last) = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
    values = math.prod(shape)
    if not (0 <= first <= last <= size - start and values <= LONGEST_VECTOR):
        raise ValueError("a tensor claims more than the file holds")
    if last - first != values * np.dtype(dtype).itemsize:
        raise ValueError("a tensor has another size than its shape says")
    file.seek(start + first)
    array = np.frombuffer(file.read(last - first), dtype).reshape(shape)
    # A bfloat16 is the upper half of a float32.
    return (array.astype(np.uint32) << 16).view(np.float32) if entry["dtype"] == "BF16" else array

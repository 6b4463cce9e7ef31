"""What the routes send: JSON without NaN, and frames of float arrays. The other side is frontend/src/wire.ts."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FRAME_TYPE = "application/octet-stream"
JSON_TYPE = "application/json"
ALIGNMENT = 8


def to_json(value: object) -> bytes:
    """Compact JSON; numbers that JSON does not have become null."""
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError):
        text = json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))
    return text.encode("ascii")


def frame(arrays: Iterable[tuple[str, NDArray[Any]]]) -> bytes:
    """Named arrays, float32 or float64, little endian, each at a multiple of 8 bytes.

    Raises:
        TypeError: an array is of another type.
    """
    described = []
    payload = []
    for name, array in arrays:
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"array {name!r} is {array.dtype}; a frame holds float32 and float64")
        code = f"f{array.dtype.itemsize}"
        described.append({"name": name, "dtype": code, "shape": list(array.shape)})
        data = np.ascontiguousarray(array, "<" + code).tobytes()
        payload.append(data + bytes(-len(data) % ALIGNMENT))
    header = to_json({"arrays": described})
    header += b" " * (-(4 + len(header)) % ALIGNMENT)
    return b"".join((struct.pack("<I", len(header)), header, *payload))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int | bool) or value is None:
        return value
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no place in JSON")

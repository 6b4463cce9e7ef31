"""Records that are JSON: the manifest and the measurements on many batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from tb_bnlens.reader.bounds import MOST_BYTES

Parsed = TypeVar("Parsed")


class BadRecord(ValueError):
    """A record says nothing that can be used."""


def json_object(raw: object) -> dict[str, Any]:
    """The JSON object that one record holds.

    Raises:
        BadRecord: it holds something else, or more than any record of the lens.
    """
    if isinstance(raw, bytes | str) and len(raw) > MOST_BYTES:
        raise BadRecord(f"it has {len(raw):,} characters")
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        body = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"it is not JSON ({error})") from error
    if not isinstance(body, dict):
        raise BadRecord("it is not a JSON object")
    return body


def parsed(points: Sequence[Any], parse: Callable[[object], Parsed]) -> tuple[list[tuple[Any, Parsed]], str]:
    """The points that can be used, each with what it says, and why the last of the others cannot ("" for none).

    Args:
        points: ``TensorDatum`` values, each of one string.
        parse: from that string; it raises ``BadRecord``.
    """
    found = []
    reason = ""
    for point in points:
        array = np.asarray(point.numpy)
        try:
            if array.size != 1:
                raise BadRecord(f"it is a tensor of shape {array.shape}")
            found.append((point, parse(array.reshape(-1)[0])))
        except BadRecord as error:
            reason = str(error)
    return found, reason

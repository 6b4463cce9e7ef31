"""Parse TFRecord files and tensor protos without trusting the sizes they claim."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util import tensor_util

LARGEST_RECORD = 256 * 2**20
"""What TensorBoard sends in one reply at most, so no longer record is one of ours. It is passed over unread: a length
that a sparse file allows must not be allocated."""
VALUES = (
    "half_val",
    "float_val",
    "double_val",
    "int_val",
    "int64_val",
    "uint32_val",
    "uint64_val",
    "bool_val",
    "string_val",
    "scomplex_val",
    "dcomplex_val",
)
"""Fields of a tensor that hold values one by one, where it has no ``tensor_content``."""


class RecordFileError(ValueError):
    """An event file ends or breaks at a byte."""


def decoded(tensor: Any) -> Any:
    """The array of a tensor.

    Raises:
        ValueError: it claims more values than it holds. The format lets a single value stand for all, so that some
            twenty bytes can claim any amount of memory. The lens never writes such a tensor.
    """
    claimed = math.prod(dimension.size for dimension in tensor.tensor_shape.dim)
    if not tensor.tensor_content and claimed > sum(len(getattr(tensor, name)) for name in VALUES):
        raise ValueError(f"a tensor claims {claimed} values and holds fewer")
    return tensor_util.make_ndarray(tensor)


def records(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Payloads of a TFRecord file of this many bytes.

    Checks each length against its checksum, since a wrong one loses all that follows; the checksums of the payloads
    are not computed, as in Python that takes longer than all the rest.

    Raises:
        RecordFileError: the file is cut off or damaged; says at which byte.
    """
    while header := file.read(12):
        offset = file.tell() - len(header)
        if len(header) < 12:
            raise RecordFileError(f"is cut off at byte {offset} (a run that was killed, or is being written).")
        (length, checksum) = struct.unpack("<QI", header)
        if masked_crc32c(header[:8]) != checksum:
            raise RecordFileError(f"is damaged at byte {offset}; what follows in it was left out.")
        # Against the size first: a hostile length must not allocate.
        if file.tell() + length + 4 > size:
            raise RecordFileError(f"is cut off at byte {offset} (a run that was killed, or is being written).")
        if length <= LARGEST_RECORD:
            yield file.read(length)
        else:
            file.seek(length, os.SEEK_CUR)
        file.seek(4, os.SEEK_CUR)

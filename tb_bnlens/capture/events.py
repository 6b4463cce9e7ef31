"""Event files without TensorFlow: what ``tb_bnlens.summary`` writes with it, byte for byte in its values."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import time
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2

from tb_bnlens.capture.crc32c import masked
from tb_bnlens.metadata import plugin_content
from tb_bnlens.record import Part, Scalar

FLUSH_SECONDS = 5.0
"""TensorFlow's writer flushes every two minutes by default, too long for a live tab."""
_number = itertools.count()


class EventFile:
    """One event file of a run's record.

    TensorBoard's own writer would import TensorFlow wherever it is installed, and computes checksums byte by byte.

    Args:
        directory: made where it does not exist. Paths with a scheme (``gs://``, ``s3://``) are left to the file
            systems of TensorFlow where it is installed, and to those of TensorBoard elsewhere.

    Raises:
        OSError: it cannot be written there. Remote file systems raise errors of their own.
    """

    def __init__(self, directory: str):
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{next(_number)}.v2"
        path = f"{directory}/{name}"
        if is_remote(directory):
            _remote().makedirs(directory)
            self._file: Any = _remote().GFile(path, "wb")
        else:
            os.makedirs(directory, exist_ok=True)
            self._file = open(path, "wb")
        self._flushed = time.monotonic()
        self._event(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._file.flush()

    def write(self, step: int, *parts: Part | Scalar) -> None:
        """Add values at a step, as one event: its checksum is cheaper than those of many."""
        summary = summary_pb2.Summary()
        for part in parts:
            value = summary.value.add(tag=part.tag, tensor=_tensor(part.value))
            if isinstance(part, Part):
                value.metadata.plugin_data.plugin_name = part.plugin
                value.metadata.plugin_data.content = plugin_content()
                value.metadata.data_class = summary_pb2.DATA_CLASS_TENSOR
            else:
                value.metadata.plugin_data.plugin_name = "scalars"  # which tells TensorBoard the rest
        self._event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close. Safe to call twice."""
        self._file.close()

    def _event(self, event: Any) -> None:
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        checksums = struct.pack("<I", masked(length)), struct.pack("<I", masked(data))
        self._file.write(b"".join((length, checksums[0], data, checksums[1])))


def holds_files(directory: str) -> bool:
    """Whether there is a directory that is not empty."""
    if is_remote(directory):
        return bool(_remote().exists(directory) and _remote().listdir(directory))
    return os.path.isdir(directory) and bool(os.listdir(directory))


def exists(path: str) -> bool:
    """Whether there is a file or directory."""
    return bool(_remote().exists(path)) if is_remote(path) else os.path.exists(path)


def is_remote(path: str) -> bool:
    """Whether a path has a scheme, as in ``gs://bucket/run``."""
    return "://" in path


def _remote() -> Any:
    from tensorboard.compat import tf  # imports TensorFlow where it is installed

    return tf.io.gfile


def _tensor(value: Any) -> Any:
    if isinstance(value, str):
        shape = tensor_pb2.TensorProto().tensor_shape
        return tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_shape=shape, string_val=[value.encode()])
    array = np.asarray(value, np.float32)
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT)
    tensor.tensor_shape.SetInParent()
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.ndim:
        tensor.tensor_content = array.tobytes()
    else:
        tensor.float_val.append(float(array))
    return tensor

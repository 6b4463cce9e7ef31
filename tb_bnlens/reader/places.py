"""Where a log directory lies: on this machine, or at a URL that TensorBoard's own file system layer opens.

Without TensorFlow, TensorBoard reads ``s3://`` through boto3, and every scheme that fsspec knows, such as ``gs://``
with gcsfs, where these are installed. ``file://`` needs neither.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import urllib.parse
import urllib.request
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Protocol

from tb_bnlens.reader.records import RecordFileError

EVENT_FILE = "tfevents"
KEPT_BYTES = 256 * 2**20
"""Of remote files that are read again, for a listing, the records and the channels."""
INSTALL = {
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "s3": "s3fs",
    "s3a": "s3fs",
    "abfs": "adlfs",
    "az": "adlfs",
    "hdfs": "pyarrow",
}
"""Scheme -> the package with which fsspec opens it."""


class Place(Protocol):
    """A log directory."""

    def event_files(self) -> Mapping[str, tuple[str, ...]]:
        """Event files by run, in the order of their names, which begin with the time of their creation."""

    def open(self, path: str) -> contextlib.AbstractContextManager[tuple[BinaryIO, int]]:
        """One of them for reading, and its size in bytes.

        Raises:
            OSError: it cannot be read.
            RecordFileError: it is no file.
        """


def place(logdir: str | os.PathLike[str]) -> Place:
    """The place that a path or URL names.

    Raises:
        FileNotFoundError: there is no such directory.
        OSError: nothing here opens such a URL, or what opens it fails; the message says what to install.
    """
    text = os.fspath(logdir)
    scheme, separator, _ = text.partition("://")
    if separator and scheme != "file":
        return Remote(text)
    path = _local(text) if separator else os.path.expanduser(text)
    if not os.path.isdir(path):
        raise FileNotFoundError(f"{path!r} is not a directory; pass the --logdir that you give to TensorBoard")
    return Local(path)


class Local:
    """A directory of this machine, and what symbolic links in it lead to."""

    def __init__(self, path: str) -> None:
        self._path = path

    def event_files(self) -> Mapping[str, tuple[str, ...]]:
        """See ``Place``."""
        runs: dict[str, tuple[str, ...]] = {}
        seen: set[str] = set()
        for directory, subdirectories, names in os.walk(self._path, followlinks=True):
            real = os.path.realpath(directory)
            if real in seen:
                subdirectories.clear()
                continue
            seen.add(real)
            subdirectories.sort()
            files = tuple(os.path.join(directory, name) for name in sorted(names) if EVENT_FILE in name)
            if files:
                runs[os.path.relpath(directory, self._path)] = files
        return runs

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[tuple[BinaryIO, int]]:
        """See ``Place``."""
        # Opening a pipe would wait for a writer that never comes.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise RecordFileError("is no regular file; it was left out.")
        with open(path, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size


class Remote:
    """A URL."""

    def __init__(self, url: str) -> None:
        from tensorboard.compat.tensorflow_stub.io import gfile

        self._url, self._gfile = url.rstrip("/"), gfile
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        try:
            self._system: Any = gfile.get_filesystem(url)
            there = gfile.isdir(self._url)
        except Exception as error:  # each file system raises other errors
            raise OSError(f"{url!r} cannot be opened ({_first_line(error)}){_advice(url)}") from error
        if not there:
            raise FileNotFoundError(f"{url!r} is not a directory; pass the --logdir that you give to TensorBoard")

    def event_files(self) -> Mapping[str, tuple[str, ...]]:
        """See ``Place``."""
        runs: dict[str, tuple[str, ...]] = {}
        try:
            for directory, _, names in self._gfile.walk(self._url):
                files = tuple(self._system.join(directory, name) for name in sorted(names) if EVENT_FILE in name)
                if files:
                    runs[directory.removeprefix(self._url).strip("/") or "."] = files
        except Exception as error:
            raise OSError(f"{self._url!r} cannot be listed ({_first_line(error)})") from error
        return dict(sorted(runs.items()))

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[tuple[BinaryIO, int]]:
        """See ``Place``. The file is fetched whole."""
        if path not in self._kept:
            try:
                content, _ = self._system.read(path, True)
            except Exception as error:
                raise OSError(_first_line(error)) from error
            self._kept[path] = content
        self._kept.move_to_end(path)
        content = self._kept[path]
        while len(self._kept) > 1 and sum(map(len, self._kept.values())) > KEPT_BYTES:
            self._kept.popitem(last=False)
        yield io.BytesIO(content), len(content)


def _local(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise FileNotFoundError(f"{url!r} names the machine {parts.netloc!r}; expected file:///path/to/logs")
    return urllib.request.url2pathname(parts.path)


def _advice(url: str) -> str:
    scheme = url.partition("://")[0]
    package = INSTALL.get(scheme, "")
    return f"; to open {scheme}:// run: pip install fsspec{f' {package}' if package else ''}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__

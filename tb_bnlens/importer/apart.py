"""Keras files are read in a child process, which can be killed.

A damaged HDF5 file can make libhdf5 loop or crash, and Python handles no signal while C code loops. Requests and
answers are lines of JSON. A pickle could run code here if a hostile file took over the child.
"""

from __future__ import annotations

import base64
import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tb_bnlens.importer.saved import Array, BadCheckpoint, CannotImport, Checkpoint, SavedLayer, Settings

LONGEST_START = 60.0
"""Seconds. It takes 0.2 where the disk is fast and nothing else runs."""
PATIENCE = 60.0
"""Seconds for a small file."""
SLOWEST = 5 * 2**20
"""Bytes per second that even a slow network disk reads; a large file has a second more for each."""
START = "import sys; sys.path[:] = sys.argv[1:]; from tb_bnlens.importer.apart import serve; serve()"
"""The child has this process's path: it imports the same modules, and none from the working directory."""


class _Ended(Exception):
    """The child gave no answer; the message completes a sentence that begins with what it was doing."""


class Apart:
    """The child that reads Keras files. It starts with the first file, and again after one that it did not survive.

    Use it as a context manager, which ends the child.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def read_keras(self, path: Path) -> Checkpoint:
        """``keras_files.read_keras`` in the child.

        Raises:
            BadCheckpoint: it raised that, it took too long, or the child crashed.
            CannotImport: the child does not start.
            ModuleNotFoundError: h5py is not installed.
        """
        return self._read("read_keras", path)

    def read_weights(self, path: Path) -> Checkpoint:
        """``keras_files.read_weights`` in the child; raises what ``read_keras`` does."""
        return self._read("read_weights", path)

    def _read(self, reader: str, path: Path) -> Checkpoint:
        if self._child is None:
            self._start()
        seconds = PATIENCE + (os.path.getsize(path) / SLOWEST if os.path.isfile(path) else 0)
        try:
            answer = self._ask({"reader": reader, "path": str(path), "seconds": seconds}, seconds)
        except _Ended as ended:
            raise BadCheckpoint(f"it cannot be read as HDF5 (reading it {ended}, as with a damaged file)") from ended
        if "bad" in answer:
            raise BadCheckpoint(answer["bad"])
        return Checkpoint(path, tuple(map(_unpacked, answer["layers"])), answer["iterations"])

    def _start(self) -> None:
        path = [entry for entry in sys.path if isinstance(entry, str)]
        try:
            self._child = subprocess.Popen(
                [sys.executable or "", "-c", START, *path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            answer = self._ask(None, LONGEST_START)
        except (_Ended, OSError) as error:
            why = error if isinstance(error, _Ended) else f"failed ({error})"
            raise CannotImport(
                f"Keras files are read in a second process of {sys.executable!r}, and its start {why}; "
                "run bnlens import from a terminal"
            ) from error
        if "lacks" in answer:
            self._end()
            raise ModuleNotFoundError(f"No module named {answer['lacks']!r}", name=answer["lacks"])

    def _ask(self, request: Mapping[str, Any] | None, seconds: float) -> dict[str, Any]:
        """The child's next answer.

        Raises:
            _Ended: there is none, and no child any more.
        """
        child = self._child
        assert child is not None and child.stdin is not None and child.stdout is not None
        late = threading.Event()

        def kill() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(seconds, kill)
        timer.start()
        try:
            if request is not None:
                with contextlib.suppress(OSError):  # its exit code says more
                    child.stdin.write(json.dumps(request).encode() + b"\n")
                    child.stdin.flush()
            # Other lines are what somebody's sitecustomize prints.
            line = next((line for line in child.stdout if line.startswith(b"{")), b"")
            code = None if line.endswith(b"\n") else child.wait()
        finally:
            timer.cancel()
            timer.join()
        if late.is_set() or code is not None:  # it may be killed just after it answered
            self._end()
        if code is None:
            return dict(json.loads(line))
        raise _Ended(f"did not end within {seconds:,.0f} seconds" if late.is_set() else f"ended with {_named(code)}")

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            with contextlib.suppress(OSError), child:  # closes the pipes, where a request may be left
                pass


def _named(code: int) -> str:
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"exit code {code}"


def serve() -> None:
    """Answer requests until the parent closes the pipe. This is what the child runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to both, and the parent ends this process
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a library prints is no answer
    nowhere = os.open(os.devnull, os.O_WRONLY)

    def say(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        from tb_bnlens.importer import keras_files
    except ModuleNotFoundError as error:
        return say({"lacks": error.name})
    say({})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        # In case the parent was killed. It runs outside the interpreter, so it ends a loop in C too.
        faulthandler.dump_traceback_later(2 * request["seconds"], exit=True, file=nowhere)
        try:
            found = getattr(keras_files, request["reader"])(Path(request["path"]))
            say({"layers": list(map(_packed, found.layers)), "iterations": found.iterations})
        except BadCheckpoint as error:
            say({"bad": str(error)})
        faulthandler.cancel_dump_traceback_later()


def _packed(layer: SavedLayer) -> dict[str, Any]:
    arrays = {name: base64.b64encode(getattr(layer, name).tobytes()).decode() for name in ("mean", "spread")}
    settings = None if layer.settings is None else asdict(layer.settings)
    return {**vars(layer), **arrays, "settings": settings}


def _unpacked(packed: dict[str, Any]) -> SavedLayer:
    settings = None if packed["settings"] is None else Settings(**packed["settings"])
    arrays = {name: _array(packed[name]) for name in ("mean", "spread")}
    return SavedLayer(**{**packed, **arrays, "settings": settings})


def _array(packed: str) -> Array:
    return np.array(np.frombuffer(base64.b64decode(packed), np.float64))

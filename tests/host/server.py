"""A real TensorBoard in its own process."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import wait_for

ADDRESS = re.compile(r"at (http://\S+?)/? \(Press CTRL\+C")


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))

    @property
    def frame(self) -> dict[str, np.ndarray[Any, Any]]:
        return read_frame(self.body)


class Server:
    """Where a TensorBoard listens, and requests to it."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = url
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def get(
        self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, **query: object
    ) -> Reply:
        query_string = "?" + urllib.parse.urlencode(query) if query else ""
        request = urllib.request.Request(f"{self.url}/{path}{query_string}", method=method, headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return _reply(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return _reply(error.code, error.headers, error.read())

    def plugin(self, route: str, **options: Any) -> Reply:
        return self.get(f"data/plugin/bn_lens/{route}", **options)

    def run_names(self) -> list[str]:
        return [entry["run"] for entry in self.plugin("runs").json["runs"]]


@contextlib.contextmanager
def tensorboard(
    logdir: Path | str, *flags: str, python: str = sys.executable, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start it on a free port of this machine, and stop it."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [python, "-m", "tensorboard.main", f"--logdir={logdir}", "--host=127.0.0.1", "--port=0", *flags],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(environment or {})},
                cwd=scratch,
            )
        try:

            def address() -> str | None:
                text = log.read_text(errors="replace")
                assert process.poll() is None, f"TensorBoard ended with {process.returncode}:\n{text}"
                found = ADDRESS.search(text)
                return found[1] if found else None

            yield Server(wait_for(address, "TensorBoard's address", 90), process, log)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def read_frame(raw: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """The inverse of ``tb_bnlens.plugin.wire.frame``, written from the description in wire.ts."""
    (length,) = struct.unpack_from("<I", raw)
    assert (4 + length) % 8 == 0
    header = json.loads(raw[4 : 4 + length])
    offset = 4 + length
    arrays = {}
    for entry in header["arrays"]:
        count = int(np.prod(entry["shape"]))
        size = int(entry["dtype"][1])
        arrays[entry["name"]] = np.frombuffer(raw, "<" + entry["dtype"], count, offset).reshape(entry["shape"])
        offset += -(-count * size // 8) * 8
    assert offset == len(raw)
    return arrays


def _reply(status: int, headers: Any, body: bytes) -> Reply:
    if headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    return Reply(status, headers, body)

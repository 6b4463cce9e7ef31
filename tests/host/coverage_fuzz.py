"""Coverage-guided fuzzing of the reader, the report and the routes, for a bounded time: ``make fuzz``.

Atheris mutates the bytes of an event file, of the manifest or an event inside one, and of a request, towards new paths
through the code. Whatever comes out has to be a history with a report that JSON can hold, and an answer that is no
exception page. Ends with the number of inputs that were tried.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import atheris

with atheris.instrument_imports(include=["tb_bnlens"]):
    from tb_bnlens import metadata
    from tb_bnlens.plugin import plugin as _plugin  # noqa: F401  (imported here to be instrumented)
    from tb_bnlens.reader import Unreadable, list_runs, open_logdir, read_channels, read_run
    from tb_bnlens.report import run_report

from tests.fixtures.event_files import EventFile
from tests.fixtures.runs import extend_run, manifest, write_run
from tests.host.test_routes import PREFIX, client

SCRATCH = Path(tempfile.mkdtemp())
REQUEST = b"\xd5"


def one_input(raw: bytes) -> None:
    """Use the bytes as a request, as an event file, or as the manifest or an event of a well-formed one."""
    if raw[:1] >= REQUEST:
        one_request(raw[1:])
    else:
        one_file(raw)


def one_request(raw: bytes) -> None:
    path, _, query = raw.partition(b"?")
    reply = web().get(PREFIX + quote(path), query_string=query.decode("latin-1"))
    assert reply.status_code in (200, 400, 404), reply.text


@functools.cache
def web() -> Any:
    """A TensorBoard with one run."""
    write_run(SCRATCH / "served" / "exp", steps=5)
    return client(open_logdir(SCRATCH / "served"))


def one_file(raw: bytes) -> None:
    directory = SCRATCH / "logs" / "exp" / metadata.RUN_SUFFIX
    shutil.rmtree(directory, ignore_errors=True)
    kind, rest = raw[:1], raw[1:]
    if kind < b"\x55":
        directory.mkdir(parents=True)
        (directory / "events.out.tfevents.1").write_bytes(rest)
    else:
        file = EventFile(directory)
        if kind < b"\xaa":
            file.manifest(rest, 0)
            extend_run(file, layers=1, steps=2, every=1)
        else:
            file.raw(rest)
    data = open_logdir(SCRATCH / "logs")
    for run in list_runs(data):
        try:
            json.dumps(run_report(read_run(data, "", run)), allow_nan=False)
            read_channels(data, "", run, 0)
        except Unreadable:
            continue


def seeds(directory: Path) -> None:
    """Valid inputs to start from."""
    file = EventFile(SCRATCH / "seed")
    file.manifest(manifest(layers=1), 0)
    extend_run(file, layers=1, steps=2, every=1)
    whole = file.path.read_bytes()
    (directory / "file").write_bytes(b"\x00" + whole)
    (directory / "cut").write_bytes(b"\x00" + whole[: len(whole) // 2])
    body = {
        "layers": [{"name": "bn", "channels": 4, "momentum": 0.9}],
        "format": 1,
        "events": [{"step": 1}],
        "notes": ["n"],
    }
    (directory / "manifest").write_bytes(b"\x60" + json.dumps(body).encode())
    # The payload of the file's second record, its manifest event.
    second = 16 + int.from_bytes(whole[:8], "little")
    length = int.from_bytes(whole[second : second + 8], "little")
    (directory / "event").write_bytes(b"\xb0" + whole[second + 12 : second + 12 + length])
    for i, request in enumerate(("overview?run=exp", "series?run=exp&row=state", "layer?run=exp&layer=1", "index.js")):
        (directory / f"request{i}").write_bytes(REQUEST + request.encode())


if __name__ == "__main__":
    corpus = SCRATCH / "corpus"
    corpus.mkdir()
    seeds(corpus)
    atheris.Setup([*sys.argv, str(corpus), "-max_len=20000"], one_input)
    atheris.Fuzz()

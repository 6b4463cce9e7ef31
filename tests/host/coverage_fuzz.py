"""Coverage-guided fuzzing of the reader and the report, for a bounded time: ``make fuzz``.

Atheris mutates the octets of an event file, and of the manifest inside one, towards new paths through the reader.
Whatever comes out has to be a history with a report that JSON can hold.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tb_bnlens"]):
    from tb_bnlens import metadata
    from tb_bnlens.reader import Unreadable, list_runs, open_logdir, read_channels, read_run
    from tb_bnlens.report import run_report

from tests.fixtures.event_files import EventFile
from tests.fixtures.runs import extend_run, manifest

SCRATCH = Path(tempfile.mkdtemp())


def one_input(octets: bytes) -> None:
    """An event file of these octets, or a well-formed one whose manifest they are."""
    directory = SCRATCH / "exp" / metadata.RUN_SUFFIX
    shutil.rmtree(directory, ignore_errors=True)
    kind, rest = octets[:1], octets[1:]
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
    data = open_logdir(SCRATCH)
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


if __name__ == "__main__":
    corpus = SCRATCH / "corpus"
    corpus.mkdir()
    seeds(corpus)
    atheris.Setup([*sys.argv, str(corpus), "-max_len=20000"], one_input)
    atheris.Fuzz()

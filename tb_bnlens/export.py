"""The tab of some runs as one HTML file that opens without a server and without a network.

The file holds the built front end and what the routes would answer, gzipped. It is made to be attached to an issue, so
long records are thinned and rounded until it is small enough.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import struct
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.history import Channels, History
from tb_bnlens.metadata import PLUGIN_NAME
from tb_bnlens.plugin import arrays, static_files
from tb_bnlens.plugin.wire import frame, to_json
from tb_bnlens.report.schema import Overview
from tb_bnlens.report.summary import summarize

LARGEST = 1_000_000
"""Bytes of the file: what a comment takes as an attachment anywhere. A file that cannot be so small is larger."""
RECORDS = (400, 200, 100, 50, 25)
"""Records of a run that are tried in turn."""
MANTISSA_BITS = 12
"""Bits of a float32 that are kept: a relative error of 0.01%, where the tab shows three digits."""

SERIES = ("distance_rms", "steps_to_converge", "mean_error_p95", "variance_error_p95", "variance_ratio")
"""Rows of the heatmap."""
LAYER_ROWS = (
    "batch_mean_rms",
    "batch_variance_gm",
    "noise_mean",
    "noise_variance",
    "moving_mean_rms",
    "moving_variance_gm",
    "distance_rms",
    "distance_p95",
    "since_min",
    "since_max",
)
"""Rows of the charts of a layer."""

# Nothing is loaded: a file from somebody else cannot call home, and names from a record cannot run.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<noscript>This page shows a BN Lens report and needs JavaScript. It loads nothing from the network.</noscript>
<script type="text/plain" id="bn-lens-stored" data-at="{at:.0f}" data-open="{opened}">{data}</script>
<script type="module">{script}</script>
</body>
</html>
"""


@dataclass(frozen=True)
class Exported:
    """A run for the file."""

    history: History
    report: Overview
    channels: Callable[[int], Channels]
    """Reads the snapshots of a layer."""


def page(runs: Sequence[Exported], now: float, compared: Sequence[str] = ()) -> str:
    """The file.

    Args:
        runs: in the order of the table of runs.
        now: wall time, seconds since 1970; the age of a record is told against it.
        compared: runs that the page opens side by side, instead of the table of runs.
    """
    attempts = ((records, True) for records in RECORDS)
    text = ""
    for records, channels in (*attempts, (RECORDS[-1], False)):
        text = _page(runs, now, compared, records, channels)
        if len(text) <= LARGEST:
            break
    return text


def _page(runs: Sequence[Exported], now: float, compared: Sequence[str], records: int, channels: bool) -> str:
    answers = [(["runs"], to_json({"runs": [_entry(run) for run in runs], "problems": []}))]
    for run in runs:
        answers += _answers(run, records, channels)
    names = ", ".join(run.report["run"] for run in runs[:3]) + (" …" if len(runs) > 3 else "")
    return PAGE.format(
        policy=POLICY,
        title=html.escape(f"BN Lens: {names}"),
        style=_inline("index.css", "style"),
        at=now,
        opened=html.escape(_link(compared)),
        data=base64.b64encode(gzip.compress(_pack(answers), 9, mtime=0)).decode("ascii"),
        script=_inline(static_files.MODULE, "script"),
    )


def _link(compared: Sequence[str]) -> str:
    """The part of an address that opens some runs side by side; ``link.ts`` reads it."""
    pairs = [("compare" if place else "run", run) for place, run in enumerate(compared)]
    return "&".join(f"p.{PLUGIN_NAME}.{key}={urllib.parse.quote(run, '')}" for key, run in pairs)


def _inline(name: str, element: str) -> str:
    # Inside a script or a style only its own end tag means anything; in a string of either, "<\/" is "</".
    return static_files.content(name).decode("utf-8").replace(f"</{element}", f"<\\/{element}")


def _entry(run: Exported) -> dict[str, object]:
    report = run.report
    return {
        "run": report["run"],
        "severity": report["severity"],
        "verdict": report["verdict"],
        "last_step": report["last_step"],
        "summary": summarize(report),
    }


def _answers(run: Exported, records: int, channels: bool) -> Iterator[tuple[list[str], bytes]]:
    """What the routes answer: the route and the values of its parameters, and the body."""
    name, history = run.report["run"], run.history
    rows = _spread(len(history.steps), records)
    probes = _spread(len(history.loss_steps), records)
    notes = list(run.report["notes"])
    if len(rows) < len(history.steps) or len(probes) < len(history.loss_steps):
        notes.append(
            f"This file holds {len(rows):,} of {len(history.steps):,} records and {len(probes):,} of "
            f"{len(history.loss_steps):,} probes. The verdict is over all of them."
        )
    yield ["overview", name], to_json({**run.report, "notes": notes})
    few = replace(
        history,
        loss_steps=history.loss_steps[probes],
        loss_wall_times=history.loss_wall_times[probes],
        losses=history.losses[probes],
    )
    yield ["losses", name], frame(_rounded(arrays.losses(few)))
    for row in SERIES:
        # Some rows follow from the records before them, so they are computed of all.
        whole = ((key, values[rows]) for key, values in arrays.series(history, row))
        yield ["series", name, row], frame(_rounded(whole))
    for index in range(len(history.manifest.layers)):
        whole = ((key, values[rows]) for key, values in arrays.layer(history, index, LAYER_ROWS))
        yield ["layer", name, str(index)], frame(_rounded(whole))
        if channels:
            try:
                found = run.channels(index)
            except Exception:  # unreadable channels cost neither this run nor the others; the tab says there are none
                continue
            last = Channels(found.steps[-1:], found.values[-1:])
            yield ["channels", name, str(index)], frame(_rounded(arrays.channels(last)))


def _spread(size: int, most: int) -> NDArray[np.int64]:
    """Evenly spread positions, the first and the last among them."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(np.int64)) if size else np.arange(0)


def _rounded(of: Iterable[tuple[str, NDArray[Any]]]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Float32 values with fewer bits, which compress to half. Steps and times stay as they are."""
    cut = np.uint32(23 - MANTISSA_BITS)
    half, mask = np.uint32(1 << int(cut - 1)), np.uint32(0xFFFFFFFF >> int(cut) << int(cut))
    for name, values in of:
        if values.dtype != np.float32:
            yield name, values
            continue
        bits = np.ascontiguousarray(values).view(np.uint32)
        # Not of what is not finite: a NaN would become infinite.
        near = np.where(np.abs(values) < np.float32(1e38), (bits + half) & mask, bits)
        yield name, near.astype(np.uint32).view(np.float32)


def _pack(answers: Iterable[tuple[list[str], bytes]]) -> bytes:
    """Bodies behind an index: uint32 LE length of the JSON, the JSON, the bodies. ``stored.ts`` reads it."""
    index, bodies, at = [], [], 0
    for key, body in answers:
        index.append({"key": key, "at": at, "size": len(body)})
        bodies.append(body)
        at += len(body)
    head = json.dumps(index, separators=(",", ":")).encode("ascii")
    return b"".join((struct.pack("<I", len(head)), head, *bodies))

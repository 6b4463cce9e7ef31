"""Every sentence of the report over the corpus: no number that was not measured, no "1 steps", no "-0.3 above"."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tb_bnlens.history import History
from tb_bnlens.metadata import LAYER_INDEX
from tb_bnlens.report import run_report
from tests.diagnosis.corpus import drawn, named, recorded

FLAWS = {
    "unknown number": re.compile(r"(?<!\S)\?(?!\w)|\bnan\b|\bNone\b"),
    "plural": re.compile(r"(?<![\d.,])1 (?:are|have|steps|layers|batches|updates|rows|channels|probes)\b"),
    "negative distance": re.compile(r"-\d[\d.e-]* (?:above|below)\b|\bcosts? -\d"),
    "punctuation": re.compile(r" [,.;](?= |$)|,,|(?<!\.)\.\.(?!\.)|(?<=\S)  +\S"),
}
CODE = {"rescue", "fix"}


def sentences(report: Any, name: str = "") -> Iterator[str]:
    """All text of a report that is not code."""
    if isinstance(report, str):
        yield report
    elif isinstance(report, dict):
        for key, value in report.items():
            if name == "evidence" and value["value"] is None:
                yield f"{value['label']}: ?"
            if key not in CODE:
                yield from sentences(value, key)
    elif isinstance(report, list | tuple):
        for value in report:
            yield from sentences(value, name)


def flaws(text: str) -> list[str]:
    return [name for name, pattern in FLAWS.items() if pattern.search(text)]


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("Single batches scatter by ?; the best", "unknown number"),
        ("(1 updates in the median layer)", "plural"),
        ("inference is -0.325 above batch statistics", "negative distance"),
        ("they cost -0.0012 of the loss", "negative distance"),
        ("The loss is 3 .", "punctuation"),
    ],
)
def test_a_flaw_is_found(text: str, flaw: str) -> None:
    assert flaws(text) == [flaw]


def test_sentences_of_every_run_read_well() -> None:
    runs = {**dict(named()), **recorded(), **{f"drawn {seed}": drawn(seed) for seed in range(12)}}
    found = {
        (run, text): what
        for run, history in runs.items()
        for text in sentences(run_report(history))
        if (what := flaws(text))
    }
    assert len(runs) > 60 and found == {}


def without_bursts(history: History) -> History:
    """The run as one whose records are too far apart for what neighbouring steps tell."""
    bare = copy.deepcopy(history)
    for row in ("noise_mean", "noise_variance", "shift", "shift_noise", "lag_cosine", "between_within"):
        bare.layers[..., LAYER_INDEX[row]] = np.nan
    return bare


def test_no_number_is_said_that_a_sparse_record_does_not_hold() -> None:
    runs = {**dict(named()), **recorded()}
    texts = (text for history in runs.values() for text in sentences(run_report(without_bursts(history))))
    assert [text for text in texts if flaws(text)] == []

"""Measurements on many batches: what was written reads back, and what is damaged becomes a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tb_bnlens import record
from tb_bnlens.capture.events import EventFile
from tb_bnlens.history import Evidence, PassResult
from tb_bnlens.metadata import EVIDENCE_TAG, RUN_SUFFIX
from tb_bnlens.reader import list_runs, read_run
from tb_bnlens.reader.evidence import MOST_BATCHES, parse_evidence
from tb_bnlens.reader.json_record import BadRecord
from tb_bnlens.record import Part
from tests.fixtures.runs import manifest


def measured(step: int = 7, moment: str = "end") -> Evidence:
    sizes = np.array([16, 4])
    return Evidence(
        step=step,
        moment=moment,
        batch_steps=np.array([3, 6]),
        batch_sizes=sizes,
        batch_phases=np.array([0, 1]),
        passes={
            "inference": PassResult(np.array([1.23456789, np.nan]), sizes, {"accuracy": 0.5}),
            "one_at_a_time": PassResult(np.array([np.inf]), np.array([1])),
        },
        validation={"inference": PassResult(np.array([2.0]), np.array([8]))},
        samples={"inference-batch": {"q99": -np.inf}},
        layers={"distance_rms": np.array([0.5, 1 / 3, np.nan])},
        groups={"frozen": (2,)},
        earlier={"inference": PassResult(np.array([4.0, 5.0, 6.0]), np.array([8, 8, 8]))},
        not_evaluated={"pooled": "too few rows"},
        seconds=0.25,
    )


def written(directory: Path, values: list[Any], layers: int = 3) -> None:
    file = EventFile(str(directory / "run" / RUN_SUFFIX))
    file.write(0, record.manifest(manifest(layers)))
    for step, value in enumerate(values):
        if isinstance(value, Evidence):
            file.write(value.step, record.evidence(value))
        else:
            file.write(step, Part(EVIDENCE_TAG, value))
    file.close()


def test_what_is_written_reads_back(provider: Callable[[Path], Any], tmp_path: Path) -> None:
    written(tmp_path, [measured(3, "interim"), measured()])
    data = provider(tmp_path)
    assert [run.last_step for run in list_runs(data)] == [7]
    history = read_run(data, "", "run")
    assert history.problems == () and [e.moment for e in history.evidence] == ["interim", "end"]
    found, expected = history.evidence[-1], measured()
    np.testing.assert_allclose(found.passes["inference"].losses, expected.passes["inference"].losses, rtol=1e-6)
    assert found.passes["inference"].losses[0] == 1.234568, "seven digits"
    assert found.passes["inference"].metrics == {"accuracy": 0.5}
    assert found.passes["one_at_a_time"].sizes.tolist() == [1] and np.isinf(found.mean("one_at_a_time"))
    assert found.validation["inference"].sizes.tolist() == [8]
    assert found.earlier["inference"].losses.tolist() == [4.0, 5.0, 6.0]
    assert found.samples == expected.samples and found.groups == expected.groups
    np.testing.assert_allclose(found.layers["distance_rms"], expected.layers["distance_rms"], rtol=1e-6)
    assert found.not_evaluated == expected.not_evaluated and found.seconds == 0.25
    assert found.batch_steps.tolist() == [3, 6] and found.batch_phases.tolist() == [0, 1]


BODY = json.loads(str(record.evidence(measured()).value))
CHANGES: dict[str, dict[str, Any]] = {
    "another moment": {"moment": "later"},
    "a negative step": {"step": -1},
    "no batches": {"batches": None},
    "other sizes": {"batches": {**BODY["batches"], "sizes": [1]}},
    "too many batches": {"batches": {**BODY["batches"], "steps": [1] * (MOST_BATCHES + 1)}},
    "losses of other batches": {"passes": {"inference": {"losses": [1.0]}}},
    "losses that are words": {"passes": {"inference": {"losses": ["one", "two"]}}},
    "sizes of nothing": {"passes": {"inference": {"losses": [1.0], "sizes": [0]}}},
    "too many names": {"not_evaluated": {str(i): "" for i in range(1_000)}},
    "rows of other layers": {"layers": {"distance_rms": [1.0]}},
    "layers that are words": {"layers": {"distance_rms": "abc"}},
    "groups of words": {"groups": {"frozen": ["a"]}},
}
DAMAGED = {
    "no JSON": "{",
    "no object": "[1]",
    "deep": "[" * 100_000,
    "a number too large": json.dumps(BODY).replace("1.234568", "1e999"),
    **{name: json.dumps(BODY | change) for name, change in CHANGES.items()},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_refused(name: str) -> None:
    parse_evidence(json.dumps(BODY), 3)
    with pytest.raises(BadRecord):
        parse_evidence(DAMAGED[name], 3)


def test_damage_costs_no_other_record(provider: Callable[[Path], Any], tmp_path: Path) -> None:
    written(tmp_path, [DAMAGED["no JSON"], DAMAGED["deep"], [1.0, 2.0], measured()])
    history = read_run(provider(tmp_path), "", "run")
    assert len(history.evidence) == 1
    (problem,) = history.problems
    assert problem.startswith("3 of 4 measurements on many batches could not be used: ")


def test_unknown_rows_and_layers_are_ignored() -> None:
    more = {**BODY, "later": 1, "layers": {**BODY["layers"], "a_new_row": [1.0]}, "groups": {"frozen": [2, 99]}}
    found = parse_evidence(json.dumps(more), 3)
    assert set(found.layers) == {"distance_rms"} and found.groups == {"frozen": (2,)}

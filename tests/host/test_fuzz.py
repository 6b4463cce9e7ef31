"""Hostile records through the reader and every route: never an exception page, always JSON or a frame.

``make test`` tries some hundred records, ``make test-slow`` some thousands; the number is printed with ``-s``.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from werkzeug.test import Client

from tb_bnlens import metadata
from tb_bnlens.reader import list_runs, open_logdir
from tests.fixtures.event_files import EventFile
from tests.fixtures.runs import extend_run, manifest
from tests.host.server import read_frame
from tests.host.test_routes import PREFIX, client

BOUNDED: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}

texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from([2**63, -(2**70), 1e308]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
layer_fields = {
    "name": texts | json_values,
    "channels": st.integers(-2, 5000) | json_values,
    "momentum": st.floats() | json_values,
    "epsilon": st.floats() | json_values,
    "axis": json_values,
    "kind": json_values,
    "trainable": json_values,
    "order": json_values,
    "calls": json_values,
    "access": json_values,
}
events = st.fixed_dictionaries(
    {}, optional={"step": json_values, "kind": json_values, "text": json_values, "layers": json_values}
)
manifests = st.fixed_dictionaries(
    {"layers": st.lists(st.fixed_dictionaries({}, optional=layer_fields) | json_values, max_size=4) | json_values},
    optional={
        "format": st.integers(-1, 3) | json_values,
        "planned_steps": st.integers(-5, 10**7) | json_values,
        "batch_size": json_values,
        "replicas": json_values,
        "tolerance": st.floats() | json_values,
        "versions": json_values,
        "ignore": st.dictionaries(texts, st.lists(texts, max_size=2) | json_values, max_size=2) | json_values,
        "notes": json_values,
        "not_evaluated": st.dictionaries(st.sampled_from(metadata.LOSS_KINDS), texts | json_values) | json_values,
        "events": st.lists(events | json_values, max_size=3) | json_values,
    },
).map(json.dumps)

# As float32 holds them: hypothesis refuses to round, which NumPy 1 lets it see.
wild_floats = st.floats(width=32) | st.sampled_from([float(np.float32(x)) for x in (0, -0.0, 1, 3e38, -3e38, 1e-45)])
any_tensors = hnp.arrays(
    dtype=st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)
layer_tables = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 4), st.sampled_from([1, len(metadata.LAYER_ROWS), len(metadata.LAYER_ROWS) + 3])),
    elements=wild_floats,
    fill=st.just(np.nan) | wild_floats,
)
loss_tables = hnp.arrays(
    np.float32,
    (len(metadata.PROBES), len(metadata.LOSS_ROWS)),
    elements=wild_floats,
    fill=st.just(np.nan) | wild_floats,
)
channel_tables = hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(0, 6)), elements=wild_floats)
steps = st.integers(-3, 40) | st.sampled_from([2**31, 2**62, -(2**62)])
tags = st.sampled_from(
    [
        metadata.MANIFEST_TAG,
        metadata.LAYERS_TAG,
        metadata.LOSSES_TAG,
        metadata.EVIDENCE_TAG,
        metadata.channels_tag(0),
        "bn_lens/other",
    ]
)

writes = st.lists(
    st.one_of(
        st.tuples(st.just("manifest"), manifests | texts | st.binary(max_size=30), steps),
        st.tuples(st.just("layers"), layer_tables, steps),
        st.tuples(st.just("losses"), loss_tables, steps),
        st.tuples(st.just("channels"), channel_tables, steps),
        st.tuples(st.just("tensor"), st.tuples(tags, any_tensors | st.binary(max_size=9)), steps),
        st.tuples(st.just("raw"), st.binary(max_size=40), st.just(0)),
        st.tuples(st.just("run"), st.integers(1, 12), st.integers(0, 20)),
    ),
    max_size=10,
)
damage = st.none() | st.tuples(st.floats(0, 1), st.binary(max_size=8))

tried = {"records": 0, "requests": 0}


def write(file: EventFile, what: str, value: Any, step: int) -> None:
    if what == "manifest":
        file.manifest(value, step)
    elif what == "layers":
        file.layers(value, step)
    elif what == "losses":
        file.losses(value, step)
    elif what == "channels":
        file.channels(0, value, step)
    elif what == "tensor":
        tag, tensor = value
        plugin = metadata.CHANNELS_PLUGIN_NAME if tag.startswith(metadata.CHANNELS_TAG) else metadata.PLUGIN_NAME
        file.tensor(tag, tensor, step, plugin=plugin)
    elif what == "raw":
        file.raw(metadata.PLUGIN_NAME.encode() + value)
    else:
        file.manifest(manifest(planned_steps=100), step)
        extend_run(file, first_step=step, steps=value)


def ask_everything(web: Client, run: str) -> None:
    name = quote(run, safe="")
    routes = [f"{route}?run={name}" for route in ("overview", "losses")]
    routes += [f"series?run={name}&row={row}" for row in ("state", "distance_rms", "steps_to_converge")]
    routes += [f"{route}?run={name}&layer={layer}" for route in ("layer", "channels") for layer in (0, 3)]
    for route in ["runs", *routes]:
        reply = web.get(PREFIX + route)
        tried["requests"] += 1
        if reply.content_type == "application/json":
            json.loads(reply.data, parse_constant=pytest.fail)
            assert reply.status_code == 200 or (reply.status_code == 404 and "layer=" in route), reply.text
        else:
            assert reply.status_code == 200
            read_frame(reply.data)


def survives(operations: list[tuple[str, Any, int]], harm: tuple[float, bytes] | None) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = EventFile(Path(directory) / "exp" / metadata.RUN_SUFFIX)
        for operation in operations:
            write(file, *operation)
        if harm is not None:
            raw = file.path.read_bytes()
            at = int(harm[0] * len(raw))
            # An empty replacement cuts the file off.
            file.path.write_bytes(raw[:at] + harm[1] + (raw[at + len(harm[1]) :] if harm[1] else b""))
        data = open_logdir(directory)
        for run in list_runs(data):
            ask_everything(client(data), run.name)
        tried["records"] += 1


@settings(max_examples=150, **BOUNDED)
@given(writes, damage)
def test_any_record(operations: list[tuple[str, Any, int]], harm: tuple[float, bytes] | None) -> None:
    survives(operations, harm)


@pytest.mark.slow
@settings(max_examples=5000, **BOUNDED)
@given(writes, damage)
def test_any_record_at_length(operations: list[tuple[str, Any, int]], harm: tuple[float, bytes] | None) -> None:
    survives(operations, harm)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Client:
    logdir = tmp_path_factory.mktemp("fuzz")
    file = EventFile(logdir / "exp" / metadata.RUN_SUFFIX)
    file.manifest(manifest(planned_steps=100), 0)
    extend_run(file, first_step=1, steps=5)
    return client(open_logdir(logdir))


@settings(max_examples=300, **BOUNDED)
@given(
    st.sampled_from(["runs", "overview", "losses", "series", "layer", "channels", "index.js", "nothing"]) | texts,
    st.lists(
        st.tuples(
            st.sampled_from(["run", "layer", "row"]) | texts,
            st.sampled_from(["exp", "0", "2", "3", "-1", "distance_rms", "../exp", "\x00"]) | texts,
        ),
        max_size=4,
    ),
    st.dictionaries(
        st.sampled_from(["If-None-Match", "Accept-Encoding", "Range", "Accept"]), st.text('abc*;=,"W/ 0q.', max_size=12)
    ),
)
def test_any_request(web: Client, route: str, query: list[tuple[str, str]], headers: dict[str, str]) -> None:
    reply = web.get(PREFIX + quote(route), query_string=[(k, v) for k, v in query], headers=headers)
    tried["requests"] += 1
    assert reply.status_code in (200, 304, 400, 404)
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    if reply.status_code in (400, 404) and reply.content_type == "application/json":
        packed = reply.headers.get("Content-Encoding") == "gzip"
        assert list(json.loads(gzip.decompress(reply.data) if packed else reply.data)) == ["error"]


@pytest.fixture(scope="module", autouse=True)
def say_how_many() -> Any:
    yield
    print(f"\nfuzz: {tried['records']} records and {tried['requests']} requests tried")

"""The tab as one file: what it holds, how large it is, and that names in it are only text."""

from __future__ import annotations

import base64
import gzip
import json
import re
import struct
from dataclasses import replace
from typing import Any

import numpy as np

from tb_bnlens.export import LARGEST, LAYER_ROWS, SERIES, Exported, page
from tb_bnlens.history import Channels, History, Layer
from tb_bnlens.metadata import LAYER_INDEX
from tb_bnlens.report import run_report
from tests.host.server import read_frame
from tests.simulation import Sim, SimLayer, simulate

NOW = 1.8e9
HOSTILE = "</script><script>alert(1)</script>"


def exported(history: History, channels: int = 8) -> Exported:
    rng = np.random.default_rng(0)

    def read(layer: int) -> Channels:
        return Channels(np.array([1, 9], np.int64), rng.normal(size=(2, 4, channels)).astype(np.float32))

    return Exported(history, run_report(history), read)


def answers(text: str) -> dict[tuple[str, ...], bytes]:
    packed = re.search(r'id="bn-lens-stored" data-at="\d+" data-open="[^"]*">([A-Za-z0-9+/=]*)</script>', text)
    assert packed
    raw = gzip.decompress(base64.b64decode(packed[1]))
    (length,) = struct.unpack_from("<I", raw)
    index: list[dict[str, Any]] = json.loads(raw[4 : 4 + length])
    start = 4 + length
    return {tuple(e["key"]): raw[start + e["at"] : start + e["at"] + e["size"]] for e in index}


def large(records: int, layers: int) -> History:
    """A run of many records that do not compress: every value is random."""
    small = simulate(Sim([SimLayer("bn")], steps=40), "large")
    rng = np.random.default_rng(0)
    rows = np.resize(np.arange(len(small.steps)), records)
    table = np.tile(small.layers[rows], (1, layers, 1))
    table *= rng.uniform(0.5, 2.0, table.shape).astype(np.float32)
    return replace(
        small,
        manifest=replace(
            small.manifest, layers=tuple(Layer(i, f"block_{i}/bn", 128, 0.99, 1e-3) for i in range(layers))
        ),
        steps=np.arange(1, records + 1),
        wall_times=NOW + np.arange(records, dtype=np.float64),
        layers=table,
    )


def test_unreadable_channels_cost_nothing_else() -> None:
    history = simulate(Sim([SimLayer("a"), SimLayer("b")], steps=60), "exp")

    def unreadable(layer: int) -> Channels:
        raise ValueError(f"damaged channels of layer {layer}")

    whole = answers(page([exported(history)], NOW)).keys()
    held = answers(page([replace(exported(history), channels=unreadable)], NOW)).keys()
    assert held == {key for key in whole if key[0] != "channels"}


def test_it_holds_what_the_tab_asks_for() -> None:
    history = simulate(Sim([SimLayer("a"), SimLayer("b")], steps=60), "exp")
    held = answers(page([exported(history)], NOW))
    routes = {("runs",), ("overview", "exp"), ("losses", "exp")}
    routes |= {("series", "exp", row) for row in SERIES}
    routes |= {(name, "exp", str(layer)) for name in ("layer", "channels") for layer in range(2)}
    assert held.keys() == routes
    assert json.loads(held["overview", "exp"]) == json.loads(json.dumps(run_report(history)))
    assert json.loads(held["runs",])["runs"][0]["summary"]["headline"]


def test_values_keep_the_digits_that_are_shown() -> None:
    history = simulate(Sim([SimLayer("a"), SimLayer("b", poisoned_at=30)], steps=60), "exp")
    table = history.layers.copy()
    table[0, 0, LAYER_INDEX["noise_mean"]] = np.inf
    history = replace(history, layers=table)
    held = answers(page([exported(history)], NOW))
    for layer in range(2):
        frame = read_frame(held["layer", "exp", str(layer)])
        assert frame["steps"].tolist() == history.steps.tolist()
        for row in LAYER_ROWS:
            np.testing.assert_allclose(frame[row], history.row(row)[:, layer], rtol=2e-4)


def test_fifty_layers_and_a_long_run_are_small_enough_to_attach() -> None:
    text = page([exported(large(2000, 52), channels=128)], NOW)
    assert len(text.encode()) <= LARGEST
    held = answers(text)
    assert ("channels", "large", "51") in held
    steps = read_frame(held["series", "large", "distance_rms"])["steps"]
    assert 50 <= len(steps) < 2000 and (steps[0], steps[-1]) == (1, 2000)
    assert any("of 2,000 records" in note for note in json.loads(held["overview", "large"])["notes"])


def test_names_are_text() -> None:
    history = simulate(Sim([SimLayer(HOSTILE)], steps=20), HOSTILE)
    text = page([exported(history)], NOW)
    assert HOSTILE not in text and "&lt;/script&gt;" in text
    # The stored data and the module; nothing ends either of them early.
    assert len(re.findall("<script", text)) - len(re.findall(r"<\\/script|\"<script", text)) == 2
    assert text.count("</script>") == 2


def test_it_loads_nothing() -> None:
    text = page([exported(simulate(Sim([SimLayer("a")], steps=20), "exp"))], NOW)
    assert "default-src 'none'" in text
    assert re.findall(r"<(?:link|img|iframe)\b|\bsrc=", text.split("<script", 1)[0]) == []

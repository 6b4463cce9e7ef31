"""Runs on which decisions are compared with those of the rules that the table of causes replaced."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from tb_bnlens.history import Event, History, Layer, Manifest
from tb_bnlens.metadata import LAYER_ROWS, LOSS_ROWS, STATES
from tests.diagnosis.runs import FROZEN_FIT, FROZEN_OFF, replicated, run, with_last_probe
from tests.simulation import Sim, SimLayer, band_locator, pose_network, simulate

RECORDED = Path(__file__).parent / "recorded.zip"
"""Real trainings (``faults.py`` and ``healthy.py``) as they were read from their event files, once."""
DRAWN = 120
"""Simulated runs that are drawn at random."""

INFERENCE_OFF = replace(FROZEN_OFF, state="inference_mode")
INFERENCE_FIT = replace(FROZEN_FIT, state="inference_mode")
LAST_BATCH = {"epoch_end_distance": 1.4, "since_mean": 0.1}


def named() -> Iterator[tuple[str, History]]:
    yield "pose", pose_network()
    yield "pose slow", pose_network(drift=2e-4)
    yield "pose harmless", pose_network(gain=0.0)
    yield "band", band_locator()
    yield "band 0.9", band_locator(0.9)
    yield "band early", band_locator(0.99, steps=100, planned=6000)
    yield "band without a plan", band_locator(steps=100, planned=None)
    yield "band without losses", band_locator(probe=False)
    yield "band harmless", band_locator(gain=0.0)
    yield "band, negative loss", band_locator(batch_loss=-50.0, gain=-1.0, start_loss=60.0)
    yield "frozen", run(FROZEN_OFF)
    yield "frozen harmless", run(FROZEN_OFF, gain=0.0)
    yield "frozen fit", run(FROZEN_FIT)
    yield "frozen without losses", run(FROZEN_OFF, probe=False)
    yield "inference mode", run(INFERENCE_OFF)
    yield "inference mode harmless", run(INFERENCE_OFF, gain=0.0)
    yield "inference mode fit", run(INFERENCE_FIT)
    yield "inference mode without losses", run(INFERENCE_OFF, probe=False)
    yield (
        "frozen fit and lagging",
        simulate(
            Sim(
                [replace(FROZEN_FIT, name=f"f{i}") for i in range(3)]
                + [SimLayer(f"n{i}", momentum=0.999, true_variance=0.05) for i in range(3)],
                steps=300,
                planned=300,
            )
        ),
    )
    yield (
        "frozen off and a head",
        simulate(
            Sim(
                [*(replace(FROZEN_OFF, name=f"f{i}") for i in range(3)), SimLayer("head", momentum=0.9)],
                steps=300,
                planned=300,
            )
        ),
    )
    thawed = Event(100, "unfreeze", "", (0, 1, 2))
    yield "unfrozen, compiled", run(INFERENCE_FIT, events=(thawed, Event(100, "recompile", "")))
    yield "unfrozen", run(INFERENCE_FIT, events=(thawed,))
    yield "never updated, momentum 1", run(SimLayer(state="never_updated", momentum=1.0, true_variance=0.05))
    yield "never updated", run(SimLayer(state="never_updated", true_variance=0.05))
    yield "noise", run(SimLayer(samples=4), noise_penalty=2.0)
    yield "tiny batch", run(SimLayer(samples=4), gain=0.3)
    yield "unexplained gap", run(SimLayer(samples=1e5), noise_penalty=2.0)
    yield "turns", run(SimLayer(samples=32, between=1.0), gain=2.0)
    yield "sorted", run(SimLayer(samples=32, between=1.0, block=60), gain=2.0)
    yield "turns harmless", run(SimLayer(samples=32, between=1.0), gain=0.0)
    yield "shared", run(SimLayer(), noise_penalty=2.0, overrides={"call_alternation": 1.5})
    yield "shared alike", run(SimLayer(), overrides={"call_alternation": 0.3})
    yield "shared and turns", run(SimLayer(samples=32, between=1.0), gain=2.0, overrides={"call_alternation": 1.5})
    for momentum in (0.1, 0.01, 0.0):
        yield f"low {momentum}", run(SimLayer(momentum=momentum, samples=8), gain=10.0)
    yield "low harmless", run(SimLayer(momentum=0.1, samples=1e5))
    yield "low and drift", run(SimLayer(momentum=0.3, samples=1e5, drift=0.2), gain=10.0)
    yield "set after the trace", run(SimLayer(momentum=0.9, graph_momentum=0.999, true_variance=0.05))
    yield "dropout", run(SimLayer(momentum=0.9), dropout=0.6)
    yield "dropout and noise", run(SimLayer(samples=4), dropout=0.6, noise_penalty=2.0)
    yield "update", run(SimLayer(momentum=0.9), update_effect=3.0, loss_overrides={"fit_loss": 1.0})
    yield "update and dropout", run(SimLayer(momentum=0.9), update_effect=1.0, dropout=6.0)
    yield "update and noise", run(SimLayer(samples=4), update_effect=1.0, noise_penalty=2.0)
    yield "overfitted", run(SimLayer(momentum=0.9), validation=(5.0, 5.0))
    yield "overfitted and noise", run(SimLayer(samples=4), noise_penalty=2.0, validation=(5.0, 5.0))
    yield "shifted validation", run(SimLayer(momentum=0.9), validation=(1.2, 5.0))
    yield "shifted validation and noise", run(SimLayer(samples=4), noise_penalty=2.0, validation=(1.2, 5.0))
    yield "collapsed", run(SimLayer(momentum=0.9, collapsed=4), gain=0.0)
    yield "replicas", replicated(run(SimLayer(momentum=0.9), noise_penalty=2.0, overrides={"replica_spread": 1.2}))
    yield "replicas alike", replicated(run(SimLayer(momentum=0.9), overrides={"replica_spread": 0.02}))
    exchange = {"inference": 9.0, "recalibrated": 8.5, "recalibrated_long": 8.5}
    yield "averaged", with_last_probe(run(SimLayer(momentum=0.9)), **exchange)
    yield (
        "averaged, announced",
        with_last_probe(
            run(SimLayer(momentum=0.9), events=(Event(600, "averaged", ""),)), **exchange, recalibrated_now=1.0
        ),
    )
    yield (
        "averaged, short last batch",
        with_last_probe(run(SimLayer(momentum=0.7), overrides=LAST_BATCH), **exchange, recalibrated_now=1.0),
    )
    yield "short last batch", run(SimLayer(momentum=0.7), overrides=LAST_BATCH)
    yield "short last batch harmful", with_last_probe(run(SimLayer(momentum=0.7), overrides=LAST_BATCH), inference=3.0)
    yield "short last batch without losses", run(SimLayer(momentum=0.7), overrides=LAST_BATCH, probe=False)
    yield "poison", simulate(Sim([SimLayer("g"), SimLayer("b", poisoned_at=150)], steps=400, planned=400))
    yield (
        "poison and lag",
        simulate(Sim([SimLayer("g", momentum=0.999, true_variance=0.05), SimLayer("b", poisoned_at=150)], planned=400)),
    )
    for steps in (1, 2, 5, 20):
        yield f"begun {steps}", run(SimLayer(momentum=0.99), steps=steps, planned=5000)
    for momentum in (0.9, 0.97, 0.99):
        for samples in (8, 64, 4096):
            layer = SimLayer(momentum=momentum, samples=samples, true_variance=0.8)
            yield f"calm {momentum} {samples}", run(layer, gain=0.5, steps=900)


def drawn(seed: int) -> History:
    """A run of one to four layers, each with faults or without, at random."""
    rng = np.random.default_rng(20_000 + seed)

    def one_of(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    kinds = ["updating"] * 12 + [*STATES[2:]]
    layers = [
        SimLayer(
            f"bn_{i}",
            channels=one_of(4, 16),
            momentum=one_of(0.0, 0.1, 0.5, 0.8, 0.9, 0.9, 0.97, 0.99, 0.99, 0.999),
            true_mean=one_of(0.0, 0.3, 1.5),
            true_variance=one_of(0.05, 0.5, 0.8, 3.0),
            samples=one_of(4, 8, 32, 320, 3200, 1e5),
            drift=one_of(0.0, 0.0, 0.0, 2e-4, 0.005, 0.02, 0.2),
            state=one_of(*kinds),
            graph_momentum=one_of(None, None, None, None, None, 0.9, 0.999),
            poisoned_at=one_of(*[None] * 14, 60),
            between=one_of(0.0, 0.0, 0.0, 0.0, 1.0),
            block=one_of(1, 30),
            collapsed=one_of(0, 0, 0, 0, 2),
        )
        for i in range(one_of(1, 2, 3, 4))
    ]
    overrides: dict[str, float] = {}
    if rng.random() < 0.15:
        overrides |= {"call_alternation": one_of(0.3, 0.9, 1.5)}
    if rng.random() < 0.15:
        overrides |= {"epoch_end_distance": one_of(0.3, 1.4), "since_mean": 0.1, "since_min": 0.05}
    if rng.random() < 0.15:
        overrides |= {"replica_spread": one_of(0.02, 1.2)}
    steps = one_of(20, 100, 300, 600)
    history = simulate(
        Sim(
            layers,
            steps=steps,
            planned=one_of(steps, steps, 3 * steps, 20 * steps, None),
            gain=one_of(0.0, 0.3, 2.0, 20.0, 150.0),
            batch_loss=one_of(1.0, 1.0, 0.1, -5.0),
            dropout=one_of(0.0, 0.0, 0.0, 0.3, 2.0),
            noise_penalty=one_of(0.0, 0.0, 0.0, 0.3, 2.0),
            update_effect=one_of(0.0, 0.0, 0.0, 1.0, 3.0),
            probe=bool(rng.random() > 0.1),
            start_loss=one_of(0.0, 3.0, 100.0),
            validation=one_of(None, None, (1.1, 1.1), (1.2, 5.0), (5.0, 5.0)),
            overrides=overrides,
            events=one_of((), (), (), (Event(steps // 2, "unfreeze", "", (0,)),)),
            seed=seed,
        )
    )
    if len(history.losses) > 4 and rng.random() < 0.2:
        top = float(np.nanmax(history.loss("inference"))) or 1.0
        with_last_probe(history, inference=abs(top) * one_of(1.0, 3.0), recalibrated=abs(top) * one_of(0.1, 2.0))
    return replicated(history) if "replica_spread" in overrides else history


def recorded() -> dict[str, History]:
    """The real trainings that were recorded once; rows that came later are NaN."""
    runs = {}
    with zipfile.ZipFile(RECORDED) as archive:
        for name in sorted(archive.namelist()):
            with np.load(io.BytesIO(archive.read(name)), allow_pickle=False) as arrays:
                runs[name.removesuffix(".npz")] = _history(arrays)
    return runs


def pack(runs: Mapping[str, History]) -> None:
    """Write ``recorded.zip``."""
    with zipfile.ZipFile(RECORDED, "w", zipfile.ZIP_LZMA) as archive:
        for name, history in runs.items():
            manifest = {**asdict(history.manifest), "run": history.run}
            buffer = io.BytesIO()
            np.savez(
                buffer,
                manifest=np.array(json.dumps(manifest)),
                **{key: getattr(history, key) for key in ARRAYS},
            )
            archive.writestr(f"{name}.npz", buffer.getvalue())


ARRAYS = ("steps", "wall_times", "layers", "loss_steps", "loss_wall_times", "losses")


def _history(arrays: Mapping[str, Any]) -> History:
    said = json.loads(str(arrays["manifest"]))
    name = said.pop("run")
    tuples = ("layers", "notes", "events")
    said |= {key: tuple(said[key]) for key in tuples}
    said["layers"] = tuple(Layer(**layer) for layer in said["layers"])
    said["events"] = tuple(Event(**{**event, "layers": tuple(event["layers"])}) for event in said["events"])
    said["ignore"] = {key: tuple(value) for key, value in said["ignore"].items()}
    values = {key: arrays[key] for key in ARRAYS}
    values["layers"] = _widened(values["layers"], len(LAYER_ROWS))
    values["losses"] = _widened(values["losses"], len(LOSS_ROWS))
    return History(name, Manifest(**said), **values)


def _widened(rows: Any, count: int) -> Any:
    missing = np.full((*rows.shape[:-1], count - rows.shape[-1]), np.nan, rows.dtype)
    return np.concatenate([rows, missing], -1)


def corpus(limits: Mapping[str, Callable[[], History]]) -> dict[str, History]:
    """Every run by name.

    Args:
        limits: runs just below and just above each limit, by name.
    """
    runs = {f"limit {name}": build() for name, build in limits.items()}
    runs |= {f"named {name}": history for name, history in named()}
    runs |= {f"drawn {seed}": drawn(seed) for seed in range(DRAWN)}
    return runs | {f"recorded {name}": history for name, history in recorded().items()}

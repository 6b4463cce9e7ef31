"""Simulated runs for the tests of causes, and what is found in them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tb_bnlens.history import Evidence, History, PassResult
from tb_bnlens.metadata import LAYER_INDEX, LOSS_INDEX, TORCH
from tb_bnlens.report import run_report
from tests.simulation import Sim, SimLayer, simulate

LAYERS = ("a", "b", "c")
CALM = SimLayer(momentum=0.9)
FROZEN_OFF = SimLayer(state="frozen", true_mean=1.5, true_variance=3.0)
"""Frozen on other data."""
FROZEN_FIT = SimLayer(state="frozen", start=(0.3, 0.5), channels=1)
"""Frozen on the same data."""
PROBES = 33
"""Of ``run``: 600 steps, one each 20 and four at first."""


def run(layer: SimLayer, **kwargs: Any) -> History:
    """Three such layers, 600 steps."""
    specs = [replace(copy.copy(layer), name=name) for name in LAYERS]
    return simulate(Sim(specs, **{"steps": 600, "planned": 600, "start_loss": 3.0, **kwargs}))


def of_torch(history: History, untracked: tuple[str, ...] = (), **layer: Any) -> History:
    """The run as PyTorch's recorder writes it, with these attributes in every layer."""
    manifest = history.manifest
    layers = tuple(replace(one, **{"kind": "BatchNorm2d", **layer}) for one in manifest.layers)
    return replace(history, manifest=replace(manifest, layers=layers, framework=TORCH, untracked=untracked))


def finding(history: History, rule: str) -> Any:
    return next(f for f in run_report(history)["findings"] if f["rule"] == rule)


def causes(history: History) -> dict[str, str]:
    """Causes that are named, with their severity."""
    report = run_report(history)
    assert not [f for f in report["findings"] if f["status"] == "error"], report["findings"]
    return {
        f["rule"]: f["severity"]
        for f in report["findings"]
        if f["status"] == "fail" and not f["explained_by"] and not f["silenced"]
    }


def behind(history: History, rule: str) -> Any:
    """The cause behind this one, None where it stands for itself."""
    return finding(history, rule)["explained_by"]


@lru_cache
def _flat(momentum: float, true_variance: float) -> History:
    return run(SimLayer(momentum=momentum, true_variance=true_variance), start_loss=0.0, gain=0.0)


def level(layer: SimLayer = CALM, **losses: float) -> History:
    """A run whose losses are these at every probe, 1 if not given."""
    history = copy.deepcopy(_flat(layer.momentum, layer.true_variance))
    kinds = ("training", "batch", "inference", "recalibrated", "recalibrated_long", "updated", "recalibrated_now")
    for kind in kinds:
        put(history, kind, [losses.get(kind, 1.0)] * len(history.losses))
    return history


def put(history: History, kind: str, values: ArrayLike, first: int | None = None, probe: int = 0) -> History:
    """Write losses over probes, the last ones unless the first is given."""
    written = np.asarray(values)
    start = len(history.losses) - len(written) if first is None else first
    history.losses[start : start + len(written), probe, LOSS_INDEX[kind]] = written
    return history


def with_last_probe(history: History, **losses: float) -> History:
    """The run with these losses at its last probe."""
    for kind, value in losses.items():
        put(history, kind, [value])
    return history


def rows(history: History, last_only: bool = False, **values: ArrayLike) -> History:
    """Write over rows of the layers, at every record or at the last."""
    for name, value in values.items():
        history.layers[-1 if last_only else slice(None), ..., LAYER_INDEX[name]] = value
    return history


def replicated(history: History, replicas: int = 2) -> History:
    """The run as if on so many replicas."""
    return replace(history, manifest=replace(history.manifest, replicas=replicas))


def silenced(history: History, cause: str, *patterns: str) -> Any:
    """The report of the run where this cause is silenced, for all layers unless patterns are given."""
    ignore = {**history.manifest.ignore, cause: patterns or ("*",)}
    return run_report(replace(history, manifest=replace(history.manifest, ignore=ignore)))


def summary(history: History, cause: str) -> str:
    """The summary of a cause."""
    return str(finding(history, cause)["summary"])


def ruled_out(history: History, cause: str) -> dict[str, str]:
    """Causes with similar symptoms -> why they are not it."""
    return {r["cause"]: r["reason"] for r in finding(history, cause)["ruled_out"]}


def measured(
    history: History,
    *,
    batches: int = 12,
    size: int = 32,
    scatter: float = 0.0,
    groups: Mapping[str, Sequence[int]] | None = None,
    layers: Mapping[str, Sequence[float]] | None = None,
    samples: Mapping[str, Mapping[str, float]] | None = None,
    metrics: Mapping[str, Mapping[str, float]] | None = None,
    **means: Any,
) -> History:
    """The run with a measurement on many batches at its end.

    Args:
        history: the run.
        batches: how many.
        size: samples in each.
        scatter: the even batches' losses lie so much above their mean and the odd ones' below, inference and its kin
            by twice that, so that paired differences scatter by as much.
        groups: as in ``Evidence``; ``samples`` and ``layers`` likewise.
        metrics: pass -> metric -> value.
        means: pass -> its mean loss, or its loss on each batch; ``put_right__frozen`` for ``put_right:frozen``.
    """
    wave = scatter * np.resize([1.0, -1.0], batches)
    passes = {}
    for name, mean in means.items():
        name = name.replace("__", ":")
        losses = np.asarray(mean, float) + (wave if name in ("batch", "recombined", "batch_as_trained") else 2 * wave)
        own = dict((metrics or {}).get(name, {}))
        passes[name] = PassResult(losses, np.full(len(losses), size, np.int64), own)
    evidence = Evidence(
        step=history.last_step or 0,
        moment="end",
        batch_steps=np.arange(batches, dtype=np.int64),
        batch_sizes=np.full(batches, size, np.int64),
        batch_phases=np.zeros(batches, np.int64),
        passes=passes,
        samples=samples if samples is not None else {"batch": {"mean": float(np.mean(means["batch"])), "q01": 0.0}},
        layers={name: np.asarray(values, float) for name, values in (layers or {}).items()},
        groups={name: tuple(where) for name, where in (groups or {}).items()},
    )
    return replace(history, evidence=(evidence,))


def dominated(times: float = 20.0, rows: Mapping[str, Mapping[str, float]] | None = None, **options: Any) -> History:
    """A minority of the batches sets the statistics, and the median row loses 1.2 by it."""
    samples: dict[str, Mapping[str, float]] = {
        "batch": {"mean": 1.0, "q01": 0.0},
        "inference": {"median": 1.5},
        "robust": {"median": 0.3},
        "inference-robust": {"median": 1.2, "q10": 0.9, "q90": 1.6},
        "inference-recalibrated": {"median": 0.1, "q10": -0.1, "q90": 0.2},
    }
    samples |= rows or {}
    layers = {"dominance_max": [times, 1.0, 1.0], "between_within": [9.0] * 3, "noise_mean": [0.2] * 3}
    counted = {name: {"count": 400.0, **figures} for name, figures in samples.items()}
    passes: dict[str, Any] = {"inference": 2.4, "batch": 1.0, "recalibrated": 2.4, "robust": 30.0}
    return measured(level(), layers=layers, samples=counted, **options, **passes)

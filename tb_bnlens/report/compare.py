"""What changed between two runs: from two reports, nothing is read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tb_bnlens.metadata import LOSS_KINDS
from tb_bnlens.numbers import as_set, number
from tb_bnlens.report.matching import matched
from tb_bnlens.report.schema import Comparison
from tb_bnlens.report.shown import counts, loss_of

Pair = tuple[Mapping[str, Any], Mapping[str, Any]]
"""A layer as the two runs have it."""


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Comparison:
    """Differences of two runs.

    Args:
        a: report of the first run, from ``report.run_report``.
        b: of the second.

    Returns:
        ``runs``; ``framework`` of each; ``settings``: name -> the two values, only where they differ;
        ``losses``: kind -> the two values; ``metrics``: name -> kind -> the two values; ``findings``: ``gone``,
        ``new`` and ``stayed`` rule ids; ``layers``: those in both runs whose momentum or state differs, with
        both distances; ``distances``: of all layers in both runs, the largest difference first; ``only``: layer
        names that one run alone has. Layers are matched as ``matching.matched`` says; each has ``name``, that of the
        first run, and ``names``, that of each.
    """
    by_name = [{layer["name"]: layer for layer in run["layers"]} for run in (a, b)]
    names = matched(*map(list, by_name))
    pairs = [(by_name[0][x], by_name[1][y]) for x, y in names]
    return {
        "runs": [a["run"], b["run"]],
        "severity": [a["severity"], b["severity"]],
        "framework": [a["framework"], b["framework"]],
        "settings": _settings(a, b),
        "losses": {kind: [loss_of(x["losses"], kind) for x in (a, b)] for kind in LOSS_KINDS},
        "metrics": _metrics(a["losses"]["metrics"], b["losses"]["metrics"]),
        "findings": _findings(a, b),
        "layers": [_both(pair, "momentum", "state", "distance") for pair in pairs if _differs(*pair)],
        "distances": _distances(pairs),
        "only": [[name for name in by_name[i] if name not in {pair[i] for pair in names}] for i in (0, 1)],
    }


def layer_name(layer: Mapping[str, Any]) -> str:
    """The name of a layer in both runs, or its two names."""
    return " -> ".join(dict.fromkeys(layer["names"]))


def rows(difference: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(name, value of the first run, of the second) of each setting, loss and metric in ``compare``'s answer.

    Losses and metrics that neither run has are left out.
    """
    for name, pair in difference["settings"].items():
        x, y = momentum_as_set(pair, difference) if name == "momentum" else pair
        yield name, _setting(x), _setting(y)
    measured = {"loss": difference["losses"], **difference["metrics"]}
    for name, kinds in measured.items():
        for kind, (x, y) in kinds.items():
            if x is not None or y is not None:
                yield f"{name}, {kind}", number(x), number(y)


def momentum_as_set(pair: Sequence[Any], difference: Mapping[str, Any]) -> list[Any]:
    """The momentum of both runs, one value or several, each as users of its framework set it."""
    return [
        [as_set(value, framework) for value in kept] if isinstance(kept, list) else as_set(kept, framework)
        for kept, framework in zip(pair, difference["framework"], strict=True)
    ]


def _setting(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "not known" if value is None else str(value)


def _findings(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[str]]:
    before, after = ({f["rule"] for f in run["findings"] if counts(f)} for run in (a, b))
    return {"gone": sorted(before - after), "new": sorted(after - before), "stayed": sorted(before & after)}


def _settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[object]]:
    names = ("framework", "planned_steps", "batch_size", "replicas", "tolerance", "last_step")
    settings: dict[str, list[object]] = {name: [a[name], b[name]] for name in names if a[name] != b[name]}
    momentum = [sorted({layer["momentum"] for layer in run["layers"]}) for run in (a, b)]
    if momentum[0] != momentum[1]:
        settings["momentum"] = [*momentum]
    return settings


def _metrics(
    a: Mapping[str, Mapping[str, float | None]], b: Mapping[str, Mapping[str, float | None]]
) -> dict[str, dict[str, list[float | None]]]:
    return {
        name: {
            kind: [values.get(name, {}).get(kind) for values in (a, b)]
            for kind in dict.fromkeys([*a.get(name, {}), *b.get(name, {})])
        }
        for name in dict.fromkeys([*a, *b])
    }


def _distances(pairs: Sequence[Pair]) -> list[dict[str, object]]:
    known = [pair for pair in pairs if None not in (pair[0]["distance"], pair[1]["distance"])]
    known.sort(key=lambda pair: -abs(pair[0]["distance"] - pair[1]["distance"]))
    return [_both(pair, "distance") for pair in known]


def _differs(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return any(a[key] != b[key] for key in ("momentum", "state"))


def _both(pair: Pair, *keys: str) -> dict[str, object]:
    a, b = pair
    return {"name": a["name"], "names": [a["name"], b["name"]], **{key: [a[key], b[key]] for key in keys}}

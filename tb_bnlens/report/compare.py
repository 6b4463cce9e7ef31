"""What changed between two runs: from two reports, nothing is read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tb_bnlens.metadata import LOSS_KINDS
from tb_bnlens.numbers import as_set, number
from tb_bnlens.report.schema import Comparison
from tb_bnlens.report.summary import counts


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
        names that one run alone has.
    """
    by_name = [{layer["name"]: layer for layer in run["layers"]} for run in (a, b)]
    both = [name for name in by_name[0] if name in by_name[1]]
    return {
        "runs": [a["run"], b["run"]],
        "severity": [a["severity"], b["severity"]],
        "framework": [a["framework"], b["framework"]],
        "settings": _settings(a, b),
        "losses": {kind: [a["losses"][kind], b["losses"][kind]] for kind in LOSS_KINDS},
        "metrics": _metrics(a["losses"]["metrics"], b["losses"]["metrics"]),
        "findings": _findings(a, b),
        "layers": [_layer(by_name[0][name], by_name[1][name]) for name in both if _differs(by_name, name)],
        "distances": _distances([[layers[name] for name in both] for layers in by_name]),
        "only": [[name for name in names if name not in both] for names in by_name],
    }


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


def _distances(layers: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, object]]:
    pairs = [(a["name"], a["distance"], b["distance"]) for a, b in zip(*layers, strict=True)]
    known = sorted(
        ((name, x, y) for name, x, y in pairs if x is not None and y is not None), key=lambda p: -abs(p[1] - p[2])
    )
    return [{"name": name, "distance": [x, y]} for name, x, y in known]


def _differs(by_name: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(by_name[0][name][key] != by_name[1][name][key] for key in ("momentum", "state"))


def _layer(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, object]:
    return {"name": a["name"], **{key: [a[key], b[key]] for key in ("momentum", "state", "distance")}}

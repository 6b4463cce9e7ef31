"""A report in one row: what the table of runs shows of each."""

from __future__ import annotations

from collections.abc import Mapping

from tb_bnlens.report.schema import MetricPair, Overview, RunSummary
from tb_bnlens.report.shown import counts


def summarize(report: Overview) -> RunSummary:
    """The row of a run; ``RunSummary`` says what each key is."""
    counting = [f for f in report["findings"] if counts(f)]
    momentums = [layer["momentum"] for layer in report["layers"]]
    losses = report["losses"]
    return {
        "severity": report["severity"],
        "headline": report["headline"],
        # Findings come in order of severity.
        "cause": counting[0]["title"] if counting else None,
        "causes": len(counting),
        "silenced": sum(f["silenced"] for f in report["findings"]),
        "step": losses["step"],
        "batches": losses["batches"],
        "batch": losses["batch"],
        "inference": losses["inference"],
        "harm": losses["harm"],
        "harm_is_sure": losses["harm_is_sure"],
        "metric": _first(losses["metrics"]),
        "momentum": [min(momentums), max(momentums)] if momentums else [],
        "layers": len(report["layers"]),
        "last_step": report["last_step"],
        "planned_steps": report["planned_steps"],
        "ended": report["ended"],
        "ended_step": report["ended_step"],
        "last_record": report["last_record"],
        "checked": report["checked"],
        "imported": report["imported"],
        "framework": report["framework"],
    }


def _first(metrics: Mapping[str, Mapping[str, float | None]]) -> MetricPair | None:
    """The metric that was compiled first and measured in both modes."""
    for name, values in metrics.items():
        if {"batch", "inference"} <= values.keys():
            return {"name": name, "batch": values["batch"], "inference": values["inference"]}
    return None

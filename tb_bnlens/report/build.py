"""History -> one report in the shape of ``report.schema``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.loss_gap import NOTE_HARM
from tb_bnlens.analysis.measured import Measured
from tb_bnlens.diagnosis.decide import Status
from tb_bnlens.diagnosis.diagnose import Diagnosis, diagnose
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words.phrases import count, metric, metrics
from tb_bnlens.diagnosis.words.phrases import number as phrased
from tb_bnlens.diagnosis.words.words import Evidence, Said
from tb_bnlens.history import History
from tb_bnlens.metadata import CHECKPOINTS, FORMAT, REPLAY_MOMENTUMS, replay_row
from tb_bnlens.report import schema
from tb_bnlens.report.losses import reported_losses
from tb_bnlens.report.numbers import number, rounded
from tb_bnlens.report.verdict import verdict

STALLS = "not known: half precision loses small updates"


def build_report(histories: Sequence[History]) -> schema.Report:
    """Report on several runs, ``{"format": 1, "runs": [...]}`` in the order given."""
    return {"format": FORMAT, "runs": [run_report(h) for h in histories]}


def run_report(history: History) -> schema.Overview:
    """Report on one run. No value is NaN or infinite; what is not known is None.

    Example:
        ``run_report(history)["verdict"]`` is the text at the top of the tab.
    """
    facts = Facts(history)
    diagnoses = diagnose(facts)
    severity = max((d.severity for d in diagnoses), default=Severity.NONE)
    losses = reported_losses(facts, severity)
    manifest = facts.manifest
    overhead = history.loss("overhead")
    overhead = overhead[~np.isnan(overhead)]
    headline, reasons = verdict(facts, diagnoses)
    return {
        "format": FORMAT,
        "run": history.run,
        "verdict": " ".join([headline, *reasons]),
        "headline": headline,
        "reasons": reasons,
        "severity": _word(severity),
        "checked": facts.checked,
        "last_step": history.last_step,
        "losses": losses,
        "findings": [_finding(d, facts) for d in diagnoses],
        "layers": _layers(facts, diagnoses),
        "events": [{"step": e.step, "kind": e.kind, "text": e.text, "layers": list(e.layers)} for e in manifest.events],
        "notes": [*manifest.notes, *history.problems],
        "planned_steps": manifest.planned_steps,
        "ended": cast(schema.Ended | None, manifest.ended or None),
        "ended_step": manifest.ended_step,
        "last_record": history.last_record,
        "imported": manifest.source == CHECKPOINTS,
        "framework": manifest.framework,
        "batch_size": manifest.batch_size,
        "replicas": manifest.replicas,
        "tolerance": manifest.tolerance,
        "overhead": number(overhead[-1]) if len(overhead) else None,
        "records": len(history.steps),
        "probes": len(history.loss_steps),
    }


def _word(severity: Severity) -> schema.Severity:
    return cast(schema.Severity, severity.word)


def _steps(value: float | None) -> int | schema.Never | None:
    if value is None or math.isnan(value):
        return None
    return "never" if math.isinf(value) else math.ceil(value)


def _interval(low: float, high: float) -> list[int | schema.Never] | None:
    ends = [_steps(low), _steps(high)]
    return None if None in ends else cast("list[int | schema.Never]", ends)


def _finding(d: Diagnosis, facts: Facts) -> schema.Finding:
    decision, said, cause = d.decision, d.said, d.decision.cause
    shown = d.status in (Status.FAIL, Status.ANOTHER_CAUSE)
    steps, interval = _time_left(d, facts)
    rescue = _rescue(said, facts)
    return {
        "rule": d.id,
        "status": d.status.value,
        "severity": _word(decision.severity),
        "title": d.words.failure_title if shown else d.words.title,
        "summary": said.summary,
        "description": d.words.description,
        "layers": [facts.layers.names[i] for i in decision.layers] if shown else [],
        "layer_indices": list(decision.layers) if shown else [],
        "first_step": cause.since(facts) if decision.failed and not facts.checked else None,
        "last_step": facts.history.last_step if decision.failed else None,
        "steps_to_converge": _steps(steps),
        "steps_interval": interval,
        "steps_reliable": None if steps is None else interval is not None,
        "share": number(decision.share),
        "evidence": {name: _evidence(e) for name, e in said.evidence.items() if e.known},
        "ruled_out": [{"cause": rival, "reason": reason} for rival, reason in d.ruled_out],
        "rescue": rescue,
        "rescue_loss": number(facts.typical(said.rescued)) if rescue else None,
        "fix": said.fix,
        "next": said.next,
        "silenced": d.silenced,
        "explained_by": decision.to,
    }


def _time_left(d: Diagnosis, facts: Facts) -> tuple[float | None, list[int | schema.Never] | None]:
    """Steps until the moving statistics converge, and their interval where it is reliable."""
    steps = d.decision.cause.steps(facts) if d.decision.failed and d.decision.cause.steps else None
    if steps is None:
        return None, None
    # A cause that waiting does not cure says never, without a doubt; the others wait for the start to be forgotten.
    return steps, _interval(*((steps, steps) if math.isinf(steps) else facts.start_interval))


def _rescue(said: Said, facts: Facts) -> str:
    """The code, with the loss and the metrics that it was measured to give as a comment; empty where it gives nothing.

    Statistics cannot rescue a network that has learned nothing of use, or whose weights are not finite.
    """
    if facts.losses.diverged:
        return ""
    gives, measured = facts.typical(said.rescued), facts.measured
    if not said.rescue or not math.isfinite(gives):
        return said.rescue
    if measured is None or not measured.has("inference", said.rescued):
        return f"{said.rescue}# inference loss {phrased(gives)} (measured)\n"
    if not measured.gap("inference", said.rescued).at_least(NOTE_HARM):
        return ""
    told = ", ".join([f"inference loss {phrased(gives)}", *metrics(facts, said.rescued)])
    return (
        f"{said.rescue}# {told} (measured on {count(measured.batches, 'batch', 'batches')})\n{_price(said, measured)}"
    )


def _price(said: Said, measured: Measured) -> str:
    """Metrics that the rescue lowers although the loss falls, as a comment."""
    now, then = (measured.passes[name].metrics for name in ("inference", said.rescued))
    lower = [
        f"{name} falls from {metric(name, now[name])} to {metric(name, then[name])}"
        for name in measured.falls(said.rescued)
    ]
    return f"# but {', '.join(lower)}\n" if lower else ""


def _evidence(e: Evidence) -> schema.Evidence:
    def plain(x: float | str | None) -> float | str | None:
        if x is None or isinstance(x, str):
            return x
        # JSON has no infinity.
        return ("never" if e.unit == "steps" else "not finite") if math.isinf(x) else number(x)

    return {"label": e.label, "value": plain(e.value), "limit": plain(e.limit), "unit": e.unit, "against": e.against}


def _layers(facts: Facts, diagnoses: Sequence[Diagnosis]) -> list[schema.LayerReport]:
    history, table = facts.history, facts.layers
    blamed: dict[int, list[str]] = {}
    for d in diagnoses:
        if d.counts:
            for i in d.decision.layers:
                blamed.setdefault(i, []).append(d.id)
    mean_error, worst = history.last("mean_error_p50"), history.last("worst_channel")
    with np.errstate(all="ignore"):
        ratio = history.last("moving_variance_gm") / history.last("batch_variance_gm")
    replays = {m: history.last(replay_row(m)) for m in REPLAY_MOMENTUMS}
    updates, updates_worst = table.converge_updates, table.converge_updates_worst
    # A small update is lost in half precision, so the statistics stop before they converge.
    stalls = table.updating & (table.error > table.tolerance) & np.bool_(facts.half_precision)
    updates, updates_worst = (np.where(stalls, np.nan, x) for x in (updates, updates_worst))
    return [
        {
            "index": layer.index,
            "name": layer.name,
            "channels": layer.channels,
            "momentum": rounded(table.momentum[i]),
            "momentum_effective": number(table.effective[i]),
            "epsilon": layer.epsilon,
            "axis": layer.axis,
            "kind": layer.kind,
            "order": layer.order,
            "state": table.state[i],
            "updates": None if np.isnan(table.updates[i]) else int(table.updates[i]),
            "distance": number(table.distance[i]),
            "distance_p95": number(table.distance_p95[i]),
            "steps_to_converge": _steps(float(updates[i])),
            "steps_to_converge_worst": _steps(float(updates_worst[i])),
            "steps_interval": _interval(table.converge_low[i], table.converge_high[i]),
            "steps_reliable": bool(np.isfinite(table.error[i]) and not np.isnan(table.converge_low[i])),
            "steps_reason": STALLS if stalls[i] else table.reason(i),
            "error_p95": number(table.error[i]),
            "error_max": number(table.error_max[i]),
            "error_renewed": number(table.standing[i]),
            "mean_error": number(mean_error[i]),
            "variance_ratio": number(ratio[i]),
            "noise_mean": number(table.noise_mean[i]),
            "drift": number(table.rate[i]),
            "permanent_lag": number(table.permanent_lag[i]),
            "worst_channel": None if np.isnan(worst[i]) else int(worst[i]),
            "attribution": number(table.attribution[i]),
            "replayed": [{"momentum": m, "distance": rounded(v[i])} for m, v in replays.items() if np.isfinite(v[i])],
            "findings": blamed.get(i, []),
        }
        for i, layer in enumerate(history.manifest.layers)
    ]

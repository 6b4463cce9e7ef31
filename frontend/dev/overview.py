"""The `overview` of a synthetic run: what the rules and the report would say of it."""

from __future__ import annotations

import numpy as np
from fixture import TOLERANCE, Run

from tb_bnlens.metadata import REPLAY_MOMENTA, replay_row

FIX = """from keras.layers import BatchNormalization

for layer in model._flatten_layers():
    if isinstance(layer, BatchNormalization):
        layer.momentum = 0.9
model.compile(...)  # the momentum is baked into the step"""


def overview(run: Run) -> dict:
    losses = {k: float(v[-1]) for k, v in run.losses().items()}
    layers = [layer_report(run, i, losses) for i in range(len(run.layers))]
    broken = losses["inference"] > 3 * losses["batch"]
    slowest = max(layer["steps_to_converge"] for layer in layers)
    last = int(run.steps[-1])
    times = round(losses["inference"] / losses["batch"])
    verdict = (
        f"Inference is {times:,}x worse than training mode, on the same batch and weights (step {last}). "
        f"{len(layers)} of {len(layers)} BatchNorm layers still remember their start: momentum {run.momentum} needs "
        f"{slowest:,} more steps, this run had {last}. With momentum 0.9 inference would stand at "
        f"{losses['replay_0.9']:.2g} now (replayed)."
        if broken
        else f"Inference and training mode agree: {losses['inference']:.3g} against {losses['batch']:.3g} on the same "
        f"batch and weights (step {last})."
    )
    findings = [momentum_finding(run, layers, losses, slowest)] if broken else []
    return {
        "format": 1,
        "run": run.name,
        "verdict": verdict,
        "severity": "error" if broken else "none",
        "last_step": last,
        "losses": {
            "step": last,
            **{k: losses[k] for k in ("training", "batch", "inference", "recalibrated")},
            "dropout": losses["training"] - losses["batch"],
            "stale": losses["inference"] - losses["recalibrated"],
            "noise": losses["recalibrated"] - losses["batch"],
            "not_evaluated": {},
            "forecast": [
                {
                    "updates": n,
                    "loss": losses["recalibrated"] + (losses["inference"] - losses["batch"]) * 0.999 ** (n * 3),
                }
                for n in (100, 300, 1000, 2000, 3000, 4500)
            ]
            if broken
            else [],
            "replayed": [{"momentum": b, "loss": losses[replay_row(b)]} for b in REPLAY_MOMENTA],
        },
        "findings": findings + others(broken),
        "layers": [{**layer, "findings": ["momentum-too-high"] if broken else []} for layer in layers],
        "events": [{"step": 0, "kind": "start", "text": "training begins", "layers": []}]
        + [{"step": s, "kind": "epoch", "text": "epoch ends", "layers": []} for s in range(10, last + 1, 10)]
        + ([{"step": 250, "kind": "learning_rate", "text": "0.01 to 0.0097", "layers": []}] if last > 250 else [])
        + ([{"step": 300, "kind": "recompile", "text": "compiled again", "layers": []}] if last > 300 else []),
        "notes": ["Per-channel snapshots are kept at 4 steps of the run."],
        "planned_steps": last,
        "batch_size": 100,
        "replicas": 1,
        "tolerance": TOLERANCE,
        "overhead": 0.0081,
        "records": len(run.steps),
        "probes": len(run.steps),
    }


def layer_report(run: Run, index: int, losses: dict[str, float]) -> dict:
    name = run.layers[index][0]
    beta, error = run.momentum, run.last("error_p95", index)
    values = run.channels[index][1]
    return {
        "index": index,
        "name": name,
        "channels": values.shape[2],
        "momentum": beta,
        "momentum_effective": None,
        "epsilon": 1e-3,
        "axis": -1,
        "kind": "BatchNormalization",
        "order": index,
        "state": "updating",
        "updates": int(run.steps[-1]),
        "distance": run.last("distance_rms", index),
        "distance_p95": run.last("distance_p95", index),
        "steps_to_converge": int(run.converge(error)),
        "steps_to_converge_worst": int(run.converge(run.last("error_max", index))),
        "steps_reason": "",
        "error_p95": error,
        "error_max": run.last("error_max", index),
        "error_renewed": 0.0,
        "mean_error": run.last("mean_error_p95", index),
        "variance_ratio": run.last("moving_variance_gm", index) / run.last("batch_variance_gm", index),
        "noise_mean": 0.06,
        "drift": 0.0 if index % 3 else 2e-5,
        "permanent_lag": 0.0 if index % 3 else 2e-5 * beta / (1 - beta),
        "worst_channel": int(run.last("worst_channel", index)),
        "attribution": losses["batch"] * float(np.exp(6 * run.last("distance_rms", index) ** 2)),
        "replayed": [{"momentum": b, "distance": run.last(replay_row(b), index)} for b in REPLAY_MOMENTA],
        "findings": [],
    }


def momentum_finding(run: Run, layers: list[dict], losses: dict[str, float], slowest: int) -> dict:
    return {
        "rule": "momentum-too-high",
        "status": "fail",
        "severity": "error",
        "title": "Momentum too high for this run",
        "summary": f"All {len(layers)} updating layers shrink their error by the same factor {run.momentum} a step and "
        f"need {slowest:,} more steps; with fresh statistics the loss is {losses['recalibrated']:.3g} at once.",
        "description": "The moving statistics still remember how they were initialised.",
        "layers": [layer["name"] for layer in layers],
        "layer_indices": [layer["index"] for layer in layers if layer["index"] % 7 != 3],
        "first_step": 24,
        "last_step": int(run.steps[-1]),
        "steps_to_converge": slowest,
        "evidence": {
            "gap": {
                "label": "Inference over recalibrated loss",
                "value": losses["inference"] / losses["recalibrated"],
                "limit": 1.5,
                "unit": "x",
            },
            "start": {"label": "Start left in the statistics", "value": 67.0, "limit": 10.0, "unit": "%"},
            "contraction": {"label": "Error shrinks a step by", "value": 0.999, "limit": "momentum 0.999", "unit": ""},
        },
        "ruled_out": [
            {"cause": "drift", "reason": "slope of the batch means 0.00002 sd a step, within noise"},
            {"cause": "batch noise", "reason": "recalibrated is within 8% of batch mode"},
            {"cause": "frozen layers", "reason": "all 52 layers update"},
        ],
        "fix": FIX,
        "next": f"inference near {losses['replay_0.9']:.2g} by step 44, and steps to converge at 0 in every layer.",
        "silenced": False,
    }


def others(broken: bool) -> list[dict]:
    def finding(rule: str, status: str, severity: str, title: str, summary: str, **more: object) -> dict:
        blank: dict = {
            "rule": rule,
            "status": status,
            "severity": severity,
            "title": title,
            "summary": summary,
            "description": summary,
            "layers": [],
            "layer_indices": [],
            "first_step": None,
            "last_step": None,
            "steps_to_converge": None,
            "evidence": {},
            "ruled_out": [],
            "fix": "",
            "next": "",
            "silenced": False,
        }
        return {**blank, **more}

    made = [
        finding(
            "non-finite", "pass", "none", "All moving statistics are finite", "0 channels of 9,272 are not finite."
        ),
        finding("never-updated", "pass", "none", "Every layer updates", "All layers changed since the start."),
        finding("drift", "pass", "none", "The batch statistics stand still", "Drift is within noise in every layer."),
        finding("frozen", "not_applicable", "none", "Frozen statistics fit the data", "No layer is frozen."),
        finding(
            "validation-shift",
            "not_evaluated",
            "none",
            "Validation data look like training data",
            "Pass validation_data to BNLens to have this judged.",
        ),
    ]
    if broken:
        made.insert(
            0,
            finding(
                "dead-channels",
                "fail",
                "info",
                "41 channels are constant",
                "41 of 9,272 channels have a batch variance at or below epsilon; ratios mean nothing there.",
                layers=["block_3_depthwise_BN", "block_4_depthwise_BN"],
                layer_indices=[10, 13],
                first_step=120,
                last_step=400,
                evidence={"share": {"label": "Constant channels", "value": 0.44, "limit": 20.0, "unit": "%"}},
            ),
        )
    return made

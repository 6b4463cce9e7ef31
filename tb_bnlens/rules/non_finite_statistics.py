"""A moving statistic that is NaN, infinite or a negative variance."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import Losses
from tb_bnlens.history import History
from tb_bnlens.rules import fixes, judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_evaluated, passed

META = Meta(
    id="non-finite-statistics",
    title="All moving statistics are finite",
    failure_title="Moving statistics that are not finite",
    description="One batch with NaN or infinity poisons a moving average for good: neither decays, so waiting and a "
    "lower momentum cannot help, while training mode, which never reads the averages, goes on as if nothing had "
    "happened.",
    requires=("losses", "layers", "history"),
    explains=(
        "train-inference-gap",
        "momentum-too-high",
        "warming-up",
        "drift",
        "frozen-mismatch",
        "inference-mode-layer",
        "never-updated",
        "momentum-too-low",
        "batch-noise",
    ),
)


def check(losses: Losses, layers: LayerTable, history: History) -> Finding:
    """Look for channels whose moving mean or variance cannot be computed with."""
    if not len(history.steps):
        return not_evaluated("No record of the layers yet.")
    ever = np.nan_to_num(history.row("channels_nonfinite")) > 0
    bad = layers.nonfinite > 0
    if not bad.any():
        healed = " They were not at some earlier step." if ever.any() else ""
        return passed(f"Every channel of {judging.count(len(layers.names))} is finite.{healed}")
    first = int(history.steps[int(ever.any(1).argmax())])
    batch = losses.now.get("batch", math.nan)
    channels = int(layers.nonfinite.sum())
    where = judging.names_words([layers.names[i] for i in judging.layers_of(bad)])
    summary = (
        f"{judging.count(channels, 'channel')} of {judging.count(int(bad.sum()))} ({where}) "
        f"hold{'s' if channels == 1 else ''} a moving statistic that is not finite, since step {first:,}."
    )
    ruled_out: tuple[tuple[str, str], ...] = ()
    # Where the batch-mode loss is lost too, the network itself has diverged and the statistics only show it.
    if losses.diverged:
        summary += " The loss in training mode is not finite either: training diverged, and the statistics show it."
    elif math.isfinite(batch):
        summary += f" Training mode does not read them and stands at {judging.number(batch)}."
        ruled_out = (("diverged weights", f"the batch-mode loss is finite, {judging.number(batch)}"),)
    gap = losses.gap("inference", "batch")
    harmless = gap.known and math.isfinite(gap.value) and not losses.diverged
    severity = judging.severity_of(gap) if harmless else Severity.ERROR
    window = np.nan_to_num(history.row("window_nonfinite")) > 0
    evidence = {
        "channels": Evidence("channels with a statistic that is not finite", channels, 0),
        "first_step": Evidence("first seen at step", first),
    }
    if window.any():
        when = int(history.steps[int(window.any(1).argmax())])
        evidence["batch_step"] = Evidence("batch statistics not finite by step", when)
    return Finding(
        Status.FAIL,
        summary,
        max((severity, Severity.INFO), key=lambda s: -s.rank),
        layers=judging.layers_of(bad),
        first_step=first,
        last_step=int(history.steps[-1]),
        steps_to_converge=math.inf,
        evidence=evidence,
        ruled_out=(
            *ruled_out,
            ("waiting, or a lower momentum", "NaN and infinity times any momentum stay what they are"),
        ),
        fix="import numpy as np\n\n"
        + fixes.at_layers(
            [history.manifest.layers[i].access for i in judging.layers_of(bad)],
            "layer.moving_mean.assign(np.zeros(layer.moving_mean.shape))\n"
            "    layer.moving_variance.assign(np.ones(layer.moving_variance.shape))",
        )
        + "\n"
        + fixes.RECALIBRATE,
        next="The statistics stay finite. If they do not, look for the batch: NaN, infinity or values far too large "
        f"in the input by step {first:,}.",
    )

"""Replicas whose moving statistics differ by more than batch noise."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.lag import NOISE_SIGMAS, LayerTable
from tb_bnlens.analysis.loss_gap import Losses
from tb_bnlens.analysis.noise import noise_floor
from tb_bnlens.history import Manifest
from tb_bnlens.rules import fixes, judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, not_evaluated, passed

META = Meta(
    id="replica-spread",
    title="Replicas agree on their statistics",
    failure_title="Replicas keep moving statistics that differ",
    description="Each replica normalizes with its own share of the batch and keeps moving statistics of its own. Apart "
    "from batch noise they agree when all replicas see alike data.",
    requires=("manifest", "losses", "layers"),
    explains=("train-inference-gap", "batch-noise"),
)


def check(manifest: Manifest, losses: Losses, layers: LayerTable) -> Finding:
    """Compare the spread over replicas with the noise floor of a replica's own batches."""
    if manifest.replicas < 2:
        return not_applicable("There is one replica.")
    if np.isnan(layers.replica_spread).all():
        return not_evaluated("The replicas' statistics could not be read.")
    share = (manifest.batch_size or manifest.replicas) / manifest.replicas
    # One sample a channel is the least there can be, so this bounds the noise where it was not measured.
    single = np.fmax(layers.noise_mean * math.sqrt(manifest.replicas), 1.0 / math.sqrt(max(share, 1.0)))
    expected = NOISE_SIGMAS * noise_floor(np.where(np.isnan(single), 1.0, single), layers.beta)
    apart = layers.replica_spread > np.maximum(expected, layers.tolerance)
    largest = robust.largest(layers.replica_spread)
    if not apart.any():
        return passed(f"Replicas differ by {largest:.2g} standard deviations at most, which is batch noise.")
    severity = judging.severity_or_estimate(
        losses, judging.severity_of(losses.gap("inference", "batch")), layers.replica_spread, apart
    )
    severity = Severity.INFO if severity is Severity.NONE else severity
    headline = (
        f"The moving means of {judging.count(int(apart.sum()))} differ by up to {judging.number(largest)} standard "
        f"deviations "
        f"between {manifest.replicas} replicas: they do not see alike data."
    )
    return Finding(
        Status.FAIL,
        headline + judging.estimate_note(losses),
        severity,
        layers=judging.layers_of(apart),
        last_step=losses.step,
        evidence={"spread": Evidence("spread over replicas", largest, robust.largest(expected))},
        ruled_out=(("batch noise", f"it would make {judging.number(robust.largest(expected) / NOISE_SIGMAS)} of it"),),
        fix=fixes.shuffle(manifest.batch_size)
        + "# Or BatchNormalization(synchronized=True) in place of each layer, so that all replicas share one batch.\n",
        next="The spread falls to batch noise.",
        headline=headline,
    )

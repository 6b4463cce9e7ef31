"""Channels whose batch variance is at or below epsilon."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.rules import judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, passed

META = Meta(
    id="collapsed-channels",
    title="Channels vary",
    failure_title="Dead or constant channels",
    description="A channel whose batch variance is at or below epsilon is constant or nearly so: epsilon, not the "
    "data, "
    "sets its scale, and ratios of its statistics mean nothing.",
    requires=("layers",),
)

LEAST_SHARE = 0.05
"""Share of a layer's channels from which it is worth a note: a layer's figures are 95th percentiles over its channels,
so fewer cannot decide one, and from here on the layer is judged by channels whose scale epsilon sets."""


def check(layers: LayerTable) -> Finding:
    """Count them."""
    if not layers.names:
        return not_applicable("The model has no BatchNorm layers.")
    many = layers.collapsed >= np.maximum(1.0, LEAST_SHARE * layers.channels)
    total = int(layers.collapsed.sum())
    if not many.any():
        return passed(f"{judging.count(total, 'channel')} of {int(layers.channels.sum()):,} at or below epsilon.")
    inside = int(layers.collapsed[many].sum())
    return Finding(
        Status.FAIL,
        f"{judging.count(inside, 'channel')} of {int(layers.channels[many].sum()):,} in "
        f"{judging.count(int(many.sum()))} "
        "hardly vary (batch variance at or below epsilon). Epsilon, not the data, sets their scale.",
        Severity.INFO,
        layers=judging.layers_of(many),
        evidence={
            "share": Evidence(
                "largest share of a layer's channels", float(np.max(layers.collapsed / layers.channels)), LEAST_SHARE
            )
        },
    )

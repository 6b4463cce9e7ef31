"""Channels whose batch variance is at or below epsilon."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.in_batches import COLLAPSED_SHARE
from tb_bnlens.diagnosis.words.phrases import be, count
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def failed(f: Facts, d: Decision) -> Said:
    """How many channels of how many layers."""
    where = list(d.layers)
    n, total = int(f.layers.collapsed[where].sum()), int(f.layers.channels[where].sum())
    return Said(
        f"{n:,} of {count(total, 'channel')} in {count(len(where))} {be(n)} nearly constant: the batch variance is at "
        "or below epsilon.",
        evidence={
            "share": Evidence(
                "largest share of a layer's channels",
                float(np.max(f.layers.collapsed / f.layers.channels)),
                COLLAPSED_SHARE,
            )
        },
    )


WORDS = Words(
    name="constant channels",
    title="Channels vary",
    failure_title="Dead or constant channels",
    description="A channel whose batch variance is at or below epsilon is nearly constant. Epsilon, not the data, sets "
    "its scale, and ratios of its statistics mean nothing.",
    absent="The model has no BatchNorm layers.",
    passed=lambda f, _: (
        f"{count(int(f.layers.collapsed.sum()), 'channel')} of {int(f.layers.channels.sum()):,} at or below epsilon."
    ),
    failed=failed,
)

"""Channels whose batch variance is at or below epsilon."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.in_batches import COLLAPSED_SHARE, one_value
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import be, count
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def failed(f: Facts, d: Decision) -> Said:
    """How many channels of how many layers, and whether it is the batch that leaves them no variance."""
    where = list(d.layers)
    n, total = int(f.layers.collapsed[where].sum()), int(f.layers.channels[where].sum())
    alone = one_value(f)
    summary, fix, next_ = _constant(n, total, len(where)), "", ""
    if alone.any():
        layers, channels = int(alone.sum()), int(f.layers.channels[alone].sum())
        summary = (
            f"A batch of one row gives each of {count(channels, 'channel')} in {count(layers)} one value. Its variance "
            f"is 0, so in training {'this layer puts' if layers == 1 else 'these layers put'} out the same whatever "
            f"comes in, and nothing is learned through {'it' if layers == 1 else 'them'}. At inference other "
            "statistics are in their place."
        )
        if n > channels:
            summary += f" In all, {_constant(n, total, len(where))}"
        fix = code.larger_batches(f, 16, groups=1)
        next_ = "The loss with batch statistics falls, and inference follows it."
    return Said(
        summary,
        evidence={
            "share": Evidence(
                "nearly constant channels of a layer, largest share",
                float(np.max(f.layers.collapsed / f.layers.channels)),
                COLLAPSED_SHARE,
            )
        },
        fix=fix,
        next=next_,
    )


def _constant(n: int, total: int, layers: int) -> str:
    return (
        f"{n:,} of {count(total, 'channel')} in {count(layers)} {be(n)} nearly constant: the batch variance is at or "
        "below epsilon."
    )


WORDS = Words(
    name="constant channels",
    title="Channels vary",
    failure_title="Dead or constant channels",
    description="A channel whose batch variance is at or below epsilon is nearly constant. Epsilon, not the data, sets "
    "its scale, and ratios of its statistics mean nothing. After a dense layer or a pooling over the whole image, a "
    "batch of one row leaves every channel so.",
    absent="The model has no BatchNorm layers.",
    passed=lambda f, _: (
        f"{count(int(f.layers.collapsed.sum()), 'channel')} of {int(f.layers.channels.sum()):,} at or below epsilon."
    ),
    failed=failed,
)

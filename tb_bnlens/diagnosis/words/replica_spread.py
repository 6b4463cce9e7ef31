"""Replicas whose moving statistics differ by more than batch noise."""

from __future__ import annotations

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import count, number
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def failed(f: Facts, d: Decision) -> Said:
    """How far the replicas lie apart."""
    largest = robust.largest(f.layers.replica_spread)
    return Said(
        f"The moving means of {count(len(d.layers))} differ by up to {number(largest)} standard deviations between "
        f"{f.manifest.replicas} replicas, so the replicas see unlike data.",
        evidence={"spread": Evidence("spread over replicas", largest, robust.largest(f.replica_noise))},
        fix=code.shuffle(f, f.manifest.batch_size)
        + "# Or BatchNormalization(synchronized=True) in place of each layer, so that all replicas share one batch.\n",
        next="The spread falls to what batch noise explains.",
    )


WORDS = Words(
    name="replicas that differ",
    title="Replicas agree on their statistics",
    failure_title="Replicas keep different moving statistics",
    description="Each replica normalizes with its own share of the batch and keeps its own moving statistics. Apart "
    "from batch noise they agree when all replicas see data of one kind.",
    absent="There is one replica.",
    unknown=lambda _: "The replicas' statistics could not be read.",
    passed=lambda f, _: (
        f"Replicas differ by at most {number(robust.largest(f.layers.replica_spread))} standard deviations; batch "
        f"noise explains {number(robust.largest(f.replica_noise))}."
    ),
    failed=failed,
)

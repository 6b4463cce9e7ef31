"""Replicas whose moving statistics differ by more than batch noise."""

from __future__ import annotations

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import STANDARD, count, number
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def failed(f: Facts, d: Decision) -> Said:
    """How far the replicas lie apart."""
    largest = robust.largest(f.layers.replica_spread)
    if f.in_torch:
        return _ranks(f, d, largest)
    return Said(
        f"The moving means of {count(len(d.layers))} differ by up to {number(largest)} standard deviations between "
        f"{f.manifest.replicas} replicas, so the replicas see unlike data.",
        evidence=_spread(f, largest, "spread of the moving means over the replicas"),
        fix=code.shuffle(f, f.manifest.batch_size)
        + "# Or BatchNormalization(synchronized=True) in place of each layer, so that all replicas share one batch.\n",
        next="The spread falls to what batch noise explains.",
    )


def _ranks(f: Facts, d: Decision, largest: float) -> Said:
    """DistributedDataParallel copies the buffers of rank 0 to the others, whose data never enter the statistics."""
    worst = max(range(len(f.manifest.ranks)), key=lambda r: _gap(f, r), default=0)
    evidence = _spread(f, largest, "spread of the ranks' batch means")
    for rank, (inference, batch) in enumerate(f.manifest.ranks):
        label = f"loss on rank {rank} with the statistics of rank 0"
        evidence[f"rank_{rank}"] = Evidence(label, inference, batch, against="with its own")
    told = ""
    if f.manifest.ranks:
        inference, batch = f.manifest.ranks[worst]
        told = f" On rank {worst} their loss is {number(inference)}; with batch statistics it is {number(batch)}."
    return Said(
        f"The batch means of {count(len(d.layers))} differ by up to {number(largest)} standard deviations between "
        f"{f.manifest.replicas} ranks, so the ranks see unlike data. The statistics that are saved are those of rank 0."
        f"{told}",
        evidence=evidence,
        fix="import torch\n\n"
        "# All ranks share one batch (before DistributedDataParallel):\n"
        "model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)\n"
        "# And let a DistributedSampler with shuffle=True hand out the rows, so that every rank sees all kinds.\n",
        next="The losses of all ranks agree, and the spread falls to what batch noise explains.",
    )


def _spread(f: Facts, largest: float, label: str) -> dict[str, Evidence]:
    return {"spread": Evidence(label, largest, robust.largest(f.replica_noise), STANDARD, "from batch noise")}


def _gap(f: Facts, rank: int) -> float:
    inference, batch = f.manifest.ranks[rank]
    return inference - batch


WORDS = Words(
    name="replicas that differ",
    title="Replicas agree on their statistics",
    failure_title="Replicas keep different moving statistics",
    description="Each replica normalizes with its own share of the batch and keeps its own moving statistics. Apart "
    "from batch noise they agree when all replicas see data of one kind.",
    in_torch={
        "name": "ranks that differ",
        "title": "Ranks see data of one kind",
        "failure_title": "Ranks see unlike data, and the statistics are those of rank 0",
        "description": "Each rank normalizes with its own share of the batch. DistributedDataParallel copies the "
        "buffers of rank 0 to the others at each forward pass, so that the running statistics are of its data alone.",
        "absent": "There is one rank, or the others had no recorder.",
    },
    absent="There is one replica.",
    unknown=lambda _: "The replicas' statistics could not be read.",
    passed=lambda f, _: (
        f"Replicas differ by at most {number(robust.largest(f.layers.replica_spread))} standard deviations; batch "
        f"noise explains {number(robust.largest(f.replica_noise))}."
    ),
    failed=failed,
)

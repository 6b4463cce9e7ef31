"""Ranks of distributed training: what rank 0 records against what the others see, without a collective call.

Ranks talk through the key-value store that ``init_process_group`` has made, and wait a limited time. A recorder on rank
0 alone finds no others and continues by itself.
"""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tb_bnlens.capture.passes import moments_of
from tb_bnlens.capture.reservoir import Kept
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.segments import Segments
from tb_bnlens.moments.statistics import BatchMoments

PATIENCE = 20.0
"""Seconds that one rank waits for another at the end of training; the passes of small batches take less."""
POLL = 0.02
MOST = 8
"""Batches of a rank that are measured."""
_made: Counter[str] = Counter()


@dataclass(frozen=True)
class Seen:
    """What the batches of one rank say of the statistics of rank 0."""

    inference: float
    """Mean loss with those statistics."""
    batch: float
    """Mean loss with batch statistics."""
    mean: Any
    """Mean of the batch means, [C_total]."""
    noise: Any
    """Its variance from one draw of batches to another, [C_total]."""


class Ranks:
    """The ranks that record in one directory.

    Args:
        log_dir: of the record, the same on every rank.
    """

    def __init__(self, log_dir: str):
        dist = torch.distributed
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._store = dist.distributed_c10d._get_default_store()
        _made[log_dir] += 1
        self._prefix = f"bn_lens/{log_dir}/{_made[log_dir]}"
        self._store.set(self._key("here", self.rank), "1")

    @staticmethod
    def of(log_dir: str) -> Ranks | None:
        """The ranks of this training; None where it is not distributed."""
        dist = torch.distributed
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        return Ranks(log_dir) if several else None

    def others(self) -> list[int]:
        """Ranks beside this one that have a recorder."""
        return [r for r in range(self.size) if r != self.rank and self._store.check([self._key("here", r)])]

    def publish(self, what: str, **arrays: Any) -> None:
        """Let the other ranks have some arrays under a name."""
        file = io.BytesIO()
        np.savez(file, **arrays)
        self._store.set(self._key(what, self.rank), file.getvalue())

    def leave(self) -> None:
        """Let no other rank wait for more of this one."""
        self._store.set(self._key("left", self.rank), "1")

    def fetch(self, what: str, rank: int, until: float) -> dict[str, Any] | None:
        """What a rank has published under a name.

        None where it has left without, or has not by then, in seconds of the monotonic clock.
        """
        key, left = self._key(what, rank), self._key("left", rank)
        while True:
            is_over = self._store.check([left]) or time.monotonic() > until
            if self._store.check([key]):
                break
            if is_over:
                return None
            time.sleep(POLL)
        with np.load(io.BytesIO(self._store.get(key)), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}

    def _key(self, what: str, rank: int) -> str:
        return f"{self._prefix}/{what}/{rank}"


def seen_by(adapter: Any, kept: Sequence[Kept], moving: Moments) -> Seen:
    """Measure what some batches of this rank make of statistics.

    Args:
        adapter: the model, the same on every rank.
        kept: batches of this rank, at least one.
        moving: statistics of rank 0.
    """
    layers = adapter.layers()
    runner = adapter.runner(layers, Segments([t.channels for t in layers]))
    chosen = [kept[i * len(kept) // min(len(kept), MOST)] for i in range(min(len(kept), MOST))]
    sizes = [k.size for k in chosen]
    inference = [runner.inference(k.batch, moving).loss for k in chosen]
    outcomes = [runner.batch(k.batch, moving) for k in chosen]
    moments = BatchMoments([moments_of(o) for o in outcomes], sizes)
    count = len(chosen)
    noise = np.var(moments.means, axis=0, ddof=1) / count if count > 1 else np.zeros(moments.means.shape[1])
    return Seen(
        inference=float(np.average(inference, weights=sizes)),
        batch=float(np.average([o.loss for o in outcomes], weights=sizes)),
        mean=moments.mean().mean,
        noise=noise,
    )


def apart(seen: Sequence[Seen], segments: Segments) -> Any:
    """Mean statistics of the ranks' data, less the differences that the draw of batches explains, [ranks, C_total].

    Args:
        seen: of each rank.
        segments: the layers; a layer's channels are judged together.
    """
    means = np.stack([s.mean for s in seen])
    middle = means.mean(axis=0)
    between = segments.sum(np.var(means, axis=0, ddof=1))
    noise = segments.sum(np.mean([s.noise for s in seen], axis=0))
    with np.errstate(all="ignore"):
        left = np.sqrt(np.clip(1 - noise / between, 0.0, 1.0))
    return middle + segments.per_channel(np.nan_to_num(left)) * (means - middle)

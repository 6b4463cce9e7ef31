"""One of two processes that ask each other in losses: ``python -m tests.frameworks.torch_gathers RANK DIR``."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed.nn.functional
from torch.distributed import _functional_collectives as functional

from tb_bnlens.torch import Recorder
from tests.frameworks.torch_runs import LOSS, batches, record_of, small, state

nn: Any = torch.nn
dist: Any = torch.distributed
STEPS = 6


def gathered(x: Any) -> Any:
    parts = [torch.zeros_like(x) for _ in range(2)]
    dist.all_gather(parts, x.detach())
    return torch.cat(parts).mean()


def raw(x: Any) -> Any:
    found = x.detach().clone()
    dist.distributed_c10d._get_default_group().allreduce([found]).wait()
    return found.mean()


def of_backend(x: Any) -> Any:
    found = x.detach().clone()
    dist.distributed_c10d._get_default_group()._get_backend(found.device).allreduce([found]).wait()
    return found.mean()


def of_objects(x: Any) -> Any:
    found: list[Any] = [None, None]
    dist.all_gather_object(found, float(x.detach().mean()))
    return sum(found)


def caught(x: Any) -> Any:
    try:
        return raw(x)
    except Exception:
        return x.detach().mean()


def told(x: Any) -> Any:
    dist.barrier()
    return x.detach().mean()


def stored(x: Any) -> Any:
    store = dist.distributed_c10d._get_default_store()
    store.set("part", "0.5")
    return float(store.get("part")) * x.detach().mean()


def grouped(x: Any) -> Any:
    dist.new_group([0, 1])
    return x.detach().mean()


def sent(x: Any) -> Any:
    found = x.detach().mean()
    dist.send(found, 1) if dist.get_rank() == 0 else dist.recv(found, 0)
    return found


CALLS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "all_gather": (gathered, "all_gather"),
    "all_reduce of torch.distributed.nn": (lambda x: dist.nn.functional.all_reduce(x).mean(), "all_reduce"),
    "a functional one": (lambda x: functional.all_reduce(x.detach(), "sum", dist.group.WORLD).mean(), "all_reduce"),
    "that of a group": (raw, "all_reduce"),
    "that of a backend": (of_backend, "allreduce of the backend"),
    "objects": (of_objects, "all_gather"),
    "barrier": (told, "barrier"),
    "a store": (stored, "set of Store"),
    "a new group": (grouped, "new_group"),
    "send": (sent, "send"),
    "one that is caught": (caught, "all_reduce"),
}


class Asking(nn.Module):  # type: ignore[misc, name-defined]
    """Calls something on its output."""

    def __init__(self, call: Callable[[Any], Any]):
        super().__init__()
        self.net, self.call = small(0.1), call

    def forward(self, x: Any) -> Any:
        out = self.net(x)
        return out * (1 + 0.01 * self.call(out))


def asking(call: Callable[[Any], Any], predictions: Any, target: Any) -> Any:
    return LOSS(predictions, target) * (1 + 0.01 * call(predictions))


class Around(nn.Module):  # type: ignore[misc, name-defined]
    """Holds a part that sends its buffers in each forward pass in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.parallel.DistributedDataParallel(small(0.1))

    def forward(self, x: Any) -> Any:
        return self.net(x)


class Synced:
    """As a metric of torchmetrics."""

    def __init__(self) -> None:
        self.sync_on_compute, self.sum = True, torch.zeros(())

    def reset(self) -> None:
        self.sum = torch.zeros(())

    def update(self, predictions: Any, target: Any) -> None:
        self.sum = self.sum + (predictions - target).abs().mean()

    def compute(self) -> float:
        if self.sync_on_compute:
            dist.all_reduce(self.sum)
        return float(self.sum)


def train(model: Any, loss: Any, where: Path | None, metrics: Any = None) -> dict[str, Any]:
    """Train; the weights and buffers, and what the record says of the losses."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    lens = None
    if where is not None:
        options = {"overhead": math.inf, "verbose": 0, "on_error": "raise", "metrics": metrics}
        lens = Recorder(model, str(where), loss, **options)
    for x, y in batches(STEPS, seed=dist.get_rank(), size=8):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        if lens is not None:
            lens.record(x, y)
    if lens is not None:
        lens.close()
    ends = {name: value.tolist() for name, value in state(model).items()}
    if where is None or dist.get_rank():
        return {"state": ends}
    record = record_of(where)
    measured = {name: kind.metrics for name, kind in record.evidence[-1].passes.items()} if record.evidence else {}
    return {"state": ends, "why": record.manifest.not_evaluated.get("losses", ""), "measured": measured}


def kinds() -> dict[str, tuple[Callable[[], Any], Any, Any]]:
    """Name -> how the model is made, the loss, and metrics."""
    found: dict[str, tuple[Callable[[], Any], Any, Any]] = {}
    for name, (call, _) in CALLS.items():
        found[f"{name} in the model"] = partial(Asking, call), LOSS, None
        found[f"{name} in the loss"] = partial(small, 0.1), partial(asking, call), None
    found["a part in DDP"] = (Around, LOSS, None)
    found["metrics"] = (lambda: nn.parallel.DistributedDataParallel(small(0.1)), LOSS, {"error": Synced()})
    return found


def main(rank: int, where: Path) -> None:
    torch.set_num_threads(1)
    limit = timedelta(seconds=30)
    dist.init_process_group("gloo", init_method=f"file://{where / 'store'}", rank=rank, world_size=2, timeout=limit)
    ends: dict[str, Any] = {}
    for i, (name, (build, loss, metrics)) in enumerate(kinds().items()):
        for recorded in (False, True):
            torch.manual_seed(0)
            directory = where / f"log{i}" if recorded else None
            ends.setdefault(name, []).append(train(build(), loss, directory, metrics))
    (where / f"{rank}.json").write_text(json.dumps(ends))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(int(sys.argv[1]), Path(sys.argv[2]))

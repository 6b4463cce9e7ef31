"""One of two processes that train together: ``python -m tests.frameworks.torch_ranks RANK STORE LOG_DIR SHIFT``."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import torch

from tb_bnlens.torch import Recorder
from tests.frameworks.torch_runs import LOSS, batches, small, state


def main(rank: int, store: str, log_dir: str, shift: float) -> None:
    torch.set_num_threads(1)
    dist = torch.distributed
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model: Any = torch.nn.parallel.DistributedDataParallel(small(0.1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    lens = Recorder(model, log_dir, LOSS, planned_steps=60, on_error="raise") if log_dir != "-" else None
    for x, y in batches(60, seed=rank):
        optimizer.zero_grad()
        LOSS(model(x + rank * shift), y).backward()
        optimizer.step()
        if lens is not None:
            lens.record(x + rank * shift, y)
    if lens is not None:
        lens.close()
    np.savez(f"{store}.{rank}.npz", **state(model))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]))

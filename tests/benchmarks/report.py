"""CPU time of the report on a large run: ``python -m tests.benchmarks.report``.

The tab recomputes the report whenever a run has grown, so it should take well below 100 ms.
"""

from __future__ import annotations

import time

import numpy as np

from tb_bnlens.history import History, Layer, Manifest
from tb_bnlens.metadata import LAYER_INDEX, LAYER_ROWS, LOSS_INDEX, LOSS_ROWS, PROBES
from tb_bnlens.report import run_report

RUNS = 20


def large_history(records: int, layers: int) -> History:
    """Random records of layers that are updated, with an inference loss far above the others."""
    rng = np.random.default_rng(0)
    table = rng.random((records, layers, len(LAYER_ROWS)), np.float32)
    table[:, :, LAYER_INDEX["state"]] = 1
    table[:, :, LAYER_INDEX["updates"]] = np.arange(1, records + 1)[:, None]
    table[:, :, LAYER_INDEX["channels_nonfinite"]] = 0
    table[:-1, :, LAYER_INDEX["noise_mean"]] = np.nan
    losses = rng.random((records // 5, len(PROBES), len(LOSS_ROWS)), np.float32) + 1
    losses[:, 0, LOSS_INDEX["inference"]] += 100
    steps = np.arange(1, records + 1)
    manifest = Manifest(tuple(Layer(i, f"bn_{i}", 64, 0.999, 1e-3) for i in range(layers)), planned_steps=records)
    return History("large", manifest, steps, steps.astype(float), table, steps[::5], steps[::5].astype(float), losses)


def main() -> None:
    """Print the least, median and largest CPU time of the report, for two sizes."""
    for records, layers in ((500, 50), (2000, 200)):
        history = large_history(records, layers)
        run_report(history)
        taken = []
        for _ in range(RUNS):
            began = time.process_time()
            run_report(history)
            taken.append(1e3 * (time.process_time() - began))
        low, median, high = np.quantile(taken, (0, 0.5, 1))
        print(f"{layers} layers, {records:,} records: {median:.0f} ms ({low:.0f} to {high:.0f})")


if __name__ == "__main__":
    main()

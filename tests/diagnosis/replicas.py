"""Run by ``test_replicas``: two replicas that see data of two kinds, and the printed fix applied."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tb_bnlens.reader import open_logdir, read_run
from tb_bnlens.report import run_report
from tb_bnlens.report.schema import Overview
from tests.diagnosis.real_runs import blobs, compiled, dense, fit

SHARE = 32
"""Samples of a batch that each of two replicas gets: the first half is one's, the second the other's."""


def halves() -> Any:
    kinds = blobs(1024), blobs(1024, seed=1, shift=4, scale=2)
    parts = [[part.reshape(-1, SHARE, *part.shape[1:]) for part in kind] for kind in kinds]
    joined = tuple(np.concatenate(pair, 1).reshape(-1, *pair[0].shape[2:]) for pair in zip(*parts, strict=True))
    return tf.data.Dataset.from_tensor_slices(joined).batch(2 * SHARE)


def trained(strategy: Any, directory: Path, data: Any) -> Overview:
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = compiled(dense(0.9))
    # What a replica normalizes is its share of a batch: this is the second's, and it is the first's statistics that
    # the model is read by.
    x, y = next(iter(data.unbatch().batch(SHARE).skip(1)))
    fit(str(directory / "run"), model, data, probe_data=(x.numpy(), y.numpy()))
    return run_report(read_run(open_logdir(str(directory)), "", "run"))


def main(directory: Path) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    faulty = trained(strategy, directory / "faulty", halves())
    fix = next(f["fix"] for f in faulty["findings"] if f["rule"] == "replica-spread")
    scope = {"data": halves()}
    exec(compile(fix, "replica-spread", "exec"), scope)
    print(json.dumps([faulty, trained(strategy, directory / "repaired", scope["data"])]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

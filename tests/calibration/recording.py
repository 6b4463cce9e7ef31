"""Record sets of trainings into a folder, once; constants are then fitted to them without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tests.calibration.trainings import CALIBRATION, CALIBRATION_2, CALIBRATION_3, TEST, Training, record

SETS: Mapping[str, tuple[Mapping[str, Training], int]] = {
    "calibration": (CALIBRATION, 0),
    "calibration_2": (CALIBRATION_2, 1),
    "calibration_3": (CALIBRATION_3, 2),
    "test": (TEST, 2),
}
"""Name -> trainings and their seed. The constants of ``analysis.arrival`` were fitted to the first three alone."""


def record_set(name: str, folder: Path) -> Path:
    """Record every training of a set that the folder does not hold; returns the set's own folder.

    A training is ``LABEL.npz``, the truth, beside the lens' record in ``LABEL``.
    """
    trainings, seed = SETS[name]
    for label, training in trainings.items():
        run = folder / name / f"{label}-{seed}"
        truth = run.with_name(f"{run.name}.npz")
        if truth.exists():
            continue
        curves = record(training, str(run), seed)
        np.savez(truth, **curves)
        keras.backend.clear_session()
    return folder / name


def one_thread() -> None:
    """Operations this small take longer on several threads; before TensorFlow's first operation."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

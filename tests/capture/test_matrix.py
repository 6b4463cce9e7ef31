"""Every set-up of the matrix: training is what it was, and the record is true."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.capture.runs import (
    assert_clean,
    assert_same,
    assert_windows,
    evaluated,
    fit,
    lens,
    record,
    reference,
    spying,
    state,
)
from tests.capture.setups import SETUPS, Setup

VARIANTS = """
adam momentum_0 momentum_1 functional axis_1 mask_to_loss run_eagerly_dataset executions_of_2 executions_of_3
executions_of_3_endless executions_of_3_overshoot executions_of_3_jit bfloat16 ema metrics dropout_jit dropout_eager
dropout_executions_of_3 tensorflow_noise spectral_norm dataset dataset_shuffled py_dataset_ragged validation
lens_validation ragged last_batch_of_one momentum_0.999 executions_of_3_ragged tensorflow_noise_eager endless_dataset
mixed_float16 class_weight python_inside synchronized py_dataset regularizers
""".split()
"""Close to others of the matrix: with the slow tests, so that the rest stays at some ninety seconds."""


def marked(setup: Setup) -> object:
    return pytest.param(setup, id=setup.name, marks=[pytest.mark.slow] if setup.name in VARIANTS else [])


@pytest.mark.parametrize("setup", [marked(setup) for setup in SETUPS])
def test_matrix(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = state(fit(setup))
    with spying(monkeypatch) as seen:
        model = fit(setup, lens(tmp_path, **setup.lens))
    assert_clean(model)
    assert_same(without, state(model))

    read = record(tmp_path)
    assert not read.problems
    for name in setup.uncounted:
        assert any(name in note and "cannot be counted" in note for note in read.manifest.notes)
    inference = read.loss("inference")
    if setup.not_evaluated:
        assert re.search(setup.not_evaluated, read.manifest.not_evaluated["losses"])
        assert np.all(np.isnan(inference))
    else:
        assert not read.manifest.not_evaluated
        assert np.all(np.isfinite(inference)) and np.all(np.isfinite(read.loss("batch")))
        assert np.all(np.isfinite(read.loss("training")))
        assert read.loss_steps[-1] == read.steps[-1] if len(read.steps) else True
        assert inference[-1] == pytest.approx(evaluated(model, seen.batches[-1]), rel=1e-6)

    if setup.compare:
        again, listener = reference(setup, monkeypatch)
        assert_windows(setup, seen, again, listener)

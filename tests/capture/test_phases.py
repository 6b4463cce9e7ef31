"""Changes between training steps, several fits, and the end of a run."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_bnlens.history import History
from tests.capture import models
from tests.capture.runs import assert_same, assert_unharmed, evaluated, fit, lens, record, state
from tests.capture.setups import BATCH, DROPOUT, Setup, arrays, sgd
from tests.conftest import ROOT


def kinds(read: History) -> list[tuple[int, str]]:
    return [(event.step, event.kind) for event in read.manifest.events]


class AtEpochEnd(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self, action: Any) -> None:
        super().__init__()
        self.action = action

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.action(self.model)


class AtTrainEnd(AtEpochEnd):
    on_epoch_end = keras.callbacks.Callback.on_epoch_end

    def on_train_end(self, logs: Any = None) -> None:
        self.action(self.model)


def in_training_mode(model: Any) -> None:
    for _ in range(5):
        model(3.0 + arrays(BATCH, seed=2)[0], training=True)


# --- the state that is judged -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AtTrainEnd, AtEpochEnd])
def test_the_lens_looks_last(kind: Any, tmp_path: Path) -> None:
    """Wherever it is listed, its last losses are those of the model that the user holds."""
    setup = Setup("", models.functional)
    without = state(fit(setup, kind(in_training_mode)))
    for first in (True, False):
        directory = tmp_path / str(first)
        ours, company = lens(directory, probe_data=arrays(BATCH)), kind(in_training_mode)
        model = fit(setup, *((ours, company) if first else (company, ours)))
        assert_same(without, state(model))
        read = record(directory)
        assert read.loss("inference")[-1] == pytest.approx(evaluated(model, arrays(BATCH)), rel=1e-6)
        (last,) = [event for event in read.manifest.events if event.kind == "outside" and event.step == 8]
        assert last.layers == (0, 1) and max(last.amounts) > 0.1 and "while the weights stayed" in last.text
        assert not any("List it last" in note for note in read.manifest.notes)


def test_weights_that_are_put_back_are_no_updates(tmp_path: Path) -> None:
    early = keras.callbacks.EarlyStopping("loss", patience=0, restore_best_weights=True, min_delta=9)
    model = fit(DROPOUT, lens(tmp_path, probe_data=arrays(BATCH)), early, epochs=5)
    read = record(tmp_path)
    assert kinds(read) == [(0, "start"), (8, "replaced")]
    assert read.loss("inference")[-1] == pytest.approx(evaluated(model, arrays(BATCH)), rel=1e-6)
    assert (read.manifest.ended, read.manifest.ended_step, read.manifest.planned_steps) == ("early", 8, 20)


@pytest.mark.parametrize("overhead", [float("inf"), 0.01])
def test_nothing_is_said_of_ordinary_training(overhead: float, tmp_path: Path) -> None:
    averaged = Setup("", DROPOUT.model, compile={"optimizer": sgd(use_ema=True)})
    fit(DROPOUT, lens(tmp_path / "a", overhead=overhead), epochs=6)
    fit(averaged, lens(tmp_path / "b", overhead=overhead), keras.callbacks.SwapEMAWeights())
    assert kinds(record(tmp_path / "a")) == [(0, "start")]
    assert {kind for _, kind in kinds(record(tmp_path / "b"))} <= {"start", "averaged", "replaced"}


def test_windows_do_not_take_foreign_updates_for_batches(tmp_path: Path) -> None:
    """The recovered batch statistics are those of the training data, though a callback moves the moving ones."""
    plain, moved = record_of(tmp_path / "a"), record_of(tmp_path / "b", AtEpochEnd(in_training_mode))
    assert np.allclose(plain.last("batch_mean_rms")[0], moved.last("batch_mean_rms")[0], rtol=1e-3)
    assert moved.last("distance_rms")[0] > plain.last("distance_rms")[0] + 0.1


def record_of(directory: Path, *company: Any) -> History:
    inputs = keras.Input((models.FEATURES,))

    def model() -> Any:
        return keras.Model(inputs, keras.layers.Dense(1)(models.batch_norm("a")(inputs)))

    fit(Setup("", model), lens(directory), *company)
    return record(directory)


# --- several fits -------------------------------------------------------------------------------------------


def test_fits_of_one_network_are_phases(tmp_path: Path) -> None:
    """Compiled again, as every recipe of fine-tuning does, the optimizer counts from 0, and the record does not."""

    def trained(*callbacks: Any) -> dict[str, Any]:
        model = fit(DROPOUT, *callbacks)
        model.get_layer("a").trainable = False
        model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
        return state(fit(DROPOUT, *callbacks, model=model))

    assert_same(trained(), trained(lens(tmp_path)))
    read = record(tmp_path)
    assert [e for e in kinds(read) if e[1] != "freeze"] == [(0, "start"), (8, "fit"), (8, "recompile")]
    assert read.last_step == 16 and np.all(np.diff(read.steps) > 0) and read.steps[0] <= 1
    assert not read.problems and read.manifest.planned_steps == 16


def test_what_was_set_between_two_fits_is_an_event(tmp_path: Path) -> None:
    model = models.functional()
    model.get_layer("a").trainable = False
    setup = Setup("", lambda: model)
    fit(setup, lens(tmp_path))
    model.get_layer("a").trainable = True
    fit(setup, lens(tmp_path), model=model, epochs=1)
    assert kinds(record(tmp_path)) == [(0, "start"), (8, "fit"), (8, "unfreeze")]


@pytest.mark.parametrize("compiled", [False, True])
def test_what_was_set_before_the_first_recorded_fit_is_an_event(compiled: bool, tmp_path: Path) -> None:
    """The step of the first fit was traced for other weights, and its optimizer was built for these."""
    model = models.functional()
    model.get_layer("a").trainable = False
    setup = Setup("", lambda: model)
    fit(setup)
    model.get_layer("a").trainable = True
    if compiled:
        model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
    gamma = model.get_layer("a").gamma.numpy()
    fit(setup, lens(tmp_path), model=model, epochs=1)
    found = [e.layers for e in record(tmp_path).manifest.events if e.kind == "left_out"]
    assert found == ([] if compiled else [(0,)])
    assert np.array_equal(gamma, model.get_layer("a").gamma.numpy()) != compiled


def test_a_step_of_the_users_may_have_an_optimizer_for_each_part(tmp_path: Path) -> None:
    class Two(keras.Model):  # type: ignore[misc]
        def parts(self) -> tuple[list[Any], list[Any]]:
            first = self.get_layer("a").trainable_variables
            return first, [v for v in self.trainable_variables if not any(v is w for w in first)]

        def train_step(self, data: Any) -> dict[str, Any]:
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
            first, head = self.parts()
            gradients = tape.gradient(loss, [*first, *head])
            self.other.apply(gradients[: len(first)], first)
            self.optimizer.apply(gradients[len(first) :], head)
            return {"loss": loss}

    inner = models.functional()
    model = Two(inner.inputs, inner.outputs)
    model.other = keras.optimizers.SGD(0.01)
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
    model.optimizer.build(model.parts()[1])
    for _ in range(2):
        fit(Setup("", lambda: model), lens(tmp_path), model=model, epochs=1)
    assert not [e for e in record(tmp_path).manifest.events if e.kind == "left_out"]


def test_several_lenses_on_one_network_are_one_record(tmp_path: Path) -> None:
    model = fit(DROPOUT, lens(tmp_path))
    model.train_on_batch(*arrays(BATCH))
    fit(DROPOUT, lens(tmp_path), model=model)
    read = record(tmp_path)
    assert kinds(read) == [(0, "start"), (9, "fit")] and read.last_step == 17


def test_networks_that_share_a_directory_are_told_apart(tmp_path: Path) -> None:
    """Cross-validation, and the trials of a tuner."""
    ours = lens(tmp_path)
    for _ in range(3):
        assert_unharmed(fit(DROPOUT, ours))
    for run in ("run", "run/fit-2", "run/fit-3"):
        read = record(tmp_path, run)
        assert kinds(read) == [(0, "start")] and read.last_step == 8 and not read.problems
        assert (read.manifest.ended, read.manifest.ended_step) == ("planned", 8)


def test_batches_of_earlier_fits_are_kept(tmp_path: Path) -> None:
    from tb_bnlens.capture.phases import PHASES

    model = fit(DROPOUT, lens(tmp_path))
    phase = PHASES.phase(model, str(tmp_path / "run"), 8)
    assert phase.step == 8 and phase.fits == 1 and len(phase.batches) > 1
    fit(DROPOUT, lens(tmp_path), model=model, epochs=1)
    last = record(tmp_path).evidence[-1]
    assert last.batch_steps.tolist() == [7, 8, 9, 10, 11, 12] and last.batch_phases.tolist() == [0, 0, 1, 1, 1, 1]
    # Nothing of a network outlives it.
    ref = weakref.ref(model)
    del model, phase
    gc.collect()
    assert ref() is None


def test_batches_for_another_loss_are_let_go(tmp_path: Path) -> None:
    classes = np.arange(len(arrays()[0])) % 3
    inputs = keras.Input((models.FEATURES,))
    outputs = keras.layers.Dense(3, activation="softmax")(models.batch_norm("a")(inputs))
    model = keras.Model(inputs, outputs)
    for epochs, loss, y in (
        (2, "sparse_categorical_crossentropy", classes),
        (1, "categorical_crossentropy", np.eye(3, dtype=np.float32)[classes]),
    ):
        model.compile(keras.optimizers.SGD(0.01), loss, jit_compile=False)
        model.fit(arrays()[0], y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[lens(tmp_path)])
    read = record(tmp_path)
    assert "losses" not in read.manifest.not_evaluated
    assert read.evidence[-1].batch_steps.tolist() == [9, 10, 11, 12]
    assert "recombined" not in read.evidence[-1].not_evaluated


# --- the end ------------------------------------------------------------------------------------------------


def test_a_process_that_ends_in_an_exception(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import pathlib, sys
        from tests.capture.runs import fit, lens
        from tests.capture.setups import DROPOUT
        from tests.capture.test_fits import AtStep

        fit(DROPOUT, lens(pathlib.Path(sys.argv[1])), AtStep(5, lambda _: 1 / 0))
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert "ZeroDivisionError" in done.stderr
    assert (record(tmp_path).manifest.ended, record(tmp_path).manifest.ended_step) == ("interrupted", 5)

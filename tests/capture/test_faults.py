"""Whatever goes wrong in the lens, training ends where it would have ended, and the record says what is missing."""

from __future__ import annotations

import contextlib
import math
import random
import resource
import shutil
import subprocess
import sys
import textwrap
import types
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_bnlens.capture.batches import Batches
from tb_bnlens.capture.measure import Measurement
from tb_bnlens.capture.prober import Prober
from tb_bnlens.capture.recording import Recording
from tb_bnlens.frameworks.keras3.recorder import Recorder
from tb_bnlens.moments.windows import Windows
from tests.capture import models
from tests.capture.runs import assert_clean, assert_same, assert_unharmed, fit, lens, record, state
from tests.capture.setups import DROPOUT, Setup, arrays, dataset, from_arrays
from tests.capture.test_fits import AtStep
from tests.conftest import ROOT


@contextlib.contextmanager
def complaints() -> Iterator[list[str]]:
    """The lens's warnings."""
    heard: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield heard
    heard += [str(w.message) for w in caught if "BN Lens" in str(w.message)]


class Injected(Exception):
    """Nothing in the lens expects this one."""


class Injection:
    """Raises at one call between two functions of the package.

    No function is named: the calls of a first run say which there are. A call that comes from outside (a hook that
    Keras calls) is left out, since no code of the lens runs around it.

    Args:
        at: (function, how many of its calls go well) where to raise; None only counts.
    """

    def __init__(self, at: tuple[str, int] | None = None):
        self.at, self.raised = at, False
        self.calls: Counter[str] = Counter()

    def __enter__(self) -> Injection:
        self._before = sys.gettrace()  # coverage
        sys.settrace(self._on_call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _on_call(self, frame: types.FrameType, event: str, _: Any) -> None:
        # This is called for every function of Keras and TensorFlow too.
        if not _ours(frame) or event != "call":
            return
        caller = frame.f_back
        if caller is None or not _ours(caller):
            return
        name = f"{Path(frame.f_code.co_filename).stem}:{frame.f_code.co_firstlineno}:{frame.f_code.co_name}"
        self.calls[name] += 1
        if not self.raised and self.at is not None and (name, self.calls[name] - 1) == self.at:
            self.raised = True
            sys.settrace(None)
            raise Injected("out of order\nand much more")


PACKAGE = str(ROOT / "tb_bnlens")


def _ours(frame: types.FrameType) -> bool:
    # A generator expression has no caller's try around it that its function has not.
    return frame.f_code.co_filename.startswith(PACKAGE) and frame.f_code.co_name not in ("<lambda>", "<genexpr>")


@pytest.fixture(scope="module")
def seams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Function -> calls of it in a run without faults."""
    # What is done once in a process is not done in every run, nor is what a directory with a record takes.
    fit(DROPOUT, lens(tmp_path_factory.mktemp("before"), on_error="warn"))
    ours = lens(tmp_path_factory.mktemp("seams"), on_error="warn")
    with Injection() as watch:
        fit(DROPOUT, ours)
    assert len(watch.calls) > 100
    return dict(watch.calls)


def training_survives(at: tuple[str, int], directory: Path) -> list[str]:
    """Train with a fault at this call; the warnings of the lens."""
    ours = lens(directory, on_error="warn")
    with complaints() as heard, Injection(at) as injection:
        model = fit(DROPOUT, ours)
    assert injection.raised, at
    assert_unharmed(model)
    assert all("Training continues unchanged" in text and "\n" not in text for text in heard), at
    assert len(set(heard)) == len(heard) <= 2, "once for each part"
    return heard


QUICK, MOMENTS = 6, 24
# A fault while a generator is closed goes nowhere.
closing = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@closing
def test_any_call_may_fail(seams: dict[str, int], tmp_path: Path) -> None:
    """A draw of the functions, at a random one of their calls."""
    draw = random.Random(len(seams))
    for i, name in enumerate(draw.sample(sorted(seams), QUICK)):
        training_survives((name, draw.randrange((seams[name] + 1) // 2)), tmp_path / str(i))


@closing
@pytest.mark.slow
def test_every_first_call_may_fail(seams: dict[str, int], tmp_path: Path) -> None:
    for i, name in enumerate(sorted(seams)):
        training_survives((name, 0), tmp_path / str(i))


@closing
@pytest.mark.slow
def test_calls_at_random_moments_may_fail_where_warnings_are_errors(seams: dict[str, int], tmp_path: Path) -> None:
    draw = random.Random(0)
    names, calls = zip(*sorted(seams.items()), strict=True)
    for i, name in enumerate(draw.choices(names, calls, k=MOMENTS)):
        ours = lens(tmp_path / str(i), on_error="warn")
        with warnings.catch_warnings(), Injection((name, draw.randrange((seams[name] + 1) // 2))) as injection:
            warnings.simplefilter("error")
            model = fit(DROPOUT, ours)
        assert injection.raised
        assert_unharmed(model)


def test_a_warning_that_is_an_error_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").write_text("a file in its place")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fit(DROPOUT, lens(tmp_path, on_error="warn"))
    assert_unharmed(model)
    said = capsys.readouterr().err
    assert said.count("Warning: BN Lens") == 1 and "cannot write to" in said


def test_a_batch_that_cannot_be_replayed_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory ends while the look at a batch is made ready to be undone."""
    setup = Setup("", DROPOUT.model, dataset)
    without = state(fit(setup))

    def no_memory(*_: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

    monkeypatch.setattr(tf.data.experimental, "to_variant", no_memory)
    with complaints() as heard:
        model = fit(setup, lens(tmp_path, on_error="warn"))
    assert_clean(model)
    assert_same(without, state(model))
    assert len(heard) == 1 and "out of memory" in heard[0]


def test_raises_when_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Windows, "add", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(DROPOUT, lens(tmp_path))


def test_statistics_go_on_without_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

    monkeypatch.setattr(Measurement, "pair", out_of_memory)
    with complaints() as heard:
        fit(DROPOUT, lens(tmp_path, on_error="warn"))
    read = record(tmp_path)
    assert len(heard) == 1 and "the paired losses" in heard[0]
    assert "out of memory" in read.manifest.not_evaluated["losses"]
    assert any("paired losses" in note for note in read.manifest.notes)
    assert read.steps[-1] == 8 and np.all(np.isfinite(read.last("distance_rms")))


@pytest.mark.parametrize("room", [8, 5, 0])
def test_a_probe_backs_off_where_memory_ends(room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 8: a part of them that fits is probed, down to one sample; with no room at all it gives up."""
    pair = Measurement.pair

    def with_room(self: Measurement, batches: Any, *rest: Any) -> Any:
        if len(batches[0][0]) > room:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        return pair(self, batches, *rest)

    monkeypatch.setattr(Measurement, "pair", with_room)
    with complaints() as heard:
        model = fit(DROPOUT, lens(tmp_path, on_error="warn"))
    assert_unharmed(model)
    read = record(tmp_path)
    sizes = read.loss("batch_size")
    assert sum("ran out of memory" in note for note in read.manifest.notes) == {8: 0, 5: 1, 0: 3}[room]
    assert bool(heard) == (room == 0)
    if room:
        assert np.all(sizes == {8: 8, 5: 4}[room]) and np.all(np.isfinite(read.loss("inference")))
    # Half a batch was not what the step was made on: it says nothing of the momentum.
    assert np.all(np.isfinite(read.last("momentum_effective"))) == (room == 8)


def test_a_loss_that_refuses_one_more_trace(tmp_path: Path) -> None:
    traces: list[int] = []

    def setup(allowed: float) -> Setup:
        traces.clear()

        def loss(y: Any, y_pred: Any) -> Any:
            traces.append(1)
            if len(traces) > allowed:
                raise RuntimeError("no further")
            return tf.reduce_mean(tf.square(y - y_pred))

        return Setup("", models.sequential, compile={"loss": loss})

    without = state(fit(setup(math.inf)))
    model = fit(setup(len(traces)), lens(tmp_path))
    assert_same(without, state(model))
    assert "no further" in record(tmp_path).manifest.not_evaluated["losses"]


# --- the disk -------------------------------------------------------------------------------------------


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file in its place")
    with complaints() as heard:
        model = fit(DROPOUT, lens(tmp_path, on_error="warn"))
    assert_unharmed(model)
    assert len(heard) == 1 and "cannot write to" in heard[0]


def test_a_full_disk(tmp_path: Path) -> None:
    """Files may not grow beyond 10 kB: what the system says is not what a full disk says, but comes the same way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with complaints() as heard:
            model = fit(DROPOUT, lens(tmp_path, on_error="warn"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_unharmed(model)
    assert len(heard) == 1 and "does not record this run any further" in heard[0]
    assert record(tmp_path).manifest.layers, "what was written before is there"


def test_a_directory_removed_in_mid_run(tmp_path: Path) -> None:
    with complaints() as heard:
        model = fit(DROPOUT, lens(tmp_path, on_error="warn"), AtStep(4, lambda _: shutil.rmtree(tmp_path / "run")))
    assert_unharmed(model)
    assert len(heard) <= 1


def test_a_killed_process(tmp_path: Path) -> None:
    """Killed during the run: all that was flushed reads without a complaint."""
    script = textwrap.dedent(
        """
        import os, pathlib, signal, sys
        from tests.capture.runs import fit, lens
        from tests.capture.setups import DROPOUT
        from tests.capture.test_fits import AtStep

        die = AtStep(30, lambda _: os.kill(os.getpid(), signal.SIGKILL))
        fit(DROPOUT, lens(pathlib.Path(sys.argv[1])), die, epochs=20)
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr[-2000:]
    read = record(tmp_path)
    assert read.manifest.layers and len(read.steps) > 3 and len(read.loss_steps) > 3
    assert all("could not" not in problem for problem in read.problems)

    fit(DROPOUT, lens(tmp_path))
    again = record(tmp_path)
    assert [event.kind for event in again.manifest.events][-1] == "restart"
    assert again.last_step == 8, "a run from the start takes the place of the killed one"


def test_remote_paths() -> None:
    from tb_bnlens import BNLens

    model = fit(DROPOUT, BNLens("ram://bucket/run", on_error="raise"))
    assert_unharmed(model)
    (written,) = tf.io.gfile.listdir("ram://bucket/run/bn_lens")
    assert ".tfevents." in written
    assert tf.io.gfile.stat(f"ram://bucket/run/bn_lens/{written}").length > 1000


@pytest.mark.parametrize(
    ("task_type", "task_id", "writes"),
    [(None, None, True), ("chief", 0, True), ("worker", 0, True), ("worker", 1, False), ("evaluator", 0, False)],
)
def test_only_the_chief_writes(
    task_type: Any, task_id: Any, writes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = types.SimpleNamespace(task_type=task_type, task_id=task_id)
    strategy = types.SimpleNamespace(cluster_resolver=resolver)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    lensed = Recorder(models.functional(), str(tmp_path / "run"), on_error="raise")
    monkeypatch.undo()
    assert lensed.wanted == writes
    lensed.record(*arrays(8))
    lensed.close()
    assert (tmp_path / "run").exists() == writes


# --- the training itself goes wrong ---------------------------------------------------------------------


def test_training_that_ends_in_nan(tmp_path: Path) -> None:
    x, y = arrays()
    y[20] = np.nan
    setup = Setup("", DROPOUT.model, lambda: from_arrays(x, y))
    without = state(fit(setup, keras.callbacks.TerminateOnNaN()))
    model = fit(setup, lens(tmp_path), keras.callbacks.TerminateOnNaN())
    assert_clean(model)
    assert_same(without, state(model))
    assert not record(tmp_path).problems


def test_data_that_fail_in_mid_run(tmp_path: Path) -> None:
    """The user's own error comes through unchanged."""

    def fragile() -> Any:
        data = tf.data.Dataset.from_tensor_slices(arrays()).batch(8).enumerate()

        def check(i: Any, batch: Any) -> Any:
            with tf.control_dependencies([tf.debugging.assert_less(i, tf.constant(3, tf.int64), "a bad record")]):
                return tf.identity(batch[0]), tf.identity(batch[1])

        return {"x": data.map(check)}

    def ends(*callbacks: Any) -> dict[str, Any]:
        model = DROPOUT.make()
        with pytest.raises(tf.errors.InvalidArgumentError, match="a bad record"):
            fit(Setup("", DROPOUT.model, fragile), *callbacks, model=model)
        return state(model)

    # TensorFlow counts the step and draws its random numbers beside the read that fails.
    def weights(kept: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in kept.items() if k.startswith("weights")}

    assert_same(weights(ends()), weights(ends(lens(tmp_path, on_error="warn"))))


@pytest.mark.parametrize(("home", "name"), [(Batches, "collect"), (Recording, "after"), (Prober, "due")])
def test_a_loop_of_ones_own_goes_on(home: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError("no such thing")

    monkeypatch.setattr(home, name, fails)
    model = DROPOUT.make()
    with complaints() as heard, Recorder(model, str(tmp_path / "run")) as opened:
        for _ in range(3):
            model.train_on_batch(*arrays(8))
            opened.record(*arrays(8))
    assert len(heard) == 1 and "OSError: no such thing" in heard[0]


def test_a_model_that_is_never_built_is_said_to_be_not_recorded(tmp_path: Path) -> None:
    """A GAN's ``train_step`` calls its two networks and never the model around them."""
    with complaints() as heard, Recorder(keras.Sequential([keras.layers.Dense(1)]), str(tmp_path / "run")) as opened:
        opened.record(*arrays(8))
    assert len(heard) == 1 and "never built" in heard[0]
    with complaints() as heard:
        Recorder(DROPOUT.make(), str(tmp_path / "run")).close()
    assert len(heard) == 1 and "has not recorded anything of this run: no training step" in heard[0]


def test_a_training_that_diverges_is_recorded_to_its_end(tmp_path: Path) -> None:
    """Statistics beyond what float32 squares, step by step, and then none at all."""
    inputs = keras.Input((4,))
    made = keras.Model(inputs, keras.layers.BatchNormalization(momentum=0.9)(keras.layers.Dense(4)(inputs)))
    made.compile(keras.optimizers.SGD(0.01), "mse")

    class Grow(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            kernel = made.layers[1].kernel
            kernel.assign(kernel * 30.0)

    x = np.random.default_rng(0).normal(size=(320, 4)).astype("float32")
    # pytest turns NumPy's warnings into errors here.
    made.fit(x, x, batch_size=8, verbose=0, callbacks=[Grow(), lens(tmp_path)])
    read = record(tmp_path)
    assert read.last_step == 40
    assert read.last("channels_nonfinite")[0] == 4


WRONG = arrays(16, seed=9)[0][:, :-1], arrays(16, seed=9)[1]
WRONG_TARGETS = arrays(16, seed=9)[0], {"other": arrays(16)[1]}


@pytest.mark.parametrize(
    ("argument", "data", "lost"),
    [
        ("validation_data", WRONG, "leaves out the losses on validation data: validation_data: "),
        ("validation_data", WRONG_TARGETS, "leaves out the losses on validation data: validation_data: The loss fails"),
        ("probe_data", WRONG, "cannot measure the paired losses, and records the statistics alone: probe_data: "),
        ("probe_data", {1}, "and records the statistics alone: probe_data: TypeError: the data is a set"),
    ],
)
def test_data_that_the_model_does_not_take_cost_their_own_losses(
    argument: str, data: Any, lost: str, tmp_path: Path
) -> None:
    with complaints() as heard:
        fit(DROPOUT, lens(tmp_path, on_error="warn", **{argument: data}))
    (said,) = heard
    assert lost in said
    found = record(tmp_path)
    assert any(lost in note for note in found.manifest.notes)
    on_training = {**found.manifest.not_evaluated}.get("losses") is None
    assert on_training == (argument == "validation_data")

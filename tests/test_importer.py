"""``python -m tb_bnlens import``: records made from checkpoints, against the callback and against truth."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_bnlens import BNLens
from tb_bnlens.cli import OK, UNREADABLE, main
from tb_bnlens.history import Channels, History
from tb_bnlens.importer import CannotImport, import_checkpoints
from tb_bnlens.importer.apart import Apart
from tb_bnlens.importer.keras_config import batch_norm_settings
from tb_bnlens.importer.keras_files import read_keras, read_weights
from tb_bnlens.importer.saved import BadCheckpoint, Checkpoint
from tb_bnlens.importer.steps import NamedNumber, number_in
from tb_bnlens.reader import open_logdir, read_channels, read_run
from tb_bnlens.report import run_report
from tb_bnlens.report.schema import Finding, Overview

# Keras' own, when it saves under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

EVERY, STEPS, BATCH, MOMENTUM = 40, 200, 32, 0.99
KINDS = ("keras", "weights", "tf")


def network(momentum: float = MOMENTUM, **second: Any) -> keras.Model:
    """One layer in a nested model and one without gamma beside it."""
    layers = keras.layers
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(16), layers.BatchNormalization(momentum=momentum, name="first")], name="block"
    )
    inputs = keras.Input((6,))
    x = layers.ReLU()(inner(inputs))
    x = layers.BatchNormalization(momentum=momentum, scale=False, name="second", **second)(layers.Dense(8)(x))
    model = keras.Model(inputs, layers.Dense(1)(x))
    model.compile(keras.optimizers.Adam(0.003), "mse")
    return model


class Saving(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves every kind of checkpoint along the way, and looks at the moving statistics at every step."""

    def __init__(self, directory: Path):
        super().__init__()
        self.directory, self.step = directory, 0
        self.seen: list[np.ndarray[Any, Any]] = []
        for kind in KINDS:
            (directory / kind).mkdir(parents=True)

    def on_train_begin(self, logs: Any = None) -> None:
        self.saves = tf.train.Checkpoint(model=self.model, optimizer=self.model.optimizer)
        self.look()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step += 1
        self.look()

    def look(self) -> None:
        layer = self.model.get_layer("block").get_layer("first")
        self.seen.append(np.stack([np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)]).astype(float))
        if self.step % EVERY == 0:
            self.model.save(self.directory / "keras" / f"model_{self.step}.keras")
            self.model.save_weights(self.directory / "weights" / f"m{self.step}.weights.h5")
            self.saves.save(str(self.directory / "tf" / "ckpt"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Saving]:
    """A run with the callback and all kinds of checkpoints, and their records in ``logs``."""
    root = tmp_path_factory.mktemp("trained")
    keras.utils.set_random_seed(3)
    random = np.random.default_rng(0)
    x = 3 * random.normal(size=(STEPS * BATCH, 6)) + 2
    saving = Saving(root)
    lens = BNLens(str(root / "logs" / "live"), overhead=float("inf"), on_error="raise")
    network().fit(x, x[:, :1] * x[:, 1:2], batch_size=BATCH, shuffle=False, verbose=0, callbacks=[lens, saving])
    for kind in KINDS:
        import_checkpoints(
            str(root / kind), str(root / "logs"), momentum=None if kind == "keras" else MOMENTUM, epsilon=1e-3
        )
    return root, saving


def read(logdir: Path, run: str) -> History:
    return read_run(open_logdir(str(logdir)), "", run)


def channels(logdir: Path, run: str, layer: int = 0) -> Channels:
    return read_channels(open_logdir(str(logdir)), "", run, layer)


def test_every_kind_of_file_gives_the_same_record(trained: tuple[Path, Saving]) -> None:
    logs = trained[0] / "logs"
    records = {kind: read(logs, kind) for kind in KINDS}
    for record in records.values():
        assert not record.problems
        assert record.steps.tolist() == list(range(0, STEPS + 1, EVERY))
        assert {layer.name: layer.channels for layer in record.manifest.layers} == {"block/first": 16, "second": 8}
        order = [layer.name for layer in record.manifest.layers].index("block/first")
        np.testing.assert_array_equal(record.layers[:, [order, 1 - order]], records["keras"].layers)
    assert [layer.order for layer in records["keras"].manifest.layers] == [0, 1]
    # Weights alone sort layers by class, so their order is not known.
    assert [layer.order for layer in records["weights"].manifest.layers] == [-1, -1]


def test_windows_hold_what_training_saw(trained: tuple[Path, Saving]) -> None:
    root, saving = trained
    beta = np.float64(np.float32(MOMENTUM))
    seen = np.stack(saving.seen)
    batches = (seen[1:] - beta * seen[:-1]) / np.float64(np.float32(1 - MOMENTUM))
    weights = beta ** np.arange(EVERY - 1, -1, -1)
    truth = np.einsum("k,ksc->sc", weights / weights.sum(), batches[-EVERY:])
    for kind in KINDS:
        names = [layer.name for layer in read(root / "logs", kind).manifest.layers]
        recovered = channels(root / "logs", kind, names.index("block/first")).values[-1]
        np.testing.assert_allclose(recovered[0], truth[0], atol=1e-3 * np.sqrt(truth[1]).min())
        np.testing.assert_allclose(recovered[1], truth[1], rtol=1e-3)
        np.testing.assert_array_equal(recovered[2:], seen[-1].astype(np.float32))


def test_distances_agree_with_the_callback(trained: tuple[Path, Saving]) -> None:
    logs = trained[0] / "logs"
    live, made = read(logs, "live"), read(logs, "keras")
    at = np.abs(live.steps[:, None] - made.steps[1:]).argmin(0)
    ours, theirs = made.row("distance_rms")[1:], live.row("distance_rms")[at]
    # The callback compares with the last 20 batches, a window here with all 40 and recent ones more.
    np.testing.assert_allclose(ours, theirs, rtol=0.25)
    np.testing.assert_allclose(made.row("updates")[1:], live.row("updates")[at], atol=1)
    np.testing.assert_allclose(made.row("start_distance")[1:], live.row("start_distance")[at], rtol=0.05)
    # A longer memory than the windows is replayed.
    np.testing.assert_allclose(made.row("replay_0.999")[-1], live.row("replay_0.999")[-1], rtol=0.05)
    assert np.all(np.isnan(made.row("replay_0.5")[1:]))


def test_losses_are_not_evaluated_and_the_reason_is_given(trained: tuple[Path, Saving]) -> None:
    report = run_report(read(trained[0] / "logs", "tf"))
    assert report["losses"]["inference"] is None
    for kind in ("losses", "training", "batch", "inference", "recalibrated", "replayed"):
        assert "checkpoints" in report["losses"]["not_evaluated"][kind]
    assert not [f for f in report["findings"] if f["status"] == "error"]


# --- made-up checkpoints: the truth is set, nothing is trained ----------------------------------------------


def put(model: keras.Model, step: int, mean: float, variance: float, *, only: str = "") -> None:
    model.optimizer.iterations.assign(step)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization) and only in layer.name:
            layer.moving_mean.assign(np.full(layer.moving_mean.shape, mean))
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, variance))


def chasing(momentum: float, step: int, start: float, goal: float) -> float:
    return float(goal + (start - goal) * momentum**step)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def made(directory: Path) -> Callable[..., Overview]:
    """Imports the directory and gives the report."""

    def make(**options: Any) -> Overview:
        logs = directory.parent / "logs"
        import_checkpoints(str(directory), str(logs), **options)
        return run_report(read(logs, "run"))

    return make


def failed(report: Overview) -> dict[str, Finding]:
    return {f["rule"]: f for f in report["findings"] if f["status"] == "fail"}


def test_momentum_too_high_is_found(directory: Path, made: Callable[..., Overview]) -> None:
    model = network(0.999)
    for step in (0, 200, 400):
        put(model, step, chasing(0.999, step, 0, 0.2), chasing(0.999, step, 1, 0.1))
        model.save(directory / f"at{step}.keras")
    report = made()
    finding = failed(report)["momentum-too-high"]
    assert len(finding["layers"]) == 2
    # From 1.0 to 0.1 within 10%: 4,497.6 updates in all.
    assert finding["steps_to_converge"] == pytest.approx(4498 - 400, abs=2)
    assert "not evaluated" in finding["summary"]


def test_one_checkpoint_of_a_fresh_start_is_enough(directory: Path, made: Callable[..., Overview]) -> None:
    model = network(0.999)
    put(model, 400, chasing(0.999, 400, 0, 0.2), chasing(0.999, 400, 1, 0.1))
    model.save(directory / "final.keras")
    with pytest.raises(CannotImport, match=r"1 checkpoint of one network.*--from-scratch"):
        made()
    assert failed(made(from_scratch=True))["momentum-too-high"]["steps_to_converge"] == pytest.approx(4098, abs=2)


def test_never_updated_is_found(directory: Path, made: Callable[..., Overview]) -> None:
    model = network()
    for step in (100, 200):
        put(model, step, step / 100, 1.0, only="first")
        model.save_weights(directory / f"{step}.weights.h5")
    report = made(momentum=0.99)
    assert failed(report)["never-updated"]["layers"] == ["second"]
    assert {layer["name"]: layer["state"] for layer in report["layers"]} == {
        "block/first": "updating",
        "second": "never_updated",
    }


@pytest.mark.parametrize(("trainable", "state"), [(False, "frozen"), (True, "inference_mode")])
def test_constant_layers_are_told_apart_by_the_config(
    directory: Path, made: Callable[..., Overview], trainable: bool, state: str
) -> None:
    model = network(trainable=trainable)
    for step in (100, 200):
        put(model, step, step / 100, 2.0, only="first")
        put(model, step, 3.0, 2.0, only="second")
        model.save(directory / f"{step}.keras")
    assert [layer["state"] for layer in made()["layers"]] == ["updating", state]


def test_without_a_config_nothing_is_said_of_constant_layers(directory: Path, made: Callable[..., Overview]) -> None:
    model = network()
    for step in (100, 200):
        put(model, step, 3.0, 2.0)
        model.save_weights(directory / f"{step}.weights.h5")
    assert [layer["state"] for layer in made(momentum=0.99)["layers"]] == ["unknown", "unknown"]


def test_poisoned_statistics_are_found(directory: Path, made: Callable[..., Overview]) -> None:
    model = network()
    for step, mean in ((100, 1.0), (200, 2.0), (300, np.nan), (400, np.nan)):
        put(model, step, 1 + step / 1000, 2.0)
        put(model, step, mean, 2.0, only="second")
        model.save(directory / f"{step}.keras")
    finding = failed(made())["non-finite-statistics"]
    assert finding["layers"] == ["second"]


def test_what_changes_between_checkpoints_is_an_event(directory: Path, made: Callable[..., Overview]) -> None:
    model = network()
    for step in (100, 200, 300):
        put(model, step, step / 100, 2.0)
        if step == 200:
            model.get_layer("second").trainable = False
            model.get_layer("block").get_layer("first").momentum = 0.9
        model.save(directory / f"{step}.keras")
    events = {(e["kind"], e["step"], tuple(e["layers"])) for e in made()["events"]}
    assert {("freeze", 200, (1,)), ("momentum", 200, (0,))} <= events


def test_windows_far_longer_than_the_memory_say_nothing_of_a_lag(
    directory: Path, made: Callable[..., Overview]
) -> None:
    model = network(0.9)
    for step in (1000, 2000, 3000):
        put(model, step, step / 1e4, 1.0)
        model.save(directory / f"{step}.keras")
    report = made()
    assert report["layers"][0]["distance"] is None
    lagging = [f for f in report["findings"] if f["rule"] in ("drift", "momentum-too-high")]
    assert {f["status"] for f in lagging} == {"not_evaluated"}
    assert all("1,000 updates apart" in f["summary"] for f in lagging)
    assert "distance_rms" not in report["losses"]["not_evaluated"]


def test_a_lag_that_shows_in_part_is_said_to(directory: Path, made: Callable[..., Overview]) -> None:
    model = network(0.99)
    for step in range(1000, 2001, 100):
        put(model, step, step / 100, 1.0)
        model.save_weights(directory / f"{step}.weights.h5")
    report = made(momentum=0.99)
    # Statistics that rise by 0.01 per update lag by 0.99; a window of 100 updates shows 0.58 of that.
    assert report["layers"][0]["mean_error"] == pytest.approx(-0.577 / np.sqrt(1.001), abs=2e-3)
    assert "drifting batch statistics shows only 58% of its size in 2 of 2 layers" in " ".join(report["notes"])
    assert failed(report)["drift"]


def test_a_start_that_still_shows_in_long_windows_is_kept(directory: Path, made: Callable[..., Overview]) -> None:
    model = network(0.99)
    for step in (0, 400):
        put(model, step, 0.0, chasing(0.99, step, 1, 1e-3))
        model.save(directory / f"{step}.keras")
    assert failed(made())["momentum-too-high"]["layers"] == ["block/first", "second"]


def test_layers_called_twice_a_step_count_twice(directory: Path, made: Callable[..., Overview]) -> None:
    shared = keras.layers.BatchNormalization(name="shared", momentum=0.99)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, shared(keras.layers.Dense(4)(shared(inputs))))
    model.compile("sgd", "mse")
    for step in (10, 60):
        put(model, step, chasing(0.99, 2 * step, 0, 1), 1.0)
        model.save(directory / f"{step}.keras")
    made()
    record = read(directory.parent / "logs", "run")
    assert record.last("updates").tolist() == [100]
    assert channels(directory.parent / "logs", "run").row("batch_mean")[-1] == pytest.approx(1.0, abs=1e-5)


def test_renorm_averages_the_deviation(directory: Path, made: Callable[..., Overview]) -> None:
    inputs = keras.Input((4,))
    layer = keras.layers.BatchNormalization(renorm=True, momentum=0.9)
    model = keras.Model(inputs, layer(inputs))
    model.compile("sgd", "mse")
    saves = tf.train.Checkpoint(model=model, step=(step := tf.Variable(0)))
    (directory / "tf").mkdir()
    for at in (10, 20):
        put(model, at, 0.0, 1.0)
        layer.moving_stddev.assign(np.full(4, chasing(0.9, at, 1, 2)))
        model.save(directory / f"{at}.keras")
        step.assign(at)
        saves.save(str(directory / "tf" / "ckpt"))
    made()
    import_checkpoints(str(directory / "tf"), str(directory.parent / "logs"), momentum=0.9)
    for run in ("run", "tf"):
        variance = channels(directory.parent / "logs", run).row("batch_variance")[-1]
        assert variance == pytest.approx(4.0 - 1e-3, rel=1e-4)


def test_subclassed_models_have_no_config_and_need_a_momentum(directory: Path, made: Callable[..., Overview]) -> None:
    @keras.saving.register_keras_serializable("tests_importer")
    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self, **options: Any):
            super().__init__(**options)
            self.norm = keras.layers.BatchNormalization(name="norm")
            self.blocks = [keras.layers.Dense(3), keras.layers.BatchNormalization(name="deep")]

        def call(self, x: Any, training: Any = None) -> Any:
            x = self.blocks[0](self.norm(x, training=training))
            return self.blocks[1](x, training=training)

    model = Net()
    model.compile("sgd", "mse")
    model(np.zeros((2, 4)))
    for step in (10, 20):
        put(model, step, step / 10, 1.0)
        model.save(directory / f"{step}.keras")
    with pytest.raises(CannotImport, match=r"10\.keras: it holds weights and no momentum.*--momentum"):
        made()
    assert sorted(layer["name"] for layer in made(momentum=0.99)["layers"]) == ["deep", "norm"]


# --- steps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number", "is_step"),
    [
        ("step_1200", 1200, True),
        ("global_step=7", 7, True),
        ("resnet50-iter0300", 300, True),
        ("epoch_03", 3, False),
        ("model-ep12-loss0.2", 12, False),
        ("weights.05-0.31", 5, False),
        ("resnet50_12", 12, False),
        ("ckpt-3", 3, False),
        ("m40", 40, False),
    ],
)
def test_numbers_in_names(name: str, number: int, is_step: bool) -> None:
    assert number_in(name) == NamedNumber(number, is_step)


def test_epochs_in_names_need_their_length(directory: Path, made: Callable[..., Overview]) -> None:
    model = network()
    saver = keras.callbacks.ModelCheckpoint(
        str(directory / "e{epoch:02d}-{loss:.2f}.weights.h5"), save_weights_only=True
    )
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(64, 6))
    model.fit(x, x[:, 0], epochs=3, batch_size=16, verbose=0, callbacks=[saver])
    # As from a loop that keeps its optimizer to itself.
    import h5py

    for path in directory.iterdir():
        with h5py.File(path, "a") as file:
            del file["optimizer"]
    with pytest.raises(CannotImport, match=r"e01-.*number 1.*--steps-per-epoch"):
        made(momentum=0.99)
    made(momentum=0.99, steps_per_epoch=4)
    assert read(directory.parent / "logs", "run").steps.tolist() == [4, 8, 12]


# --- what cannot be used -------------------------------------------------------------------------------------


def test_bad_files_among_good_ones_are_left_out_with_a_note(directory: Path, made: Callable[..., Overview]) -> None:
    model = network()
    for step in (10, 20, 30):
        put(model, step, step / 10, 1.0)
        model.save(directory / f"good{step}.keras")
        model.save_weights(directory / f"weights{step}.weights.h5")
    other = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(name="lone")])
    other.save(directory / "other.keras")
    whole = (directory / "good20.keras").read_bytes()
    (directory / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (directory / "cut.weights.h5").write_bytes((directory / "weights10.weights.h5").read_bytes()[:900])
    (directory / "ckpt-9.index").write_bytes(b"no table")
    (directory / "text.keras").write_text("not an archive")
    notes = " ".join(made()["notes"])
    for left_out in ("cut.keras", "cut.weights.h5", "ckpt-9", "text.keras"):
        assert f"{left_out} was left out: it " in notes or f"{left_out}.index was left out: TensorFlow" in notes
    assert "other.keras was left out: it has 1 BatchNorm layer (4 channels)" in notes
    assert "weights20.weights.h5 was left out: good20.keras has step 20 too" in notes
    assert read(directory.parent / "logs", "run").steps.tolist() == [10, 20, 30]


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_gets_past_the_file(
    kind: str, trained: tuple[Path, Saving], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tb_bnlens.importer.tf_checkpoints import read_tf

    monkeypatch.setattr("tb_bnlens.importer.apart.PATIENCE", 5.0)
    whole = {path.name: path.read_bytes() for path in sorted((trained[0] / kind).iterdir())}
    random = np.random.default_rng(0)
    hurt = next(name for name in whole if name.startswith(("model_", "m4", "ckpt-1.data")))
    for name in ("ckpt-1.index", "ckpt-1.data-00000-of-00001") if kind == "tf" else ():
        (tmp_path / name).write_bytes(whole[name])
    refusals = 0
    with Apart() as apart:
        readers: dict[str, Callable[[Path], Checkpoint]]
        readers = {"keras": apart.read_keras, "weights": apart.read_weights, "tf": read_tf}
        for trial in range(30):
            raw = np.frombuffer(whole[hurt], np.uint8).copy()
            raw[random.integers(len(raw), size=20)] = random.integers(256, size=20)
            (tmp_path / hurt).write_bytes(raw[: random.integers(len(raw))].tobytes() if trial % 2 else raw.tobytes())
            try:
                readers[kind](tmp_path / ("ckpt-1" if kind == "tf" else hurt))
            except BadCheckpoint:
                refusals += 1
    assert refusals >= 15


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["import", *arguments]) == UNREADABLE
    said = capsys.readouterr().err
    assert said.startswith("bnlens import: ")
    return said


def test_bad_input_is_named(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(directory.parent / "logs"))
    run = str(directory)
    assert "holds nothing; expected model.keras files" in refused(capsys, run, *out)
    assert "does not exist; expected a directory" in refused(capsys, run + "x", *out)
    (directory / "notes.txt").write_text("hello")
    assert "holds notes.txt; expected" in refused(capsys, run, *out)
    assert "is a file; expected a directory" in refused(capsys, run + "/notes.txt", *out)
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    plain.save(directory / "plain.keras")
    assert "no BatchNorm layer in 1 checkpoint, for example plain.keras" in refused(capsys, run, *out)
    (directory / "plain.keras").write_bytes(b"PK")
    assert "none of 1 checkpoints can be read. plain.keras was left out" in refused(capsys, run, *out)
    assert "--momentum is 1.5" in refused(capsys, run, *out, "--momentum", "1.5")
    assert "--steps-per-epoch is 0" in refused(capsys, run, *out, "--steps-per-epoch", "0")
    assert not (directory.parent / "logs").exists()


def test_the_command(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = network()
    for step in (10, 20):
        put(model, step, step / 10, 1.0)
        model.save(directory / f"{step}.keras")
    (directory / "30.keras").write_bytes(b"PK")
    logs = str(directory.parent / "logs")
    assert main(["import", str(directory), "--out", logs, "--run", "old"]) == OK
    printed = capsys.readouterr()
    assert printed.out == f"2 checkpoints, steps 10 to 20. Now:\nbnlens report {logs}\n"
    assert "30.keras was left out" in printed.err
    assert main(["report", logs, "--run", "old", "--json"]) == OK
    assert json.loads(capsys.readouterr().out)["runs"][0]["last_step"] == 20
    (directory / "file").write_text("")
    assert "Not a directory" in refused(capsys, str(directory), "--out", str(directory / "file" / "logs"))
    assert "holds a record already; give --run" in refused(capsys, str(directory), "--out", logs, "--run", "old")


def test_a_machine_without_tensorflow_says_what_to_install(directory: Path, viewer_python: str) -> None:
    network().save(directory / "1.keras")
    command = [viewer_python, "-m", "tb_bnlens", "import", str(directory), "--out", str(directory.parent / "logs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == UNREADABLE
    assert "is not installed" in done.stderr and "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_importer_loads_nothing_until_it_reads() -> None:
    code = (
        "import sys, tb_bnlens.importer, tb_bnlens.cli; "
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'h5py')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- hostile names, numbers and places ------------------------------------------------------------------


def test_steps_are_bounded(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = network()
    for name in ("step_1", "step_2", f"step_{'9' * 30}"):
        model.save(directory / f"{name}.keras")
    logs = str(directory.parent / "logs")
    assert main(["import", str(directory), "--out", logs]) == OK
    assert f"step_{'9' * 30}.keras was left out: its step is 999,999," in capsys.readouterr().err
    assert read(Path(logs), "run").steps.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "value"), [("momentum", 5), ("momentum", -1), ("momentum", 1e400), ("epsilon", -1), ("epsilon", "small")]
)
def test_constants_that_no_layer_can_have(name: str, value: Any) -> None:
    marks: dict[str, Any] = {"moving_mean_initializer": {}, "moving_variance_initializer": {}}
    layer = {"momentum": 0.9, "epsilon": 1e-3, "name": "bn", "axis": -1, **marks, name: value}
    config = {"class_name": "Functional", "config": {"layers": [{"class_name": "BatchNormalization", "config": layer}]}}
    with pytest.raises(ValueError, match=f"{name} of 'bn' is .*; expected 0 to 1"):
        batch_norm_settings(config)


def test_names_do_not_steer_the_terminal(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "a\x1b]0;owned\x07\u2028b.keras").write_bytes(b"PK")
    with h5py.File(directory / "c.weights.h5", "w") as file:
        file["layers\x1b[2J"] = h5py.ExternalLink("\x1b[31m.h5", "/x")
    said = refused(capsys, str(directory), "--out", str(directory.parent / "logs\x1b[8m"))
    assert "\\x1b]0;owned\\x07\\u2028b.keras" in said and said.rstrip("\n").isprintable()


@pytest.mark.parametrize("run", ["../outside", "/tmp/outside", "a/../../outside"])
def test_nothing_is_written_outside_of_out(directory: Path, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    network().save(directory / "1.keras")
    out = directory.parent / "logs"
    assert "leads out of" in refused(capsys, str(directory), "--out", str(out), "--run", run, "--from-scratch")
    (out / "inside").mkdir(parents=True)
    (out / "inside" / "link").symlink_to(directory.parent)
    said = refused(capsys, str(directory), "--out", str(out), "--run", "inside/link/outside", "--from-scratch")
    assert "leads out of" in said
    assert "expected a directory of this machine" in refused(capsys, str(directory), "--out", "gs://bucket/logs")
    assert not list(directory.parent.rglob("outside"))


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5"])
def test_an_archive_that_unpacks_to_far_more_is_left_out(directory: Path, member: str) -> None:
    with zipfile.ZipFile(directory / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("config.json", "model.weights.h5"):
            archive.writestr(name, b"0" * (100 * 2**20 if name == member else 10))
    with pytest.raises(BadCheckpoint, match=f"its {member} would unpack from .* to 104,857,600 bytes"):
        read_keras(directory / "bomb.keras")


def test_a_vector_that_claims_to_be_huge_is_not_read(directory: Path) -> None:
    with h5py.File(directory / "x.weights.h5", "w") as file:
        for i in range(4):
            file.create_dataset(
                f"layers/batch_normalization/vars/{i}", (2**40,), "f4", chunks=(2**16,), compression="gzip"
            )
    with pytest.raises(BadCheckpoint, match="has 1,099,511,627,776 channels"):
        read_weights(directory / "x.weights.h5")

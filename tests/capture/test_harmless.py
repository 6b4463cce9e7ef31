"""What training draws, reads and builds is what it would be without the lens."""

from __future__ import annotations

import copy
import faulthandler
import gc
import math
import pickle
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_bnlens import BNLens, Recorder
from tb_bnlens.capture.errors import NotEvaluated, Refused
from tb_bnlens.capture.randomness import draws_refused
from tb_bnlens.capture.reasons import cause_of, why_no_loss
from tb_bnlens.frameworks.keras_tensorflow.backend import BACKEND
from tests.capture import models
from tests.capture.runs import assert_clean, assert_same, fit, lens, record, state
from tests.capture.setups import BATCH, DROPOUT, SAMPLES, Setup, arrays
from tests.capture.test_faults import complaints
from tests.capture.test_fits import AtStep


class Rows(keras.metrics.Metric):  # type: ignore[misc]
    """Holds the rows of an epoch in Python, as metrics around scikit-learn do."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rows: list[Any] = []
        self.cleared: list[int] = []

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        tf.py_function(self.rows.append, [y_pred], [])

    def result(self) -> Any:
        return tf.py_function(lambda: float(len(self.rows)), [], tf.float32)

    def reset_state(self) -> None:
        self.cleared.append(len(self.rows))
        self.rows.clear()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras' callback, with NumPy 2
@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}])
def test_a_metric_that_holds_rows_in_python(options: dict[str, Any], tmp_path: Path) -> None:
    def trained(*callbacks: Any) -> Any:
        rows = Rows(name="rows")
        setup = Setup("", DROPOUT.model, compile={"metrics": [rows, "mae"], **options})
        model = fit(setup, keras.callbacks.ReduceLROnPlateau("rows", mode="max", patience=1), *callbacks)
        return state(model), model.history.history, rows.cleared, len(rows.rows)

    plain, watched = trained(), trained(lens(tmp_path))
    assert_same(plain[0], watched[0])
    assert plain[1:] == watched[1:]
    assert "metrics" in record(tmp_path).evidence[-1].not_evaluated


# --- random numbers -------------------------------------------------------------------------------------


def noisy_generator() -> dict[str, Any]:
    """Keras reads it ahead in a background thread."""

    def batches() -> Iterator[Any]:
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)
        while True:
            x, y = arrays(BATCH)
            yield x + np.random.normal(size=x.shape).astype("float32") + random.random(), y  # noqa: NPY002

    return {"x": batches(), "steps_per_epoch": 6}


class Noisy(keras.utils.PyDataset):  # type: ignore[misc]
    """Draws when it is indexed, in worker threads."""

    def __init__(self) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=4)
        np.random.seed(1)  # noqa: NPY002

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        x, y = arrays(BATCH, seed=index)
        return x + np.random.normal(size=x.shape).astype("float32"), y  # noqa: NPY002


@pytest.mark.parametrize("data", [noisy_generator, lambda: {"x": Noisy(), "shuffle": False}])
def test_data_that_draw_in_another_thread(data: Any, tmp_path: Path) -> None:
    setup = Setup("", DROPOUT.model, data)

    def trained(*callbacks: Any) -> dict[str, Any]:
        kept = state(fit(setup, *callbacks))
        # How far ahead Keras has read is a matter of time.
        return {key: value for key, value in kept.items() if key not in ("python", "numpy")}

    assert_same(trained(), trained(lens(tmp_path)))
    assert np.all(np.isfinite(record(tmp_path).loss("inference")))


class Draws(keras.layers.Layer):  # type: ignore[misc]
    """Draws in Python each time it is traced, or called eagerly."""

    def __init__(self, draw: Any) -> None:
        super().__init__()
        self.draw = draw

    def call(self, x: Any) -> Any:
        return x * (1.0 + 0.1 * float(self.draw()))


own_generator = np.random.default_rng(0)
own_python = random.Random(0)
DRAWS: list[Any] = [
    random.random,
    lambda: random.uniform(0, 1),
    np.random.rand,
    own_generator.normal,
    own_python.random,
]


@pytest.mark.parametrize(
    ("draw", "eagerly"),
    [
        (random.random, False),
        (own_generator.normal, True),
        pytest.param(random.random, True, marks=pytest.mark.slow),
        pytest.param(own_generator.normal, False, marks=pytest.mark.slow),
    ],
)
def test_layers_that_draw_in_python(draw: Any, eagerly: bool, tmp_path: Path) -> None:
    def trained(*callbacks: Any) -> dict[str, Any]:
        setup = Setup("", lambda: models.functional(Draws(draw)), compile={"run_eagerly": eagerly})
        model = setup.make()
        own_generator.bit_generator.state = np.random.default_rng(0).bit_generator.state
        own_python.seed(0)
        return state(fit(setup, *callbacks, model=model)) | {"own": (own_generator.normal(), own_python.random())}

    assert_same(trained(), trained(lens(tmp_path)))
    read = record(tmp_path)
    assert "draws random numbers" in read.manifest.not_evaluated["losses"]
    assert np.all(np.isfinite(read.last("distance_rms")))


def test_a_draw_beside_another_thread_is_refused(tmp_path: Path) -> None:
    """From a generator of the model's: another thread of the user's makes NumPy's own generators unsafe to lock."""
    ends = threading.Event()
    thread = threading.Thread(target=ends.wait, daemon=True)
    thread.start()
    try:
        model = models.functional(Draws(own_generator.normal))
        model.compile("sgd", "mse", run_eagerly=True)
        fit(Setup("", lambda: model), lens(tmp_path), model=model)
    finally:
        ends.set()
        thread.join(10)
    assert "draws random numbers" in record(tmp_path).manifest.not_evaluated["losses"]


class Counts(keras.layers.Layer):  # type: ignore[misc]
    """Counts in an attribute and a dictionary each time it is traced, or called eagerly."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.held = 0, {"calls": 0}

    def call(self, x: Any) -> Any:
        self.calls += 1
        self.held["calls"] += 1
        return x * (1.0 + 0.1 * (self.calls + self.held["calls"]))


def test_layers_and_losses_that_count_in_python(tmp_path: Path) -> None:
    def trained(*callbacks: Any) -> dict[str, Any]:
        layer, held = Counts(), [0]

        def loss(y: Any, p: Any) -> Any:
            held[0] += 1
            return keras.losses.mean_squared_error(y, p) * (1 + 0.1 * held[0])

        setup = Setup("", lambda: models.functional(layer), compile={"run_eagerly": True, "loss": loss})
        return state(fit(setup, *callbacks)) | {"own": (layer.calls, layer.held["calls"], *held)}

    assert_same(trained(), trained(lens(tmp_path)))
    assert np.all(np.isfinite(record(tmp_path).loss("inference")))


class Logs(keras.layers.Layer):  # type: ignore[misc]
    """Opens a file and appends to it each time it is traced, or called eagerly."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.log = path

    def call(self, x: Any) -> Any:
        with self.log.open("a") as file:
            file.write("called\n")
        return x


def test_a_layer_that_opens_a_file_to_write(tmp_path: Path) -> None:
    def lines(name: str, *callbacks: Any) -> int:
        (tmp_path / name).touch()
        layer = Logs(tmp_path / name)
        fit(Setup("", lambda: models.functional(layer), compile={"run_eagerly": True}), *callbacks)
        return len((tmp_path / name).read_text().splitlines())

    assert 0 < lines("plain") == lines("watched", lens(tmp_path))
    assert "opens a file to write" in record(tmp_path).manifest.not_evaluated["losses"]


def test_draws_refused() -> None:
    before = random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002
    own = copy.deepcopy((own_generator.bit_generator.state, own_python.getstate()))
    for draw in (*DRAWS, lambda: np.random.normal(size=7)):  # noqa: NPY002
        with pytest.raises(NotEvaluated), draws_refused():
            draw()
    assert (own_generator.bit_generator.state, own_python.getstate()) == own
    assert random.getstate() == before[0]
    np.testing.assert_equal(np.random.get_state(legacy=False), before[1])  # noqa: NPY002
    with pytest.raises(ZeroDivisionError), draws_refused():
        1 / 0  # noqa: B018
    with draws_refused():
        keras.random.normal((3,), seed=1)


LOCK = threading.Lock()


def samples() -> None:
    with LOCK:
        np.random.random()  # noqa: NPY002


class WaitsForLock(keras.layers.Layer):  # type: ignore[misc]
    """Waits for a thread that draws under a lock."""

    def call(self, x: Any) -> Any:
        time.sleep(0.01)
        with LOCK:
            return x


class WaitsForThread(keras.layers.Layer):  # type: ignore[misc]
    """Has a thread that draws."""

    def call(self, x: Any) -> Any:
        thread = threading.Thread(target=samples, daemon=True)
        thread.start()
        thread.join()
        return x


@pytest.mark.parametrize("how", ["lock", "thread", "thread beside another one"])
def test_a_trace_does_not_wait_for_a_thread_that_draws(how: str, tmp_path: Path) -> None:
    """Which waited for the trace in turn, where that had locked NumPy's generators."""
    layer, stop = WaitsForLock if how == "lock" else WaitsForThread, threading.Event()

    def goes_on() -> None:
        while not stop.wait(0.001):
            samples()

    if how != "thread":
        threading.Thread(target=goes_on, daemon=True).start()
    faulthandler.dump_traceback_later(100, exit=True)
    try:
        fit(Setup("", lambda: models.functional(layer())), lens(tmp_path), epochs=1)
    finally:
        faulthandler.cancel_dump_traceback_later()
        stop.set()
    read = record(tmp_path)
    assert ("losses" in read.manifest.not_evaluated) == ("thread" in how)
    assert np.isfinite(read.last("distance_rms")).all()


def test_generators_that_are_frozen_are_seen() -> None:
    """``gc.freeze`` takes objects out of the list that the garbage collector gives."""
    frozen = np.random.default_rng(0)
    gc.freeze()
    for generator in (frozen, np.random.default_rng(0)):
        state = copy.deepcopy(generator.bit_generator.state)
        with pytest.raises(NotEvaluated), draws_refused():
            generator.normal()
        assert generator.bit_generator.state == state


# --- data that the user passes --------------------------------------------------------------------------


def shuffled() -> Any:
    return tf.data.Dataset.from_tensor_slices(arrays()).shuffle(SAMPLES, seed=3).batch(BATCH)


def drawing() -> Any:
    tf.random.set_seed(4)

    def noise(x: Any, y: Any) -> Any:
        return x + tf.random.normal(tf.shape(x)), y

    return tf.data.Dataset.from_tensor_slices(arrays()).batch(BATCH).map(noise)


def counting() -> Any:
    calls = tf.Variable(0.0)

    def count(x: Any, y: Any) -> Any:
        return x + calls.assign_add(1.0), y

    return tf.data.Dataset.from_tensor_slices(arrays()).batch(BATCH).map(count)


def augmented() -> Any:
    noise = keras.layers.GaussianNoise(0.5, seed=3)
    return tf.data.Dataset.from_tensor_slices(arrays()).batch(BATCH).map(lambda x, y: (noise(x, training=True), y))


OF_TRAINING = [shuffled, drawing, counting, augmented, Noisy]


@pytest.mark.parametrize(
    ("argument", "data"),
    [
        *(("probe_data", data) for data in OF_TRAINING),
        # Both arguments go through the same questions: a data set and another kind of data will do.
        *(
            pytest.param("validation_data", data, marks=[] if data in (shuffled, Noisy) else pytest.mark.slow)
            for data in OF_TRAINING
        ),
    ],
)
def test_data_of_training_are_not_touched(argument: str, data: Any, tmp_path: Path) -> None:
    """The very object that ``fit`` trains on is given to the lens."""

    def trained(with_lens: bool) -> dict[str, Any]:
        model = DROPOUT.make()
        given = data()
        callbacks = [lens(tmp_path, **{argument: given})] if with_lens else []
        model.fit(given, epochs=3, verbose=0, shuffle=False, callbacks=callbacks)
        kept = state(model)
        return {key: value for key, value in kept.items() if key not in ("python", "numpy")}

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*shuffle=", UserWarning)
        without = trained(False)
        with complaints() as heard:
            assert_same(without, trained(True))
    assert len(heard) == 1 and "pass arrays (x, y)" in heard[0]
    read = record(tmp_path)
    told = read.manifest.not_evaluated.get("losses", "") + " ".join(read.manifest.notes)
    assert "pass arrays (x, y)" in told


def test_a_generator_is_not_consumed(tmp_path: Path) -> None:
    taken: list[int] = []

    def batches() -> Iterator[Any]:
        for i in range(99):
            taken.append(i)
            yield arrays(BATCH)

    with complaints() as heard:
        fit(DROPOUT, lens(tmp_path, validation_data=batches()))
    assert taken == [] and len(heard) == 1


PURE: dict[str, Callable[[], Any]] = {
    "arrays": lambda: arrays(),
    "list of batches": lambda: [arrays(BATCH), arrays(BATCH, seed=2)],
    "dataset": lambda: tf.data.Dataset.from_tensor_slices(arrays()).batch(BATCH).prefetch(2),
    "mapped": lambda: tf.data.Dataset.from_tensor_slices(arrays()).map(lambda x, y: (2 * x, y)).batch(BATCH).cache(),
    "zipped": lambda: (
        tf.data.Dataset.zip(tuple(map(tf.data.Dataset.from_tensor_slices, arrays()))).repeat().batch(BATCH)
    ),
    "stateless noise": lambda: (
        tf.data.Dataset.from_tensor_slices(arrays())
        .batch(BATCH)
        .map(lambda x, y: (x + tf.random.stateless_normal(tf.shape(x), (1, 2)), y))
    ),
    "nested": lambda: tf.data.Dataset.range(2).interleave(lambda i: tf.data.Dataset.from_tensors(arrays(BATCH))),
}


@pytest.mark.parametrize("name", PURE)
def test_data_without_side_effects_are_probed(name: str) -> None:
    ((x, y),) = BACKEND.batches.first(PURE[name](), BATCH, 1)
    assert len(x) == len(y) == BATCH and tf.is_tensor(x)


def test_what_cannot_be_probed_says_why(tmp_path: Path) -> None:
    inside = tf.data.Dataset.range(2).flat_map(lambda i: tf.data.Dataset.range(9).shuffle(3))
    filed = tf.data.Dataset.range(2).cache(str(tmp_path / "cache"))
    variant = tf.data.experimental.from_variant(
        tf.data.experimental.to_variant(tf.data.Dataset.range(2)), tf.TensorSpec((), tf.int64)
    )
    for data, why in (
        (inside, "Shuffle"),
        (filed, "cached in a file"),
        (variant, "cannot be told"),
        (iter([1]), "once"),
    ):
        assert why in BACKEND.batches.side_effect(data)
        with pytest.raises(Refused, match="pass arrays"):
            BACKEND.batches.first(data, 3, 1)
    with pytest.raises(TypeError, match="the data is a set"):
        BACKEND.batches.first({1}, 3, 1)


def test_validation_data_of_fit_are_probed(tmp_path: Path) -> None:
    x, y = arrays()
    model = DROPOUT.make()
    model.fit(x, y, validation_data=arrays(16, seed=9), batch_size=BATCH, verbose=0, callbacks=[lens(tmp_path / "a")])
    assert np.all(np.isfinite(record(tmp_path / "a").loss("inference", "validation")))
    model = DROPOUT.make()
    model.fit(x, y, validation_split=0.5, batch_size=BATCH, verbose=0, callbacks=[lens(tmp_path / "b")])
    assert np.all(np.isfinite(record(tmp_path / "b").loss("inference", "validation")))
    model = DROPOUT.make()
    with complaints() as heard:
        model.fit(x, y, validation_data=shuffled(), batch_size=BATCH, verbose=0, callbacks=[lens(tmp_path / "c")])
    read = record(tmp_path / "c")
    assert heard == [] and any("validation data" in note and "shuffled" in note for note in read.manifest.notes)


# --- models ---------------------------------------------------------------------------------------------


class Adversarial(keras.Model):  # type: ignore[misc]
    """No ``call``: the step calls the two networks."""

    def __init__(self, built: bool) -> None:
        super().__init__()
        first = [keras.Input((4,))] if built else []
        self.maker = keras.Sequential([*first, keras.layers.Dense(8), models.batch_norm("norm"), keras.layers.Dense(6)])
        self.judge = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
        self.own = keras.optimizers.SGD(0.01)

    def train_step(self, data: Any) -> Any:
        x, _ = data
        z = tf.random.stateless_normal((tf.shape(x)[0], 4), (1, 2))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.judge(x) - self.judge(self.maker(z, training=True))))
        weights = self.trainable_variables
        self.own.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


@pytest.mark.parametrize("built", [True, False])
def test_models_without_call(built: bool, tmp_path: Path) -> None:
    setup = Setup("", lambda: Adversarial(built), compile={"loss": None})
    without = state(fit(setup))
    model = fit(setup, lens(tmp_path))
    assert_clean(model)
    assert_same(without, state(model))
    read = record(tmp_path)
    assert [layer.channels for layer in read.manifest.layers] == [8]
    assert read.last_step == 8 and np.all(np.isfinite(read.last("distance_rms")))
    assert read.last("updates") == (8 if built else 7), "unbuilt parts are found after the first step"
    assert "give the model a call()" in read.manifest.not_evaluated["losses"]


def mix_in() -> Any:
    class Mixed(keras.src.backend.tensorflow.trainer.TensorFlowTrainer, keras.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            keras.layers.Layer.__init__(self)
            keras.src.backend.tensorflow.trainer.TensorFlowTrainer.__init__(self)
            self.norm, self.out = models.batch_norm("a"), keras.layers.Dense(1)

        def call(self, x: Any, training: bool = False) -> Any:
            return self.out(self.norm(x, training=training))

    return Mixed()


def test_trainers_that_are_not_models(tmp_path: Path) -> None:
    setup = Setup("", mix_in)
    without = weights(fit(setup))
    model = fit(setup, lens(tmp_path))
    assert_same(without, weights(model))
    read = record(tmp_path)
    assert len(read.manifest.layers) == 1 and np.all(np.isfinite(read.loss("inference")))


def weights(model: Any) -> dict[str, Any]:
    return {str(i): np.asarray(variable) for i, variable in enumerate(model.weights)}


# --- the callback itself --------------------------------------------------------------------------------


def test_construction_takes_no_name_and_opens_nothing(tmp_path: Path) -> None:
    keras.backend.clear_session(free_memory=False)
    BNLens(str(tmp_path / "run"))
    assert keras.Sequential().name == "sequential"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy])
def test_copies_of_a_lens_record(copied: Any, tmp_path: Path) -> None:
    """keras-tuner copies the callbacks for each trial, before and after a fit."""
    ours = lens(tmp_path)
    for lensed in (copied(ours), ours, copied(ours)):
        model = fit(DROPOUT, lensed)
        assert_clean(model)
    assert all(record(tmp_path, run).last_step == 8 for run in ("run", "run/fit-2", "run/fit-3"))
    assert pickle.loads(pickle.dumps(ours))._options == ours._options


def test_a_copy_made_in_fit_watches_nothing(tmp_path: Path) -> None:
    ours = lens(tmp_path)
    copies: list[BNLens] = []
    fit(DROPOUT, ours, AtStep(3, lambda _: copies.append(copy.deepcopy(ours))))
    assert copies[0]._model is None
    fit(DROPOUT, copies[0])
    assert record(tmp_path, "run/fit-2").last_step == 8


@pytest.mark.parametrize("fails", [False, True])
def test_a_nested_fit_with_the_same_lens(fails: bool, tmp_path: Path) -> None:
    def trained(directory: Path | None) -> dict[str, Any]:
        ours = [] if directory is None else [lens(directory)]
        inner = DROPOUT.make()

        def train_another(_: Any) -> None:
            company = [AtStep(2, lambda _: 1 / 0)] if fails else []
            try:
                fit(DROPOUT, *ours, *company, model=inner)
            except ZeroDivisionError:
                pass

        outer = fit(DROPOUT, *ours, AtStep(3, train_another))
        assert_clean(outer)
        assert_clean(inner)
        return {"inner": weights(inner)} | state(outer)

    without = trained(None)
    with complaints() as heard:
        assert_same(without, trained(tmp_path))
    assert heard == []
    outer, inner = record(tmp_path), record(tmp_path, "run/fit-2")
    assert outer.last_step == 8 and not outer.manifest.not_evaluated
    assert (inner.manifest.ended, outer.manifest.ended) == ("interrupted" if fails else "planned", "planned")


def test_a_reason_names_the_cause() -> None:
    class M(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            raise TypeError("the shapes are wrong")

    with pytest.raises(TypeError) as raised:
        M()(np.zeros((2, 3)))
    assert cause_of(raised.value) == "TypeError: the shapes are wrong"
    with pytest.raises(tf.errors.InvalidArgumentError) as raised_by_op:
        tf.linalg.inv(tf.zeros((2, 3)))
    assert "{{" not in cause_of(raised_by_op.value) and "[Op:" not in cause_of(raised_by_op.value)
    assert cause_of(ValueError()) == "ValueError"
    assert cause_of(ValueError("expected one of:\n a\n b\n")) == "ValueError: expected one of: a b"
    with pytest.raises(TypeError) as no_value:
        tf.function(float, autograph=False)(tf.constant(1.0))
    assert why_no_loss(no_value.value, targets=True).startswith("The loss reads the value of a tensor in Python")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"log_dir": None}, "log_dir is None"),
        ({"log_dir": keras.layers.Dense(1)}, "log_dir is a Dense"),
        ({"log_dir": "logs\n"}, "control character"),
        ({"overhead": 5}, "overhead is 5; .* e.g. 0.01 for 1%"),
        ({"overhead": 0}, "overhead is 0; .* above 0, up to 1"),
        ({"overhead": math.nan}, "overhead is nan"),
        ({"verbose": "yes"}, "verbose is 'yes'; expected 0"),
        ({"overhead": True}, "overhead is True"),
        ({"tolerance": "10%"}, "tolerance is '10%'"),
        ({"ignore": ["momentum-too-high"]}, "ignore is a list; expected a dict"),
        ({"ignore": {"momentum-to-high": "*"}}, "did you mean 'momentum-too-high'"),
        ({"ignore": {"momentum-too-high": 3}}, "expected a layer name pattern"),
    ],
)
def test_arguments_are_checked_where_they_are_given(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        BNLens(**{"log_dir": "logs", **arguments})


@pytest.mark.parametrize("steps", [-3, math.inf, "all"])
def test_planned_steps_are_a_number(steps: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"planned_steps is .* expected the steps of the whole training"):
        Recorder(DROPOUT.make(), str(tmp_path), planned_steps=steps)


def test_a_pattern_may_be_a_string(tmp_path: Path) -> None:
    fit(DROPOUT, lens(tmp_path, ignore={"momentum-too-high": "head*"}))
    assert record(tmp_path).manifest.ignore == {"momentum-too-high": ("head*",)}

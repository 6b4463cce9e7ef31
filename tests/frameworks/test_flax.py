"""flax nnx: what is recorded is true, and nothing in training changes."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

nnx: Any = pytest.importorskip("flax.nnx")
jax: Any = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402

from tb_bnlens.capture.errors import NotEvaluated, Refused  # noqa: E402
from tb_bnlens.capture.targets import NO_CLASSES, entropy_in  # noqa: E402
from tb_bnlens.diagnosis.causes import CAUSES  # noqa: E402
from tb_bnlens.diagnosis.words import WORDS  # noqa: E402
from tb_bnlens.flax import Recorder, check, recalibrate, set_momentum  # noqa: E402
from tb_bnlens.frameworks.flax.adapter import FlaxModel  # noqa: E402
from tb_bnlens.frameworks.flax.batches import Batch, FlaxBatches  # noqa: E402
from tb_bnlens.moments.moments import Moments  # noqa: E402
from tb_bnlens.moments.segments import Segments  # noqa: E402
from tb_bnlens.reader import list_runs, open_logdir, read_run  # noqa: E402
from tb_bnlens.report.build import run_report  # noqa: E402

STEPS = 120


class Net(nnx.Module):  # type: ignore[misc]
    def __init__(self, momentum: float, dropout: float = 0.0, calls: int = 1):
        rngs = nnx.Rngs(0)
        self.hidden = nnx.Linear(8, 16, rngs=rngs)
        self.blocks = nnx.List([nnx.BatchNorm(16, momentum=momentum, rngs=rngs)])
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.out = nnx.Linear(16, 1, rngs=rngs)
        self.calls = calls

    def __call__(self, x: Any) -> Any:
        x = self.hidden(x)
        for _ in range(self.calls):
            x = self.blocks[0](x)
        return self.out(self.dropout(nnx.relu(x)))


def loss(predictions: Any, target: Any) -> Any:
    return optax.l2_loss(predictions, target)


@nnx.jit  # type: ignore[untyped-decorator]
def train_step(model: Any, optimizer: Any, x: Any, y: Any) -> None:
    optimizer.update(model, nnx.grad(lambda m: loss(m(x), y).mean())(model))


def batches(count: int, size: int = 32) -> Iterator[tuple[Any, Any]]:
    """Inputs far from mean 0 and variance 1, and a linear target."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        x = (3 + 2 * rng.normal(size=(size, 8))).astype(np.float32)
        yield x, x[:, :1] - x[:, 1:2]


def arrays(model: Any) -> list[Any]:
    """All of a model: parameters, statistics and random streams."""
    leaves = jax.tree.leaves(nnx.state(model))
    keys = (jax.random.key_data(v) if jnp.issubdtype(v.dtype, jax.dtypes.prng_key) else v for v in leaves)
    return [np.array(key) for key in keys]


@dataclass
class Trained:
    model: Any
    report: Any = None


def train(momentum: float, where: Path | None = None, end_in_eval: bool = False) -> Trained:
    model = Net(momentum, dropout=0.2)
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    lens = None
    if where is not None:
        metrics = {"error": lambda p, t: jnp.abs(p - t)}
        lens = Recorder(model, str(where), loss, metrics=metrics, planned_steps=STEPS, on_error="raise")
    for x, y in batches(STEPS):
        train_step(model, optimizer, x, y)
        if lens is not None:
            lens.record(x, y)
    if lens is None:
        return Trained(model)
    if end_in_eval:
        model.eval()
    lens.close()
    provider = open_logdir(str(where))
    return Trained(model, run_report(read_run(provider, "", list_runs(provider)[0])))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(0.9999, tmp_path_factory.mktemp("faulty"))


def test_training_is_bit_identical(faulty: Trained) -> None:
    plain = train(0.9999)
    assert len(arrays(plain.model)) == 10, "the random stream of dropout is among them"
    for without, with_lens in zip(arrays(plain.model), arrays(faulty.model), strict=True):
        assert np.array_equal(without, with_lens)
    layer = faulty.model.blocks[0]
    assert type(layer) is nnx.BatchNorm
    assert (layer.momentum, layer.use_running_average, faulty.model.dropout.deterministic) == (0.9999, False, False)


def test_targets_that_are_classes() -> None:
    form = FlaxBatches()
    assert entropy_in(form.targets, (jnp.zeros((2, 8)), jnp.array([0, 2]))) == pytest.approx(np.log(2))
    assert entropy_in(form.targets, (jnp.zeros((2, 8)), jnp.array([0.1, 2.0]))) == NO_CLASSES
    assert np.isnan(entropy_in(form.targets, jnp.zeros((2, 8))))


def test_a_faulty_training_is_named_in_the_words_of_flax(faulty: Trained) -> None:
    report = faulty.report
    assert (report["framework"], report["severity"]) == ("flax", "error")
    (cause,) = (f for f in report["findings"] if f["rule"] == "momentum-too-high")
    assert cause["layers"] == ["blocks.0"]
    assert "Momentum 0.9999" in cause["summary"]
    assert "tb_bnlens.flax.recalibrate(model, data" in cause["rescue"]
    assert "tb_bnlens.flax.set_momentum(model, 0." in cause["fix"]
    assert "compile" not in cause["fix"]
    assert set(report["losses"]["metrics"]) == {"error"}


def test_a_loop_that_ends_in_eval_mode_is_judged_as_it_trained(faulty: Trained, tmp_path: Path) -> None:
    found = train(0.9999, tmp_path, end_in_eval=True)
    assert found.model.blocks[0].use_running_average and found.model.dropout.deterministic
    assert found.report["verdict"] == faulty.report["verdict"]


def test_the_code_of_the_report_runs_and_rescues(faulty: Trained) -> None:
    (cause,) = (f for f in faulty.report["findings"] if f["rule"] == "momentum-too-high")
    model = nnx.clone(faulty.model)
    given = {"model": model, "data": list(batches(20))}
    exec(cause["rescue"], given)
    exec(cause["fix"], given)
    assert model.blocks[0].momentum < 0.9999
    assert check(faulty.model, given["data"], loss=loss, quiet=True).severity == "error"
    assert check(model, given["data"], loss=loss, quiet=True).severity in ("none", "info")
    model.eval()
    assert check(model, given["data"], loss=loss, quiet=True).severity in ("none", "info")
    assert model.blocks[0].use_running_average


def test_the_rescue_leaves_out_the_batch_that_poisoned_the_statistics(faulty: Trained) -> None:
    model, data = nnx.clone(faulty.model), list(batches(20))
    model.blocks[0].mean[...] = jnp.full(16, jnp.nan)
    found = check(model, data, loss=loss, quiet=True).findings
    (cause,) = (f for f in found if f["rule"] == "non-finite-statistics")
    bad = np.full((32, 8), np.inf, np.float32)
    with pytest.warns(UserWarning, match="1 of 21 batches of data gave statistics that are not finite"):
        exec(cause["rescue"], {"model": model, "data": [(bad, bad[:, :1]), *data]})
    assert check(model, data, loss=loss, quiet=True).severity in ("none", "info")


def test_a_healthy_training_is_silent(tmp_path: Path) -> None:
    assert train(0.9, tmp_path).report["severity"] in ("none", "info")


def test_weights_that_were_loaded_without_statistics_are_told(tmp_path: Path) -> None:
    def begins(trained: bool) -> list[tuple[int, ...]]:
        model, where = Net(0.999, dropout=0.2), str(tmp_path / str(trained))
        if trained:
            bias = model.blocks[0].bias
            bias[...] = jnp.arange(bias[...].size, dtype=jnp.float32)
        with Recorder(model, where, loss, on_error="raise") as lens:
            for x, y in batches(3):
                lens.record(x, y)
        provider = open_logdir(where)
        events = read_run(provider, "", list_runs(provider)[0]).manifest.events
        return [event.layers for event in events if event.kind == "new_statistics"]

    assert (begins(True), begins(False)) == ([(0,)], [])


def test_every_cause_has_words_for_flax() -> None:
    for words in (WORDS[cause.id].of("flax") for cause in CAUSES):
        text = " ".join((words.name, words.title, words.failure_title, words.description))
        assert "oving statistic" not in text


# --- the passes ------------------------------------------------------------------------------------------


def runner_of(model: Any, **options: Any) -> tuple[Any, Any]:
    adapter = FlaxModel(model, loss, **options)
    layers = adapter.layers()
    return adapter.runner(layers, Segments([layer.channels for layer in layers])), adapter.reader(layers)


def test_batch_statistics_against_numpy() -> None:
    model = Net(0.9, dropout=0.5, calls=2)
    runner, reader = runner_of(model)
    x, y = next(batches(1))
    before, moving = arrays(model), Moments(reader.read().mean, reader.read().spread).double()
    hidden = x.astype(np.float64) @ np.asarray(model.hidden.kernel[...]) + np.asarray(model.hidden.bias[...])
    layer, eps = model.blocks[0], model.blocks[0].epsilon
    once = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + eps)  # scale is 1 and bias 0
    batch = runner.batch(Batch(x, y), moving)
    trained = runner.training(Batch(x, y))
    assert list(runner.order) == [0, 0]
    for outcome in (batch, trained):
        np.testing.assert_allclose(outcome.moments.mean, (hidden.mean(0) + once.mean(0)) / 2, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(outcome.moments.variance, (hidden.var(0) + once.var(0)) / 2, rtol=1e-4)
    first, second = batch.calls[0]
    np.testing.assert_allclose(first.mean, hidden.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(second.variance, once.var(0), rtol=1e-4)
    np.testing.assert_allclose(
        trained.after.spread, 0.9 * (0.9 * 1 + 0.1 * hidden.var(0)) + 0.1 * once.var(0), rtol=1e-4
    )

    whole, nothing = np.ones(16, bool), np.zeros(16, bool)
    shifted = Moments(moving.mean + 1, moving.variance * 4)
    inference = runner.inference(Batch(x, y), shifted).loss
    assert runner.batch(Batch(x, y), shifted, whole).loss == pytest.approx(inference, rel=1e-5)
    assert runner.batch(Batch(x, y), shifted, nothing).loss == pytest.approx(batch.loss, rel=1e-6)
    by_hand = nnx.clone(model)
    by_hand.eval()
    by_hand.blocks[0].mean[...], by_hand.blocks[0].var[...] = jnp.ones(16), jnp.full(16, 4.0)
    assert inference == pytest.approx(float(loss(by_hand(x), y).mean()), rel=1e-5)
    rows = runner.rows(Batch(x, y), batch.predictions, np.arange(32))
    assert rows.mean() == pytest.approx(batch.loss, rel=1e-5)
    for was, now in zip(before, arrays(model), strict=True):
        assert np.array_equal(was, now)
    assert layer.momentum == 0.9


class Counting:
    """A loss that keeps a count; an eager loop calls it in each step."""

    def __init__(self) -> None:
        self.calls, self.held = 0, [0]

    def __call__(self, predictions: Any, target: Any) -> Any:
        self.calls += 1
        self.held[0] += 1
        return loss(predictions, target) * (1 + 0.01 * (self.calls + self.held[0]))


def test_a_loss_that_counts_is_put_back() -> None:
    model, counting = Net(0.9), Counting()
    adapter = FlaxModel(model, counting, {"error": counting})
    layers = adapter.layers()
    runner, read = adapter.runner(layers, Segments([layer.channels for layer in layers])), adapter.reader(layers).read()
    x, y = next(batches(1))
    batch, held = Batch(x, y), counting.held
    outcome = runner.inference(batch, Moments(read.mean, read.spread).double())
    runner.rows(batch, outcome.predictions, np.arange(4))
    runner.update(runner.metric_state(), batch, outcome.predictions)
    assert (counting.calls, counting.held) == (0, [0]) and counting.held is held


class Moody(nnx.Module):  # type: ignore[misc]
    """Takes its mode as an argument, and has one layer that never uses its statistics."""

    def __init__(self) -> None:
        self.a, self.b = (nnx.BatchNorm(8, rngs=nnx.Rngs(0), use_running_average=None) for _ in range(2))

    def __call__(self, x: Any, train: bool) -> Any:
        return self.b(self.a(x, use_running_average=not train), use_running_average=False)[:, :1]


def test_the_mode_that_a_call_asks_for_counts() -> None:
    runner, reader = runner_of(Moody(), forward=lambda model, x, training: model(x, training))
    x, y = next(batches(1))
    moving = Moments(reader.read().mean, reader.read().spread).double()
    moving = Moments(moving.mean * np.nan, moving.variance)
    assert np.isfinite(runner.batch(Batch(x, y), moving).loss), "statistics that are not finite are not used"
    assert np.isfinite(runner.batch(Batch(x, y), moving).moments.mean).all()
    runner.inference(Batch(x, y), moving)
    assert runner.at_inference == {0: False, 1: True}
    runner.training(Batch(x, y))
    assert runner.trains == {0: True, 1: True}


class Remat(nnx.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        self.norm = nnx.BatchNorm(8, rngs=nnx.Rngs(0))

    def __call__(self, x: Any) -> Any:
        return nnx.remat(lambda module, x: module(x))(self.norm, x)


def test_a_layer_inside_a_transformation_is_refused() -> None:
    runner, reader = runner_of(Remat())
    x, y = next(batches(1))
    with pytest.raises(NotEvaluated, match=r"nnx\.remat"):
        runner.batch(Batch(x, y), Moments(reader.read().mean, reader.read().spread))


# --- remedies and refusals -------------------------------------------------------------------------------


def test_recalibrate_and_set_momentum_can_be_undone() -> None:
    model = Net(0.99)
    before, data = arrays(model), np.concatenate([x for x, _ in batches(8)])
    with recalibrate(model, data) as change:
        assert (change.layers, change.samples) == (("blocks.0",), 256)
        hidden = np.asarray(model.hidden(data), np.float64).reshape(8, 32, 16)
        np.testing.assert_allclose(model.blocks[0].mean[...], hidden.mean((0, 1)), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(model.blocks[0].var[...], hidden.var(1).mean(0), rtol=1e-3)
    assert all(np.array_equal(was, now) for was, now in zip(before, arrays(model), strict=True))
    old = set_momentum(model, 0.9)
    assert old == {"blocks.0": 0.99}
    assert model.blocks[0].momentum == 0.9
    set_momentum(model, old)
    assert model.blocks[0].momentum == 0.99
    for wrong, why in ((0.1, "PyTorch's 0.1 is 0.9"), (1.0, "1 would never update"), ({"bn": 0.9}, "blocks.0")):
        with pytest.raises(ValueError, match=why):
            set_momentum(model, wrong)


def test_what_is_no_nnx_module_or_data_is_refused(tmp_path: Path) -> None:
    linen = pytest.importorskip("flax.linen")
    with pytest.raises(ValueError, match=r"expected a flax\.nnx\.Module; a Linen module"):
        Recorder(linen.Dense(1), str(tmp_path))
    with pytest.raises(ValueError, match="model is an int"):
        check(3, [])
    with pytest.raises(Refused, match="a list of batches"):
        FlaxBatches().first(batches(1), 32, 1)
    with pytest.raises(TypeError, match="a tuple of 3"):
        FlaxBatches().first([(1, 2, 3)], 32, 1)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda lens: pickle.loads(pickle.dumps(lens))])
def test_copies_of_a_recorder_record_nothing(copied: Any, faulty: Trained, tmp_path: Path) -> None:
    with Recorder(faulty.model, str(tmp_path), verbose=0, on_error="raise") as lens, copied(lens) as other:
        assert other is not lens and isinstance(other, Recorder)
        other.record(np.zeros((4, 8), np.float32))
        assert other.step == 0 and other.directory is None and other.planned_steps is None


def test_neither_tensorflow_nor_keras_is_loaded() -> None:
    code = "import tb_bnlens.flax, sys; print([n for n in ('tensorflow', 'keras', 'torch') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

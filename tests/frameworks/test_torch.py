"""PyTorch: what is recorded is true, and nothing in training changes."""

from __future__ import annotations

import copy
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn: Any = torch.nn

from tb_bnlens.capture.errors import Refused  # noqa: E402
from tb_bnlens.capture.measure import Measurement  # noqa: E402
from tb_bnlens.capture.reservoir import Reservoir  # noqa: E402
from tb_bnlens.capture.rows import ProbeState  # noqa: E402
from tb_bnlens.capture.targets import NO_CLASSES, entropy_in  # noqa: E402
from tb_bnlens.frameworks.torch.adapter import TorchModel  # noqa: E402
from tb_bnlens.frameworks.torch.batches import Batch, TorchBatches  # noqa: E402
from tb_bnlens.frameworks.torch.layers import StatisticsReader, find_layers  # noqa: E402
from tb_bnlens.frameworks.torch.outcomes import Outcomes  # noqa: E402
from tb_bnlens.moments.moments import Moments  # noqa: E402
from tb_bnlens.moments.recovery import WindowRecovery  # noqa: E402
from tb_bnlens.moments.segments import Segments  # noqa: E402
from tb_bnlens.torch import Recorder, check, recalibrate, set_momentum  # noqa: E402
from tests.frameworks.torch_runs import LOSS, Blob, batches, record_of, report_of, small, state, train  # noqa: E402

torch.set_num_threads(1)
LONG = 200
"""Steps in which the small network learns."""


# --- nothing changes ------------------------------------------------------------------------------------


def conv() -> Any:
    block = [nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6, momentum=0.05), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 1))


def volume() -> Any:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2, 2)), nn.Conv3d(1, 4, 2), nn.BatchNorm3d(4), nn.Flatten(), nn.Linear(4, 1)
    )


def images(x: Any) -> Any:
    return x.reshape(-1, 1, 4, 2).repeat(1, 1, 1, 2)


def accumulated(model: Any, optimizer: Any, x: Any, y: Any, i: int) -> None:
    """Four micro-batches a step."""
    optimizer.zero_grad()
    for part, target in zip(x.chunk(4), y.chunk(4), strict=True):
        (LOSS(model(part), target) / 4).backward()
    optimizer.step()


def autocast(model: Any, optimizer: Any, x: Any, y: Any, i: int) -> None:
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSS(model(x), y)
    loss.backward()
    optimizer.step()


def draws(model: Any, optimizer: Any, x: Any, y: Any, i: int) -> None:
    """A step that draws from every random generator, which a pass must not advance."""
    noise = torch.rand(()) + np.random.rand()  # noqa: NPY002
    optimizer.zero_grad()
    LOSS(model(x + 0.01 * noise), y).backward()
    optimizer.step()


class Remembers(nn.Module):  # type: ignore[misc, name-defined]
    """Counts its calls in an attribute and in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small(0.1)
        self.calls, self.last = 0, None
        self.register_buffer("met", torch.zeros(()))

    def forward(self, x: Any) -> Any:
        self.calls += 1
        self.met += x.mean()
        self.last = self.inner(x) * (1 + 1e-3 * self.calls)
        return self.last


SETUPS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "1d with dropout": (lambda: small(0.01, dropout=0.3), {}),
    "2d with dropout": (conv, {"reshape": images}),
    "3d": (volume, {}),
    "channels last": (
        lambda: conv().to(memory_format=torch.channels_last),
        {"reshape": lambda x: images(x).contiguous(memory_format=torch.channels_last)},
    ),
    "cumulative": (lambda: small(None), {}),
    "bfloat16": (lambda: small(0.1).to(torch.bfloat16), {"reshape": lambda x: x.to(torch.bfloat16)}),
    "autocast": (lambda: small(0.1, dropout=0.3), {"step": autocast}),
    "gradient accumulation": (lambda: small(0.1, dropout=0.3), {"step": accumulated}),
    "every random generator": (lambda: small(0.1, dropout=0.3), {"step": draws}),
    "state outside parameters": (Remembers, {}),
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(16), nn.LazyBatchNorm1d(momentum=0.01), nn.ReLU(), nn.LazyLinear(1)),
        {},
    ),
    "synchronized": (lambda: nn.SyncBatchNorm.convert_sync_batchnorm(small(0.1)), {"on_cpu": True}),
}


@pytest.mark.parametrize("setup", SETUPS)
def test_training_is_bit_identical(setup: str, tmp_path: Path) -> None:
    build, options = SETUPS[setup]
    options = {key: value for key, value in options.items() if key != "on_cpu"}
    if setup == "synchronized":
        # In training mode the module needs a GPU; in eval mode it does not.
        options["mode"] = lambda model, i: model.eval()
    plain, with_lens = train(build, **options), train(build, tmp_path, **options)
    assert with_lens.state.keys() == plain.state.keys()
    for name, value in plain.state.items():
        assert np.array_equal(value, with_lens.state[name], equal_nan=True), name
    assert with_lens.warnings == []
    assert with_lens.report["losses"]["inference"] is not None


def test_a_compiled_model_is_bit_identical_and_recorded(tmp_path: Path) -> None:
    def wrap(model: Any) -> Any:
        return torch.compile(model, backend="aot_eager")

    plain, with_lens = (train(lambda: small(0.01), where, wrap=wrap, steps=20) for where in (None, tmp_path))
    assert all(np.array_equal(v, with_lens.state[k]) for k, v in plain.state.items())
    assert [layer["name"] for layer in with_lens.report["layers"]] == ["1"]
    assert "_orig_mod" not in str(with_lens.report["layers"])


def test_an_autocast_block_around_the_whole_loop_keeps_its_gradients(tmp_path: Path) -> None:
    """Within one block a weight is cast once: a cast that a pass has made would have no gradient."""
    found = []
    for where in (None, tmp_path):
        torch.manual_seed(0)
        model = small(0.1)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        lens = None if where is None else Recorder(model, str(where), LOSS, on_error="raise", overhead=float("inf"))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for x, y in batches(4):
                optimizer.zero_grad()
                LOSS(model(x), y).backward()
                assert all(p.grad is not None for p in model.parameters())
                optimizer.step()
                if lens is not None:
                    lens.record(x, y)
        if lens is not None:
            lens.close()
        found.append(state(model))
        if lens is not None:
            lens.close()
    assert all(np.array_equal(v, found[1][k]) for k, v in found[0].items())


def test_averaged_models_and_update_bn_work_as_without(tmp_path: Path) -> None:
    def averaged(where: Path | None) -> dict[str, Any]:
        torch.manual_seed(0)
        model = small(0.1)
        mean = torch.optim.swa_utils.AveragedModel(model)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        lens = None if where is None else Recorder(model, str(where), LOSS, on_error="raise")
        for x, y in batches(12):
            optimizer.zero_grad()
            LOSS(model(x), y).backward()
            optimizer.step()
            mean.update_parameters(model)
            if lens is not None:
                lens.record(x, y)
        torch.optim.swa_utils.update_bn([x for x, _ in batches(8)], mean)
        if lens is not None:
            lens.close()
            # Statistics of the averaged weights as the running ones have them: nothing is stale.
            found = check(mean, list(batches(8)), loss=LOSS, quiet=True)
            assert (found.report["layers"][0]["distance"] or 0.0) < 0.02
        return state(mean)

    plain, with_lens = averaged(None), averaged(tmp_path)
    assert all(np.array_equal(v, with_lens[k]) for k, v in plain.items())


def test_neither_tensorflow_nor_keras_is_imported(tmp_path: Path) -> None:
    code = f"""
import sys, torch
from tb_bnlens.torch import Recorder, check
model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
x, y = torch.randn(64, 8), torch.randn(64, 1)
with Recorder(model, {str(tmp_path)!r}, torch.nn.MSELoss()) as lens:
    for _ in range(3):
        model(x).sum().backward()
        lens.record(x, y)
check(model, (x, y), loss=torch.nn.MSELoss())
assert not {{"tensorflow", "keras", "tf_keras", "jax"}} & set(sys.modules), "loaded"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "bn_lens").iterdir())


# --- ground truth ----------------------------------------------------------------------------------------


def runner_of(model: Any) -> tuple[Any, Moments]:
    layers = find_layers(model)
    segments = Segments([t.channels for t in layers])
    snapshot = StatisticsReader(layers).read()
    moving = Moments(snapshot.mean, snapshot.spread).double()
    return TorchModel(model, LOSS).runner(layers, segments), moving


@pytest.fixture
def trained() -> Iterator[Any]:
    torch.manual_seed(0)
    model = conv()
    for x, _ in batches(5):
        model(images(x))
    yield model


@pytest.mark.parametrize("lacking", ["", "_foreach_copy_"])
def test_passes_are_those_of_pytorch(trained: Any, lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if lacking:
        monkeypatch.delattr(torch, lacking, raising=False)
    ((x, y),) = batches(1, seed=5)
    batch, reference = Batch(images(x), y), copy.deepcopy(trained)
    runner, moving = runner_of(trained)
    before, random = state(trained), torch.get_rng_state()
    inference, by_batch, training = runner.inference(batch, moving), runner.batch(batch, moving), runner.training(batch)
    assert all(np.array_equal(v, before[k]) for k, v in state(trained).items())
    assert torch.equal(random, torch.get_rng_state()) and all(m.training for m in trained.modules())

    with torch.no_grad():
        reference.eval()
        assert inference.loss == pytest.approx(LOSS(reference(batch.x), y).item(), rel=1e-6)
        norm = reference[1]
        norm.train()
        kept, norm.momentum = norm.momentum, 1.0
        assert by_batch.loss == pytest.approx(LOSS(reference(batch.x), y).item(), rel=1e-6)
        # With momentum 1 the module holds the batch's own statistics, with the unbiased variance.
        assert by_batch.moments.variance == pytest.approx(norm.running_var.numpy(), rel=1e-5)
        fresh = copy.deepcopy(trained)
        torch.set_rng_state(random)
        assert training.loss == pytest.approx(LOSS(fresh(batch.x), y).item(), rel=1e-6)
        assert training.after.spread == pytest.approx(fresh[1].running_var.numpy(), rel=1e-5)
    assert kept == 0.05 and runner.order == (0,) and runner.trained().tolist() == [True]


def test_channels_on_their_moving_statistics_stay_there(trained: Any) -> None:
    ((x, y),) = batches(1, seed=5)
    batch = Batch(images(x), y)
    runner, moving = runner_of(trained)
    every = np.ones(6, bool)
    runner.batch(batch, moving)
    assert runner.batch(batch, moving, every).loss == runner.inference(batch, moving).loss
    assert tuple(runner.order) == (0,), "what a pass cannot see is not forgotten"
    one = np.arange(6) == 2
    assert runner.batch(batch, moving, one).loss not in (
        runner.inference(batch, moving).loss,
        runner.batch(batch, moving).loss,
    )


@pytest.mark.parametrize("momentum", [0.1, 0.001, None], ids=str)
@pytest.mark.parametrize("updates", [1, 7])
def test_a_window_holds_the_batches_between_two_snapshots(momentum: float | None, updates: int) -> None:
    """Few values a channel, so that the biased variance would be off by a third."""
    norm = nn.BatchNorm1d(3, momentum=momentum)
    rng = np.random.default_rng(0)
    drawn = [torch.tensor(2 + 3 * rng.normal(size=(4, 3)), dtype=torch.float32) for _ in range(5 + updates)]
    layers = find_layers(norm)
    reader, recovery = StatisticsReader(layers), WindowRecovery(layers, Segments([3]))
    for x in drawn[:5]:
        norm(x)
    before: Any = reader.read()
    for x in drawn[5:]:
        norm(x)
    after: Any = reader.read()
    assert (after.counts - before.counts).tolist() == [updates]
    found = recovery.recover(before, after, np.array([float(updates)]))
    weights = np.ones(updates) if momentum is None else (1 - momentum) ** np.arange(updates)[::-1]
    rows = [(x.mean(0).numpy(), x.var(0).numpy()) for x in drawn[5:]]
    # float32 statistics that move by a thousandth of the way have lost three of their seven digits.
    exact: Any = {"rtol": 1e-5, "atol": 2e-6 / (momentum or 0.1)}
    np.testing.assert_allclose(found.mean, np.average([m for m, _ in rows], axis=0, weights=weights), **exact)
    np.testing.assert_allclose(found.variance, np.average([v for _, v in rows], axis=0, weights=weights), **exact)


def test_a_snapshot_is_a_copy() -> None:
    norm = nn.BatchNorm1d(3)
    before: Any = StatisticsReader(find_layers(norm)).read()
    norm(torch.randn(16, 3) + 9)
    assert before.mean.tolist() == [0, 0, 0] and before.counts.tolist() == [0]


def test_kept_batches_are_copies(tmp_path: Path) -> None:
    """A loop that fills the same tensors again must not change what is judged."""
    torch.manual_seed(0)
    model, x, y = small(0.1), torch.empty(32, 8), torch.empty(32, 1)
    with Recorder(model, str(tmp_path), LOSS, on_error="raise") as lens:
        for values, targets in batches(20):
            x.copy_(values)
            y.copy_(targets)
            model(x)
            lens.record(x, y)
        x.fill_(1e6)
    assert report_of(tmp_path)["losses"]["inference"] < 1e3


def test_far_from_the_planned_end_few_batches_are_looked_at(tmp_path: Path) -> None:
    met = []
    for planned in (None, 100_000):
        recorder = Recorder(small(0.1), str(tmp_path / str(planned)), LOSS, planned_steps=planned, verbose=0)
        looked: list[int] = []

        class Counting(Reservoir):
            def offer(self, made: int, batches: list[Any], steps: int = 1, looked: list[int] = looked) -> None:
                looked.append(made)
                super().offer(made, batches, steps)

        recorder._batches.reservoir.__class__ = Counting
        for x, y in batches(150):
            recorder.record(x, y)
        met.append(len(looked))
    assert met[1] < 0.7 * met[0]


def test_steps_in_which_nothing_is_due_are_counted_and_their_batches_met(tmp_path: Path) -> None:
    recorder = Recorder(small(0.1), str(tmp_path), LOSS, planned_steps=100_000, verbose=0)
    passed = []
    for i, (x, y) in enumerate(batches(120), 1):
        short = i % 40 == 0
        x, y = (x[:8], y[:8]) if short else (x, y)
        passed.append(recorder.passes_by(Batch(x, y)))
        if not passed[-1]:
            recorder.record(x, y)
        assert recorder.step == i and recorder._batches._newest.x is not None
        assert recorder._batches._newest.x.shape == x.shape and not (short and passed[-1])
    assert sum(passed) > 20


def test_batches_without_a_loss_are_left_out(tmp_path: Path) -> None:
    """A batch without a label has none, and the loop makes no step on it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    optimizer, loss = torch.optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss()
    with Recorder(model, str(tmp_path), loss=loss, on_error="raise", verbose=0) as lens:
        for i, (x, _) in enumerate(batches(60)):
            y = torch.full((len(x),), -100) if i % 4 == 1 else x[:, :3].argmax(1)
            if i % 4 != 1:
                optimizer.zero_grad()
                loss(model(x), y).backward()
                optimizer.step()
            lens.record(x, y)
    history = record_of(tmp_path)
    found = history.evidence[-1]
    assert len(found.batch_sizes) >= 8 and np.isfinite(found.passes["inference"].losses).all()
    assert not any((found.batch_steps - 1) % 4 == 1)
    assert any("no finite loss" in note for note in history.manifest.notes)
    assert "diverged" not in report_of(tmp_path)["headline"]


class Own(torch.Tensor):  # type: ignore[misc, name-defined]
    """A tensor of the user's: to read it may run code."""


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (torch.tensor([0, 2]), math.log(2)),
        (torch.tensor([0.0, 1.0]).bfloat16(), math.log(2)),
        ({"a": torch.tensor([0, 2]), "b": torch.tensor([[0.1], [0.7]])}, NO_CLASSES),
        (torch.tensor([0, 2]).as_subclass(Own), None),
        (torch.eye(3).to_sparse(), None),
        (None, None),
    ],
)
def test_targets_that_are_classes(y: Any, expected: float | None) -> None:
    found = entropy_in(TorchBatches().targets, Batch(torch.zeros(2, 8), y))
    assert math.isnan(found) if expected is None else found == pytest.approx(expected)


def test_every_call_of_a_shared_layer_counts(tmp_path: Path) -> None:
    class Shared(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.dense, self.out = nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Linear(8, 1)

        def forward(self, x: Any) -> Any:
            return self.out(self.norm(torch.relu(self.dense(self.norm(x)))))

    (layer,) = train(Shared, tmp_path).report["layers"]
    # The record begins after the first of 40 steps.
    assert layer["updates"] == 2 * 39


def test_weights_that_were_loaded_without_statistics_are_told(tmp_path: Path) -> None:
    trained = train(lambda: small(0.1)).model
    parameters = {name: value for name, value in trained.state_dict().items() if "running" not in name}

    def loaded(keys: Callable[[str], bool]) -> Any:
        model = small(0.001)
        model.load_state_dict({name: value for name, value in parameters.items() if keys(name)}, strict=False)
        model[1].reset_running_stats()
        return model

    def summary(where: Path, keys: Callable[[str], bool]) -> str:
        report = train(lambda: loaded(keys), where).report
        (cause,) = (f for f in report["findings"] if f["rule"] == "momentum-too-high")
        return str(cause["summary"] + cause["fix"])

    told = summary(tmp_path / "loaded", lambda name: True)
    assert "if the weights were loaded, the statistics were not" in told and "load_state_dict" in told
    assert "loaded" not in summary(tmp_path / "linear alone", lambda name: not name.startswith("1."))


def test_names_and_access_reach_the_layers() -> None:
    model = nn.ModuleDict({"a": small(0.1), "b": nn.GroupNorm(2, 4), "c": nn.InstanceNorm1d(4, affine=True)})
    (layer,) = find_layers(torch.nn.DataParallel(model)) if torch.cuda.is_available() else find_layers(model)
    assert layer.name == "a.1"
    assert eval(layer.access, {"model": model}) is model["a"][1]
    (alone,) = find_layers(nn.BatchNorm2d(3))
    assert (alone.name, alone.access) == ("BatchNorm2d", "model")


# --- the verdict -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Blob:
    return train(lambda: small(0.001), tmp_path_factory.mktemp("faulty"), steps=LONG, metrics=True)


def found_in(report: Any) -> dict[str, str]:
    assert not [f for f in report["findings"] if f["status"] == "error"]
    return {f["rule"]: f["severity"] for f in report["findings"] if f["status"] == "fail"}


def test_a_slow_momentum_is_told_in_pytorch_s_convention(faulty: Blob) -> None:
    # Over all batches inference is 1.8 times as bad, near the limit of an error.
    assert found_in(faulty.report)["momentum-too-high"] in ("warning", "error")
    (found,) = (f for f in faulty.report["findings"] if f["rule"] == "momentum-too-high")
    assert "Momentum 0.001 needs" in found["summary"]
    assert "tb_bnlens.torch.set_momentum(model, 0." in found["fix"]
    assert faulty.report["framework"] == "torch"


def test_metrics_are_measured_in_both_modes(faulty: Blob) -> None:
    error = faulty.report["losses"]["metrics"]["error"]
    assert error["inference"] > 1.2 * error["batch"]


def test_the_rescue_gives_what_it_promises(faulty: Blob) -> None:
    (found,) = (f for f in faulty.report["findings"] if f["rule"] == "momentum-too-high")
    model, data = copy.deepcopy(faulty.model), list(batches(12, seed=3))
    before = evaluated(model, data)
    exec(compile(found["rescue"], "rescue", "exec"), {"model": model, "data": data})
    assert evaluated(model, data) < 0.2 * before
    assert evaluated(model, data) == pytest.approx(found["rescue_loss"], rel=0.8)


def test_the_fix_cures(faulty: Blob, tmp_path: Path) -> None:
    (found,) = (f for f in faulty.report["findings"] if f["rule"] == "momentum-too-high")

    def repaired() -> Any:
        model = small(0.001)
        exec(compile(found["fix"], "fix", "exec"), {"model": model})
        return model

    assert not {"error", "warning"} & set(found_in(train(repaired, tmp_path, steps=LONG).report).values())


def test_a_healthy_run_is_silent(tmp_path: Path) -> None:
    report = train(lambda: small(0.1), tmp_path, steps=LONG).report
    assert not {"error", "warning"} & set(found_in(report).values()), found_in(report)


def evaluated(model: Any, data: Any) -> float:
    model.eval()
    with torch.no_grad():
        return float(np.mean([LOSS(model(x), y).item() for x, y in data]))


def test_a_model_without_batchnorm_has_its_losses(tmp_path: Path) -> None:
    report = train(lambda: nn.Sequential(nn.Linear(8, 4), nn.GroupNorm(2, 4), nn.Linear(4, 1)), tmp_path).report
    assert report["layers"] == [] and report["losses"]["inference"] is not None


# --- arguments -------------------------------------------------------------------------------------------


def test_a_list_of_inputs_is_the_arguments_where_the_model_takes_several(tmp_path: Path) -> None:
    """The default loader makes a list of the tuple that a dataset gives."""

    class Pair(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inner = small(0.1)

        def forward(self, a: Any, b: Any) -> Any:
            return self.inner(a) - self.inner(b)

    given = [([x, x.flip(0)], y) for x, y in batches(8)]
    found = check(Pair(), given, loss=LOSS, quiet=True)
    assert found.report["losses"]["inference"] is not None


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel])
def test_a_pair_is_one_argument_where_the_model_takes_one(wrap: Callable[[Any], Any]) -> None:
    class Views(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inner = small(0.1)

        def forward(self, views: Any) -> Any:
            return self.inner(views[0]) - self.inner(views[1])

    given = [((x, x.flip(0)), y) for x, y in batches(8)]
    found = check(wrap(Views()), given, loss=LOSS, quiet=True)
    assert found.report["losses"]["inference"] is not None


def test_data_of_another_kind_is_refused_with_what_is_expected() -> None:
    model = small(0.1)
    with pytest.raises(ValueError, match=r"optimizer is an int; expected a torch\.optim"):
        Recorder(torch.nn.Linear(1, 1), "nowhere", optimizer=3)
    with pytest.raises(ValueError, match="model is a str; expected a torch"):
        check("model", [])
    with pytest.raises(TypeError, match="the data is an int; expected a DataLoader"):
        check(model, 3, loss=LOSS)
    with pytest.raises(ValueError, match="no batch"):
        check(model, [], loss=LOSS)
    with pytest.raises(ValueError, match="lazy modules that are not built"):
        check(nn.Sequential(nn.LazyBatchNorm1d()), list(batches(1)))
    with pytest.raises(ValueError, match="no BatchNorm module"):
        recalibrate(nn.Linear(8, 1), list(batches(1)))
    with pytest.warns(UserWarning, match="32 samples in 1 batch"):
        recalibrate(model, list(batches(1)))


@pytest.mark.parametrize("kind", ["persistent workers", "own generator", "own sampler", "wrapped"])
def test_a_loader_that_training_may_share_is_not_read(kind: str) -> None:
    """One generator for both loaders is PyTorch's recipe for repeatable runs; a persistent iterator serves one loop."""
    rows = torch.utils.data.TensorDataset(torch.randn(32, 8), torch.randn(32, 1))
    reads = []

    class Order(torch.utils.data.Sampler):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Iterator[int]:
            reads.append(kind)
            return iter(range(32))

        def __len__(self) -> int:
            return 32

    class Wrapped:
        def __iter__(self) -> Iterator[Any]:
            reads.append(kind)
            return iter(torch.utils.data.DataLoader(rows, 8))

    generator = torch.Generator().manual_seed(0)
    data: Any = {
        "persistent workers": lambda: torch.utils.data.DataLoader(rows, 8, num_workers=1, persistent_workers=True),
        "own generator": lambda: torch.utils.data.DataLoader(rows, 8, generator=generator),
        "own sampler": lambda: torch.utils.data.DataLoader(rows, 8, sampler=Order()),
        "wrapped": Wrapped,
    }[kind]()
    before = generator.get_state()
    with pytest.raises(Refused, match="could change what training gets; pass a list of batches"):
        TorchBatches().first(data, 8, 2)
    assert reads == [] and torch.equal(before, generator.get_state()) and getattr(data, "_iterator", None) is None
    shuffled = torch.utils.data.DataLoader(rows, 8, shuffle=True)
    assert len(TorchBatches().first(shuffled, 8, 2)) == len(TorchBatches().first(list(shuffled), 8, 2)) == 2


def test_a_loss_that_draws_leaves_the_random_state() -> None:
    def noisy(predictions: Any, target: Any) -> Any:
        return LOSS(predictions, target) + torch.rand(()) + float(np.random.rand())  # noqa: NPY002

    x, y = next(batches(1))
    outcomes = Outcomes(noisy, {"noisy": noisy})
    before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    outcomes.rows(Batch(x, y), y, np.arange(4))
    outcomes.update(outcomes.metric_state(), Batch(x, y), y)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == str(np.random.get_state())  # noqa: NPY002


def test_a_fault_in_the_loss_is_no_fault_of_training(tmp_path: Path) -> None:
    def broken(predictions: Any, target: Any) -> Any:
        raise KeyError("labels")

    run = train(lambda: small(0.1), tmp_path, loss=broken)
    [said] = run.warnings
    assert "labels" in said and "called as loss(predictions, target)" in said and "Training continues" in said
    assert "labels" in str(run.report["losses"]["not_evaluated"])
    assert run.report["layers"][0]["updates"] == 39


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (None, "The model has no loss: pass loss=..."),
        (lambda p, y: None, "The loss returns None, and a tensor is needed"),
    ],
)
def test_that_there_is_no_loss_is_said_once_while_it_can_be_mended(loss: Any, said: str, tmp_path: Path) -> None:
    first = Recorder(small(0.1), str(tmp_path), loss=loss, verbose=0)
    data = [batch for batch in batches(20)]
    with pytest.warns(UserWarning, match=re.escape(said)):
        first.record(*data[0])
    for batch in data[1:]:  # any other warning is an error
        first.record(*batch)
    first.close()


def test_a_loss_may_return_a_number(tmp_path: Path) -> None:
    run = train(lambda: small(0.1), tmp_path, loss=lambda p, y: LOSS(p, y).item())
    assert run.warnings == [] and run.report["losses"]["inference"] > 0


def test_without_a_loss_the_model_s_own_counts(tmp_path: Path) -> None:
    class Own(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inner = small(0.1)

        def forward(self, x: Any, labels: Any = None) -> Any:
            predicted = self.inner(x)
            return {"loss": LOSS(predicted, labels), "logits": predicted}

    model = Own()
    with Recorder(model, str(tmp_path), on_error="raise") as lens:
        for x, y in batches(10):
            model(x, labels=y)
            lens.record({"x": x, "labels": y})
    assert report_of(tmp_path)["losses"]["inference"] > 0


# --- check, recalibrate, set_momentum ----------------------------------------------------------------------


def test_a_check_says_the_same_and_changes_nothing(faulty: Blob) -> None:
    model = copy.deepcopy(faulty.model)
    data = torch.utils.data.DataLoader(list(zip(*next(batches(1, size=640)), strict=True)), 32, shuffle=True)
    for mode in (True, False):
        model.train(mode)
        before, random = state(model), torch.get_rng_state()
        found = check(model, data, loss=LOSS, quiet=True)
        assert torch.equal(random, torch.get_rng_state())
        assert all(np.array_equal(v, before[k]) for k, v in state(model).items())
        assert all(m.training is mode for m in model.modules())
        assert found.severity in ("warning", "error") and found.findings[0]["rule"] == "momentum-too-high"


def test_recalibrate_is_undone_and_leaves_all_else(faulty: Blob) -> None:
    model, data = copy.deepcopy(faulty.model), list(batches(12, seed=3))
    before = state(model)
    with recalibrate(model, data) as change:
        assert change.layers == ("1",) and change.samples == 12 * 32
        changed = {name for name, value in state(model).items() if not np.array_equal(value, before[name])}
        assert changed == {"1.running_mean", "1.running_var"}
    assert all(np.array_equal(v, before[k]) for k, v in state(model).items())


def test_recalibrate_agrees_with_update_bn() -> None:
    """Without dropout, which update_bn leaves on."""
    torch.manual_seed(0)
    ours = small(0.1)
    theirs, data = copy.deepcopy(ours), [x for x, _ in batches(12)]
    recalibrate(ours, data)
    torch.optim.swa_utils.update_bn(data, theirs)
    assert torch.allclose(ours[1].running_mean, theirs[1].running_mean, atol=1e-6)
    assert torch.allclose(ours[1].running_var, theirs[1].running_var, rtol=1e-5)


def test_recalibrate_leaves_layers_in_eval_mode() -> None:
    model, data = nn.Sequential(small(0.1), nn.BatchNorm1d(1)), list(batches(12))
    model[0].eval()
    assert recalibrate(model, data).skipped == {"0.1": "it is in eval mode"}
    assert recalibrate(model, data, frozen=True).layers == ("0.1", "1")
    model.eval()
    assert recalibrate(model, data).layers == ("0.1", "1")


def test_momentum_is_pytorch_s() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4, momentum=None, track_running_stats=False))
    old = set_momentum(model, 0.01)
    assert old == {"0": 0.1, "1": None} and model[0].momentum == 0.01
    set_momentum(model, old)
    assert model[1].momentum is None
    with pytest.raises(ValueError, match=r"the 0.99 of Keras is 0.01 here"):
        set_momentum(model, 0.99)
    assert set_momentum(model, 0.99, allow_high=True)["0"] == 0.1
    with pytest.raises(ValueError, match="never updates"):
        set_momentum(model, 0.0)
    with pytest.raises(ValueError, match="'x' is not a BatchNorm module"):
        set_momentum(model, {"x": 0.1})


def test_the_calls_of_a_layer_that_differ_most_are_compared() -> None:
    """As the first and the last of many time steps."""

    class Steps(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(8)

        def forward(self, x: Any) -> Any:
            return sum(self.norm(x + 0.5 * t) for t in range(6)).mean(1, keepdim=True)

    model, ((x, y),) = Steps(), batches(1, seed=5)
    runner, moving = runner_of(model)
    segments = Segments([8])
    recovery = WindowRecovery(find_layers(model), segments)
    measurement = Measurement(runner, TorchBatches(), ProbeState.empty(segments), recovery, segments, 0.1)
    (apart,) = measurement._alternation(runner.batch(Batch(x, y), moving))
    assert apart == pytest.approx(2.5 / 2, rel=0.2), "at a standard deviation of 2"

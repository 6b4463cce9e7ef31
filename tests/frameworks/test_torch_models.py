"""What libraries of models do and the other tests do not, each on a small network: see ``tests.upstream.zoo``."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
nn: Any = torch.nn

from tb_bnlens.capture.reservoir import KEPT_BYTES  # noqa: E402
from tb_bnlens.frameworks.torch.batches import Batch, TorchBatches  # noqa: E402
from tb_bnlens.torch import Recorder, check, recalibrate  # noqa: E402
from tests.frameworks.torch_runs import LOSS, record_of, report_of, state  # noqa: E402

torch.set_num_threads(1)
STEPS, ROWS = 8, 16


class Net(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)

    def forward(self, x: Any) -> Any:
        return self.last(torch.relu(self.norm(self.first(x))))


def rows() -> tuple[Any, Any]:
    return 3 + torch.randn(ROWS, 6), torch.randn(ROWS, 1)


def trained(
    build: Callable[[], Any],
    step: Callable[[Any, int], tuple[Any, Any, Any]],
    where: Path | None,
    **options: Any,
) -> tuple[Any, dict[str, Any], Any]:
    """The model, its state and its report; ``step`` gives a loss and what ``record`` is given."""
    torch.manual_seed(0)
    model = build().train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    settings = {"overhead": math.inf, "on_error": "raise", "verbose": 0, **options}
    recorder = None if where is None else Recorder(model, str(where), **settings)
    for i in range(STEPS):
        loss, x, y = step(model, i)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if recorder is not None:
            recorder.record(x, y)
    if recorder is not None:
        recorder.close()
    return model, state(model), None if where is None else report_of(where)


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert all((a[name] == b[name]).all() for name in a)


# --- batches of a class of their own -----------------------------------------------------------------------


class Graph:
    """As of a library for graphs: the model is given the object."""

    def __init__(self) -> None:
        self.x, self.y = rows()
        self.seen: list[int] = []


class OfGraphs(Net):
    """Writes what it computes into the graph."""

    def forward(self, graph: Any) -> Any:
        graph.seen.append(1)
        graph.x = graph.x * 1.1
        return super().forward(graph.x) + len(graph.seen)


@pytest.mark.parametrize("held", [lambda g: g, lambda g: [g], lambda g: {"graph": g}], ids=["object", "list", "dict"])
def test_what_a_pass_writes_into_an_object_of_the_batch_is_put_back(held: Any, tmp_path: Path) -> None:
    graphs: list[Graph] = []

    def step(model: Any, i: int) -> Any:
        if i == 0:
            graphs.append(Graph())
        return LOSS(model(graphs[-1]), graphs[-1].y), held(graphs[-1]), graphs[-1].y

    def forward(model: Any, x: Any) -> Any:
        return model(x["graph"] if isinstance(x, dict) else x[0] if isinstance(x, list) else x)

    _, plain, _ = trained(OfGraphs, step, None)
    model, watched, report = trained(OfGraphs, step, tmp_path, loss=LOSS, forward=forward)
    assert_same(plain, watched)
    assert len(graphs[0].seen) == len(graphs[1].seen) == STEPS
    assert report["losses"]["inference"] is not None
    check(model, [(held(graphs[1]), graphs[1].y)], loss=LOSS, forward=forward, quiet=True)
    assert len(graphs[1].seen) == STEPS


def test_an_object_that_the_loss_changes_is_put_back(tmp_path: Path) -> None:
    def loss(predicted: Any, graph: Any) -> Any:
        graph.seen.append(1)
        return LOSS(predicted, graph.y) * len(graph.seen)

    graphs: list[Graph] = []

    def step(model: Any, i: int) -> Any:
        if i == 0:
            graphs.append(Graph())
        return loss(model(graphs[-1].x), graphs[-1]), graphs[-1].x, graphs[-1]

    _, plain, _ = trained(Net, step, None)
    _, watched, report = trained(Net, step, tmp_path, loss=loss)
    assert_same(plain, watched)
    assert len(graphs[1].seen) == STEPS and report["losses"]["inference"] is not None


def test_the_memory_of_objects_counts() -> None:
    graph = Graph()
    form = TorchBatches()
    assert form.bytes(Batch(graph)) == graph.x.nbytes + graph.y.nbytes
    assert form.bytes(Batch([graph, graph.x])) == 2 * graph.x.nbytes + graph.y.nbytes
    graph.next = graph  # type: ignore[attr-defined]
    assert form.bytes(Batch(graph)) == graph.x.nbytes + graph.y.nbytes
    graph.x = graph.x * nn.Parameter(torch.ones(()))
    assert form.bytes(Batch(graph)) > KEPT_BYTES  # it would keep the activations of its step


# --- another output in eval mode -----------------------------------------------------------------------------


class Detector(Net):
    """Losses in training mode, boxes in eval mode."""

    def forward(self, x: Any, y: Any = None) -> Any:
        boxes = super().forward(x)
        return {"box": LOSS(boxes, y), "size": boxes.abs().mean()} if self.training else [{"boxes": b} for b in boxes]


def detected(model: Any, i: int) -> Any:
    x, y = rows()
    return summed(model(x, y)), (x, y), None


def summed(losses: Any, _: Any = None) -> Any:
    return sum(losses.values())


def test_a_loss_of_training_mode_alone_is_told_as_that(tmp_path: Path) -> None:
    _, plain, _ = trained(Detector, detected, None)
    model, watched, report = trained(Detector, detected, tmp_path, loss=summed)
    assert_same(plain, watched)
    for one in (report, check(model, [(rows(), None)], loss=summed, quiet=True).report):
        reason = one["losses"]["not_evaluated"]["losses"]
        assert reason.startswith("The model returns a list of dicts in inference mode and a dict in training mode")
        assert "'list' object has no attribute 'values'" in reason and "forward=f" in reason


def test_and_is_measured_as_the_reason_says(tmp_path: Path) -> None:
    def forward(model: Any, x: Any) -> Any:
        model.training = True
        return model(*x)

    model, watched, report = trained(Detector, detected, tmp_path, loss=summed, forward=forward)
    _, plain, _ = trained(Detector, detected, None)
    assert_same(plain, watched)
    assert model.training and report["losses"]["inference"] is not None
    assert report["losses"]["inference"] != report["losses"]["batch"]
    model.eval()
    check(model, [(rows(), None)], loss=summed, forward=forward, quiet=True)
    assert not model.training and not model.norm.training


# --- parts that are not used ---------------------------------------------------------------------------------


class WithSpare(Net):
    """Holds a part that no forward pass calls, as TabNet's first normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))


def usual(model: Any, i: int) -> Any:
    x, y = rows()
    return LOSS(model(x), y), x, y


def test_a_part_that_nothing_calls_is_no_finding(tmp_path: Path) -> None:
    model, _, report = trained(WithSpare, usual, tmp_path, loss=LOSS)
    for one in (report, check(model, [rows() for _ in range(4)], loss=LOSS, quiet=True).report):
        assert not [f for f in one["findings"] if "spare.1" in f["layers"] and f["status"] == "fail"]
        assert "never updated" not in one["verdict"]
        (spare,) = (layer for layer in one["layers"] if layer["name"] == "spare.1")
        assert spare["state"] == "unknown"


def test_weights_that_are_copied_without_their_statistics_still_are(tmp_path: Path) -> None:
    def step(model: Any, i: int) -> Any:
        with torch.no_grad():
            for parameter in model.spare.parameters():
                parameter.mul_(0.9)
        return usual(model, i)

    _, _, report = trained(WithSpare, step, tmp_path, loss=LOSS)
    (found,) = (f for f in report["findings"] if f["rule"] == "never-updated")
    assert found["status"] == "fail" and found["layers"] == ["spare.1"]


# --- gradients of zero ----------------------------------------------------------------------------------------


class TwoHeads(Net):
    """As a detector, whose head for large objects has no gradient while all objects are small."""

    def __init__(self) -> None:
        super().__init__()
        self.large = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

    def forward(self, x: Any) -> Any:
        return super().forward(x) + 0 * self.large(x)


def test_weights_of_the_optimizer_without_a_gradient_are_not_frozen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TwoHeads()
    for optimizer, status in ((torch.optim.SGD(model.parameters(), 0.1), "not_applicable"), (None, "fail")):
        where = tmp_path / status
        with Recorder(model, str(where), LOSS, optimizer=optimizer, overhead=math.inf, verbose=0) as lens:
            for i in range(STEPS):
                usual(model, i)
                x, y = rows()
                model.zero_grad()
                LOSS(model(x), y).backward()
                for parameter in model.parameters():
                    parameter.data.sub_(parameter.grad, alpha=0.1)
                lens.record(x, y)
        found = [f for f in report_of(where)["findings"] if f["rule"] == "frozen-weights-moving-statistics"]
        assert [f["status"] for f in found] == [status]


# --- rows that name others ------------------------------------------------------------------------------------


class Boxes(Net):
    """Rows of boxes say which image they are in, as in YOLO's batches."""

    def forward(self, x: Any, image: Any = None, place: Any = None) -> Any:
        taken = torch.zeros(ROWS)
        taken[image] = 1
        if taken.min() == 0:
            raise IndexError("an image without a box")
        return super().forward(x)


def test_new_batches_that_the_model_does_not_take_are_no_fault(tmp_path: Path) -> None:
    def step(model: Any, i: int) -> Any:
        (x, y), image = rows(), torch.randperm(ROWS)
        return LOSS(model(x, image), y), (x, image), y

    _, _, report = trained(Boxes, step, tmp_path, loss=LOSS)
    assert report["losses"]["inference"] is not None
    reasons = record_of(tmp_path).evidence[-1].not_evaluated
    assert reasons["recombined"].startswith("the model does not take new batches of the same rows (IndexError: an im")


# --- what a forward pass reports -------------------------------------------------------------------------------


class Results:
    """As of a trainer, which stops or sets the learning rate by what is logged."""

    def __init__(self) -> None:
        self.logged: list[float] = []


class LightningModule(Net):
    trainer = Results()

    def log(self, name: str, value: Any) -> None:
        self.trainer.logged.append(float(value))


Results.__module__ = LightningModule.__module__ = "lightning.pytorch"  # a package whose objects are not walked


class Logs(LightningModule):
    def forward(self, x: Any) -> Any:
        predicted = super().forward(x)
        self.log("mean", predicted.mean())
        return predicted

    def loss(self, predicted: Any, y: Any) -> Any:
        found = LOSS(predicted, y)
        self.log("loss", found)
        return found


def test_passes_log_nothing_in_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning", types.ModuleType("lightning"))

    def step(model: Any, i: int) -> Any:
        x, y = rows()
        return model.loss(model(x), y), x, y

    torch.manual_seed(0)
    model = Logs()
    logged = model.trainer.logged
    with Recorder(model, str(tmp_path), model.loss, overhead=math.inf, on_error="raise", verbose=0) as lens:
        for i in range(STEPS):
            _, x, y = step(model, i)
            lens.record(x, y)
    assert report_of(tmp_path)["losses"]["inference"] is not None
    assert len(logged) == 2 * STEPS and "log" not in vars(model)
    model.log("again", 0.0)
    assert len(logged) == 2 * STEPS + 1


# --- points of a sequence -------------------------------------------------------------------------------------


class Quasirandom(Net):
    def __init__(self) -> None:
        super().__init__()
        self.points = torch.quasirandom.SobolEngine(6, scramble=True, seed=0)

    def forward(self, x: Any) -> Any:
        return super().forward(x + self.points.draw(len(x)))


def test_a_sequence_of_points_goes_on_where_it_was(tmp_path: Path) -> None:
    model, plain, _ = trained(Quasirandom, usual, None)
    other, watched, report = trained(Quasirandom, usual, tmp_path, loss=LOSS)
    assert_same(plain, watched)
    assert model.points.num_generated == other.points.num_generated
    assert report["losses"]["inference"] is not None


# --- BatchNorm whose forward pass is overridden -------------------------------------------------------------------


class ChannelsLast(nn.BatchNorm1d):  # type: ignore[misc]
    """As of spiking networks and transformers: steps of time or tokens come before the channels."""

    def forward(self, x: Any) -> Any:
        return super().forward(x.flatten(0, 1)).view_as(x)


class OfTokens(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), kind(8), nn.Linear(8, 1)

    def forward(self, x: Any) -> Any:
        x = self.first(x.repeat(2, 1, 1))
        x = self.norm(x) if isinstance(self.norm, ChannelsLast) else self.norm(x.flatten(0, 1)).view_as(x)
        return self.last(torch.relu(x)).mean(0)


@pytest.mark.parametrize("size", [8, 5], ids=["as many rows as channels", "others"])
def test_the_statistics_are_those_of_what_is_normalized(size: int, tmp_path: Path) -> None:
    def step(model: Any, i: int) -> Any:
        x, y = (part[:size] for part in rows())
        return LOSS(model(x), y), x, y

    plain, own = (
        trained(lambda kind=kind: OfTokens(kind), step, tmp_path / kind.__name__, loss=LOSS)  # type: ignore[misc]
        for kind in (nn.BatchNorm1d, ChannelsLast)
    )
    assert_same(plain[1], own[1])
    assert plain[2]["losses"]["batch"] == own[2]["losses"]["batch"]
    assert plain[2]["losses"]["inference"] == own[2]["losses"]["inference"]
    assert plain[2]["layers"][0]["distance"] == own[2]["layers"][0]["distance"]
    with recalibrate(own[0], [step(own[0], 0)[1] for _ in range(4)]):
        assert own[0].norm.running_mean.abs().max() > 0.1


# --- a model that is called another way --------------------------------------------------------------------------


class Flow(Net):
    def forward(self, *_: Any) -> Any:
        raise RuntimeError("call log_prob")

    def log_prob(self, x: Any) -> Any:
        return -(Net.forward(self, x) ** 2)


def test_the_rescue_is_told_how_the_model_is_called(tmp_path: Path) -> None:
    def forward(model: Any, x: Any) -> Any:
        return -model.log_prob(x).mean()

    def slow() -> Any:
        model = Flow()
        model.norm.momentum = 1e-3
        return model

    def step(model: Any, i: int) -> Any:
        x, _ = rows()
        return forward(model, 100 * x), 100 * x, None

    model, _, report = trained(slow, step, tmp_path, forward=forward)
    (rescue,) = (f["rescue"] for f in report["findings"] if f["rule"] == "momentum-too-high")
    assert "forward=forward" in rescue
    exec(compile(rescue, "rescue", "exec"), {"model": model, "data": [step(model, 0)[1]] * 8, "forward": forward})
    assert model.norm.running_var.max() > 100


# --- tensors that hold no value for each index ---------------------------------------------------------------

BAGS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "COO": (lambda x: x.to_sparse(), ""),
    "CSR": (lambda x: x.to_sparse_csr(), ""),
    "CSC": (lambda x: x.to_sparse_csc(), ""),
    "BSR": (lambda x: x.to_sparse_bsr((2, 2)), "the layout torch.sparse_bsr"),
    "jagged": (lambda x: nested(x, torch.jagged), "nested tensors"),
    "nested": (lambda x: nested(x, torch.strided), "nested tensors"),
}
"""How a batch is made, and what is told of those whose rows are not recombined."""


def nested(x: Any, layout: Any) -> Any:
    return torch.nested.nested_tensor([row.repeat(1 + i % 3, 1) for i, row in enumerate(x)], layout=layout)


class OfBags(Net):
    """Takes any of them."""

    def forward(self, x: Any) -> Any:
        return super().forward(torch.stack([part.mean(0) for part in x.unbind()]) if x.is_nested else x.to_dense())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BAGS)
def test_batches_of_sparse_and_nested_tensors(name: str, tmp_path: Path) -> None:
    make, told = BAGS[name]

    def step(model: Any, i: int) -> tuple[Any, Any, Any]:
        x, y = rows()
        bag = make(x.relu())
        return LOSS(model(bag), y), bag, y

    _, plain, _ = trained(OfBags, step, None)
    _, recorded, _ = trained(OfBags, step, tmp_path, loss=LOSS)
    assert_same(plain, recorded)
    read = record_of(tmp_path)
    assert not read.manifest.not_evaluated and not read.manifest.notes
    last = read.evidence[-1]
    assert last.passes.keys() >= {"inference", "batch", "training", "robust"}
    assert ("recombined" in last.passes) == (not told) and told in last.not_evaluated.get("recombined", "")


@pytest.mark.parametrize("make", [lambda x: x.to_sparse(), lambda x: x.to_sparse_csr()])
def test_a_sparse_batch_is_as_large_as_what_it_holds(make: Callable[[Any], Any]) -> None:
    wide = torch.zeros(ROWS, 100_000)
    wide[:, 0] = 1
    batch = Batch(make(wide))
    assert TorchBatches().bytes(batch) < 1000
    assert torch.equal(TorchBatches().head(batch, 3).x.to_dense(), wide[:3])


# --- what cannot be recorded is told in a sentence -----------------------------------------------------------


def squares(predictions: Any, target: Any) -> Any:
    return ((predictions - target) ** 2).mean()


class OfInputs(Net):
    """Gives what a loss takes derivatives of."""

    def forward(self, x: Any) -> Any:
        x = x.requires_grad_()
        return {"out": super().forward(x), "x": x}


def by_physics(predictions: Any, target: Any) -> Any:
    (slope,) = torch.autograd.grad(predictions["out"].sum(), predictions["x"], create_graph=True)
    return LOSS(predictions["out"], target) + slope.square().mean()


class Sloped(Net):
    """Takes a derivative in its forward pass."""

    def forward(self, x: Any) -> Any:
        x = x.detach().requires_grad_()
        out = super().forward(x)
        return out + torch.autograd.grad(out.sum(), x, create_graph=True)[0].mean()


TOLD: dict[str, tuple[Callable[[], Any], Callable[..., Any], str]] = {
    "a tuple": (Net, lambda p, t: (LOSS(p, t), {"log": 1}), "The loss returns a tuple, and a tensor is needed"),
    "None": (Net, lambda p, t: None, "The loss returns None, and a tensor is needed"),
    "derivatives in the loss": (OfInputs, by_physics, "The loss takes derivatives, and passes run without gradients"),
    "derivatives in the model": (Sloped, LOSS, "the model takes derivatives, and passes run without gradients"),
}


@pytest.mark.parametrize("name", TOLD)
def test_why_there_is_no_loss(name: str, tmp_path: Path) -> None:
    build, loss, told = TOLD[name]

    def step(model: Any, i: int) -> tuple[Any, Any, Any]:
        x, y = rows()
        found = loss(model(x), y)
        return (found if isinstance(found, torch.Tensor) else LOSS(model(x), y)), x.detach(), y

    _, plain, _ = trained(build, step, None)
    _, recorded, _ = trained(build, step, tmp_path, loss=loss)
    assert_same(plain, recorded)
    assert told in record_of(tmp_path).manifest.not_evaluated["losses"]


def test_a_loss_may_be_a_number(tmp_path: Path) -> None:
    def step(model: Any, i: int) -> tuple[Any, Any, Any]:
        x, y = rows()
        return LOSS(model(x), y), x, y

    trained(Net, step, tmp_path, loss=lambda p, t: float(squares(p, t)))
    read = record_of(tmp_path)
    assert "losses" not in read.manifest.not_evaluated and read.evidence[-1].passes["inference"].mean > 0


def test_statistics_that_are_dropped_while_training(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    with Recorder(model, str(tmp_path), LOSS, overhead=math.inf, verbose=0) as lens:
        for i in range(6):
            x, y = rows()
            if i == 3:
                torch.func.replace_all_batch_norm_modules_(model)
            model(x)
            if i == 3:
                with pytest.warns(UserWarning, match="module '1' has no running statistics any more"):
                    lens.record(x, y)
            else:
                lens.record(x, y)
    assert record_of(tmp_path).last_step == 3


def test_a_lazy_model_is_recorded_from_its_first_batch_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Linear(8, 1))
    with Recorder(model, str(tmp_path), LOSS, overhead=math.inf, on_error="raise", verbose=0) as lens:
        lens.record(*rows())
        for _ in range(4):
            x, y = rows()
            model(x)
            lens.record(x, y)
    read = record_of(tmp_path)
    assert [layer.name for layer in read.manifest.layers] == ["1"] and not read.manifest.notes
    assert read.last_step == 5

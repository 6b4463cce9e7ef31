"""``check`` on models as their users hold them, each beside a truth that is known from how it was made."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
nn: Any = torch.nn

from tb_bnlens.torch import check  # noqa: E402
from tests.frameworks.torch_runs import LOSS, batches, small, train  # noqa: E402

torch.set_num_threads(1)
DATA = list(batches(16))


@pytest.fixture(scope="module")
def trained() -> Any:
    return train(lambda: small(0.1), steps=80).model


def checked(model: Any, data: Any = DATA, **options: Any) -> Any:
    return check(model, data, loss=LOSS, quiet=True, **options)


def named(found: Any) -> dict[str, str]:
    return {f["rule"]: f["severity"] for f in found.findings}


def inference(model: Any, data: Any = DATA) -> float:
    evaluated = copy.deepcopy(model).eval()
    with torch.no_grad():
        return float(sum(LOSS(evaluated(x), y) for x, y in data)) / len(data)


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_an_average_of_the_parameters_alone(trained: Any, mode: bool) -> None:
    """A teacher whose parameters follow the student's has the buffers of a new network and needs no gradient."""
    teacher = small(0.1).requires_grad_(False).train(mode)
    for mine, other in zip(teacher.parameters(), trained.parameters(), strict=True):
        mine.copy_(other)
    found = checked(teacher)
    assert list(named(found)) == ["never-updated"] and found.severity in ("warning", "error")
    assert "not copied with them from another network" in found.verdict
    model = teacher
    exec(found.findings[0]["rescue"], {"model": model, "data": DATA})
    assert inference(model) == pytest.approx(found.findings[0]["rescue_loss"], rel=0.05)


def test_weights_without_gradients_and_statistics_of_other_data(trained: Any) -> None:
    """A backbone that was frozen by its weights, and run over other data in training mode."""
    model = copy.deepcopy(trained).requires_grad_(False).train()
    for x, _ in batches(30, seed=1):
        model(3 * x + 8)
    found = checked(model)
    assert named(found) == {"train-inference-gap": "error"}
    assert "calls in training mode on other data" in found.verdict
    exec(found.findings[0]["rescue"], {"model": model, "data": DATA})
    assert inference(model) == pytest.approx(inference(trained), rel=0.5)


# --- what no mode reaches ------------------------------------------------------------------------------------


class Listed(nn.Module):  # type: ignore[misc]
    """Its BatchNorm is in a plain list, which modules do not look into."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = [nn.BatchNorm1d(8)]
        self.out = nn.Linear(8, 1)

    def forward(self, x: Any) -> Any:
        return self.out(self.norms[0](x))


class Made(nn.Module):  # type: ignore[misc]
    """Its BatchNorm is made in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(8, 1)

    def forward(self, x: Any) -> Any:
        return self.out(nn.BatchNorm1d(8)(x))


class Called(Made):
    """It calls the function and says nothing of the mode."""

    def forward(self, x: Any) -> Any:
        return self.out(nn.functional.batch_norm(x, None, None, training=True))


class PerImage(Made):
    """InstanceNorm normalizes each row by itself, in every mode."""

    def forward(self, x: Any) -> Any:
        return self.out(nn.functional.instance_norm(x.unsqueeze(1)).squeeze(1))


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (Listed, "norms[0]"),
        (Made, "BatchNorm1d made in Made.forward"),
        (Called, "batch_norm in Called.forward"),
    ],
)
def test_normalization_that_no_mode_reaches(build: Any, name: str) -> None:
    model = build()
    found = checked(model)
    assert found.report["layers"] == [] and named(found) == {"no-tracked-statistics": "warning"}
    (told,) = found.findings
    assert name in told["summary"] and "A single row raises an error" in told["summary"]
    assert "training=self.training" in told["fix"] and "nothing to look at" not in found.verdict
    assert bool(told["rescue"]) is (build is Listed)
    if told["rescue"]:
        exec(told["rescue"], {"model": model, "data": DATA})
        model.eval()
        x, _ = DATA[0]
        assert torch.allclose(model(x[:1]), model(x)[:1], atol=1e-5)


def test_normalization_of_single_rows_is_no_fault() -> None:
    found = checked(PerImage())
    assert found.severity == "none" and "in training mode and" in found.verdict


def test_single_rows_are_measured_where_no_layer_has_statistics() -> None:
    """They lose much, and whole batches nothing; the accuracy is measured by default."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(1, 6, 3), nn.BatchNorm1d(6, track_running_stats=False), nn.Flatten(), nn.LazyLinear(2)
    )
    data = [(x.unsqueeze(1), (x.mean(1) > 3).long()) for x, _ in batches(16)]
    model(data[0][0])
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(6):
        for x, y in data:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    found = check(model, data, loss=nn.CrossEntropyLoss(), quiet=True)
    assert named(found) == {"no-tracked-statistics": "error"}
    accuracy = found.report["losses"]["metrics"]["accuracy"]["inference"]
    assert "One row at a time" in found.verdict and accuracy is not None and accuracy > 0.9


def test_a_scripted_model_is_not_called_healthy(trained: Any) -> None:
    model = torch.jit.script(copy.deepcopy(trained))
    with torch.no_grad():
        for buffer in (b for name, b in model.named_buffers() if "running" in name):
            buffer.mul_(0.0).add_(1.0)
    found = checked(model)
    assert "train-inference-gap" in named(found) and "that BN Lens can read" in found.verdict
    assert any("torch.jit" in note for note in found.report["notes"])


class Own(nn.Module):  # type: ignore[misc]
    """A normalization of the user's own, with the statistics of the last batch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(8))

    def forward(self, x: Any) -> Any:
        return x - (x.mean(0) if self.training else self.running_mean)


def test_statistics_of_other_classes_are_named() -> None:
    found = checked(nn.Sequential(Own(), nn.Linear(8, 1)))
    assert any("0 (Own)" in note for note in found.report["notes"])


# --- what was advised in vain --------------------------------------------------------------------------------


def test_batches_of_one_are_rescued_as_they_were_trained() -> None:
    """Images of any size and brightness, one a batch: no fixed statistics serve, and no larger batch can be had."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    data = []
    for _ in range(12):
        plain = torch.randn(1, 1, 9, 9)
        data.append((plain * (torch.randn(()) * 1.5).exp() + 5 * torch.randn(()), plain[..., 1:-1, 1:-1].abs()))
    for x, y in 16 * data:
        optimizer.zero_grad()
        LOSS(model(x), y).backward()
        optimizer.step()
    (told,) = (f for f in checked(model, data).findings if f["rule"] == "batch-noise")
    exec(told["rescue"], {"model": model})
    assert inference(model, data) == pytest.approx(told["rescue_loss"], rel=1e-3)


def test_a_slow_average_is_not_told_to_change_its_momentum(trained: Any) -> None:
    """A decay of 0.9998 after 200 steps: weights and statistics are those of the start."""
    torch.manual_seed(0)
    average = small(0.1)
    with torch.no_grad():
        for mine, other in zip(average.state_dict().values(), trained.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(other, 0.03)
    found = checked(average)
    told = [f for f in found.findings if f["rule"] == "momentum-too-high"]
    assert told and "a slow average of weights" in told[0]["summary"] and told[0]["fix"] == ""


def test_a_statistic_that_overflowed_gives_no_warning(trained: Any) -> None:
    """As in a checkpoint that was saved in half precision."""
    model = copy.deepcopy(trained)
    model[1].running_var[:] = float("inf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = checked(model)
    assert named(found)["non-finite-statistics"] == "error"

"""``check`` on models as their users hold them, each beside a truth that is known from how it was made."""

from __future__ import annotations

import copy
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
    assert "Calls in training mode on other data" in found.verdict
    exec(found.findings[0]["rescue"], {"model": model, "data": DATA})
    assert inference(model) == pytest.approx(inference(trained), rel=0.5)

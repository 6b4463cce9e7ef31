"""PyTorch's own causes, each from a real training with the fault, with a similar healthy one, and its fix applied."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn: Any = torch.nn

from tb_bnlens.analysis.lag import table  # noqa: E402
from tb_bnlens.torch import Recorder  # noqa: E402
from tests.frameworks.torch_runs import LOSS, batches, record_of, report_of, small, train, usual_step  # noqa: E402

torch.set_num_threads(1)
STEPS = 100


def named(report: Any) -> dict[str, str]:
    """Causes that count, with their severity."""
    assert not [f for f in report["findings"] if f["status"] == "error"]
    return {f["rule"]: f["severity"] for f in report["findings"] if f["status"] == "fail"}


def finding(report: Any, rule: str) -> Any:
    return next(f for f in report["findings"] if f["rule"] == rule)


def frozen(model: Any, i: int) -> None:
    for layer in (model[0], model[1]):
        for parameter in layer.parameters():
            parameter.requires_grad_(False)


def in_eval_mode(model: Any, i: int) -> None:
    model[1].eval()


def head_only(model: Any) -> Any:
    """Parameters of the last layer: no flag says that the others stay."""
    return model[-1].parameters()


# --- frozen weights, moving statistics -----------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"mode": frozen}, {"parameters": head_only}], ids=["requires_grad", "not in the optimizer"]
)
def test_frozen_weights_with_moving_statistics(options: dict[str, Any], tmp_path: Path) -> None:
    report = train(lambda: small(0.01), tmp_path, steps=STEPS, **options).report
    assert named(report)["frozen-weights-moving-statistics"] == "warning"
    assert report["layers"][0]["state"] == "updating"

    def repaired(model: Any, i: int) -> None:
        frozen(model, i)
        in_eval_mode(model, i)
        if i == 0:  # taken once; train() is called before each step, so that eval mode is set after each call
            model.train()
            exec(finding(report, "frozen-weights-moving-statistics")["fix"], {"model": model, "data": list(batches(9))})

    again = train(lambda: small(0.01), tmp_path / "again", steps=40, mode=repaired).report
    assert "frozen-weights-moving-statistics" not in named(again)
    assert again["layers"][0]["state"] == "frozen"


def test_trained_weights_are_not_frozen(tmp_path: Path) -> None:
    report = train(lambda: small(0.1), tmp_path, steps=40).report
    assert finding(report, "frozen-weights-moving-statistics")["status"] == "not_applicable"


def test_flags_that_are_set_for_a_moment_freeze_nothing(tmp_path: Path) -> None:
    """As in a GAN, whose generator steps with the discriminator's gradients off."""

    def step(model: Any, optimizer: Any, x: Any, y: Any, i: int) -> None:
        model.requires_grad_(True)
        optimizer.zero_grad()
        LOSS(model(x), y).backward()
        optimizer.step()
        model.requires_grad_(False)

    report = train(lambda: small(0.1), tmp_path, steps=40, step=step).report
    assert finding(report, "frozen-weights-moving-statistics")["status"] == "not_applicable"


def test_eval_mode_freezes_statistics_and_training_in_it_is_told(tmp_path: Path) -> None:
    """model.eval() for an evaluation, and no model.train() after it."""
    report = train(lambda: small(0.1), tmp_path, steps=40, mode=in_eval_mode).report
    assert report["layers"][0]["state"] == "inference_mode"
    assert report["layers"][0]["updates"] == 0
    assert "inference-mode-layer" in named(report)
    assert "model.train()" in finding(report, "inference-mode-layer")["fix"]


# --- momentum --------------------------------------------------------------------------------------------


def test_a_momentum_of_keras_is_told(tmp_path: Path) -> None:
    report = train(lambda: small(0.99), tmp_path, steps=STEPS).report
    found = finding(report, "mixed-conventions")
    assert found["status"] == "fail" and "momentum 0.99" in found["summary"] and "0.01" in found["summary"]
    assert finding(report, "momentum-too-low")["status"] == "another_cause"

    def repaired() -> Any:
        model = small(0.99)
        exec(found["fix"], {"model": model})
        assert model[1].momentum == pytest.approx(0.01)
        return model

    assert "mixed-conventions" not in named(train(repaired, tmp_path / "again", steps=40).report)


def test_a_momentum_that_falls_has_forgotten_the_start(tmp_path: Path) -> None:
    """As in networks for point clouds and poses, where the momentum falls with the learning rate."""

    def schedule(model: Any, i: int) -> None:
        model[1].momentum = 0.1 if i < STEPS // 2 else 0.001

    report = train(lambda: small(0.1), tmp_path, steps=STEPS, mode=schedule).report
    assert not {"momentum-too-high", "warming-up"} & named(report).keys()
    history = record_of(tmp_path)
    left = 0.9 ** (STEPS // 2)
    # Neither says in which of the updates between two looks it was set.
    assert left / 2 < history.evidence[-1].layers["start_left"][0] < 2 * left
    assert left / 2 < table(history, history.evidence[-1]).memory[0] < 2 * left
    assert [e.text for e in history.manifest.events if e.kind == "momentum"] == ["momentum set from 0.1 to 0.001"]


def test_momentum_0_never_updates(tmp_path: Path) -> None:
    report = train(lambda: small(0.0), tmp_path, steps=STEPS).report
    assert report["layers"][0]["state"] == "never_updated"
    assert named(report)["never-updated"] in ("warning", "error")
    assert "set_momentum(model, 0.1)" in finding(report, "never-updated")["fix"]


def moving(model: Any, i: int) -> None:
    """Weights that drift fast: what the layer sees now is not what it saw at first."""
    with torch.no_grad():
        model[0].weight += 0.01


def test_a_cumulative_average_remembers_old_weights(tmp_path: Path) -> None:
    report = train(lambda: small(None), tmp_path, steps=STEPS, mode=moving).report
    assert report["layers"][0]["kind"] == "BatchNorm1d (cumulative)"
    assert named(report)["cumulative-average"] in ("warning", "error")
    assert not {"momentum-too-high", "drift", "warming-up"} & named(report).keys()
    assert not [e for e in report["events"] if e["kind"] == "momentum"]

    def repaired() -> Any:
        model = small(None)
        exec(finding(report, "cumulative-average")["fix"], {"model": model})
        return model

    again = train(repaired, tmp_path / "again", steps=STEPS, mode=moving).report
    assert "cumulative-average" not in named(again)
    assert again["losses"]["inference"] < report["losses"]["inference"]


def test_a_cumulative_average_of_alike_batches_is_fine(tmp_path: Path) -> None:
    def still(model: Any) -> Any:
        return model[-1].parameters()

    report = train(lambda: small(None), tmp_path, steps=40, parameters=still).report
    assert finding(report, "cumulative-average")["status"] == "pass"
    assert not {"momentum-too-high", "warming-up", "drift"} & named(report).keys()


# --- no statistics ---------------------------------------------------------------------------------------


def untracked() -> Any:
    return nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8), nn.BatchNorm1d(8, track_running_stats=False),
        nn.Linear(8, 1),
    )  # fmt: skip


def test_modules_without_statistics_are_told(tmp_path: Path) -> None:
    blob = train(untracked, tmp_path, steps=40)
    found = finding(blob.report, "no-tracked-statistics")
    assert found["status"] == "fail" and "(4)" in found["summary"]
    # One row has no batch to be normalized by.
    assert found["severity"] == "warning" and "A single row raises an error" in found["summary"]
    assert [layer["name"] for layer in blob.report["layers"]] == ["1"]
    data = list(batches(12, seed=3))
    exec(compile(found["rescue"], "rescue", "exec"), {"model": blob.model, "data": data})
    blob.model.eval()
    x, _ = data[0]
    with torch.no_grad():
        alone, together = blob.model(x[:1]), blob.model(x)[:1]
    assert torch.allclose(alone, together, atol=1e-5)


def test_a_model_with_no_statistics_at_all_is_told(tmp_path: Path) -> None:
    def build() -> Any:
        return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16, track_running_stats=False), nn.Linear(16, 1))

    report = train(build, tmp_path, steps=40).report
    assert "no-tracked-statistics" in named(report) and report["layers"] == []


class Wired(nn.BatchNorm1d):  # type: ignore[misc]
    """Its forward pass has the training mode written into it."""

    def forward(self, x: Any) -> Any:
        more = (self.weight, self.bias, True, self.momentum, self.eps)
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, *more)


@pytest.mark.parametrize("wired", [True, False])
def test_a_mode_that_is_written_into_the_forward_pass_is_told(wired: bool, tmp_path: Path) -> None:
    norm = Wired if wired else nn.BatchNorm1d
    blob = train(lambda: nn.Sequential(nn.Linear(8, 16), norm(16), nn.Linear(16, 1)), tmp_path, steps=40)
    found = finding(blob.report, "ignores-statistics")
    assert (found["status"], found["severity"]) == (("fail", "warning") if wired else ("pass", "none"))
    if wired:
        assert "A single row raises an error" in found["summary"] and "self.training" in found["fix"]
        assert not found["rescue"]  # no mode of the model changes it


# --- known causes, in PyTorch's ways -----------------------------------------------------------------------


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_poisoned_statistics_are_reset_and_renewed(poison: float, tmp_path: Path) -> None:
    def mode(model: Any, i: int) -> None:
        if i == 20:
            with torch.no_grad():
                model[1].running_mean[3] = poison

    blob = train(lambda: small(0.1), tmp_path, steps=40, mode=mode)
    found = finding(blob.report, "non-finite-statistics")
    assert found["severity"] == "error"
    data = [(torch.full((32, 8), poison), torch.zeros(32, 1)), *batches(12)]  # with the batch that was to blame
    with pytest.warns(UserWarning, match="1 of 13 batches of data gave statistics that are not finite"):
        exec(compile(found["rescue"], "rescue", "exec"), {"model": blob.model, "data": data})
    assert np.isfinite(blob.model[1].running_mean.numpy()).all()


def test_few_rows_a_batch_agree_with_their_own_statistics(tmp_path: Path) -> None:
    """With the biased variance on one side, batches of 4 would stay 25% off."""
    report = train(lambda: small(0.02), tmp_path, steps=200, parameters=head_only, size=4).report
    assert abs(report["layers"][0]["variance_ratio"] - 1) < 0.12


# --- statistics gathered under dropout -----------------------------------------------------------------


def with_dropout(first: bool) -> Any:
    """Dropout in front of both BatchNorm modules, or behind the last."""
    layers: list[Any] = []
    for width in (8, 64):
        drop = [nn.Dropout(0.6)] if first else []
        layers += [nn.Linear(width, 64), nn.ReLU(), *drop, nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU()]
    return nn.Sequential(*layers, *([] if first else [nn.Dropout(0.6)]), nn.Linear(64, 1))


def loss_of(model: Any) -> float:
    """Loss in eval mode over batches that training has not seen."""
    model.eval()
    with torch.no_grad():
        return float(np.mean([LOSS(model(x), y) for x, y in batches(40, seed=9)]))


def test_statistics_gathered_under_dropout_are_told_and_renewed(tmp_path: Path) -> None:
    blob = train(lambda: with_dropout(first=True), tmp_path / "first", steps=300)
    found = finding(blob.report, "variance-shift")
    assert found["severity"] in ("warning", "error") and "dropout" in found["summary"].lower()
    before = loss_of(blob.model)
    exec(found["rescue"], {"model": blob.model, "data": list(batches(100, seed=5))})
    assert loss_of(blob.model) < 0.3 * before
    assert blob.report["losses"]["inference"] == pytest.approx(before, rel=0.15)


def test_dropout_behind_the_last_batchnorm_shifts_no_variance(tmp_path: Path) -> None:
    blob = train(lambda: with_dropout(first=False), tmp_path / "last", steps=300)
    assert finding(blob.report, "variance-shift")["status"] == "pass"


# --- around the training steps -------------------------------------------------------------------------


def slow(where: Path, validate: Any) -> Any:
    """An average that is too slow, with something between the epochs and after the last one."""
    torch.manual_seed(0)
    model = small(0.001)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(model, str(where), LOSS, optimizer=optimizer) as lens:
        for i, (x, y) in enumerate(batches(STEPS)):
            model.train()
            optimizer.zero_grad()
            LOSS(model(x), y).backward()
            optimizer.step()
            lens.record(x, y)
            if i % 20 == 19:
                validate(model)
    return model, report_of(where)


def test_a_loop_that_ends_in_eval_mode_is_judged_as_it_trained(tmp_path: Path) -> None:
    _, usual = slow(tmp_path / "train", lambda model: None)
    model, report = slow(tmp_path / "eval", lambda model: model.eval())
    assert not model.training and not model[1].training
    assert report["verdict"] == usual["verdict"] and "momentum-too-high" in named(report)
    assert report["losses"]["batch"] == pytest.approx(usual["losses"]["batch"])


def test_validation_in_training_mode(tmp_path: Path) -> None:
    def train_mode(model: Any) -> None:
        with torch.no_grad():
            for x, _ in batches(8, seed=1):
                model(4 * x + 9)

    def in_place(where: Path, validate: Any) -> Any:
        return train(lambda: small(0.1), where, steps=STEPS, mode=lambda m, i: validate(m) if i % 20 == 19 else None)

    report = in_place(tmp_path / "faulty", train_mode).report
    assert named(report)["moved-outside-training"] in ("warning", "error")
    assert "in training mode" in finding(report, "moved-outside-training")["summary"]
    assert "moved-outside-training" not in named(in_place(tmp_path / "fine", lambda model: None).report)


@pytest.mark.parametrize("groups", [(4, 4, 4, 2), (1,) * 40 + (4,) * 40], ids=["short last group", "schedule"])
def test_accumulated_batches_are_updates_of_the_step(groups: tuple[int, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = small(0.1)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    with Recorder(model, str(tmp_path), LOSS, optimizer=optimizer, planned_steps=10_000) as lens:
        data = batches(400)
        for i in range(80):
            optimizer.zero_grad()
            for _ in range(groups[i % len(groups)]):
                x, y = next(data)
                LOSS(model(x), y).backward()
            optimizer.step()
            lens.record(x, y)
    # The span in which a schedule changes cannot be told from one with validation in it.
    assert len([e for e in record_of(tmp_path).manifest.events if e.kind == "outside"]) <= (groups[0] == 1)


@pytest.mark.parametrize("steps", [100, 101])
def test_a_step_that_goes_on_after_its_batch_was_shown(steps: int, tmp_path: Path) -> None:
    """As in a GAN, whose discriminator is called for the generator after its own update."""
    torch.manual_seed(0)
    model = small(0.1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(model, str(tmp_path), LOSS, optimizer=optimizer) as lens:
        for x, y in batches(steps):
            optimizer.zero_grad()
            (LOSS(model(x), y) + model(4 * x + 9).square().mean()).backward()
            optimizer.step()
            lens.record(x, y)
            with torch.no_grad():
                model(4 * x + 9)
    report = report_of(tmp_path)
    assert not [e for e in record_of(tmp_path).manifest.events if e.kind == "outside"]
    assert named(report)["unseen-updates"] in ("warning", "error")
    found = finding(report, "unseen-updates")
    assert "3 updates a step" in found["summary"] and not found["rescue"] and "recalibrate" not in report["headline"]
    assert "Predictions for the other data may get worse" in found["fix"]


def test_a_momentum_that_replaces_everything_is_no_unseen_data(tmp_path: Path) -> None:
    report = train(lambda: small(0.99), tmp_path, steps=STEPS, size=8).report
    assert finding(report, "unseen-updates")["status"] == "pass"


def noisy_step(model: Any, optimizer: Any, x: Any, y: Any, i: int) -> None:
    usual_step(model, optimizer, x + 3 * torch.randn_like(x), y, i)


def test_a_step_that_transforms_its_input_is_unseen_data(tmp_path: Path) -> None:
    report = train(lambda: small(0.1), tmp_path, steps=STEPS, step=noisy_step).report
    assert "unseen-updates" in named(report)


def test_weights_that_leap_are_no_unseen_data(tmp_path: Path) -> None:
    """The lens sees the batch after the step, and each step changes the statistics of the same batch by much."""
    torch.manual_seed(0)
    widths = (8, *(16,) * 8)
    blocks = [nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b, momentum=0.4), nn.ReLU()) for a, b in pairwise(widths)]
    model = nn.Sequential(*blocks, nn.Linear(16, 4))
    optimizer, loss = torch.optim.SGD(model.parameters(), 0.3, momentum=0.9), nn.CrossEntropyLoss()
    with Recorder(model, str(tmp_path), loss, optimizer=optimizer, verbose=0) as lens:
        for _ in range(200):
            y = torch.randint(0, 4, (4,))
            x = torch.randn(4, 8) + 0.5 * y[:, None]
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
            lens.record(x, y)
    report = report_of(tmp_path)
    assert "unseen-updates" not in named(report), named(report)
    assert report["losses"]["inference"] > 1.5 * report["losses"]["batch"]  # so that a cause is looked for


@pytest.mark.parametrize("rest", [2, 32])
def test_a_short_last_batch_is_told_in_a_loop_without_epochs(rest: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, epoch = small(0.3), list(batches(6))
    epoch[-1] = tuple(part[:rest] for part in epoch[-1])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    with Recorder(model, str(tmp_path), LOSS, planned_steps=120) as lens:
        for x, y in epoch * 20:
            usual_step(model, optimizer, x, y, 0)
            lens.record(x, y)
    told = finding(report_of(tmp_path), "short-last-batch")
    assert told["status"] == ("fail" if rest == 2 else "not_applicable"), told["summary"]


# --- branches and calls that the recorded batch does not show ------------------------------------------------


class Heads(nn.Module):  # type: ignore[misc]
    """A head for each task, which the batch names."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({task: small(0.1) for task in "ab"})

    def forward(self, x: Any, task: str) -> Any:
        return self.heads[task](x)


def test_a_head_that_few_batches_take_is_told_by_its_updates(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Heads()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(model, str(tmp_path), LOSS, verbose=0) as lens:
        for i, (x, y) in enumerate(batches(90)):
            task = "b" if i % 30 == 29 else "a"
            optimizer.zero_grad()
            LOSS(model(x, task), y).backward()
            optimizer.step()
            lens.record((x, task), y)
    report = report_of(tmp_path)
    assert "after 3 updates" in finding(report, "momentum-too-high")["summary"]
    assert finding(report, "momentum-too-high")["layers"] == ["heads.b.1"]
    assert not any("cannot be counted" in note for note in report["notes"])
    # Rows of one task are no rows of the other.
    assert "recombined" not in record_of(tmp_path).evidence[-1].passes

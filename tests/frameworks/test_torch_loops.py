"""PyTorch loops that others run: distributed training, Lightning, the Trainer of Transformers."""

from __future__ import annotations

import copy
import io
import json
import pickle
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn: Any = torch.nn

from tb_bnlens.frameworks.torch.ranks import Ranks  # noqa: E402
from tb_bnlens.torch import Recorder, lightning, transformers  # noqa: E402
from tests.frameworks.torch_gathers import CALLS  # noqa: E402
from tests.frameworks.torch_runs import LOSS, batches, record_of, report_of, small, state, usual_step  # noqa: E402

torch.set_num_threads(1)
STEPS = 30


# --- two processes ---------------------------------------------------------------------------------------


def together(tmp_path: Path, record: bool, shift: float) -> tuple[Any, list[Any]]:
    """Train in two processes; the report, and the weights and buffers of both."""
    tmp_path.mkdir()
    log_dir, store = (str(tmp_path / "log") if record else "-"), str(tmp_path / "store")
    command = [sys.executable, "-W", "ignore", "-m", "tests.frameworks.torch_ranks"]
    processes = [
        subprocess.Popen([*command, str(rank), store, log_dir, str(shift)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    ends = []
    for rank in range(2):
        with np.load(f"{store}.{rank}.npz") as found:
            ends.append({name: found[name] for name in found.files})
    return (report_of(tmp_path / "log") if record else None), ends


def test_rank_0_writes_and_the_gap_between_ranks_is_told(tmp_path: Path) -> None:
    report, with_lens = together(tmp_path / "with", True, shift=6.0)
    _, plain = together(tmp_path / "without", False, shift=6.0)
    for recorded, alone in zip(with_lens, plain, strict=True):
        assert all(np.array_equal(value, recorded[name]) for name, value in alone.items())
    assert len(list((tmp_path / "with" / "log" / "bn_lens").iterdir())) == 1
    assert report["replicas"] == 2
    (found,) = (f for f in report["findings"] if f["rule"] == "replica-spread")
    assert found["severity"] in ("warning", "error")
    assert "rank 1" in found["summary"] and "SyncBatchNorm" in found["fix"]
    # Rank 0 alone would look healthy.
    assert found["evidence"]["rank_0"]["value"] < found["evidence"]["rank_1"]["value"]


def test_ranks_with_data_of_one_kind_are_fine(tmp_path: Path) -> None:
    report, _ = together(tmp_path / "similar", True, shift=0.0)
    (found,) = (f for f in report["findings"] if f["rule"] == "replica-spread")
    assert found["status"] == "pass", found["summary"]


def test_no_pass_asks_the_other_ranks(tmp_path: Path) -> None:
    """They would wait for one another: rank 0 makes passes, and the others go on to the next step."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.frameworks.torch_gathers"]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    for rank in range(2):
        for name, (plain, recorded) in json.loads((tmp_path / f"{rank}.json").read_text()).items():
            assert recorded["state"] == plain["state"], name
            if rank:
                continue
            call, _, where = name.partition(" in the ")
            if name == "a part in DDP":
                assert "the model or loss calls broadcast of torch.distributed" in recorded["why"]
            elif name == "metrics":
                assert not recorded["why"] and recorded["measured"]["inference"]["error"] > 0
            elif "caught" in name or where == "model":
                assert f"the model or loss calls {CALLS[call][1]}" in recorded["why"], name
            else:
                assert f"The loss calls {CALLS[call][1]}" in recorded["why"], name


def test_no_rank_waits_for_one_that_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    store = torch.distributed.HashStore()
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed.distributed_c10d, "_get_default_store", lambda: store)
    ranks = []
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "get_rank", partial(int, rank))
        monkeypatch.setattr("tb_bnlens.frameworks.torch.ranks._made", Counter())
        ranks.append(Ranks("log"))
    start = time.monotonic()
    assert ranks[1].fetch("statistics", 0, start) is None
    ranks[1].leave()
    assert ranks[0].fetch("seen", 1, start + 100) is None
    ranks[0].publish("statistics", mean=np.ones(2))
    ranks[0].leave()
    assert (ranks[1].fetch("statistics", 0, start + 100) or {}).keys() == {"mean"}
    assert time.monotonic() - start < 50


# --- callbacks, driven as their frameworks drive them ------------------------------------------------------


class Trainer:
    """The part of Lightning's ``Trainer`` that a callback sees; two batches are accumulated into a step."""

    estimated_stepping_batches = STEPS
    should_stop = False

    def __init__(self, model: Any, callback: Any):
        self.model, self.callback, self.global_step = model, callback, 0
        self.optimizers = [torch.optim.Adam(model.parameters(), 1e-2)]

    def fit(self) -> None:
        optimizer = self.optimizers[0]
        self.callback.on_train_start(self, self.model)
        for i, (x, y) in enumerate(batches(2 * STEPS)):
            LOSS(self.model(x), y).backward()
            if i % 2:
                optimizer.step()
                optimizer.zero_grad()
                self.global_step += 1
            self.callback.on_train_batch_end(self, self.model, None, [x, y], i)
        self.callback.on_train_end(self, self.model)


def test_lightning_records_steps_of_the_optimizer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = small(0.1)
    Trainer(model, lightning.BNLens(str(tmp_path), LOSS, on_error="raise")).fit()
    report = report_of(tmp_path)
    assert report["last_step"] == report["planned_steps"] == STEPS and report["ended"] == "planned"
    # Two forward passes a step; the record begins after the first.
    assert report["layers"][0]["updates"] == 2 * (STEPS - 1)
    assert report["losses"]["inference"] is not None


def test_lightning_batches_of_another_kind_need_unpack(tmp_path: Path) -> None:
    torch.manual_seed(0)
    callback = lightning.BNLens(str(tmp_path), LOSS, unpack=lambda batch: batch["image"])
    with pytest.warns(UserWarning, match="unpack"):
        Trainer(small(0.1), callback).fit()


class WithLoss(nn.Module):  # type: ignore[misc, name-defined]
    """Computes its own loss, as models of Transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small(0.1)

    def forward(self, x: Any, labels: Any = None) -> Any:
        predicted = self.inner(x)
        return SimpleNamespace(loss=LOSS(predicted, labels), logits=predicted)


def test_the_trainer_of_transformers_shows_no_batch_and_is_recorded(tmp_path: Path) -> None:
    def train(callback: Any) -> dict[str, Any]:
        torch.manual_seed(0)
        model, state_ = WithLoss(), SimpleNamespace(max_steps=STEPS, global_step=0)
        args = SimpleNamespace(logging_dir=str(tmp_path), output_dir=str(tmp_path))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        if callback:
            callback.on_train_begin(args, state_, None, model=model, optimizer=optimizer)
        for x, y in batches(STEPS):
            model.train()
            optimizer.zero_grad()
            model(x=x, labels=y).loss.backward()
            optimizer.step()
            state_.global_step += 1
            if callback:
                callback.on_step_end(args, state_, None, model=model)
                model.eval()
                with torch.no_grad():
                    model(x=x + 100, labels=y)  # an evaluation is no step
        if callback:
            callback.on_train_end(args, state_, None, model=model)
            assert not model._forward_pre_hooks
        return state(model)

    plain, with_lens = train(None), train(transformers.BNLens(on_error="raise"))
    assert all(np.array_equal(value, with_lens[name]) for name, value in plain.items())
    report = report_of(tmp_path)
    assert report["last_step"] == STEPS and report["layers"][0]["updates"] == STEPS - 1
    assert report["losses"]["inference"] < 1e3


# --- copies --------------------------------------------------------------------------------------------------


def pickled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


def saved(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    assert b"tb_bnlens" not in file.getvalue()
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, saved])
def test_a_model_that_the_trainer_of_transformers_trains_can_be_copied(copied: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, state_ = WithLoss(), SimpleNamespace(max_steps=STEPS, global_step=0)
    callback = transformers.BNLens(str(tmp_path), on_error="raise", verbose=0)
    callback.on_train_begin(SimpleNamespace(), state_, None, model=model)
    for x, y in batches(3):
        model(x=x, labels=y)
        state_.global_step += 1
        callback.on_step_end(None, state_, None)
    other = copied(model).train()
    other(x=x + 1, labels=y)
    assert callback._inputs is None
    assert all(np.array_equal(value, state(other)[name]) for name, value in state(copied(other)).items())
    assert copy.deepcopy({"callback": callback})["callback"].recorder is None
    callback.on_train_end(None, state_, None)
    assert report_of(tmp_path)["last_step"] == 3


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_copies_of_a_recorder_record_nothing(copied: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = small(0.1)
    with Recorder(model, str(tmp_path), LOSS, on_error="raise") as lens:
        for i, (x, y) in enumerate(batches(4)):
            model(x)
            lens.record(x, y)
            if i == 2:
                with copied({"lens": lens})["lens"] if copied is not copy.copy else copied(lens) as other:
                    assert other is not lens and isinstance(other, Recorder)
                    other.record(x, y)
                    other.step_made((x, y))
                assert other.planned_steps is None and other.directory is None and other.step == 0
                other.abandon()
    assert report_of(tmp_path)["last_step"] == 4


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_copies_of_a_callback_of_lightning_record_by_themselves(copied: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    callback = lightning.BNLens(str(tmp_path / "one"), LOSS, on_error="raise", verbose=0)
    trainer = Trainer(small(0.1), callback)
    callback.on_train_start(trainer, trainer.model)
    other = copied(callback)
    assert other.recorder is None and callback.recorder is not None
    other._log_dir = str(tmp_path / "two")
    Trainer(small(0.1), other).fit()
    assert report_of(tmp_path / "two")["last_step"] == STEPS


def test_a_record_of_a_run_that_goes_on_has_the_calls(tmp_path: Path) -> None:
    """They are counted by the first pass, after the first manifest is written."""

    class Unrolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.norm, self.out = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)

        def forward(self, x: Any) -> Any:
            for _ in range(5):
                x = torch.tanh(self.norm(self.inner(x)))
            return self.out(x)

    model = Unrolled()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with Recorder(model, str(tmp_path / "log"), loss=LOSS) as lens:
        for i, (x, y) in enumerate(batches(40)):
            usual_step(model, optimizer, x, y, i)
            lens.record(x, y)
        (layer,) = record_of(tmp_path / "log").manifest.layers
    assert layer.calls == 5

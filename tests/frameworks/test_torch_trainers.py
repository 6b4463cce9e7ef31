"""Real trainings by Lightning and by the Trainer of Transformers. Their packages are large: run by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
L = pytest.importorskip("lightning")
hf = pytest.importorskip("transformers")

from tb_bnlens.torch.lightning import BNLens as LightningLens  # noqa: E402
from tb_bnlens.torch.transformers import BNLens as TransformersLens  # noqa: E402
from tests.frameworks.torch_runs import LOSS, batches, report_of, small, state  # noqa: E402

EPOCHS, STEPS = 4, 30
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
Callbacks = Callable[[], list[Any]]


class Module(L.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self, momentum: float):
        super().__init__()
        self.net = small(momentum, dropout=0.1)

    def forward(self, x: Any) -> Any:
        return self.net(x)

    def training_step(self, batch: Any, _: int) -> Any:
        return LOSS(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("validation", LOSS(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-2)


def by_lightning(
    where: Path | None, momentum: float = 0.1, callbacks: Callbacks = list, kind: type[Module] = Module, **options: Any
) -> Any:
    """The module after ``fit``, recorded where there is a directory."""
    L.seed_everything(0, verbose=False)
    module = kind(momentum)
    lenses = [] if where is None else [LightningLens(str(where), LOSS, on_error="raise")]
    data = [list(batches(n, seed)) for n, seed in ((STEPS, 0), (2, 1))]
    loaders = [torch.utils.data.DataLoader(pairs, batch_size=None, shuffle=i == 0) for i, pairs in enumerate(data)]
    L.Trainer(callbacks=[*callbacks(), *lenses], **{"max_epochs": EPOCHS, **QUIET, **options}).fit(module, *loaders)
    return module


def by_transformers(where: Path | None, momentum: float = 0.1, **options: Any) -> Any:
    """A small ResNet after ``train``, recorded where there is a directory."""
    hf.set_seed(0)
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3, layer_type="basic")
    model = hf.ResNetForImageClassification(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = momentum
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 256)
    images = torch.tensor(rng.normal(2.0 + labels[:, None, None, None], 1.0, (256, 3, 16, 16)), dtype=torch.float32)
    data = [{"pixel_values": image, "labels": int(label)} for image, label in zip(images, labels, strict=True)]
    quiet = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "logging_strategy": "no"}
    usual = {"per_device_train_batch_size": 16, "num_train_epochs": 6, "learning_rate": 1e-3, "output_dir": "unused"}
    lenses = [] if where is None else [TransformersLens(str(where), on_error="raise")]
    arguments = hf.TrainingArguments(**{**usual, **quiet, **options})
    hf.Trainer(model, arguments, train_dataset=data, eval_dataset=data[:32], callbacks=lenses).train()
    return model


def same(a: Any, b: Any) -> bool:
    left, right = state(a), state(b)
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def raised(where: Path) -> dict[str, str]:
    bad = ("error", "warning")
    return {f["rule"]: f["severity"] for f in report_of(where)["findings"] if f["severity"] in bad}


LIGHTNING: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate_grad_batches": 2},
    "clipped": {"gradient_clip_val": 0.5},
    "bfloat16": {"precision": "bf16-mixed"},
    "averaged": {"callbacks": lambda: [L.pytorch.callbacks.StochasticWeightAveraging(1e-3)]},
    "stopped early": {
        "callbacks": lambda: [L.pytorch.callbacks.EarlyStopping("validation", patience=0, min_delta=99.0)]
    },
}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"gradient_accumulation_steps": 2},
    "evaluated": {"eval_strategy": "epoch"},
    "bfloat16": {"bf16": True},
}


@pytest.mark.parametrize("name", LIGHTNING)
def test_lightning_trains_the_same_to_the_bit(name: str, tmp_path: Path) -> None:
    assert same(by_lightning(None, **LIGHTNING[name]), by_lightning(tmp_path, **LIGHTNING[name]))
    report = report_of(tmp_path)
    assert report["ended"] == ("early" if name == "stopped early" else "planned")
    assert raised(tmp_path) == {} and report["losses"]["inference"] is not None


class Logging(Module):
    def forward(self, x: Any) -> Any:
        predicted = super().forward(x)
        self.log("mean", predicted.mean(), on_step=False, on_epoch=True)
        return predicted

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "mean"}}


def test_passes_log_nothing_that_the_trainer_monitors(tmp_path: Path) -> None:
    class Metrics(L.Callback):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_train_epoch_end(self, trainer: Any, _: Any) -> None:
            self.seen.append(float(trainer.callback_metrics["mean"]))

    plain, watched = Metrics(), Metrics()
    alone = by_lightning(None, kind=Logging, callbacks=lambda: [plain])
    recorded = by_lightning(tmp_path, kind=Logging, callbacks=lambda: [watched])
    assert same(alone, recorded) and plain.seen == watched.seen
    assert report_of(tmp_path)["losses"]["inference"] is not None


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_train_the_same_to_the_bit(name: str, tmp_path: Path) -> None:
    options = {**TRANSFORMERS[name], "output_dir": str(tmp_path / "out")}
    assert same(by_transformers(None, **options), by_transformers(tmp_path / "log", **options))
    report = report_of(tmp_path / "log")
    assert report["ended"] == "planned" and report["last_step"] == report["planned_steps"]
    assert raised(tmp_path / "log") == {} and report["losses"]["inference"] is not None


def test_a_slow_momentum_is_named(tmp_path: Path) -> None:
    by_lightning(tmp_path / "lightning", 0.001)
    by_transformers(tmp_path / "transformers", 0.001, output_dir=str(tmp_path / "out"))
    for where in ("lightning", "transformers"):
        assert "momentum-too-high" in raised(tmp_path / where), where

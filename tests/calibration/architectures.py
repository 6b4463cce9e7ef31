"""Healthy trainings of well-known architectures, which must raise nothing; the truth without the lens."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from tb_bnlens import BNLens
from tb_bnlens.reader import open_logdir, read_run
from tb_bnlens.report import run_report
from tests.capture.truth import assign, kept, loss, loss_by_batch, mean_of, norms, statistics

CLASSES, SIZE, EPOCHS, BATCH = 4, 256, 6, 16
TRUTH_BATCHES = 8
MOMENTUM = 0.9
"""Of all layers: these runs have a hundred steps, in which the 0.99 of most applications would still be warming up."""


@dataclass(frozen=True)
class Told:
    """What was said of a training, and what is true of it."""

    severity: str
    findings: dict[str, str]
    inference: float
    batch: float
    recalibrated: float

    @property
    def healthy(self) -> bool:
        """Inference is within a fifth of batch statistics, or of what other statistics give: no alarm is due."""
        return self.inference <= 1.2 * min(self.batch, self.recalibrated)

    @property
    def silent(self) -> bool:
        """Neither an error nor a warning."""
        return self.severity in ("none", "info")


def application(family: str, edge: int = 32, **options: Any) -> Callable[[], Any]:
    """A family of ``keras.applications`` with new weights."""

    def build() -> Any:
        make = getattr(keras.applications, family)
        return make(weights=None, input_shape=(edge, edge, 3), classes=CLASSES, classifier_activation=None, **options)

    return build


def _norm(x: Any) -> Any:
    return kl.ReLU()(kl.BatchNormalization()(x))


def _conv(x: Any, filters: int, kernel: int = 3, strides: int = 1) -> Any:
    return _norm(kl.Conv2D(filters, kernel, strides, padding="same", use_bias=False)(x))


def _model(body: Callable[[Any], Any]) -> Callable[[], Any]:
    def build() -> Any:
        inputs = keras.Input((32, 32, 3))
        return keras.Model(inputs, kl.Dense(CLASSES)(kl.GlobalAveragePooling2D()(body(inputs))))

    return build


def _vgg(x: Any) -> Any:
    for filters in (8, 16, 24):
        x = kl.MaxPooling2D()(_conv(_conv(x, filters), filters))
    return x


def _resnet18(x: Any) -> Any:
    x = _conv(x, 8)
    for filters, strides in ((8, 1), (8, 1), (16, 2), (16, 1), (24, 2), (24, 1), (32, 2), (32, 1)):
        y = kl.BatchNormalization()(kl.Conv2D(filters, 3, padding="same")(_conv(x, filters, 3, strides)))
        same = strides == 1 and x.shape[-1] == filters
        shortcut = x if same else kl.BatchNormalization()(kl.Conv2D(filters, 1, strides)(x))
        x = kl.ReLU()(kl.Add()([shortcut, y]))
    return x


def _inception(x: Any) -> Any:
    x = _conv(x, 8, 3, 2)
    for _ in range(3):
        pooled = _conv(kl.MaxPooling2D(3, 1, "same")(x), 4, 1)
        x = kl.Concatenate()([_conv(x, 4, 1), _conv(_conv(x, 4, 1), 6), _conv(_conv(x, 4, 1), 6, 5), pooled])
    return x


def _squeeze(x: Any) -> Any:
    x = _conv(x, 12, 3, 2)
    for filters in (16, 24):
        gate = kl.Dense(filters, "sigmoid")(kl.Dense(4, "relu")(kl.GlobalAveragePooling2D()(y := _conv(x, filters))))
        x = kl.MaxPooling2D()(kl.Multiply()([y, kl.Reshape((1, 1, filters))(gate)]))
    return x


def _unet(x: Any) -> Any:
    a = _conv(x, 8)
    b = _conv(kl.MaxPooling2D()(a), 12)
    c = _conv(kl.MaxPooling2D()(b), 16)
    b = _conv(kl.Concatenate()([kl.UpSampling2D()(c), b]), 12)
    return _conv(kl.Concatenate()([kl.UpSampling2D()(b), a]), 8)


def _shuffle(x: Any) -> Any:
    x = _conv(x, 16, 3, 2)
    for _ in range(3):
        y = kl.BatchNormalization()(kl.Conv2D(16, 3, padding="same", groups=4)(x))
        x = kl.ReLU()(kl.Add()([x, y]))
    return x


ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "VGG with BatchNorm": _model(_vgg),
    "ResNet-18, narrow": _model(_resnet18),
    "Inception v1 with BatchNorm": _model(_inception),
    "squeeze and excitation": _model(_squeeze),
    "U-Net": _model(_unet),
    "grouped convolutions": _model(_shuffle),
    "MobileNet": application("MobileNet", alpha=0.25),
    "MobileNetV2": application("MobileNetV2", alpha=0.35),
    "MobileNetV3Small": application("MobileNetV3Small", minimalistic=True, include_preprocessing=False),
    "ResNet50": application("ResNet50"),
    "ResNet50V2": application("ResNet50V2"),
    "EfficientNetB0": application("EfficientNetB0"),
    "EfficientNetV2B0": application("EfficientNetV2B0", include_preprocessing=False),
    "DenseNet121": application("DenseNet121"),
    "Xception": application("Xception", 71),
    "InceptionV3": application("InceptionV3", 75),
}
"""Name -> a new model for images of three channels, with logits for ``CLASSES`` classes."""


def train(name: str) -> Told:
    """Train an architecture with the lens at its defaults; then ask the report, and Keras itself."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = ARCHITECTURES[name]()
    layers = norms(model)
    for layer in layers:
        layer.momentum = MOMENTUM
    x, y = _images(model.input_shape[1])
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with tempfile.TemporaryDirectory() as directory:
        lens = BNLens(f"{directory}/run", on_error="raise", verbose=0)
        model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[lens])
        report = run_report(read_run(open_logdir(directory), "", "run"))
    findings = {f["rule"]: str(f["severity"]) for f in report["findings"] if f["status"] == "fail"}
    batches = [(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, TRUTH_BATCHES * BATCH, BATCH)]
    return Told(report["severity"], findings, *_truth(model, [layer.name for layer in layers], batches))


def _truth(model: Any, names: list[str], batches: list[Any]) -> tuple[float, float, float]:
    """Mean losses at inference, with batch statistics, and at inference on the mean of these batches' statistics."""
    renewed = mean_of([statistics(model, x, names) for x, _ in batches], [len(x) for x, _ in batches])
    inference = [loss(model, b) for b in batches]
    batch = [loss_by_batch(model, b, names) for b in batches]
    with kept(model):
        assign(model, renewed)
        recalibrated = [loss(model, b) for b in batches]
    return float(np.mean(inference)), float(np.mean(batch)), float(np.mean(recalibrated))


def _images(edge: int) -> tuple[Any, Any]:
    """A coarse picture for each class, with noise."""
    rng = np.random.default_rng(3)
    pictures = rng.normal(size=(CLASSES, 4, 4, 3)).repeat(-(-edge // 4), 1).repeat(-(-edge // 4), 2)[:, :edge, :edge]
    y = rng.integers(0, CLASSES, SIZE)
    return (pictures[y] + rng.normal(size=(SIZE, edge, edge, 3))).astype("float32"), y

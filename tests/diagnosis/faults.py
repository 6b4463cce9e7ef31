"""Every fault of docs/diagnoses.md, as a real training run: the rule that has to name it and its severities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from demo import pose_network
from tests.diagnosis import real_runs as real
from tests.diagnosis.healthy import images
from tests.diagnosis.real_runs import Build, blobs, dense, trained, unshuffled

HARMFUL = {"warning", "error"}


@dataclass(frozen=True)
class Fault:
    build: Build
    rule: str
    severities: set[str]


def pasted(run: str, **repaired: Any) -> Any:
    return trained(run, blobs(1024, spread=0.7), 0.1, 6, 8, depth=4, **repaired)


def pose(run: str, rate: Any = 0.03, epochs: int = 6) -> Any:
    """The network of story 2, whose batch statistics drift at a high learning rate."""
    model, data = pose_network.network(0.99), pose_network.batches(0)
    model.compile(keras.optimizers.Adam(rate, weight_decay=0.1), pose_network.heatmap_error)
    return real.fit(run, model, data.take(100), epochs)


def one_image_a_batch(run: str, epochs: int = 4, repair: real.Repair = real.as_is) -> Any:
    """Images of all contrasts and brightnesses one at a time: each is normalized by itself, as no mean of all can."""
    rng = np.random.default_rng(1)
    x, y = images(512, noise=0.3)
    gain, offset = np.exp(rng.uniform(-1.6, 1.1, (len(x), 1, 1, 1))), 3 * rng.normal(size=(len(x), 1, 1, 1))
    inputs = hidden = keras.Input((12, 12, 1))
    for _ in range(3):
        hidden = real.batch_norm(0.99)(kl.Conv2D(12, 3, padding="same", use_bias=False)(hidden))
        hidden = kl.ReLU()(hidden)
    model = keras.Model(inputs, kl.Dense(4)(kl.GlobalAveragePooling2D()(hidden)))
    model, data = repair(model, real.batched(((gain * x + offset).astype("float32"), y), 1))
    return real.fit(run, real.compiled(model, 3e-3), data, epochs)


def interrupted(run: str) -> Any:
    """A tenth of a long run."""

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = int(self.model.optimizer.iterations) >= 150

    model = real.compiled(dense(0.99, depth=3))
    return real.fit(run, model, real.batched(blobs(scale=0.1)), 30, callbacks=[Stop()])


FAULTS: dict[str, Fault] = {
    "momentum 0.9997": Fault(
        lambda run, **repaired: trained(run, blobs(scale=0.1), 0.9997, 20, depth=3, **repaired),
        "momentum-too-high",
        {"error"},
    ),
    "negative loss": Fault(
        lambda run, **repaired: real.negative_loss(run, 0.9995, 10, **repaired), "momentum-too-high", {"error"}
    ),
    "momentum 0.1": Fault(pasted, "momentum-too-low", HARMFUL),
    "momentum 1": Fault(
        lambda run, **repaired: trained(run, blobs(scale=0.1), 1.0, 12, depth=3, **repaired), "never-updated", HARMFUL
    ),
    "poisoned": Fault(real.poisoned, "non-finite-statistics", {"error"}),
    "sorted by class": Fault(
        lambda run, **repaired: unshuffled(run, real.sorted_by_class(), **repaired),
        "unlike-batches",
        {"info", "warning", "error"},
    ),
    "domains in turn": Fault(
        lambda run, **repaired: unshuffled(run, real.two_domains(), **repaired), "unlike-batches", {"error"}
    ),
    "shared by two domains": Fault(
        lambda run, **repaired: real.shared_layer(run, 4, 2, **repaired), "alternating-domains", {"error"}
    ),
    "short last batch": Fault(
        lambda run, **repaired: real.short_last_batch(run, depth=3, **repaired), "short-last-batch", HARMFUL
    ),
    "averaged weights": Fault(real.averaged_weights, "averaged-weights", HARMFUL),
    "frozen on other data": Fault(
        lambda run: real.frozen_base(run, 1e-5, scale=0.2, shift=2), "frozen-mismatch", HARMFUL
    ),
    "frozen on other data, adapted": Fault(
        lambda run: real.frozen_base(run, scale=3, shift=3), "frozen-mismatch", {"info"}
    ),
    "called in inference mode": Fault(
        lambda run, **repaired: real.inference_mode(run, real.pretrained(), 1e-5, **repaired),
        "inference-mode-layer",
        HARMFUL,
    ),
    "called in inference mode, learned": Fault(
        lambda run, **repaired: real.inference_mode(run, dense(0.9), 1e-2, **repaired), "inference-mode-layer", {"info"}
    ),
    "loop without training=True": Fault(lambda run: real.own_loop(run, False), "never-updated", {"info"}),
    "pretrained, loop without training=True": Fault(
        lambda run: real.own_loop(run, False, real.pretrained(), 1e-6), "never-updated", HARMFUL
    ),
    "momentum set after the trace": Fault(
        lambda run: real.set_after_trace(run, {"momentum": 0.9995}, {"momentum": 0.9}, None), "set-after-trace", HARMFUL
    ),
    "unfrozen after the trace": Fault(
        lambda run: real.set_after_trace(run, {"trainable": False}, {"trainable": True}, 2),
        "set-after-trace",
        {"info", "warning", "error"},
    ),
    "overfitted": Fault(real.overfitted, "overfitting", {"info"}),
    "shifted validation": Fault(
        lambda run: real.shifted_validation(run, scale=2, shift=3), "validation-shift", HARMFUL
    ),
    "dead channels": Fault(real.dead_channels, "collapsed-channels", {"info"}),
    # What was planned is no matter once the run is over.
    "stopped early": Fault(interrupted, "momentum-too-high", HARMFUL),
    "drift": Fault(pose, "drift", {"error"}),
    "drift under a schedule": Fault(
        lambda run: pose(run, keras.optimizers.schedules.ExponentialDecay(0.03, 600, 0.9)), "drift", {"error"}
    ),
    "batch noise": Fault(one_image_a_batch, "batch-noise", {"error"}),
    "sorted by domain": Fault(
        lambda run, **repaired: unshuffled(run, real.two_domains(512), **repaired), "unlike-batches", HARMFUL
    ),
    "dropout before BatchNorm": Fault(real.dropout_first, "variance-shift", HARMFUL),
    "called on other data too": Fault(real.called_apart, "unseen-updates", HARMFUL),
    "much dropout": Fault(
        lambda run: trained(run, blobs(spread=0.7), 0.9, dropout=0.5, width=64), "dropout-gap", {"info"}
    ),
}

"""Real trainings that are short enough to run whenever the tab is tested."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import keras

from demo import band_locator, frozen_base, pose_network
from tb_bnlens import BNLens

WIDTH = 96
BATCH = 8


def small_band_locator(momentum: float) -> keras.Model:
    """Story 1 with four convolutions in place of a MobileNetV2."""
    model = keras.Sequential([keras.Input((32, WIDTH, 1))], name="locator")
    for block in range(1, 5):
        model.add(keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False))
        model.add(keras.layers.BatchNormalization(momentum=momentum, name=f"block_{block}_bn"))
        model.add(keras.layers.ReLU())
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(1))
    model.compile(keras.optimizers.Adam(0.005), "mean_squared_error")
    return model


def train_band_locator(log_dir: str, momentum: float, steps: int = 150) -> None:
    keras.utils.set_random_seed(0)
    small_band_locator(momentum).fit(
        band_locator.batches(WIDTH, BATCH, 0),
        epochs=3,
        steps_per_epoch=steps // 3,
        shuffle=False,
        verbose=0,
        callbacks=[BNLens(log_dir)],
    )


class Slowly(keras.callbacks.Callback):
    """Leaves a reader time to look while the training writes."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        time.sleep(0.05)


def train_for_long(log_dir: str) -> None:
    """Train until somebody ends this process."""
    small_band_locator(0.999).fit(
        band_locator.batches(WIDTH, BATCH, 0),
        epochs=1,
        steps_per_epoch=100_000,
        shuffle=False,
        verbose=0,
        # Every step, so that there is always something new.
        callbacks=[BNLens(log_dir, overhead=math.inf), Slowly()],
    )


SHORT: dict[str, Callable[[str], object]] = {
    "band-locator/momentum-0.999": partial(train_band_locator, momentum=0.999),
    "band-locator/momentum-0.9": partial(train_band_locator, momentum=0.9),
    "pose-network/rate-0.03": partial(pose_network.train, steps=300),
}

# Runs that take seconds unchanged: module and run of the story.
WHOLE = {
    "pretrained-base/frozen": ("pretrained_base", "a-frozen-but-trained-on-batch-statistics"),
    "pretrained-base/dropout": ("pretrained_base", "b-dropout"),
    "pretrained-base/before-the-update": ("pretrained_base", "c-loss-before-the-update"),
    "frozen-base/harmful": ("frozen_base", "harmful-dim-images"),
}

LONG: dict[str, Callable[[str], object]] = {
    "band-locator/momentum-0.999": band_locator.RUNS["momentum-0.999"],
    "band-locator/momentum-0.9": band_locator.RUNS["momentum-0.9"],
    "pose-network/rate-0.03": pose_network.RUNS["rate-0.03"],
    "pose-network/rate-0.03-then-0.0001": pose_network.RUNS["rate-0.03-then-0.0001"],
    "frozen-base/harmless": frozen_base.RUNS["harmless-strong-contrast"],
}


if __name__ == "__main__":
    train_for_long(sys.argv[1])

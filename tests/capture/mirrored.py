"""Run by ``test_two_replicas``: training on two virtual devices, with the lens and without."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.capture import models
from tests.capture.runs import lens, state
from tests.capture.setups import arrays
from tests.capture.test_recorder import recorder, squared


def model(strategy: Any) -> Any:
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    with strategy.scope():
        inputs = keras.Input((models.FEATURES,))
        x = models.batch_norm("first")(inputs)
        second, dense = models.batch_norm("second"), keras.layers.Dense(5)
        x = second(dense(x)) + second(dense(-x))
        made = keras.Model(inputs, keras.layers.Dense(1)(x))
        made.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
        made.optimizer.build(made.trainable_variables)
    return made


def fitted(strategy: Any, *callbacks: Any) -> dict[str, Any]:
    made = model(strategy)
    made.fit(tf.data.Dataset.from_tensor_slices(arrays(64)).batch(16), epochs=2, verbose=0, callbacks=list(callbacks))
    return state(made)


def looped(strategy: Any, directory: Path | None = None, parts: bool = False) -> dict[str, Any]:
    made = model(strategy)

    @tf.function
    def step(x: Any, y: Any) -> None:
        def replica(x: Any, y: Any) -> None:
            with tf.GradientTape() as tape:
                loss = squared(y, made(x, training=True))
            weights = made.trainable_variables
            made.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

        strategy.run(replica, args=(x, y))

    opened = recorder(made, directory, loss=squared) if directory else None
    for start in range(0, 64, 16):
        x, y = (part[start : start + 16] for part in arrays(64))
        step(tf.constant(x), tf.constant(y))
        if opened and parts:
            opened.record(*next(iter(strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensors((x, y))))))
        elif opened:
            opened.record(x, y)
    if opened:
        opened.close()
    return state(made)


def different(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return [k for k in a if not np.array_equal(a[k], b[k])]


def main(directory: Path) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    without, looped_without = fitted(strategy), looped(strategy)
    result = {
        "fit": different(without, fitted(strategy, lens(directory / "fit"))),
        "fit on probe data": different(
            without, fitted(strategy, lens(directory / "fit on probe data", probe_data=arrays(16)))
        ),
        "loop": different(looped_without, looped(strategy, directory / "loop")),
        "loop on parts": different(looped_without, looped(strategy, directory / "loop on parts", parts=True)),
    }
    x = arrays(64)[0].reshape(4, 2, 8, models.FEATURES)[:, 0].mean((0, 1))
    print(json.dumps({"different": result, "batch_mean_rms": float(np.sqrt(np.mean(np.square(x))))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What the frames of a running fit tell."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tb_bnlens.frameworks.keras3 import stack


class Asks(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, Any] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        self.answers = {
            "list": stack.calling_list(),
            "validation": stack.validation_data_of(self.model),
            "of another": stack.validation_data_of(keras.Sequential()),
        }
        self.answers["runs"] = stack.is_running(self.answers["list"])
        self.answers["another runs"] = stack.is_running(keras.callbacks.CallbackList())


def test_the_frames_of_a_fit() -> None:
    x = np.zeros((4, 2), np.float32)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    asks = Asks()
    model.fit(x, x[:, :1], validation_data=(x, x[:, :1]), verbose=0, callbacks=[asks])
    assert asks in asks.answers["list"].callbacks and asks.answers["runs"]
    assert asks.answers["validation"][0] is x and asks.answers["of another"] is None
    assert not asks.answers["another runs"]
    assert not stack.is_running(asks.answers["list"]), "the fit is over"
    assert not stack.is_running(None) and stack.calling_list() is None

"""The code that findings print runs as printed, given ``model`` and ``data``."""

from typing import Any

import pytest

from tb_bnlens.history import History
from tb_bnlens.report import run_report
from tests.rules.test_limits import CASES
from tests.rules.test_rules import OFF, run
from tests.simulation import SimLayer

keras = pytest.importorskip("keras")


def small_model() -> tuple[Any, Any]:
    import numpy as np
    import tensorflow as tf

    model = keras.Sequential(
        [keras.Input((4,)), *(keras.layers.BatchNormalization(name=n) for n in "abc"), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    return model, tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(32)


def poisoned() -> History:
    return run(SimLayer(poisoned_at=300))


def never() -> History:
    return run(SimLayer(state="never_updated", true_variance=0.05))


def called() -> History:
    return run(SimLayer(state="inference_mode", true_mean=1.5))


BUILDERS = [*(case[4] for case in CASES), poisoned, never, called, lambda: run(OFF)]


def test_every_fix_runs() -> None:
    tried = set()
    for build in BUILDERS:
        for finding in run_report(build())["findings"]:
            if finding["status"] == "fail" and finding["fix"] and finding["rule"] not in tried:
                tried.add(finding["rule"])
                model, data = small_model()
                exec(compile(finding["fix"], finding["rule"], "exec"), {"model": model, "data": data})
    assert len(tried) >= 12, tried

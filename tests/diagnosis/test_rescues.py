"""Each printed rescue is applied as printed to the model it was printed for, and gives the loss that it promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from tests.diagnosis.faults import FAULTS  # noqa: E402
from tests.diagnosis.runs import finding  # noqa: E402
from tests.diagnosis.test_real_runs import record  # noqa: E402
from tests.simulation import Sim, SimLayer, simulate  # noqa: E402

QUICK = {"dropout before BatchNorm"}
RESCUED = (
    "dropout before BatchNorm",
    "momentum 0.9997",
    "momentum 1",
    "poisoned",
    "drift",
    "averaged weights",
    "frozen on other data",
    "called in inference mode",
    "momentum set after the trace",
)
LEFT = 0.2
"""Part of what it takes away that may be left: the promise was measured on some of the batches, leaving one out."""


def inference_loss(model: Any, data: Any, loss: Any) -> float:
    return float(np.mean([np.mean(loss(y, model(x, training=False))) for x, y in data]))


def test_the_batch_that_poisoned_the_statistics_is_among_the_data() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    x = np.random.default_rng(0).normal(size=(128, 4)).astype("float32")
    bad = np.full_like(x[:32], np.inf)
    model.layers[0].moving_mean.assign(np.full(4, np.nan))
    found = finding(simulate(Sim([SimLayer(poisoned_at=150)], steps=400)), "non-finite-statistics")
    scope = {"model": model, "data": [(batch, batch) for batch in (bad, *np.split(x, 4))]}
    with pytest.warns(UserWarning, match="1 of 5 batches"):
        exec(compile(found["rescue"], "rescue", "exec"), scope)
    np.testing.assert_allclose(model.layers[0].moving_mean, x.mean(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in RESCUED])
def test_a_rescue_keeps_its_promise(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    report, (model, data) = record(fault.build, tmp_path)
    found = next(f for f in report["findings"] if f["rule"] == fault.rule)
    promised = found["rescue_loss"]
    assert promised is not None and re.search(r"# inference loss .*\(measured", found["rescue"]), found["rescue"]
    compiled = getattr(model, "loss", None)
    loss = keras.losses.get(compiled) if compiled else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    before = inference_loss(model, data, loss)
    exec(compile(found["rescue"], name, "exec"), {"model": model, "data": data})
    after = inference_loss(model, data, loss)
    assert not before <= after
    assert after <= promised + LEFT * (before - promised) or (not np.isfinite(before) and after <= 1.2 * promised)

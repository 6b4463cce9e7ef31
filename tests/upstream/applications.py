"""Six steps of ten families of keras.applications: whether the lens changes a bit of them.

``python -m tests.upstream.applications OUT``: prints one line a family, and writes the figures as JSON.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tb_bnlens import BNLens
from tests.upstream.plugin import state

FAMILIES = {
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "ResNet50": 32,
    "DenseNet121": 32,
    "Xception": 71,
    "InceptionV3": 75,
    "NASNetMobile": 32,
}
"""Name -> edge of the images, the least that the family takes."""

LENSES: dict[str, dict[str, Any]] = {
    "full density": {"overhead": math.inf, "on_error": "raise"},
    "defaults": {},
}
STEPS, BATCH, CLASSES = 6, 4, 3


def trained(family: str, edge: int, options: dict[str, Any] | None) -> dict[str, Any]:
    """The state after the steps, with a lens of these options or without one."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(STEPS * BATCH, edge, edge, 3)).astype("float32")
    y = np.arange(STEPS * BATCH) % CLASSES
    model = getattr(keras.applications, family)(weights=None, input_shape=(edge, edge, 3), classes=CLASSES)
    model.compile("sgd", "sparse_categorical_crossentropy")
    with tempfile.TemporaryDirectory() as directory:
        lenses = [] if options is None else [BNLens(directory, **options)]
        history = model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=lenses)
        written = sum(path.stat().st_size for path in Path(directory).rglob("*tfevents*"))
    return {**state(model), "history": repr(history.history), "bytes": written}


def compared(family: str, edge: int) -> dict[str, Any]:
    """What differs, by lens; ``repeatable`` says whether two trainings without it are alike at all."""
    plain, again = trained(family, edge, None), trained(family, edge, None)
    keys = ("variables", "optimizer", "history")
    result: dict[str, Any] = {"repeatable": all(plain[k] == again[k] for k in keys)}
    for name, options in LENSES.items():
        watched = trained(family, edge, options)
        result[name] = {"differs": [k for k in keys if plain[k] != watched[k]], "bytes": watched["bytes"]}
    return result


def main(out: Path) -> int:
    """Compare every family; 1 where one differs that repeats without the lens."""
    results = {}
    for family, edge in FAMILIES.items():
        results[family] = result = compared(family, edge)
        print(family, json.dumps(result), flush=True)
        out.write_text(json.dumps(results, indent=1))
    return int(any(r["repeatable"] and r[name]["differs"] for r in results.values() for name in LENSES))


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))

"""Six steps of ten families of keras.applications: whether the lens changes a bit of them.

``python -m tests.upstream.applications NAME ...`` for some; prints one line a family.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Sequence
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


def trained(family: str, edge: int, options: dict[str, Any] | None) -> dict[str, str]:
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
        if lenses and not list(Path(directory).rglob("*tfevents*")):
            raise RuntimeError(f"nothing was recorded of {family}")
    return {**state(model), "history": repr(history.history)}


def compared(family: str, edge: int) -> dict[str, list[str]]:
    """What differs with each lens, unless two trainings without one differ in it too."""
    plain = trained(family, edge, None)
    differing = {name: _unlike(plain, trained(family, edge, options)) for name, options in LENSES.items()}
    if any(differing.values()):
        by_itself = _unlike(plain, trained(family, edge, None))
        differing = {name: [key for key in keys if key not in by_itself] for name, keys in differing.items()}
        differing["without the lens"] = by_itself
    return differing


def _unlike(left: dict[str, str], right: dict[str, str]) -> list[str]:
    return [key for key in left if left[key] != right[key]]


def main(names: Sequence[str]) -> int:
    """Compare families, all without names; 1 where the lens changes one."""
    changed = False
    for family in names or FAMILIES:
        differing = compared(family, FAMILIES[family])
        changed |= any(differing[name] for name in LENSES)
        print(f"{family}: {differing}", flush=True)
    return int(changed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

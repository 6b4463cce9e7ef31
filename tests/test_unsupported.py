"""The message where a framework is not supported. ``make test-frameworks`` has the real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import keras
import pytest

import tb_bnlens
from tb_bnlens.frameworks import support
from tests.conftest import ROOT


def instance_from(module: str) -> Any:
    """An object of a class that says it comes from this module."""
    base = type("Module", (), {"__module__": module})
    return type("Net", (base,), {"__module__": "__main__"})()


def test_keras_on_tensorflow_is_supported() -> None:
    assert support.unsupported(keras.Sequential([keras.layers.Dense(1)])) is None
    assert support.unsupported_keras() is None


@pytest.mark.parametrize(
    ("module", "named"),
    [
        ("torch.nn.modules.module", "a PyTorch module"),
        ("flax.nnx.module", "a flax module"),
    ],
)
def test_the_framework_of_a_model_is_named(module: str, named: str) -> None:
    assert f"this is {named};" in str(support.unsupported(instance_from(module)))
    assert support.unsupported(instance_from(module), any_backend=True) == support.unsupported(instance_from(module))


def test_keras_2_is_supported() -> None:
    model = instance_from("tf_keras.src.engine.training")
    assert support.unsupported(model) is None and support.is_keras_2(model)
    assert not support.is_keras_2(keras.Sequential([keras.layers.Dense(1)]))


def test_what_is_no_model_is_left_to_the_checks_of_arguments(tmp_path: Path) -> None:
    assert support.unsupported(instance_from("torchish.nn")) is None
    with pytest.raises(ValueError, match=r"expected a keras\.Model"):
        tb_bnlens.Recorder(object(), str(tmp_path))


@pytest.mark.parametrize(("backend", "named"), [("openvino", "OpenVINO"), ("numpy", "NumPy"), ("mlx", "mlx")])
def test_the_backend_is_named(backend: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.config, "backend", lambda: backend)
    model = keras.Sequential([keras.layers.Dense(1)])
    assert f"this is Keras 3 on {named};" in str(support.unsupported(model))
    assert support.unsupported(model, any_backend=True) is None


def test_keras_2_under_its_old_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras, "__version__", "2.15.0")
    assert "Keras 2" in str(support.unsupported_keras())


def test_a_recorder_of_another_framework_records_nothing(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="this is a PyTorch module; use tb_bnlens.torch") as said:
        recorder = tb_bnlens.Recorder(instance_from("torch.nn.modules.module"), str(tmp_path))
    assert Path(said[0].filename) == Path(__file__)
    with recorder:
        recorder.record([[1.0]], [[1.0]])
    assert list(tmp_path.iterdir()) == []


# In an interpreter that has neither Keras nor TensorFlow.
WRONG_MODELS = """
import warnings
import tb_bnlens
base = type("Module", (), {"__module__": "torch.nn.modules.module"})
module = type("Net", (base,), {})()
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    with tb_bnlens.Recorder(module, "nowhere") as lens:
        lens.record([[1.0]], [[1.0]])
    lens.abandon()
print([str(one.message) for one in said])
for call in (tb_bnlens.check, tb_bnlens.recalibrate, tb_bnlens.set_momentum, tb_bnlens.Recorder):
    try:
        call(3, 0.9 if call.__name__ == "set_momentum" else "nowhere")
    except ValueError as error:
        print(error)
"""


def test_without_keras_a_wrong_model_ends_no_training(viewer_python: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [viewer_python, "-c", WRONG_MODELS],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    warned, *errors = done.stdout.splitlines()
    assert warned.count("this is a PyTorch module; use tb_bnlens.torch") == 1
    assert errors == ["model is an int; expected a keras.Model, and keras is not installed here"] * 4
    assert list(tmp_path.iterdir()) == []


def test_remedies_refuse_another_framework() -> None:
    model = instance_from("torch.nn.modules.module")
    with pytest.raises(NotImplementedError, match=r"tb_bnlens\.recalibrate is not available here: only Keras 3"):
        tb_bnlens.recalibrate(model, [[1.0]])
    with pytest.raises(NotImplementedError, match=r"tb_bnlens\.set_momentum is not available here: only Keras 3"):
        tb_bnlens.set_momentum(model, 0.9)


def test_packages_of_other_frameworks_are_there_after_one_import(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "flax"):
        # As where it is installed.
        module = types.ModuleType(f"tb_bnlens.{name}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        assert getattr(tb_bnlens, name) is module


def test_without_keras_the_import_says_what_is_missing(viewer_python: str) -> None:
    code = "from tb_bnlens import BNLens"
    done = subprocess.run([viewer_python, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: tb_bnlens.BNLens needs Keras 3 on TensorFlow, JAX or PyTorch, and ")
    assert "is not installed here; run: pip install 'tensorboard-plugin-bnlens[tensorflow]'" in last

"""Environments over others: each takes their packages and installs only what they lack."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
WHERE = ROOT / ".venv-frameworks"


@dataclass(frozen=True)
class Environment:
    """Packages, and the tests of ``tests/frameworks`` that run there."""

    name: str
    over: tuple[str, ...]
    """Environments whose packages it sees, the first before the others: ``.venv`` (TensorFlow), ``.venv-viewer``
    (TensorBoard alone), or the name of one further up in the table."""
    packages: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    """Set while the tests run."""
    tests: tuple[str, ...] = ("test_keras.py",)
    by_name: bool = False
    """Tested only where it is named: its packages are large."""


# A bare torch brings gigabytes of CUDA from PyPI; where wheels without it are at hand they are of this version.
TORCH = "torch==2.13.0"

# Of one CPU, for keras.distribution.
FOUR_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}

ENVIRONMENTS = (
    Environment(
        "keras-jax",
        (".venv-viewer",),
        ("pytest>=8", "keras", "jax"),
        {"BN_LENS_FRAMEWORK": "keras", "KERAS_BACKEND": "jax", **FOUR_DEVICES},
        ("test_keras.py", "test_situations.py"),
    ),
    Environment(
        "torch",
        (".venv-viewer",),
        ("pytest>=8", TORCH),
        tests=(
            "test_torch.py",
            "test_torch_harmless.py",
            "test_torch_models.py",
            "test_torch_causes.py",
            "test_torch_loops.py",
        ),
    ),
    Environment(
        "torch-trainers",
        (".venv-viewer", "torch"),
        ("lightning", "transformers", "accelerate"),
        tests=("test_torch_trainers.py",),
        by_name=True,
    ),
    Environment(
        "keras-torch",
        (".venv-viewer", "keras-jax", "torch"),
        (),
        {"BN_LENS_FRAMEWORK": "keras", "KERAS_BACKEND": "torch"},
        ("test_keras.py", "test_situations.py", "test_torch_checkpoints.py"),
    ),
    Environment("flax", (".venv-viewer", "keras-jax"), ("flax>=0.12",), tests=("test_flax.py",)),
    Environment(
        "keras-jax-beside-tensorflow",
        (".venv", "keras-jax"),
        (),
        {"BN_LENS_FRAMEWORK": "keras", "KERAS_BACKEND": "jax", **FOUR_DEVICES},
    ),
    Environment(
        "tf-keras",
        (".venv",),
        ("tf_keras",),
        {"BN_LENS_FRAMEWORK": "tf_keras", "TF_USE_LEGACY_KERAS": "1"},
        ("test_keras.py", "test_situations.py", "test_keras2.py"),
    ),
)

# For make test-upstream: what Keras' own tests import.
UPSTREAM = Environment("upstream", (".venv", "keras-jax"), ("pandas",))


def site_packages(name: str) -> Path:
    """Where an environment keeps its packages."""
    directory = ROOT / name if name.startswith(".") else WHERE / name
    (found,) = directory.glob("lib/python3.*/site-packages")
    return found.resolve()


def python(environment: Environment) -> Path:
    """The Python of an environment, made where it is not there or was made for other packages."""
    for below in ENVIRONMENTS:
        if below.name in environment.over:
            python(below)
    directory = WHERE / environment.name
    made, here = directory / "made", directory / "bin" / "python"
    lines = [f"import site; site.addsitedir({str(site_packages(name))!r})" for name in environment.over]
    recipe = "\n".join([*lines, *environment.packages, ""])
    if made.exists() and made.read_text() == recipe:
        return here
    shutil.rmtree(directory, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    (site_packages(environment.name) / "over.pth").write_text("\n".join(lines))
    if environment.packages:
        pip: list[str | Path] = [here, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *environment.packages], check=True)
    made.write_text(recipe)
    return here

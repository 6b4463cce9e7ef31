"""Packages whose code changes nothing in a pass, modules and losses apart."""

from __future__ import annotations

import sys

CLOSED_PACKAGES = frozenset(
    """IPython PIL _pytest accelerate aim clearml comet_ml datasets deepspeed flax grain h5py hydra ipykernel jax
    jaxlib joblib keras lightning lightning_fabric matplotlib mlflow neptune numba numpy omegaconf optax orbax
    pandas pluggy polars pyarrow pydantic pytorch_lightning ray rich scipy sklearn tb_bnlens tensorboard
    tensorboardX tensorflow tensorflow_datasets tf_keras torch torchvision tqdm transformers wandb xarray""".split()
) | frozenset(sys.stdlib_module_names)
"""Packages whose objects are not walked, modules and losses apart: a forward pass does not write what they hold."""


MAY_DRAW = (
    CLOSED_PACKAGES
    - frozenset(
        """accelerate flax jax jaxlib keras lightning lightning_fabric numpy optax pytorch_lightning rich tb_bnlens
        tensorboard tensorflow tf_keras torch torchvision tqdm transformers""".split()
    )
    - sys.stdlib_module_names
)
"""Closed packages that may draw from NumPy's global generator where code does not name ``numpy.random``."""


def may_draw(module: object) -> bool:
    """Whether code of a closed package may draw from NumPy's global generator."""
    package, _, rest = str(module).partition(".")
    return package in MAY_DRAW or (package == "numpy" and rest.startswith("random"))


def is_of_closed(module: object) -> bool:
    """Whether a module of this name is of a closed package; what runs as a script or in a notebook is a user's."""
    return str(module).partition(".")[0] in CLOSED_PACKAGES


def is_of_python(module: object) -> bool:
    """Whether a module of this name is one of Python's own library, ``builtins`` included."""
    return str(module).partition(".")[0] in sys.stdlib_module_names


def is_of_library(kind: type) -> bool:
    """Whether a type is of the standard library, built-in ones apart."""
    module = getattr(kind, "__module__", None)
    return is_of_python(module) and module != "builtins"


def is_closed(kind: type) -> bool:
    """Whether a type, or a function, is of a closed package."""
    return is_of_closed(getattr(kind, "__module__", None))

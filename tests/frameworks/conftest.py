"""The framework of the environment that the tests run in: ``BN_LENS_FRAMEWORK`` names the package to import."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


@pytest.fixture(scope="session")
def keras() -> Any:
    """Keras of this environment: Keras 3 on the backend that KERAS_BACKEND names, or tf_keras."""
    return importlib.import_module(os.environ["BN_LENS_FRAMEWORK"])

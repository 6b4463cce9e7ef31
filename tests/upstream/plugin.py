"""A pytest plugin for tests of Keras itself: what every ``fit`` leaves behind, with the lens or without it.

Tests are seeded, so that two runs of one test train the same way. ``--fits FILE`` writes one JSON object a ``fit``;
``--lens JSON`` gives every ``fit`` a ``BNLens`` with these arguments.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

MARKERS = ("requires_trainable_backend", "multi_device")
"""Keras registers them in a conftest.py that its source distribution does not hold."""


class Fits:
    """The record of one pytest run.

    Args:
        options: arguments of ``BNLens`` but the directory; None for runs without the lens.
        directory: a fresh directory below it is given to each lens.
    """

    def __init__(self, options: dict[str, Any] | None, directory: Path):
        self.options, self.directory = options, directory
        self.fits: list[dict[str, Any]] = []
        self.outcomes: dict[str, str] = {}
        self.warnings: list[dict[str, str]] = []
        self.test = ""

    def wrapped(self, fit: Callable[..., Any]) -> Callable[..., Any]:
        """``fit`` with the lens among its callbacks, its end noted."""
        signature = inspect.signature(fit)

        @functools.wraps(fit)
        def wrapper(model: Any, *args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(model, *args, **kwargs)
            noted: dict[str, Any] = {"test": self.test, "lens": self._inject(bound)}
            self.fits.append(noted)
            try:
                history = fit(*bound.args, **bound.kwargs)
            except BaseException as error:
                noted["raised"] = type(error).__name__
                raise
            finally:
                noted |= state(model)
            noted["history"] = repr(getattr(history, "history", None))
            return history

        return wrapper

    def _inject(self, bound: inspect.BoundArguments) -> bool:
        callbacks = bound.arguments.get("callbacks")
        if self.options is None or isinstance(callbacks, keras.callbacks.CallbackList):
            return False
        from tb_bnlens import BNLens

        lens = BNLens(str(self.directory / f"{len(self.fits)}"), **self.options)
        given = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks] if callbacks else []
        bound.arguments["callbacks"] = [*given, lens]
        return True


def state(model: Any) -> dict[str, str]:
    """Digests of all that training writes: the model's variables, and its optimizer's."""
    optimizer = getattr(model, "optimizer", None)
    return {"variables": digest(model.variables), "optimizer": digest(getattr(optimizer, "variables", ()))}


def digest(variables: Iterable[Any]) -> str:
    """SHA-256 of the values of variables, in their order, to the bit."""
    total = hashlib.sha256()
    for variable in variables:
        value = np.asarray(variable)
        total.update(f"{value.shape}{value.dtype}".encode())
        total.update(value.tobytes())
    return total.hexdigest()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this plugin."""
    parser.addoption("--fits", type=Path, help="file to write the state after every fit to")
    parser.addoption("--lens", type=json.loads, help="arguments of a BNLens for every fit, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Wrap ``fit``, and register what Keras' own conftest would."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    file = config.getoption("--fits")
    fits = Fits(config.getoption("--lens"), file.with_suffix(""))
    config.pluginmanager.register(Hooks(fits, file))
    trainer = next(c for c in keras.Model.__mro__ if "fit" in vars(c))
    trainer.fit = fits.wrapped(trainer.fit)


class Hooks:
    """Follows the tests."""

    def __init__(self, fits: Fits, file: Path):
        self._fits, self._file = fits, file

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Seed each test the same way."""
        self._fits.test = item.nodeid
        keras.utils.set_random_seed(0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst of a test's phases."""
        if report.when == "call" or report.outcome != "passed":
            self._fits.outcomes[report.nodeid] = report.outcome

    def pytest_warning_recorded(self, warning_message: Any, nodeid: str) -> None:
        """Keep what the lens says."""
        if "BN Lens" in str(warning_message.message):
            self._fits.warnings.append({"test": nodeid, "says": str(warning_message.message)})

    def pytest_sessionfinish(self) -> None:
        """Write the record."""
        kept = {"fits": self._fits.fits, "outcomes": self._fits.outcomes, "warnings": self._fits.warnings}
        self._file.write_text(json.dumps(kept))

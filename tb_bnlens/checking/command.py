"""``python -m tb_bnlens check``: a saved model, and data from a function that the user names."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from tb_bnlens.capture.reasons import cause_of
from tb_bnlens.checking.check import check
from tb_bnlens.checking.result import Check
from tb_bnlens.frameworks.support import keras_here

keras = keras_here()


class CannotCheck(Exception):
    """The model or the data cannot be had; the message says why."""


def check_file(path: str, data: str, log_dir: str | None = None, batches: int = 24) -> Check:
    """Check a saved model.

    Args:
        path: what ``keras.models.load_model`` reads, in its safe mode.
        data: ``"module:function"``; the function takes no arguments and gives what ``check`` takes.
        log_dir: see ``check``.
        batches: see ``check``.

    Raises:
        CannotCheck: one of them cannot be had, or the model cannot be measured on the data.
    """
    # First, since it may register the custom objects that the model is made of.
    make = _function(data)
    try:
        model = keras.models.load_model(path)
    except Exception as error:
        raise CannotCheck(f"Keras cannot load {path!r}: {cause_of(error)}") from error
    try:
        made = make()
    except Exception as error:
        raise CannotCheck(f"{data} failed: {cause_of(error)}") from error
    try:
        return check(model, made, log_dir, batches=batches, quiet=True)
    except Exception as error:
        raise CannotCheck(f"{path!r} cannot be measured on what {data} gives: {cause_of(error)}") from error


def _function(data: str) -> Any:
    module, _, name = data.partition(":")
    if not module or not name:
        raise CannotCheck(f"--data is {data!r}; expected MODULE:FUNCTION, e.g. train:make_dataset")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as python -m has it, and an installed command has not
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:
        raise CannotCheck(f"the module {module!r} cannot be imported: {cause_of(error)}") from error
    if not callable(found):
        raise CannotCheck(f"the module {module!r} has no function {name!r}")
    return found

"""Warn the user, whatever the filters of warnings say. Standard library only."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path

_INSIDE = (str(Path(__file__).parent), contextlib.__file__)


def warn_user(sentence: str) -> None:
    """Give a warning at the line that called BN Lens. It never raises: where warnings are errors it is printed."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    try:
        warnings.warn(sentence, stacklevel=level)
    except Warning:
        # python -W error. The sentence must be seen, and must not end training.
        print(f"Warning: {sentence}", file=sys.stderr)

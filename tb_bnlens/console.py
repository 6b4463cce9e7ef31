"""Standard output and standard error as they are: any encoding, any width, with or without colour."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import TextIO

from tb_bnlens.report.encoding import ERRORS
from tb_bnlens.report.style import NARROWEST, WIDTH, Style, printable

LOG_LEVEL, NOTHING, CHATTY = "TF_CPP_MIN_LOG_LEVEL", "3", ("0", "1")
"""TensorFlow's variable, its value for no line at all (errors are raised too), and the values that ask for lines."""


def prepare() -> None:
    """Let no character end the command; to be called once, before anything is written."""
    for stream in (sys.stdout, sys.stderr):
        # Tests and notebooks put other objects in their place.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Keep back what a framework's libraries log while they are loaded, unless a variable asks for it.

    They write to the file descriptor, most of it before they have read ``TF_CPP_MIN_LOG_LEVEL``. What they wrote is
    shown after all where the import fails. Later nothing is logged.
    """
    if os.environ.setdefault(LOG_LEVEL, NOTHING) in CHATTY or sys.stderr is None:
        yield
        return
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            said.seek(0)
            os.write(shown, said.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def style() -> Style:
    """What standard output shows: ``COLUMNS`` or the width of the terminal, and colour where a terminal wants it."""
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    return Style(max(NARROWEST, width), _colour(sys.stdout))


def write(text: str) -> None:
    """Write to standard output; who reads it may stop early, as ``head`` does."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes again when it ends, and would fail then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(command: str, sentence: str) -> None:
    """Write a sentence to standard error."""
    print(f"bnlens {command}: {' '.join(printable(sentence).split())}", file=sys.stderr)


def _colour(stream: TextIO) -> bool:
    """As https://no-color.org and https://force-color.org say."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    # The old console of Windows prints the sequences as they are; newer ones name themselves.
    known = os.name != "nt" or "WT_SESSION" in os.environ or "TERM" in os.environ
    return known and os.environ.get("TERM") != "dumb" and stream.isatty()

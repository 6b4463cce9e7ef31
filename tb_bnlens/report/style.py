"""How text fits a terminal: width, colour, and characters that must not steer it."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WIDTH = 110
"""Columns of a terminal that does not say how wide it is. Longer lines of prose are hard to read."""
NARROWEST = 40
MARKS = {"error": "X", "warning": "!", "info": "i", "none": "-"}
SGR = {"error": "31", "warning": "33", "info": "34", "none": "32"}
"""Colours of the marks, which say the same without colour."""
BOLD = "1"
FILL = "\0"
"""Stands for the second column of a wide character while lines are broken."""


@dataclass(frozen=True)
class Style:
    """What the terminal shows."""

    width: int = WIDTH
    """Columns."""
    colour: bool = False
    """Whether it takes escape sequences for colours."""

    def wrap(self, prefix: str, text: str) -> list[str]:
        """Lines of at most ``width`` columns, the first after ``prefix``, the others below its end."""
        width = max(NARROWEST, min(self.width, WIDTH))
        taken = columns(prefix)
        indent = " " * (taken if taken <= 2 * width // 3 else 4)
        lines = textwrap.wrap(_filled(text), width, initial_indent=_filled(prefix), subsequent_indent=indent)
        return [line.replace(FILL, "") for line in lines] or [prefix.rstrip()]

    def mark(self, severity: str) -> str:
        """The letter of a severity, in its colour."""
        return self._painted(MARKS[severity], SGR[severity])

    def marked(self, severity: str, text: str) -> list[str]:
        """Wrapped text behind the mark of its severity."""
        first, *rest = self.wrap("  ", text)
        return [self.mark(severity) + first[1:], *rest]

    def title(self, text: str) -> list[str]:
        """A heading, underlined."""
        lines = self.wrap("", text)
        return [*(self._painted(line, BOLD) for line in lines), "=" * max(map(columns, lines))]

    def _painted(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text


def printable(text: str) -> str:
    """The text with what is no visible character spelled out; line breaks stay.

    Names from a log directory must not steer a terminal, nor look like a line or a space of ours.
    """
    return "".join(c if c in "\n " or _visible(c) else ascii(c)[1:-1] for c in text)


def all_printable(value: Any, key: str = "") -> Any:
    """A report with every string printable, and on one line but for code: a layer's name must not add lines."""
    if isinstance(value, str):
        shown = printable(value)
        return shown if key in ("rescue", "fix") else " ".join(shown.split("\n"))
    if isinstance(value, Mapping):
        return {all_printable(k): all_printable(v, k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [all_printable(item, key) for item in value]
    return value


def shortened(text: str, width: int) -> str:
    """The text in at most ``width`` columns. The middle is left out: paths differ at their ends.

    Example:
        >>> shortened("backbone/block_12/expand_BN", 15)
        'backbo...and_BN'
    """
    if columns(text) <= width:
        return text
    kept = max(0, width - 3)
    head, tail = _fitting(text, kept - kept // 2), _fitting(text[::-1], kept // 2)[::-1]
    return f"{head}...{tail}"[:width]


def padded(text: str, width: int) -> str:
    """The text with spaces up to ``width`` columns."""
    return text + " " * (width - columns(text))


def columns(text: str) -> int:
    """Columns that a terminal takes: two for a wide character, none for one that is put on another."""
    return sum(_columns(c) for c in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _filled(text: str) -> str:
    return text if text.isascii() else "".join(c + FILL * (_columns(c) - 1) for c in text)


def _fitting(text: str, width: int) -> str:
    taken = 0
    for i, character in enumerate(text):
        taken += _columns(character)
        if taken > width:
            return text[:i]
    return text


def _visible(character: str) -> bool:
    # C holds control characters, escapes, marks that change the direction of text, and lone surrogates. A lone
    # surrogate stands for a byte of a file name that is not text, and cannot be printed at all. Z holds spaces and line
    # separators.
    return unicodedata.category(character)[0] not in "CZ"

"""Text for a stream of any encoding: characters that it does not have are spelled."""

from __future__ import annotations

import codecs
from typing import TextIO

ERRORS = "tb_bnlens.spelled"
"""Name of the error handler that spells, for ``str.encode`` and for streams."""
SPELLED = {
    "\N{MIDDLE DOT}": "-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{SUPERSCRIPT TWO}": "^2",
    "\N{GREEK SMALL LETTER BETA}": "beta",
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
}
"""What stands for typographic characters; others are written as escapes."""


def encodable(text: str, stream: TextIO) -> str:
    """The text with what the stream cannot encode spelled.

    Example:
        On a console of ASCII, "3 layers · 10²" is "3 layers - 10^2", and other characters are escapes.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, ERRORS).decode(encoding)


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(SPELLED.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text), error.end


codecs.register_error(ERRORS, _spell)

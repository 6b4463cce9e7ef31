"""Which layer of one run is which of another, where Keras has numbered them differently."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"_\d+(?=[/#]|$)")
AUTOMATIC = ("batch_normalization", "sync_batch_normalization")
"""Names that Keras gives to layers without a name, before the number."""


def matched(names: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of layers that two runs have in common, in the order of the first.

    Keras numbers layers without a name over a whole process, so the second model of a notebook has
    ``batch_normalization_7`` where the first has ``batch_normalization_3``. Names that differ only by such numbers are
    matched in the order of the model where both runs have as many of them, all others by name.

    Args:
        names: layers of the first run, in the model's order, each once.
        others: of the second.

    Example:
        >>> matched(["stem", "batch_normalization", "batch_normalization_1"],
        ...         ["batch_normalization_2", "batch_normalization_3", "stem"])
        [('stem', 'stem'), ('batch_normalization', 'batch_normalization_2'),
         ('batch_normalization_1', 'batch_normalization_3')]
    """
    there = _by_stem(others)
    found = {
        name: other
        for stem, here in _by_stem(names).items()
        for name, other in _of_one_stem(stem, here, there.get(stem, []))
    }
    return [(name, found[name]) for name in names if name in found]


def _of_one_stem(stem: str, here: Sequence[str], there: Sequence[str]) -> list[tuple[str, str]]:
    automatic = stem.rsplit("/", 1)[-1].split("#")[0] in AUTOMATIC
    if set(here) != set(there) and (automatic or len(here) == len(there)):
        return list(zip(here, there, strict=False))
    return [(name, name) for name in here if name in there]


def _by_stem(names: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_NUMBER.sub("", name), []).append(name)
    return found

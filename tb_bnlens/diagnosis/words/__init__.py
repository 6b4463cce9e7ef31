"""One file a cause: its sentences, evidence and fixes. No file here holds a limit or decides anything."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping

from tb_bnlens.diagnosis.words.words import Words


def _of_modules() -> Iterator[tuple[str, Words]]:
    for module in pkgutil.iter_modules(__path__):
        words = getattr(importlib.import_module(f"{__name__}.{module.name}"), "WORDS", None)
        if words is not None:
            yield module.name.replace("_", "-"), words


WORDS: Mapping[str, Words] = dict(_of_modules())
"""Id of a cause -> its words, which stand in the module of that name."""

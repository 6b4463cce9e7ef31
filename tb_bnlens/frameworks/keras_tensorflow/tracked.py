"""TensorFlow's wrappers of lists and dictionaries that are set as attributes."""

from __future__ import annotations

from typing import Any

from tensorflow.python.trackable import data_structures

from tb_bnlens.capture.walk import Visit, Walk


def _visit_list(walk: Walk, wrapper: Any) -> None:
    walk.dictionary(vars(wrapper))
    walk.sequence(wrapper)


def _visit_dictionary(walk: Walk, wrapper: Any) -> None:
    walk.dictionary(wrapper.__wrapped__)


TRACKED: dict[type, Visit] = {
    data_structures.ListWrapper: _visit_list,
    data_structures._DictWrapper: _visit_dictionary,
}
"""How they are walked."""

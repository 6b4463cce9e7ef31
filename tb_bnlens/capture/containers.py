"""How containers, arrays and generators of Python and NumPy are walked."""

from __future__ import annotations

import array
import functools
import queue
import random
from collections import deque
from typing import Any

import numpy as np

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.walk import LONG, Visit, Walk, are_same

_OF_ALL = (random._inst, np.random.mtrand._rand, np.random.mtrand._rand._bit_generator)
"""Global generators, which ``randomness`` takes care of."""


def _visit_sequence(walk: Walk, thing: Any) -> None:
    walk.sequence(thing)


def _visit_dictionary(walk: Walk, thing: Any) -> None:
    walk.dictionary(thing)


def _visit_fixed(walk: Walk, thing: Any) -> None:
    if len(thing) <= LONG:
        walk.then(*thing)


def _visit_deque(walk: Walk, thing: Any) -> None:
    kept = list(thing)
    _visit_fixed(walk, kept)

    def restore() -> None:
        if not are_same(thing, kept):
            deque.clear(thing)
            deque.extend(thing, kept)

    walk.keep(restore)


def _visit_set(walk: Walk, thing: Any) -> None:
    kept = set(thing)
    _visit_fixed(walk, kept)

    def restore() -> None:
        if set(map(id, thing)) != set(map(id, kept)):
            set.clear(thing)
            set.update(thing, kept)

    walk.keep(restore)


def _refuse_queue(walk: Walk, thing: Any) -> None:
    raise NotEvaluated(
        "the model or loss holds a queue, which an extra pass would fill; keep it outside of them to have the losses "
        "measured"
    )


def _visit_bytes(walk: Walk, thing: Any) -> None:
    kept = thing[:]
    walk.copied(memoryview(thing).nbytes)

    def restore() -> None:
        thing[:] = kept

    walk.keep(restore)


def _visit_array(walk: Walk, array: Any) -> None:
    if not array.flags.writeable:
        return
    if array.dtype.hasobject:
        values = array.copy()
        _visit_fixed(walk, array.ravel().tolist())
        walk.keep(lambda: np.copyto(array, values))
        return
    walk.copied(array.nbytes)
    kept = array.tobytes()

    def restore() -> None:
        if array.tobytes() != kept:
            np.copyto(array, np.frombuffer(kept, array.dtype).reshape(array.shape))

    walk.keep(restore)


def _visit_numpy_generator(walk: Walk, generator: Any) -> None:
    walk.then(generator.bit_generator)


def _visit_legacy_generator(walk: Walk, generator: Any) -> None:
    if generator not in _OF_ALL:
        walk.keep(functools.partial(generator.set_state, generator.get_state(legacy=False)))


def _visit_bit_generator(walk: Walk, generator: Any) -> None:
    if generator not in _OF_ALL:
        walk.keep(functools.partial(setattr, generator, "state", generator.state))


def _visit_python_generator(walk: Walk, generator: Any) -> None:
    if generator not in _OF_ALL:
        walk.keep(functools.partial(generator.setstate, generator.getstate()))


CONTAINERS: dict[type, Visit] = {
    dict: _visit_dictionary,
    list: _visit_sequence,
    tuple: _visit_fixed,
    frozenset: _visit_fixed,
    set: _visit_set,
    deque: _visit_deque,
    bytearray: _visit_bytes,
    array.array: _visit_bytes,
    queue.Queue: _refuse_queue,
    queue.SimpleQueue: _refuse_queue,
    np.ndarray: _visit_array,
}
GENERATORS: dict[type, Visit] = {
    np.random.Generator: _visit_numpy_generator,
    np.random.RandomState: _visit_legacy_generator,
    np.random.BitGenerator: _visit_bit_generator,
    random.Random: _visit_python_generator,
}
"""Those that draw random numbers."""

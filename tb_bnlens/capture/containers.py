"""How containers, arrays and generators of Python and NumPy are walked."""

from __future__ import annotations

import array
import functools
import io
import mmap
import random
from collections import deque
from contextvars import ContextVar
from typing import Any

import numpy as np

from tb_bnlens.capture.noted import LONG, Place, are_same
from tb_bnlens.capture.walk import Visit, Walk

_OF_ALL = (random._inst, np.random.mtrand._rand, np.random.mtrand._rand._bit_generator)
"""Global generators, which ``randomness`` takes care of."""


LARGE = 2**20
"""Bytes that are compared when the measurement ends, and not behind each pass."""
TOO_LARGE = "which is too large to be copied"


def _visit_sequence(walk: Walk, thing: Any) -> None:
    walk.sequence(thing)


def _visit_dictionary(walk: Walk, thing: Any) -> None:
    walk.dictionary(thing)


def _visit_fixed(walk: Walk, thing: Any) -> None:
    if len(thing) <= LONG:
        walk.then(thing, *thing)


def _visit_deque(walk: Walk, thing: Any) -> None:
    _visit_fixed(walk, thing)
    kept = list(thing)

    def restore() -> None:
        if not are_same(thing, kept):
            deque.clear(thing)
            deque.extend(thing, kept)

    walk.keep(restore, long=len(kept) > LONG)


def _visit_set(walk: Walk, thing: Any) -> None:
    _visit_fixed(walk, thing)
    kept = list(thing)

    def restore() -> None:
        if are_same(thing, kept) or set(map(id, thing)) == set(map(id, kept)):
            return
        set.difference_update(thing, set(thing).difference(kept))  # one by one, which leaves the others in their order
        if not are_same(list(thing), kept):
            set.clear(thing)
            set.update(thing, kept)
        if not are_same(list(thing), kept):
            raise RuntimeError("a set has another order")

    walk.keep(restore, long=len(kept) > LONG)


def _visit_variable(walk: Walk, variable: Any) -> None:
    walk.place(Place(variable.name, variable.get, variable.set))


def _visit_view(walk: Walk, view: Any) -> None:
    walk.then(view, view.obj)


def _visit_bytes(walk: Walk, thing: Any) -> None:
    with memoryview(thing) as view:
        count, readonly = view.nbytes, view.readonly
    if readonly:
        return
    if not walk.affords(count):
        walk.cannot_put_back(thing, TOO_LARGE)
        return
    kept = thing[:]

    def restore() -> None:
        thing[:] = kept

    walk.keep(restore, long=count > LARGE)


def _visit_stream(walk: Walk, thing: Any) -> None:
    if not thing.closed:
        walk.keep(functools.partial(thing.__setstate__, thing.__getstate__()))


def _visit_array(walk: Walk, given: Any) -> None:
    if type(given) is not np.ndarray:
        walk.dictionary(getattr(given, "__dict__", {}))  # the mask of a masked array
    array = given.view(np.ndarray)
    if not array.flags.writeable:
        return
    if not walk.affords(array.nbytes):
        walk.cannot_put_back(given, f"{TOO_LARGE} unless it is read-only (array.flags.writeable = False)")
    elif array.dtype.hasobject:
        values = array.copy()
        walk.then(given, *array.ravel().tolist()[:LONG])
        walk.keep(lambda: np.copyto(array, values), long=array.size > LONG)
    else:
        kept = array.tobytes()

        def restore() -> None:
            if array.tobytes() != kept:
                np.copyto(array, np.frombuffer(kept, array.dtype).reshape(array.shape))

        walk.keep(restore, long=array.nbytes > LARGE)


def _visit_numpy_generator(walk: Walk, generator: Any) -> None:
    walk.then(generator, generator.bit_generator)


def _visit_legacy_generator(walk: Walk, generator: Any) -> None:
    if generator not in _OF_ALL:
        walk.keep(functools.partial(generator.set_state, generator.get_state(legacy=False)))


def _visit_bit_generator(walk: Walk, generator: Any) -> None:
    if generator in _OF_ALL:
        walk.may_draw = True
    else:
        walk.generators.append(generator)
        walk.keep(functools.partial(setattr, generator, "state", generator.state))


def _visit_python_generator(walk: Walk, generator: Any) -> None:
    if generator not in _OF_ALL and not isinstance(generator, random.SystemRandom):
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
    mmap.mmap: _visit_bytes,
    memoryview: _visit_view,
    io.StringIO: _visit_stream,
    io.BytesIO: _visit_stream,
    ContextVar: _visit_variable,
    np.ndarray: _visit_array,
    np.random.Generator: _visit_numpy_generator,
    np.random.RandomState: _visit_legacy_generator,
    np.random.BitGenerator: _visit_bit_generator,
    random.Random: _visit_python_generator,
}

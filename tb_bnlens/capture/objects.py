"""Put back what Python objects hold: an extra pass runs code of the user's, which may count, append or draw.

The walk starts at what a pass calls (a model, a loss) and follows attributes, containers, closures and the globals that
functions read. It notes what each object holds, and afterwards puts that back into the very same objects.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import operator
import random
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tb_bnlens.capture.code import functions_called, reads
from tb_bnlens.capture.errors import NotEvaluated

MOST_OBJECTS = 200_000
"""A walk over so many takes a tenth of a second."""
LONG = 10_000
"""A container of more elements is data: it is put back, and its elements are not walked."""
MOST_BYTES = 64 * 2**20
"""Of NumPy arrays that a pass could write to, copied for each pass."""
CLOSED_PACKAGES = frozenset(
    """IPython PIL accelerate aim clearml comet_ml datasets deepspeed flax grain h5py hydra ipykernel jax jaxlib joblib
    keras lightning lightning_fabric matplotlib mlflow neptune numba numpy omegaconf optax orbax pandas polars pyarrow
    pydantic pytorch_lightning ray rich scipy sklearn tb_bnlens tensorboard tensorboardX tensorflow tensorflow_datasets
    tf_keras torch torchvision tqdm transformers wandb xarray""".split()
) | frozenset(sys.stdlib_module_names)
"""Packages whose objects are not walked, modules and losses apart: a forward pass does not write what they hold."""
ITERATORS: tuple[type, ...] = (
    *(types.GeneratorType, itertools.count, itertools.cycle, itertools.chain, itertools.islice, map, filter, zip),
    *(enumerate, type(iter([])), type(iter(())), type(iter({})), type(iter(range(0)))),
)
"""They have a position that cannot be put back."""
PLAIN: tuple[type, ...] = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice, type(Ellipsis)),
    *(types.ModuleType, types.CodeType, np.generic, np.dtype),
)
"""They hold nothing that changes."""
_OF_ALL = (random._inst, np.random.mtrand._rand, np.random.mtrand._rand._bit_generator)
"""Global generators, which ``randomness`` takes care of."""

Visit = Callable[["Walk", Any], None]


class Objects:
    """Knows which objects of a framework are walked, and puts back what they hold.

    Args:
        parts: walked although they are of a closed package: modules, layers, losses.
        closed: not walked although they are a user's: optimizers, loaders, datasets.
        visits: type -> how its objects are walked, e.g. tensors.
    """

    def __init__(
        self,
        parts: tuple[type, ...] = (),
        closed: tuple[type, ...] = (),
        visits: Mapping[type, Visit] | None = None,
    ):
        self._parts, self._closed, self._visits = parts, closed, {**(visits or {}), **_VISITS}
        self._known: dict[type, Visit | None] = {}

    @contextlib.contextmanager
    def put_back(self, *roots: Any) -> Iterator[None]:
        """Put back what the objects that can be reached hold, when the block ends.

        Args:
            roots: what is called in the block.

        Raises:
            NotEvaluated: an object cannot be put back, or there are too many; the block is not run then.
            RuntimeError: putting something back has failed. All else has been put back.
        """
        walk = Walk(self._known, self._visit_of)
        walk.over(roots)
        try:
            yield
        finally:
            walk.put_back()

    def _visit_of(self, kind: type) -> Visit | None:
        """How objects of a type are walked; None where they are not."""
        self._known[kind] = found = self._found(kind)
        return found

    def _found(self, kind: type) -> Visit | None:
        if issubclass(kind, PLAIN) or issubclass(kind, self._closed):
            return None
        if issubclass(kind, ITERATORS):
            return _refuse_iterator
        for known, visit in self._visits.items():
            if issubclass(kind, known):
                return visit if _is_closed(kind) else functools.partial(_visit_both, visit)
        if issubclass(kind, self._parts):
            return _visit_part if _is_closed(kind) else _visit_object
        return None if _is_closed(kind) else _visit_object


class Walk:
    """What some objects hold, in the order in which they were met."""

    def __init__(self, known: Mapping[type, Visit | None], visit_of: Callable[[type], Visit | None]):
        self._known, self._visit_of = known, visit_of
        self._met: dict[int, Any] = {}
        self._waiting: list[Any] = []
        self._restores: list[Callable[[], None]] = []
        self._empty: list[Any] = []
        self._dicts: list[tuple[Any, Any]] = []
        self._lists: list[tuple[Any, list[Any]]] = []
        self._bytes = 0

    def over(self, roots: Sequence[Any]) -> None:
        """Note what these hold, and what can be reached from it."""
        met, waiting, known = self._met, self._waiting, self._known
        waiting += roots
        while waiting:
            thing = waiting.pop()
            kind = type(thing)
            if (kind is OrderedDict or kind is dict) and not thing:
                self._empty.append(thing)  # most that a module holds
                continue
            visit = known[kind] if kind in known else self._visit_of(kind)
            if visit is None or id(thing) in met:
                continue
            met[id(thing)] = thing
            visit(self, thing)
            if len(met) > MOST_OBJECTS:
                raise NotEvaluated(
                    f"the model or loss reaches more than {MOST_OBJECTS:,} Python objects, which an extra pass would "
                    "have to put back; keep data outside of them to have the losses measured"
                )

    def then(self, *things: Any) -> None:
        """Walk these too."""
        self._waiting += things

    def keep(self, restore: Callable[[], None]) -> None:
        """Have this called when the block ends."""
        self._restores.append(restore)

    def dictionary(self, thing: Any) -> None:
        """Note what a dictionary holds, its order included: parameters reach an optimizer in it."""
        if not dict.__len__(thing):
            self._empty.append(thing)
            return
        kept = OrderedDict.copy(thing) if type(thing) is OrderedDict else dict(_methods(thing).items(thing))
        self._dicts.append((thing, kept))
        if len(kept) <= LONG:
            self._waiting += kept.values()

    def sequence(self, thing: Any) -> None:
        """Note what a list holds."""
        kept = list.copy(thing)
        self._lists.append((thing, kept))
        if len(kept) <= LONG:
            self._waiting += kept

    def copied(self, count: int) -> None:
        """Take note of bytes that are copied."""
        self._bytes += count
        if self._bytes > MOST_BYTES:
            raise NotEvaluated(
                f"the model or loss holds more than {MOST_BYTES // 2**20} MiB of NumPy arrays, which an extra pass "
                "could write to; make them read-only (array.flags.writeable = False) to have the losses measured"
            )

    def put_back(self) -> None:
        """Put back all that differs.

        Raises:
            RuntimeError: some of it could not be.
        """
        failed: list[Exception] = []
        for restore in (self._put_back_dicts, self._put_back_lists, *reversed(self._restores)):
            try:
                restore()
            except Exception as error:
                failed.append(error)
        if failed:
            raise RuntimeError(f"what the model holds could not be put back after an extra pass: {failed[0]!r}")

    def _put_back_dicts(self) -> None:
        for now in self._empty:
            if dict.__len__(now):
                _methods(now).clear(now)
        for now, kept in self._dicts:
            methods = _methods(now)
            same_keys = _are_same(methods.keys(now), kept)
            if same_keys and _are_same(methods.values(now), kept.values()):
                continue
            if not same_keys:
                methods.clear(now)
            for key, value in kept.items():
                methods.__setitem__(now, key, value)

    def _put_back_lists(self) -> None:
        for now, kept in self._lists:
            if not _are_same(now, kept):
                list.__setitem__(now, slice(None), kept)


def _are_same(a: Collection[Any], b: Collection[Any]) -> bool:
    """Whether two collections hold the same objects. They are not asked whether they are equal: tensors are not."""
    return len(a) == len(b) and all(map(operator.is_, a, b))


def _methods(dictionary: Any) -> Any:
    """Those of the built-in class, whatever a subclass makes of them."""
    return OrderedDict if isinstance(dictionary, OrderedDict) else dict


def _is_closed(kind: type) -> bool:
    module = getattr(kind, "__module__", None)
    # What runs as a script or in a notebook is a user's.
    return module != "__main__" and str(module).partition(".")[0] in CLOSED_PACKAGES


# --- how objects are walked ------------------------------------------------------------------------------


def _refuse_iterator(walk: Walk, thing: Any) -> None:
    raise NotEvaluated(
        f"the model or loss holds a {type(thing).__name__}, an iterator whose position an extra pass would move; keep "
        "it outside of them to have the losses measured"
    )


def _visit_both(visit: Visit, walk: Walk, thing: Any) -> None:
    """A user's subclass of a container has attributes too."""
    visit(walk, thing)
    _visit_object(walk, thing)


def _visit_part(walk: Walk, thing: Any) -> None:
    """A framework's own module or layer: its class holds nothing that changes."""
    walk.dictionary(vars(thing))


def _visit_object(walk: Walk, thing: Any) -> None:
    own = getattr(thing, "__dict__", None)
    if type(own) is dict:
        walk.dictionary(own)
    for cls in type(thing).__mro__:
        if _is_closed(cls):
            continue
        walk.then(cls, *functions_called(cls))
        for name in _slots(cls):
            _keep_slot(walk, thing, vars(cls).get(name))


def _slots(cls: type) -> Sequence[str]:
    slots = vars(cls).get("__slots__", ())
    return [slots] if isinstance(slots, str) else list(slots)


def _keep_slot(walk: Walk, thing: Any, slot: Any) -> None:
    if not isinstance(slot, types.MemberDescriptorType):
        return
    try:
        value = slot.__get__(thing)
    except AttributeError:
        walk.keep(lambda: _empty_slot(thing, slot))
        return
    walk.then(value)
    walk.keep(lambda: slot.__set__(thing, value))


def _empty_slot(thing: Any, slot: Any) -> None:
    with contextlib.suppress(AttributeError):
        slot.__delete__(thing)


def _visit_class(walk: Walk, cls: Any) -> None:
    """Attributes of a user's class, where counters and tables may be kept."""
    if _is_closed(cls):
        return
    before = {name: value for name, value in vars(cls).items() if not name.startswith("__")}
    walk.then(*(value for value in before.values() if not callable(value)))

    missing = object()

    def restore() -> None:
        now = dict(vars(cls))
        for name in now.keys() - before.keys():
            if not name.startswith("__"):
                type.__delattr__(cls, name)
        for name, value in before.items():
            if now.get(name, missing) is not value:
                type.__setattr__(cls, name, value)

    walk.keep(restore)


def _visit_function(walk: Walk, function: Any) -> None:
    if _is_closed(function):
        return
    walk.then(*(function.__closure__ or ()), *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    walk.dictionary(function.__dict__)
    space, names = function.__globals__, reads(function.__code__)
    walk.then(*(space[name] for name in names.globals if name in space))
    for name in names.stored:
        walk.keep(functools.partial(_set_global, space, name, name in space, space.get(name)))


def _set_global(space: dict[str, Any], name: str, there: bool, value: Any) -> None:
    if there:
        space[name] = value
    else:
        space.pop(name, None)


def _visit_cell(walk: Walk, cell: Any) -> None:
    try:
        value = cell.cell_contents
    except ValueError:  # empty
        return
    walk.then(value)

    def restore() -> None:
        cell.cell_contents = value

    walk.keep(restore)


def _visit_bound(walk: Walk, method: Any) -> None:
    walk.then(method.__self__, getattr(method, "__func__", None))


def _visit_partial(walk: Walk, partial: Any) -> None:
    walk.then(partial.func, *partial.args, partial.keywords)


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
        if not _are_same(thing, kept):
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


def _visit_bytes(walk: Walk, thing: Any) -> None:
    kept = bytes(thing)
    walk.copied(len(kept))

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


_VISITS: dict[type, Visit] = {
    dict: _visit_dictionary,
    list: _visit_sequence,
    tuple: _visit_fixed,
    frozenset: _visit_fixed,
    set: _visit_set,
    deque: _visit_deque,
    bytearray: _visit_bytes,
    types.FunctionType: _visit_function,
    types.MethodType: _visit_bound,
    types.BuiltinMethodType: _visit_bound,
    types.CellType: _visit_cell,
    functools.partial: _visit_partial,
    type: _visit_class,
    np.ndarray: _visit_array,
    np.random.Generator: _visit_numpy_generator,
    np.random.RandomState: _visit_legacy_generator,
    np.random.BitGenerator: _visit_bit_generator,
    random.Random: _visit_python_generator,
}
"""The first that a type is a subclass of says how its objects are walked."""

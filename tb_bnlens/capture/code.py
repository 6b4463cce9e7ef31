"""What Python code reads: the globals of a function, and the functions of a class."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tb_bnlens.capture.packages import is_closed

CALLED = ("forward", "call", "__call__", "__get__", "compute_loss")
"""Methods with which a pass enters an object."""
UNNAMED = tuple(f"__{name}__" for name in "getattribute getattr setattr getitem iter len bool enter exit".split())
"""Methods that code enters without their names."""
STORES = ("STORE_FAST", "STORE_NAME", "STORE_GLOBAL", "STORE_DEREF")
MAKE_OBJECTS = ("__init__", "__new__", "__post_init__", "__init_subclass__")
"""A pass makes few objects of a user's, while many classes number theirs with a global counter."""
MAIN_THREAD = "main_thread()"
"""What a path has for the object that ``main_thread()`` gives; no attribute has such a name."""
GOES_TO_CALL = ("PUSH_NULL", "PRECALL", "CALL")
"""How instructions begin that lead from a function to its call without arguments."""
BY_NAME = frozenset("__dict__ __import__ delattr getattr globals import_module modules setattr vars".split())
"""Code that names one of these may read or assign by a string that it holds."""


@dataclass
class Reads:
    """Names in the code of a function and of those defined in it; not to be changed."""

    globals: dict[str, None] = field(default_factory=dict)
    """In the order of the code."""
    stored: set[str] = field(default_factory=set)
    """Those of the globals that the code assigns."""
    attributes: set[str] = field(default_factory=set)
    assigned: set[str] = field(default_factory=set)
    """Those of the attributes that the code assigns or deletes."""
    targets: set[tuple[str, ...]] = field(default_factory=set)
    """Where it does: a variable and attributes of attributes, the last of them assigned."""
    loose: set[str] = field(default_factory=set)
    """Attributes that it assigns to objects of any other origin."""
    changed: set[str] = field(default_factory=set)
    """Variables that it adds to, as by ``+=``: what they hold changes itself where it is an array or a list."""
    aliases: set[tuple[str, ...]] = field(default_factory=set)
    """What variables are assigned: the path of an attribute, and the variable."""
    imports: set[str] = field(default_factory=set)
    """Modules that the code imports when it runs; what it takes from them is among the attributes."""
    cells: set[str] = field(default_factory=set)
    """Variables of an enclosing function that the code assigns."""
    variables: set[str] = field(default_factory=set)
    """All variables that it reads itself, of a function, of an enclosing one or of a module."""
    stored_names: set[str] = field(default_factory=set)
    """What it assigns itself, as the code of a module."""
    strings: set[str] = field(default_factory=set)
    assigns_items: bool = False
    """Whether it assigns or deletes an element of anything."""

    def add(self, instruction: dis.Instruction, path: Path) -> None:
        """Go on by an instruction; one that assigns an attribute does so of what this path names."""
        kind, name, holder = instruction.opname, str(instruction.argval), path.holder
        if kind.startswith(STORES):
            self._add_variable(str(instruction.argval[0] if isinstance(instruction.argval, tuple) else name), path)
        if kind.startswith(("LOAD_", "STORE_FAST_LOAD")) and kind.rpartition("_")[2] not in ("CONST", "ATTR", "METHOD"):
            self.variables.update(instruction.argval if isinstance(instruction.argval, tuple) else (name,))
        if kind in ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"):
            self.globals[name] = None
            if kind != "LOAD_GLOBAL":
                self.stored.add(name)
        elif kind in ("STORE_NAME", "DELETE_NAME"):
            self.stored_names.add(name)
        elif kind in ("STORE_DEREF", "DELETE_DEREF"):
            self.cells.add(name)
        elif kind in ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE"):
            self.assigns_items = True
        elif kind == "IMPORT_NAME":
            self.imports.add(name)
        elif kind == "IMPORT_FROM" or "ATTR" in kind or kind == "LOAD_METHOD":
            self.attributes.add(name)
            if kind in ("STORE_ATTR", "DELETE_ATTR"):
                self.assigned.add(name)
                if holder:
                    self.targets.add((*holder, name))
                else:
                    self.loose.add(name)
        elif isinstance(instruction.argval, str) and "CONST" in kind:
            self.strings.add(name)
        elif isinstance(instruction.argval, types.CodeType):
            self._add_inner(reads(instruction.argval))

    def _add_variable(self, name: str, path: Path) -> None:
        if path.is_changed:
            self.changed.add(name)
        elif len(path.holder) > 1:
            self.aliases.add((*path.holder, name))

    def _add_inner(self, inner: Reads) -> None:
        self.globals |= inner.globals
        self.stored |= inner.stored
        self.attributes |= inner.attributes
        self.assigned |= inner.assigned
        self.loose |= inner.assigned
        self.imports |= inner.imports
        self.cells |= inner.cells
        self.assigns_items |= inner.assigns_items

    def add_words(self) -> None:
        """Add what the code may read or assign by a string that it holds."""
        if BY_NAME.isdisjoint(self.attributes | self.globals.keys()):
            return
        words = {string for string in self.strings if string.isidentifier()}
        self.attributes |= words
        if "setattr" in self.globals:
            self.loose |= words
        if "globals" in self.globals:
            self.globals |= dict.fromkeys(words)
            self.stored |= words
        self.imports |= self.strings


@functools.lru_cache(maxsize=4096)
def reads(code: types.CodeType, offsets: frozenset[int] | None = None) -> Reads:
    """What a piece of code reads; what its instructions at these offsets do, where they are given."""
    found, path = Reads(), Path()
    for instruction in dis.get_instructions(code):
        path.add(instruction)
        if offsets is None or instruction.offset in offsets:
            found.add(instruction, path)
    found.add_words()
    return found


class Path:
    """How the object on top of the stack is named: a variable, then attributes."""

    def __init__(self) -> None:
        self.holder: tuple[str, ...] = ()
        """Of whose attribute an instruction that assigns one does so; empty where that has no name."""
        self.is_changed = False
        """Whether an instruction that assigns a variable does so as ``+=``."""
        self._adds = False
        self._top: tuple[str, ...] = ()
        self._copied: tuple[str, ...] = ()

    def add(self, instruction: dis.Instruction) -> None:
        """Go on by an instruction."""
        name = instruction.opname
        if instruction.is_jump_target:  # what comes from elsewhere has left another object there
            self._top = self._copied = ()
        self.holder, self.is_changed = self._top, self._adds
        self._adds = name.startswith("INPLACE_") or (name == "BINARY_OP" and instruction.argrepr.endswith("="))
        if name.endswith(("LOAD_FAST", "LOAD_FAST_BORROW")) or name in ("LOAD_DEREF", "LOAD_GLOBAL", "LOAD_NAME"):
            variable = instruction.argval[-1] if isinstance(instruction.argval, tuple) else instruction.argval
            self._top = (str(variable),)
        elif name == "LOAD_ATTR" and self._top:
            self._top = (*self._top, str(instruction.argval))
        elif name == "LOAD_METHOD" and instruction.argval == "main_thread" and self._top:
            self._top = (*self._top, "main_thread")
        elif self._top[-1:] == ("main_thread",) and name.startswith(GOES_TO_CALL) and not instruction.arg:
            if name.startswith("CALL"):
                self._top = (*self._top[:-1], MAIN_THREAD)
        elif name in ("COPY", "DUP_TOP"):  # of a += b
            self._copied = self._top
        elif name in ("SWAP", "ROT_TWO"):
            self._top, self._copied = self._copied, ()
        else:
            self._top = ()


def functions_of(cls: type) -> list[Any]:
    """The functions of a class, static and class methods and properties included, constructors left out."""
    return [function for _, function in _functions(cls)]


def constructors_of(cls: type) -> list[Any]:
    """The functions of a class that run when it is called."""
    return [function for name in MAKE_OBJECTS if isinstance(function := vars(cls).get(name), types.FunctionType)]


def slots_of(cls: type) -> list[Any]:
    """The slots that a class in Python adds to those of its base classes."""
    members = vars(cls).values() if "__slots__" in vars(cls) else ()  # and no members of a class in C
    return [member for member in members if isinstance(member, types.MemberDescriptorType)]


def is_subclass(kind: Any, known: Any) -> bool:
    """``issubclass``, also of a class whose metaclass defines no hash: abstract classes look for it by that."""
    try:
        return issubclass(kind, known)
    except TypeError:
        wanted = known if isinstance(known, tuple) else (known,)
        return any(cls is one for cls in kind.__mro__ for one in wanted)


def own_classes(kind: type) -> tuple[type, ...]:
    """A class and its base classes, those of a user's alone."""
    return tuple(cls for cls in kind.__mro__ if not is_closed(cls))


def all_slots_of(kind: type) -> list[Any]:
    """The slots of an object of this class."""
    return [slot for cls in kind.__mro__ for slot in slots_of(cls)]


def functions_called(kind: type) -> list[Any]:
    """The functions of an object's class and its base classes, a user's, that may run when it is called.

    A base class may call what another class defines.

    Returns:
        What ``CALLED`` reaches by name. Where a framework's class is called, what it may call in turn: the functions
        that it defines too. All, where the object cannot be called or looks for methods at run time.
    """
    own: dict[str, list[Any]] = {}
    classes = own_classes(kind)
    for cls in classes:
        for name, function in _functions(cls):
            own.setdefault(name, []).append(function)
    unnamed = [name for name in UNNAMED if name in own]
    waiting, met = [name for name in CALLED if name in own], set[str]()
    if not waiting:
        framework = {name for cls in kind.__mro__[:-1] if cls not in classes for name in vars(cls)}
        if framework.intersection(CALLED):
            waiting = [name for name in own if name in framework and not name.endswith("_dataloader")]
            if not waiting and not unnamed:
                return []
            waiting += unnamed
    else:
        waiting += unnamed
    found: list[Any] = []
    while waiting:
        name = waiting.pop()
        if name in met:
            continue
        met.add(name)
        found += own[name]
        named = [reads(function.__code__) for function in own[name]]
        if any("getattr" in names.globals for names in named):
            break
        waiting += {attribute for names in named for attribute in names.attributes} & own.keys()
    else:
        if found:
            return found
    return [function for functions in own.values() for function in functions]


def attributes_read(cls: type) -> frozenset[str]:
    """Names of attributes that these functions read or assign, of whatever object."""
    return frozenset[str]().union(*(reads(function.__code__).attributes for function in functions_of(cls)))


def _functions(cls: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(cls).items():
        if name in MAKE_OBJECTS or isinstance(value, type):
            continue
        for attribute in ("__func__", "fget", "func"):  # staticmethod and classmethod, property, cached_property
            value = getattr(value, attribute, value)
        # A decorator may be an object that holds the function, or a function with the other one in __wrapped__.
        for held in (value, *getattr(value, "__dict__", {}).values()):
            if isinstance(held, types.FunctionType):
                yield name, held

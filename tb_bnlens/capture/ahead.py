"""What a thread has yet to run of the code of a frame: the instructions that can be reached from where it is."""

from __future__ import annotations

import dis
import functools
import sys
import types
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tb_bnlens.capture.code import Path

TOLD = {"is_set": True, "wait": True, "done": True, "is_alive": False}
"""Methods of signals, threads and futures that a loop asks, and the answer that ends its wait."""
ENDS = ("RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE")
GIVES_BACK = ("RETURN", "YIELD", "SEND")
"""How instructions begin after which the caller's code runs."""
ARGUMENTS = ("LOAD_", "PRECALL", "KW_NAMES", "PUSH_NULL", "CACHE")
"""How instructions begin between the name of such a method and its call."""
BEFORE_JUMP = ("TO_BOOL", "CACHE", "NOT_TAKEN")
"""How instructions begin between the call and the jump on its answer."""


@dataclass
class _Flow:
    """How the instructions of a piece of code follow each other, by offset."""

    next: dict[int, list[int]] = field(default_factory=dict)
    told: dict[int, tuple[tuple[str, ...], int]] = field(default_factory=dict)
    """Jumps on the answer of one of ``TOLD``: the path of names that is asked, and where the wait ends."""
    returns: set[int] = field(default_factory=set)
    stored: dict[int, set[str]] = field(default_factory=dict)
    """Names of variables and attributes that are assigned there."""
    caught: dict[int, list[int]] = field(default_factory=dict)
    """Handlers of an exception that is raised there."""

    def after(self, starts: Iterable[int], is_told: Callable[[tuple[str, ...]], bool]) -> set[int]:
        """The instructions that can be reached from these, where a wait ends only if ``is_told`` says so."""
        seen, waiting = set[int](), list(starts)
        while waiting:
            offset = waiting.pop()
            if offset in seen:
                continue
            seen.add(offset)
            following = self.next.get(offset, [])
            path, end = self.told.get(offset, ((), None))
            if path and not is_told(path):
                following = [other for other in following if other != end]
            waiting += [*following, *self.caught.get(offset, ())]
        return seen


@dataclass(frozen=True)
class Ahead:
    """What is ahead of a thread in a frame."""

    offsets: frozenset[int]
    returns: bool
    """Whether the frame may return to its caller."""


def ahead(frame: types.FrameType, returned: bool, is_told: Callable[[tuple[str, ...]], bool]) -> Ahead:
    """What a frame may still run.

    Args:
        frame: where the thread is, or a caller of it.
        returned: whether what it calls may return; it may raise at any rate.
        is_told: whether something may answer a thread that asks the last name of this path, so that its wait ends.
    """
    flow = _flow(frame.f_code)
    at = max((offset for offset in flow.next if offset <= frame.f_lasti), default=0)  # and not a cache behind it
    starts = [at] if returned else flow.caught.get(at, [])
    # What is assigned on the way may be another object by the time that it is asked.
    stored = {name for offset in flow.after(starts, lambda _: True) for name in flow.stored.get(offset, ())}
    seen = flow.after(starts, lambda path: not stored.isdisjoint(path) or is_told(path))
    # What the rest of a statement uses may have been read before.
    begin = _line_of(frame) if returned else at + 1
    read = {offset for offset in flow.next if begin <= offset <= at}
    return Ahead(frozenset(seen | read), not seen.isdisjoint(flow.returns))


def _line_of(frame: types.FrameType) -> int:
    """Where the statement begins that a frame runs."""
    start, now = frame.f_lasti, frame.f_lineno  # which takes a walk through the code to find
    for begin, end, line in reversed(list(frame.f_code.co_lines())):
        if line == now and begin <= start <= end:
            start = begin
    return start


@functools.lru_cache(maxsize=4096)
def _flow(code: types.CodeType) -> _Flow:
    found, path, asked, called = _Flow(), Path(), tuple[str, ...](), False
    table: Any = getattr(dis, "_parse_exception_table", lambda _: ())
    caught = [(entry.start, entry.end, entry.target) for entry in table(code)]
    instructions = list(dis.get_instructions(code))
    for instruction, following in zip(instructions, [*instructions[1:], None], strict=True):
        name, offset = instruction.opname, instruction.offset
        path.add(instruction)
        jumps = instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs
        target = [int(instruction.argval)] if jumps else []
        straight = [following.offset] if following is not None and name not in ENDS and not _always(name) else []
        found.next[offset] = target + straight
        if name.startswith(GIVES_BACK):
            found.returns.add(offset)
        if name.startswith(("STORE_", "DELETE_")):
            given = instruction.argval
            found.stored[offset] = {str(part) for part in (given if isinstance(given, tuple) else (given,))}
        if name.startswith("SETUP_") and target:  # before Python 3.11
            caught.append((offset, target[0], target[0]))
        if _is_method(instruction) and instruction.argval in TOLD and path.holder:
            asked, called = (*path.holder, instruction.argval), False
        elif "JUMP" in name and "_IF_" in name and asked and called and straight:
            jumps_if = "TRUE" in name
            found.told[offset] = asked, (target if TOLD[asked[-1]] == jumps_if else straight)[0]
            asked = ()
        elif name.startswith("CALL") and asked and not called:
            called = True
        elif not name.startswith(BEFORE_JUMP if called else ARGUMENTS):
            asked = ()
    offsets = list(found.next)
    for begin, end, handler in caught:
        for offset in offsets[bisect_left(offsets, begin) : bisect_left(offsets, end)]:
            found.caught.setdefault(offset, []).append(handler)
    return found


def _is_method(instruction: dis.Instruction) -> bool:
    """Whether it loads a method to call it at once."""
    with_flag = sys.version_info >= (3, 12) and instruction.opname == "LOAD_ATTR"
    return instruction.opname == "LOAD_METHOD" or (with_flag and bool((instruction.arg or 0) & 1))


def _always(name: str) -> bool:
    """Whether a jump is always made."""
    return name.startswith("JUMP") and "IF" not in name

"""The sentence of an exception that names the cause, without the frame that Keras and TensorFlow put around it."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

_Method = TypeVar("_Method", bound=Callable[..., Any])
IN_PASS = "_bn_lens_pass"
LONGEST = 300
"""Characters of a reason: it stands in a warning and in the tab."""
_NO_VALUE = ("SymbolicTensor", "symbolic tf.Tensor", "KerasTensor", "TracerArrayConversion", "ConcretizationTypeError")
"""What errors say of a tensor that stands for a value."""
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_KERAS = re.compile(r"Exception encountered when calling .*?\n\s*\n(.*?)(?:\n\s*\nArguments received by|\Z)", re.DOTALL)
_GRAPH = re.compile(r"\{\{(?:function_)?node [^}]*\}\}|\[\[\{\{node [^}]*\}\}[^\]]*\]\]|\[Op:\w+\][^\n]*")


def in_pass(name: str) -> Callable[[_Method], _Method]:
    """Have ``cause_in_pass`` say which pass an exception comes from that a method raises."""

    def decorated(method: _Method) -> _Method:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except Exception as error:
                if not hasattr(error, IN_PASS):
                    with contextlib.suppress(Exception):  # one that takes no attributes
                        setattr(error, IN_PASS, name)
                raise

        return cast(_Method, call)

    return decorated


def cause_of(error: BaseException) -> str:
    r"""Name of the exception and the line of its message that says what is wrong.

    Example:
        >>> cause_of(ValueError("Exception encountered when calling M.call().\n\nx is 3\n\nArguments received by ..."))
        'ValueError: x is 3'
    """
    text = _ANSI.sub("", str(error))
    while inner := _KERAS.search(text):
        text = inner[1]
    graph = "Graph execution error" in text
    lines = [line for line in (_GRAPH.sub("", line).strip() for line in text.splitlines()) if line]
    name = type(error).__name__
    if isinstance(error, Warning):
        name += f", which a filter of warnings makes an error (warnings.simplefilter('default', {name}) lifts it)"
    if not lines:
        return name
    # Below the head of a graph error stands the traceback of the node, and the cause comes last.
    line = lines[-1] if graph else lines[0]
    if line.endswith(":") and not graph:
        line = " ".join(lines)  # what it announces
    line = re.sub(r"\s+", " ", line)
    return f"{name}: {line if len(line) <= LONGEST else line[: LONGEST - 3] + '...'}"


def cause_in_pass(error: BaseException) -> str:
    """``cause_of`` an exception, and the pass that raised it, if one did; see ``in_pass``."""
    name = getattr(error, IN_PASS, "")
    return f"{name} raised {cause_of(error)}" if name else cause_of(error)


def what_is(value: Any) -> str:
    """What a value is that somebody has passed, with its article.

    Example:
        >>> what_is(3), what_is([]), what_is(None)
        ('an int', 'a list', 'None')
    """
    return "None" if value is None else with_article(type(value).__name__)


def with_article(name: str) -> str:
    """A name after "a" or "an"."""
    return f"{'an' if name.lstrip('_')[:1].lower() in tuple('aeio') else 'a'} {name}"


def why_no_loss_in_both(inference: str, training: str, cause: str) -> str:
    """Why there is no loss of a model that returns one kind of output in inference mode and another in training mode.

    Args:
        inference: kind of the output, in words.
        training: the other one.
        cause: what the loss raised, see ``cause_of``; empty where there is none.
    """
    differs = f"{inference} in inference mode and {training} in training mode"
    if inference == training:
        differs = "something else in inference mode than in training mode"
    return (
        f"The model returns {differs}, and there is no loss of both{f' ({cause})' if cause else ''}: pass forward=f, "
        "called as f(model, x), that returns the same in both modes, or a loss that takes both. f may set training = "
        "True of the module that computes the loss; it is put back."
    )


def why_no_loss(error: BaseException, targets: bool, called: str = "") -> str:
    """Why a loss function fails on batches that the model takes.

    Args:
        error: what it raised.
        targets: whether the batches have any.
        called: how the loss is called, for arguments in another order are a usual reason.
    """
    cause = cause_of(error)
    if any(name in cause for name in _NO_VALUE):
        return (
            "The loss reads the value of a tensor in Python, as float(x) does, and has none in a pass, which runs as a "
            f"graph: write it with the framework's operations alone to have the losses measured ({cause})."
        )
    if targets:
        said = f"The loss fails on the model's predictions and the targets of the batches ({cause})."
        return f"{said} It is called as {called}." if called else said
    return (
        "The batches have no targets, and the loss needs them: pass batches (x, y) instead of x alone. Without targets "
        f"the loss fails ({cause})."
    )

"""Run a model an extra time so that nothing of it is left: modes, tensors, Python objects, random state, caches."""

from __future__ import annotations

import contextlib
import sys
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from tb_bnlens.capture.objects import Objects
from tb_bnlens.capture.still import found_once
from tb_bnlens.capture.walk import Walk
from tb_bnlens.frameworks.torch import parts
from tb_bnlens.frameworks.torch.buffers import cloned_buffers
from tb_bnlens.frameworks.torch.logs import silent_loggers, unlogged
from tb_bnlens.frameworks.torch.modes import modes, modules_once
from tb_bnlens.frameworks.torch.objects import OBJECTS
from tb_bnlens.frameworks.torch.process import own_precision, random_state, settings_undone
from tb_bnlens.frameworks.torch.together import nothing_together
from tb_bnlens.frameworks.torch.writes import writes_undone

TENSORS = ("_parameters", "_buffers")
GLOBAL_HOOKS = [hooks for name, hooks in vars(torch.nn.modules.module).items() if name.startswith("_global_")]


def modes_around() -> tuple[Any, ...]:
    """The modes of PyTorch that are on, such as a ``FlopCounterMode`` around training."""
    return *_get_current_dispatch_mode_stack(), *_get_current_function_mode_stack()


def unseen_by_modes() -> contextlib.AbstractContextManager[Any]:
    """Undo what modes around training, such as a ``FlopCounterMode``, make of operations in the block."""
    found = modes_around()
    return OBJECTS.put_back(*found) if found else contextlib.nullcontext()


@contextlib.contextmanager
def undone(devices: set[torch.device], *called: Any, objects: Objects | None = None) -> Iterator[Walk]:
    """Undo what code of the user's does in the block: it draws, writes to tensors, changes objects. No gradients.

    Args:
        devices: where it runs.
        called: the objects that are called: modules, losses, functions.
        objects: how they are walked; as objects of PyTorch where it is not given.

    Raises:
        NotEvaluated: it cannot be undone; as far as that is known, the block is not run then.
    """
    walked = (objects or OBJECTS).put_back(*called, *GLOBAL_HOOKS, *modes_around())
    # The walk first: a draw that is stopped is looked for in every call that follows.
    owners = [thing.__self__ if type(thing) is types.MethodType else thing for thing in called]
    with torch.no_grad(), walked as walk, settings_undone(), random_state(devices, walk), writes_undone():
        with nothing_together(), silent_loggers(), _frames_cleared(), unlogged(owners):
            yield walk


@contextlib.contextmanager
def _frames_cleared() -> Iterator[None]:
    """Let what a failed block has made end with it: an exception holds the frames that it has left."""
    handled = sys.exc_info()[1]  # by code of the user's, whose frames stay
    try:
        yield
    except Exception as error:
        failed: BaseException | None = error
        while failed is not None and failed is not handled:
            traceback.clear_frames(failed.__traceback__)
            failed = failed.__context__
        raise


@contextlib.contextmanager
def untouched(given: Mapping[Any, bool], exchanged: Sequence[Any], model: Any, *called: Any) -> Iterator[None]:
    """Run a model and leave nothing, with compiled parts run eagerly: they would be compiled again.

    Args:
        given: every module in it, and whether it is in training mode within the block.
        exchanged: modules whose buffers are clones within the block.
        model: is called.
        called: what is called beside it.
    """
    devices = found_once(_devices, model)
    with contextlib.ExitStack() as stack:
        stack.enter_context(undone(devices, model, *called))
        stack.enter_context(own_precision(devices))
        stack.enter_context(cloned_buffers(exchanged))
        stack.enter_context(modes(given))
        stack.enter_context(unlogged(given))
        if hasattr(torch.compiler, "set_stance"):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _devices(model: Any) -> set[torch.device]:
    """Where the tensors of a model are."""
    return {p.device for m in modules_once(model) for kind in TENSORS for p in parts.own_tensors(m, kind)}

"""Put back what Python objects hold: an extra pass runs code of the user's, which may count, append or draw.

The walk starts at what a pass calls (a model, a loss) and follows attributes, containers, closures and the globals that
functions read. It notes what each object holds, and that is put back into the very same objects behind each pass.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tb_bnlens.capture.code import is_subclass
from tb_bnlens.capture.denied import Stopped
from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.library import visit_of_library
from tb_bnlens.capture.packages import is_closed
from tb_bnlens.capture.stateful import stateful
from tb_bnlens.capture.still import still, walk_of
from tb_bnlens.capture.visits import VISITS, patched, visit_both, visit_object, visit_own_part, visit_part
from tb_bnlens.capture.walk import Visit, Walk
from tb_bnlens.capture.warned import warnings_forgotten

PLAIN: tuple[type, ...] = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice, type(Ellipsis)),
    *(types.ModuleType, types.CodeType, np.generic, np.dtype),
)
"""They hold nothing that changes."""


class Objects:
    """Knows which objects of a framework are walked, and puts back what they hold.

    Args:
        parts: walked although they are of a closed package: modules, layers, losses.
        closed: not walked although they are a user's: optimizers, loaders, datasets.
        visits: type -> how its objects are walked, e.g. tensors.
        patched_in: classes and modules of the framework that any pass calls, into which users patch functions.
    """

    def __init__(
        self,
        parts: tuple[type, ...] = (),
        closed: tuple[type, ...] = (),
        visits: Mapping[type, Visit] | None = None,
        patched_in: Sequence[Any] = (),
    ):
        self._patched_in = patched_in
        self._parts, self._closed, self._visits = parts, closed, {**(visits or {}), **VISITS}

    @contextlib.contextmanager
    def put_back(self, *roots: Any) -> Iterator[Walk]:
        """Put back what the objects that can be reached hold, when the block ends.

        Not beside another thread that can change one of them: what it does could not be told from what the block does.

        Args:
            roots: what is called in the block.

        Raises:
            NotEvaluated: there are too many objects, and the block is not run then; or it uses one that cannot be put
                back, and is ended before that one changes.
            RuntimeError: putting something back has failed. All else has been put back.
        """
        with still():
            walk = walk_of(self, roots, lambda: self._walked(roots))
            walk.look_around()
            try:
                walk.begin()
                with warnings_forgotten():
                    yield walk
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except Exception:
                if not walk.stopped:
                    raise
            except BaseException as error:
                if not isinstance(error, Stopped):
                    raise NotEvaluated(f"the model or loss ends an extra pass by raising {error!r}") from None
            finally:
                walk.put_back()
            if walk.stopped:  # the model may have caught what was raised then
                raise NotEvaluated(walk.stopped)

    def _walked(self, roots: Sequence[Any]) -> Walk:
        walk = Walk(self._visit_of)
        walk.over([*roots, *(function for holder in self._patched_in for function in patched(holder))])
        return walk

    def _visit_of(self, kind: type) -> Visit | None:
        """How objects of a type are walked; None where they are not."""
        if (is_subclass(kind, PLAIN) and is_closed(kind)) or is_subclass(kind, self._closed):
            return None
        found = stateful(kind)
        if found is not None:
            return found
        for known, visit in self._visits.items():
            if is_subclass(kind, known):
                return visit if is_closed(kind) else functools.partial(visit_both, visit)
        if is_subclass(kind, self._parts):
            return visit_part if is_closed(kind) else visit_own_part
        return visit_of_library(kind) if is_closed(kind) else visit_object

"""Refuse, in a pass, what ranks of distributed training do together: a pass on one rank would wait for the others.

Collective and point-to-point operations go through the dispatcher, whoever calls them. Calls of a key-value
store, of a backend, for a new group and of RPC pass it by, and are looked up in Python.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tb_bnlens.capture.denied import Stopped
from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.frameworks.torch.swapped import swap

NAMESPACES = ("c10d", "_c10d_functional", "c10d_functional", "_c10d_functional_autograd", "symm_mem", "_dtensor")
"""Of the operations of ``torch.distributed``."""
ALONE = ("wait_tensor", "_wrap_tensor_autograd")
"""Operations that send nothing."""
STORE = "set get add append check compare_set delete_key wait multi_get multi_set queue_push queue_pop barrier".split()
BACKEND = (
    "broadcast allreduce allreduce_coalesced reduce allgather allgather_coalesced gather scatter reduce_scatter "
    "alltoall alltoall_base send recv recv_anysource barrier monitored_barrier"
).split()
GROUPS = ("_new_group_with_tag", "_new_process_group_helper")
"""What makes groups, and counts them."""
_PUBLIC = {
    **{"allgather": "all_gather", "allreduce": "all_reduce", "alltoall": "all_to_all"},
    **{"_allgather_base": "all_gather_into_tensor", "_reduce_scatter_base": "reduce_scatter_tensor"},
    **{"alltoall_base": "all_to_all_single", "recv_any_source": "recv"},
}
"""Operation -> the function that users call, where it has another name."""


class Together(NotEvaluated):
    """A pass calls an operation of several ranks.

    Args:
        name: of the operation.
    """

    def __init__(self, name: str):
        super().__init__(self.sentence("the model or loss", name, "out of the forward pass and the loss"))
        self.name = name
        self.known = False
        """Whether the lens has it: code of the user's may catch it and go on without."""

    @staticmethod
    def sentence(who: str, name: str, out_of: str) -> str:
        """The reason.

        Args:
            who: calls it.
            name: of the operation.
            out_of: where not to call it.
        """
        return (
            f"{who} calls {name} of torch.distributed, which in an extra pass would wait for the other ranks: keep it "
            f"{out_of} to have the losses measured"
        )

    def of_loss(self) -> str:
        """The reason where the loss calls it."""
        given = "out of the loss that the recorder is given, which may take the rows of this rank alone,"
        return self.sentence("The loss", self.name, given) + "."


class _Refusal:
    """Ends a pass by an exception, and by one that no code catches if the pass calls another operation."""

    def __init__(self) -> None:
        self.last: Together | None = None

    def __call__(self, name: str) -> None:
        again, self.last = self.last is not None and not self.last.known, Together(name)
        raise Stopped(str(self.last)) if again else self.last

    def by(self, name: str) -> Callable[..., None]:
        """A function that refuses under this name, whatever its arguments are."""
        return lambda *_, **__: self(name)


class _Operations(TorchDispatchMode):  # type: ignore[misc]
    """Sees operations before they are sent."""

    def __init__(self, refuse: Callable[[str], None]):
        super().__init__()
        self._refuse = refuse

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(kind.__name__ == "DTensor" for kind in types):
            return NotImplemented  # its own operations are seen
        space, _, name = getattr(getattr(func, "_schema", None), "name", "").partition("::")
        if space in NAMESPACES and name not in ALONE:
            name = name.rstrip("_")
            self._refuse(_PUBLIC.get(name, name))
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def nothing_together() -> Iterator[None]:
    """Let the block do nothing that other ranks would have to do too; a rank that is alone may.

    Raises:
        NotEvaluated: it calls such an operation, which is not sent.
    """
    dist = torch.distributed
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    rpc: Any = sys.modules.get("torch.distributed.rpc.api")
    if not several and rpc is None:
        yield
        return
    refuse = _Refusal()
    with contextlib.ExitStack() as stack:
        if several:
            c10d: Any = torch._C._distributed_c10d
            for cls, names, what in ((c10d.Store, STORE, "Store"), (c10d.Backend, BACKEND, "the backend")):
                for name in names:
                    swap(stack, cls, name, refuse.by(f"{name} of {what}"))
            for name in GROUPS:
                swap(stack, torch.distributed.distributed_c10d, name, refuse.by("new_group"))
            stack.enter_context(_Operations(refuse))
        if rpc is not None:
            swap(stack, rpc, "_invoke_rpc", refuse.by("rpc"))
        try:
            yield
        except Stopped:
            raise NotEvaluated(str(refuse.last)) from None
        if refuse.last is not None and not refuse.last.known:
            raise refuse.last

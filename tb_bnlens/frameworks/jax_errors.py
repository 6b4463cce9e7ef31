"""What errors of compiled JAX functions mean for a pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

from tb_bnlens.capture.errors import NotEvaluated


@contextlib.contextmanager
def translated(in_a_loop: str) -> Iterator[None]:
    """Raise what a pass may raise in place of JAX' errors.

    Args:
        in_a_loop: the sentence for a value that was taken out of an inner transformation.

    Raises:
        NotEvaluated: a BatchNorm layer is called inside an inner transformation.
        MemoryError: there is no memory left.
    """
    try:
        yield
    except jax.errors.UnexpectedTracerError as error:
        raise NotEvaluated(in_a_loop) from error
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise MemoryError(str(error)) from error
        raise

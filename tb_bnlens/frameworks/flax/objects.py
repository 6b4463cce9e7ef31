"""Which objects of flax are walked to put back what a trace changes; see ``capture.objects``."""

from __future__ import annotations

import jax
from flax import nnx

from tb_bnlens.capture.objects import Objects

OBJECTS = Objects((nnx.Module, nnx.Rngs), (jax.Array, nnx.Optimizer))

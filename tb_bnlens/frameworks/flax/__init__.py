"""flax nnx: every pass runs compiled on a copy of the module, so that nothing of the user's changes."""

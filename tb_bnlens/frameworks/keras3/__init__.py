"""Keras 3 on any backend."""

"""The metadata is in pyproject.toml; this file is for tools that still run ``setup.py``."""

from setuptools import setup

setup()

"""Find the test files that train: they import TensorFlow or Keras, directly or through tests and demos.

``pytest --no-training`` leaves them out, and so does every run where TensorFlow is not installed. The sources are
parsed and nothing is imported, so this takes no time and works where TensorFlow is not installed.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FRAMEWORKS = {"tensorflow", "keras"}
OURS = {"tests", "demo"}


@functools.cache
def trains(path: Path) -> bool:
    """Whether a module imports TensorFlow or Keras at its top level or through another module of tests and demos.

    Args:
        path: a Python file.
    """
    for name in _imports(path.read_text(encoding="utf-8")):
        package = name.partition(".")[0]
        if package in FRAMEWORKS:
            return True
        module = ROOT / f"{name.replace('.', '/')}.py"
        if package in OURS and module != path and module.exists() and trains(module):
            return True
    return False


def _imports(source: str) -> Iterator[str]:
    """Full names of what a module imports as a whole; an import within a function is none of these."""
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            yield statement.module
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)
        elif isinstance(statement, ast.Assign | ast.Expr) and isinstance(statement.value, ast.Call):
            call = statement.value
            if ast.unparse(call.func) == "pytest.importorskip":
                yield str(ast.literal_eval(call.args[0]))

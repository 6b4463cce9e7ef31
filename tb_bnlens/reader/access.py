"""The expression that reaches a layer, checked: it is printed inside of code that users run."""

from __future__ import annotations

import ast
import functools

LONGEST = 2000
"""Characters; a layer ten models deep under names of 60 takes half of it."""
REMEMBERED = 4096
"""Expressions. A run's manifests repeat those of all its layers, and parsing 1,500 took a third of reading a run."""


def checked_access(text: object) -> str:
    """The expression where it only walks down from ``model``, else ``""``.

    Whoever writes a log directory writes this text too, and a fix prints it to be copied and run. So nothing passes
    but what the recorder makes: public attributes and that of ``torch.compile``, ``get_layer`` and ``get_submodule``
    with a name, and constant subscripts.

    Example:
        >>> checked_access("model.get_layer('backbone').blocks[3]")
        "model.get_layer('backbone').blocks[3]"
        >>> checked_access("__import__('os').system('rm -rf ~')")
        ''
    """
    return _checked(text) if isinstance(text, str) and len(text) <= LONGEST else ""


@functools.lru_cache(REMEMBERED)
def _checked(text: str) -> str:
    try:
        expression = ast.parse(text, mode="eval").body
        # Unparsing leaves out comments and line breaks.
        return ast.unparse(expression) if _walks_down(expression) else ""
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""


def _walks_down(node: ast.expr) -> bool:
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Call):
            if not (_gets_a_layer(node.func) and len(node.args) == 1 and not node.keywords):
                return False
            if not (isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)):
                return False
            node = node.func
        if isinstance(node, ast.Attribute) and (not node.attr.startswith("_") or node.attr == "_orig_mod"):
            node = node.value
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            node = node.value
        else:
            return False
    return node.id == "model"


def _gets_a_layer(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in ("get_layer", "get_submodule")

"""The types of the front end from the schema of the report: ``python -m tests.wire`` writes frontend/src/wire.ts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "tb_bnlens" / "report" / "schema.py"
WIRE = ROOT / "frontend" / "src" / "wire.ts"

HEAD = """/**
 * What the JSON routes answer. Generated from tb_bnlens/report/schema.py by `python -m tests.wire`: change it there.
 */
"""
NAMES = {
    "str": "string",
    "int": "number",
    "float": "number",
    "bool": "boolean",
    "object": "unknown",
}


def typescript(schema: str) -> str:
    """TypeScript for a module of TypedDicts and Literal aliases.

    Raises:
        ValueError: the module holds something that has no counterpart here.
    """
    parts = [HEAD.rstrip("\n")]
    for node in ast.parse(schema).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            parts.append(f"export type {node.targets[0].id} = {_type(node.value)};")
        elif isinstance(node, ast.ClassDef):
            parts.append(_interface(node))
    return "\n\n".join(parts) + "\n"


def _interface(node: ast.ClassDef) -> str:
    bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id != "TypedDict"]
    optional = any(k.arg == "total" and isinstance(k.value, ast.Constant) and not k.value.value for k in node.keywords)
    extends = f" extends {', '.join(bases)}" if bases else ""
    lines = [*_comment(ast.get_docstring(node), ""), f"export interface {node.name}{extends} {{"]
    for field, text in _fields(node):
        assert isinstance(field.target, ast.Name)
        lines += _comment(text, "  ")
        lines.append(f"  {field.target.id}{'?' if optional else ''}: {_type(field.annotation)};")
    return "\n".join([*lines, "}"])


def _fields(node: ast.ClassDef) -> Iterator[tuple[ast.AnnAssign, str | None]]:
    """Fields, each with the string below it."""
    for field, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            yield field, str(after.value.value) if documented else None  # type: ignore[union-attr]


def _comment(text: str | None, indent: str) -> list[str]:
    return [f"{indent}/** {text.replace('``', '`')} */"] if text else []


def _type(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return "null" if node.value is None else f"'{node.value!s}'"
    if isinstance(node, ast.Name):
        return NAMES.get(node.id, node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return f"{_type(node.left)} | {_type(node.right)}"
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        types = [_type(each) for each in inner]
        if node.value.id == "Literal":
            return " | ".join(types)
        if node.value.id == "dict" and types[0] == "string":
            return f"Record<string, {types[1]}>"
        if node.value.id == "list":
            return f"({types[0]})[]" if "|" in types[0] else f"{types[0]}[]"
    raise ValueError(f"{ast.unparse(node)} has no TypeScript here; see {Path(__file__).name}")


if __name__ == "__main__":
    WIRE.write_text(typescript(SCHEMA.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{WIRE.relative_to(ROOT)} written; run npm run build in frontend/")

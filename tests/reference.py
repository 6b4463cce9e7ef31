"""What ``make docs`` writes: docs/reference.md from the docstrings, and the sample report in the README.

Sources are parsed and not imported, so that this needs no TensorFlow and is the same on every version of Python.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import tb_bnlens
from tb_bnlens.cli import _parser
from tb_bnlens.diagnosis.causes import CAUSES
from tb_bnlens.diagnosis.words import WORDS
from tb_bnlens.reader import open_logdir, read_run
from tb_bnlens.report import build_report
from tb_bnlens.report.text import render as render_text

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference.md"
README = ROOT / "README.md"
SAMPLE = ROOT / "tests" / "fixtures" / "format1"
SAMPLE_BEGIN, SAMPLE_END = "<!-- sample report: make docs -->\n```\n", "```\n<!-- end of the sample report -->"
SAMPLE_EVIDENCE = 1
"""Lines of evidence that the sample shows."""
# Parts of a docstring, each to the next line that is not indented.
LITERAL = re.compile(r"^(.*)::\n((?:(?: .*)?\n)*)", re.MULTILINE)
SECTION = re.compile(r"^(Args|Returns|Raises):\n((?:(?: .*)?\n)*)", re.MULTILINE)
WIDTH = 100

# The public names of each module, in the order of the page, and of each class the methods that users call; those of a
# base class with its module.
NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "callback": {"BNLens": ()},
    "frameworks.keras3.recorder": {"Recorder": ("record", "capture.recorder.LoopRecorder.close")},
    "checking.check": {"check": ()},
    "checking.result": {"Check": ("as_report",)},
    "remedies.recalibration": {"recalibrate": ()},
    "remedies.measured": {"Recalibration": ("undo", "keep")},
    "remedies.momentum": {"set_momentum": ()},
    "torch.recorder": {"Recorder": ("record", "close")},
    "torch.checking": {"check": ()},
    "torch.recalibration": {"recalibrate": ()},
    "torch.momentum": {"set_momentum": ()},
    "torch.lightning": {"BNLens": ()},
    "torch.transformers": {"BNLens": ()},
    "flax.recorder": {"Recorder": ("record",)},
    "flax.checking": {"check": ()},
    "flax.recalibration": {"recalibrate": ()},
    "flax.momentum": {"set_momentum": ()},
    "summary": dict.fromkeys(("manifest", "layers", "losses", "evidence", "channels"), ()),
    "record": dict.fromkeys(("loss_table", "empty_losses"), ()),
}

INTRODUCTION = """\
# Reference

Rendered from the docstrings by `make docs`; a test checks that it is up to date. `import tb_bnlens` loads nothing:
`BNLens`, `Recorder`, `check`, `recalibrate` and `set_momentum` are imported when first used, and need Keras 3;
`summary` needs TensorFlow. [report.md](report.md) describes the report's JSON, and
[tb_bnlens/metadata.py](../tb_bnlens/metadata.py) the record on disk.
"""


def render() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for module, names in NAMES.items():
        source, tree = _parsed(module)
        prefix, level = _place(module)
        if module in ("torch.recorder", "flax.recorder"):
            package = module.partition(".")[0]
            about = ast.get_docstring(_parsed(f"{package}.__init__")[1]) or ""
            parts.append(f"## tb_bnlens.{package}\n\n{markdown(about)}")
        if module == "summary":
            parts.append(f"## tb_bnlens.summary\n\n{markdown(ast.get_docstring(tree) or '')}")
        for name, methods in names.items():
            parts += _entry(_named(tree, name), prefix, methods, source, level)
    parts += [_command_line(), _causes()]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _place(module: str) -> tuple[str, str]:
    """What a name in a module is written with, and the level of its heading."""
    if module in ("summary", "record"):
        return "summary.", "###"
    own = module.rpartition(".")[2]
    if module.startswith("torch."):
        return f"tb_bnlens.torch.{own}." if own in ("lightning", "transformers") else "tb_bnlens.torch.", "###"
    if module.startswith("flax."):
        return "tb_bnlens.flax.", "###"
    return "tb_bnlens.", "##"


def _parsed(module: str) -> tuple[str, ast.Module]:
    source = (ROOT / "tb_bnlens" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    return source, ast.parse(source)


def with_sample(readme: str) -> str:
    """The README with the sample report that is printed today."""
    before, _, rest = readme.partition(SAMPLE_BEGIN)
    _, _, after = rest.partition(SAMPLE_END)
    return f"{before}{SAMPLE_BEGIN}{sample_report()}{SAMPLE_END}{after}"


def sample_report() -> str:
    """The report on the record that the tests keep: its verdict, losses and first finding, with little evidence."""
    lines = render_text(build_report([read_run(open_logdir(str(SAMPLE)), "", "exp")])).splitlines()
    lines = lines[: 1 + next(i for i, line in enumerate(lines) if line.lstrip().startswith("expect "))]
    first, last = (
        [i for i, line in enumerate(lines) if line.lstrip().startswith(word)] for word in ("evidence ", "ruled out")
    )
    # What follows the first pieces of evidence, to the last rival.
    left_out = range(first[SAMPLE_EVIDENCE], last[-1])
    kept = [line for i, line in enumerate(lines) if i not in left_out]
    kept.insert(left_out.start, "    ...")
    return "\n".join(["$ bnlens report tests/fixtures/format1", *kept, ""])


def markdown(docstring: str) -> str:
    """A docstring of this project as Markdown: its sections as lists, its literal blocks as code."""
    prose, *rest = LITERAL.split(inspect.cleandoc(docstring) + "\n")
    out = [_prose(prose)]
    for announced, code, prose in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        head = f"{_prose(announced)}:\n\n" if announced else ""
        out.append(f"{head}```python\n{textwrap.dedent(code).strip()}\n```\n\n{_prose(prose)}")
    return "".join(out).rstrip("\n")


def _prose(text: str) -> str:
    """Sections as lists, and double backquotes as Markdown's single ones."""
    return SECTION.sub(_list, text).replace("``", "`")


def _list(section: re.Match[str]) -> str:
    """A section as a list with an item for each argument or error; what is returned is one item."""
    name, body = section.groups()
    out = [f"{'Arguments' if name == 'Args' else name}:", ""]
    for line in textwrap.dedent(body).splitlines():
        if not line:
            out.append("")
        elif line.startswith(" ") or (name == "Returns" and out[-1]):
            out.append(f"  {line.strip()}")
        else:
            out.append("- " + (line if name == "Returns" else re.sub(r"^(\w+): ", r"`\1`: ", line)))
    return "\n".join([*out, ""])


def _named(tree: ast.AST, name: str) -> ast.ClassDef | ast.FunctionDef:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
    raise LookupError(f"{name} is not defined there any more; correct NAMES in tests/reference.py")


def _entry(
    node: ast.ClassDef | ast.FunctionDef, prefix: str, methods: Iterable[str], source: str, level: str
) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef):
        shown = signature(node, prefix + node.name, source)
    elif node.name in tb_bnlens.__all__ or prefix.startswith(("tb_bnlens.torch", "tb_bnlens.flax")):
        shown = signature(_named(node, "__init__"), prefix + node.name, source)
    else:
        # Made by a function, never by users.
        shown = ""
    if prefix.count(".") > 2:  # a module that its package does not load
        shown = f"import {prefix.rstrip('.')}\n\n{shown}"
    code = f"\n```python\n{shown}\n```\n" if shown else ""
    yield f"{level} {prefix if shown else ''}{node.name}\n{code}\n{markdown(_docstring(node))}"
    attributes = list(_attributes(node))
    if attributes and not shown:
        yield "\n".join(f"- `{name}`: {text}" for name, text in attributes)
    for path in methods:
        *home, name = path.rsplit(".", 2)
        written, tree = _parsed(home[0]) if home else (source, node)
        method = _named(_named(tree, home[1]) if home else tree, name)
        code = signature(method, f"{node.name}.{name}", written)
        yield f"{level}# {node.name}.{name}\n\n```python\n{code}\n```\n\n{markdown(_docstring(method))}"


def _docstring(node: ast.ClassDef | ast.FunctionDef) -> str:
    text = ast.get_docstring(node)
    if not text:
        raise LookupError(f"{node.name} is public and has no docstring")
    return text


def _attributes(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Attributes that a dataclass declares or ``__init__`` sets with a docstring below them, and properties."""
    own = node.body if isinstance(node, ast.ClassDef) else []
    inits = [n.body for n in own if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    for body in [own, *inits]:
        for pair in itertools.pairwise(body):
            match pair:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Attribute(attr=name)]),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    yield name, _prose(text)
    for method in own:
        match method:
            case ast.FunctionDef(decorator_list=[ast.Name(id="property")]) if not method.name.startswith("_"):
                yield method.name, _prose(_docstring(method))


def signature(node: ast.ClassDef | ast.FunctionDef, name: str, source: str) -> str:
    """A call with types and defaults, as written in the source."""
    assert isinstance(node, ast.FunctionDef)

    def one(argument: ast.arg, default: ast.expr | None) -> str:
        text = argument.arg
        if argument.annotation is not None:
            text += f": {ast.get_source_segment(source, argument.annotation)}"
        return text if default is None else f"{text} = {ast.get_source_segment(source, default)}"

    a = node.args
    plain = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(plain) - len(a.defaults)) + list(a.defaults)
    listed = [one(x, d) for x, d in zip(plain, defaults, strict=True) if x.arg != "self"]
    if a.kwonlyargs:
        listed += ["*", *(one(x, d) for x, d in zip(a.kwonlyargs, a.kw_defaults, strict=True))]
    if a.kwarg is not None:
        listed.append(f"**{one(a.kwarg, None)}")
    returns = ast.get_source_segment(source, node.returns) if node.returns is not None else ""
    arrow = f" -> {returns}" if returns and returns != "None" else ""
    line = f"{name}({', '.join(listed)}){arrow}"
    return line if len(line) <= WIDTH else f"{name}(\n    " + ",\n    ".join(listed) + f",\n){arrow}"


def _command_line() -> str:
    """From the parser itself; argparse's own help differs between versions of Python."""
    parser = _parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    helps = {choice.dest: choice.help for choice in commands._choices_actions}
    parts = ["## Command line"]
    for name, command in commands.choices.items():
        actions = [a for a in command._actions if not isinstance(a, argparse._HelpAction)]
        operands = " ".join(str(a.metavar) for a in actions if not a.option_strings)
        parts.append(f"### python -m tb_bnlens {name} {operands}\n")
        parts.append(f"{_sentence(str(helps[name]))} {command.description}\n")
        parts += [f"- `{_usage(a)}`: {a.help}{' (needed)' if a.required and a.option_strings else ''}" for a in actions]
        parts.append("")
    source = (ROOT / "tb_bnlens" / "cli.py").read_text(encoding="utf-8")
    *_, codes = inspect.cleandoc(ast.get_docstring(ast.parse(source)) or "").split("\n\n")
    return "\n".join([*parts, _prose(codes)])


def _sentence(words: str) -> str:
    """Not ``capitalize``, which makes the other letters small ones."""
    return f"{words[0].upper()}{words[1:]}."


def _usage(action: argparse.Action) -> str:
    values = action.metavar if action.metavar is not None else "{" + ",".join(action.choices or ()) + "}"
    if isinstance(values, tuple):
        values = " ".join(values)
    if not action.option_strings:
        return str(values)
    return action.option_strings[-1] + ("" if action.nargs == 0 else f" {values}")


def _causes() -> str:
    rows = [
        f"| [`{c.id}`](diagnoses.md#{c.id}) | {WORDS[c.id].failure_title} | {WORDS[c.id].description} |" for c in CAUSES
    ]
    return "\n".join(
        [
            "## Causes\n",
            'In causal order, by the ids that `ignore={"cause-id": ["layer*"]}` takes and the report names as `rule`.',
            "[diagnoses.md](diagnoses.md) has a section on each.\n",
            "| id | what it says | what it looks at |",
            "|---|---|---|",
            *rows,
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    README.write_text(with_sample(README.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)} and the sample report in {README.relative_to(ROOT)}")

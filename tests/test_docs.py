"""Documents that are made from the code are up to date, and code in documents runs."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import tb_bnlens
from tb_bnlens.cli import _parser, main
from tests import reference
from tests.conftest import ROOT
from tests.test_architecture import forbidden_arrows, limits_in, sentences_in, sources

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
CONTRIBUTING = ROOT / "docs" / "contributing.md"


def code_blocks(page: Path, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


# --- the reference --------------------------------------------------------------------------------------


def test_the_reference_is_up_to_date() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.render(), "run make docs and commit it"


def test_the_reference_names_all_that_is_public() -> None:
    text = reference.PAGE.read_text(encoding="utf-8")
    assert [name for name in tb_bnlens.__all__ if f"tb_bnlens.{name}" not in text and not name.startswith("__")] == []
    functions = [
        node.name
        for node in ast.parse((ROOT / "tb_bnlens" / "summary.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]
    assert sorted(functions) == sorted(reference.NAMES["summary"])


def test_markdown_of_a_docstring() -> None:
    docstring = """One ``name``.

    Use it::

        f(x)  # ``as is``

    Args:
        x: a number
            of two lines.
        y: another.

    Returns:
        A tuple
        of things.

    Raises:
        ValueError: it is
            wrong.
    """
    assert reference.markdown(docstring) == "\n".join(
        [
            "One `name`.",
            "",
            "Use it:",
            "",
            "```python",
            "f(x)  # ``as is``",
            "```",
            "",
            "Arguments:",
            "",
            "- `x`: a number",
            "  of two lines.",
            "- `y`: another.",
            "",
            "Returns:",
            "",
            "- A tuple",
            "  of things.",
            "",
            "Raises:",
            "",
            "- `ValueError`: it is",
            "  wrong.",
        ]
    )


# --- the worked example of a cause ----------------------------------------------------------------------

ROW, SAID, TEST = "tb_bnlens/diagnosis/causes.py", "tb_bnlens/diagnosis/words/", "tests/diagnosis/"


def example(kind: str) -> tuple[str, str]:
    """Path and source of the block of contributing.md that begins with a path there."""
    (block,) = (b for b in code_blocks(CONTRIBUTING) if b.startswith(f"# {kind}"))
    return block.split("\n", 1)[0][2:], block


@pytest.fixture
def example_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """The row and the words of contributing.md as parts of the package, for one test: the module of the table."""
    causes = importlib.import_module("tb_bnlens.diagnosis.causes")
    before = dict(vars(causes))
    exec(compile(example(ROW)[1], ROW, "exec"), vars(causes))
    path, source = example(SAID)
    stem = Path(path).stem
    (tmp_path / f"{stem}.py").write_text(source, encoding="utf-8")
    words = importlib.import_module("tb_bnlens.diagnosis.words")
    monkeypatch.setattr(words, "__path__", [*words.__path__, str(tmp_path)])
    yield causes
    sys.modules.pop(f"tb_bnlens.diagnosis.words.{stem}", None)
    vars(words).pop(stem, None)
    vars(causes).clear()
    vars(causes).update(before)


def example_tests() -> list[str]:
    return re.findall(r"^def (test_\w+)", example(TEST)[1], re.MULTILINE)


@pytest.mark.parametrize("name", example_tests())
def test_the_worked_example_passes_its_own_test(example_cause: types.ModuleType, name: str) -> None:
    path, source = example(TEST)
    namespace: dict[str, object] = {}
    exec(compile(source, path, "exec"), namespace)
    test = namespace[name]
    assert callable(test)
    test()


def test_the_worked_example_s_test_can_fail(example_cause: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, object] = {}
    exec(example(TEST)[1], namespace)
    monkeypatch.setattr(example_cause, "LARGEST_RATIO", 1e9)
    with pytest.raises(AssertionError):
        namespace["test_a_pretrained_part_with_its_own_momentum"]()  # type: ignore[operator]


def test_the_worked_example_keeps_to_the_seams(example_cause: types.ModuleType) -> None:
    path, source = example(SAID)
    added = {f"diagnosis.words.{Path(path).stem}": source, "diagnosis.causes": example(ROW)[1]}
    assert forbidden_arrows({**sources(), **added}) == []
    assert limits_in(source) == [] and sentences_in(example(ROW)[1]) == []
    # The id is not taken, and rivals are real.
    ids = [cause.id for cause in example_cause.CAUSES]
    assert example_cause.CAUSE.id not in ids
    assert set(example_cause.CAUSE.rivals) <= set(ids)


@pytest.mark.parametrize("kind", [ROW, SAID, TEST])
def test_the_worked_example_is_formatted(kind: str) -> None:
    pytest.importorskip("ruff", reason="checks the house's formatting, with the version that the house pins")
    path, source = example(kind)
    for command in (["check", "--quiet"], ["format", "--check", "--quiet"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, f"--stdin-filename={path}", "-"],
            input=source,
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


# --- what documents mention exists ----------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    headings = {
        other: {
            re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
            for line in other.read_text(encoding="utf-8").splitlines()
            if line.startswith("#")
        }
        for other in PAGES
    }
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in headings[target], f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_and_options_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`(?:CI=\S+ )?make ([\w-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name} mentions make {target}"
    (commands,) = (a for a in _parser()._actions if a.dest == "command")
    known = {option for command in commands.choices.values() for option in command._option_string_actions}
    # TensorBoard's, the demo's and those of fuzz and benchmarks come with a command of their own.
    for command, rest in re.findall(r"`python -m tb_bnlens (\w+)([^`]*)`", text):
        assert command in commands.choices
        assert set(re.findall(r"--[\w-]+", rest)) <= known, f"{page.name}: {rest}"


def test_python_in_the_readme_uses_what_there_is() -> None:
    blocks = code_blocks(ROOT / "README.md")
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tb_bnlens":
                assert node.attr in tb_bnlens.__all__
            if isinstance(node, ast.ImportFrom) and node.module == "tb_bnlens":
                assert {alias.name for alias in node.names} <= set(tb_bnlens.__all__)


def test_the_readme_s_report_is_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(ROOT / "tests" / "fixtures" / "format1"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (shown,) = code_blocks(ROOT / "README.md", "json")
    assert_part_of(json.loads(shown), printed, "report")
    with pytest.raises(AssertionError):
        assert_part_of({"runs": [{"last_step": 65}]}, printed, "report")


def assert_part_of(shown: object, printed: object, where: str) -> None:
    """Every value that is shown is printed too, in more digits; "..." and {} stand for anything of their kind."""
    if isinstance(shown, dict):
        assert isinstance(printed, dict), where
        for name, value in shown.items():
            assert_part_of(value, printed.get(name), f"{where}.{name}")
    elif isinstance(shown, list):
        assert isinstance(printed, list), where
        for i, value in enumerate(shown):
            assert_part_of(value, printed[i], f"{where}[{i}]")
    elif isinstance(shown, float):
        assert printed == pytest.approx(shown, rel=0.02), where
    elif shown != "...":
        assert printed == shown, where


# --- the licence ----------------------------------------------------------------------------------------


def test_the_licence_is_where_packaging_takes_it_from() -> None:
    assert "Apache License\n" in (ROOT / "tb_bnlens" / "LICENSE").read_text(encoding="utf-8")
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert 'license="Apache-2.0"' in setup and 'license_files=["tb_bnlens/LICENSE"]' in setup
    bundled = (ROOT / "tb_bnlens" / "static" / "LICENSES.md").read_text(encoding="utf-8")
    # The only packages whose code is in the bundle: what the sources import.
    imported = {
        match.split("/")[0]
        for path in (ROOT / "frontend" / "src").rglob("*.ts*")
        for match in re.findall(r"from '([^.'][^']*)'", path.read_text(encoding="utf-8"))
    }
    assert imported and {name for name in imported if f"## {name} - " not in bundled} == set()

"""Documents that are made from the code are up to date, and code in documents runs."""

from __future__ import annotations

import argparse
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
from tb_bnlens.diagnosis.causes import CAUSES
from tests import reference
from tests.conftest import ROOT
from tests.test_architecture import forbidden_arrows, limits_in, sentences_in, sources

PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
DIAGNOSES = ROOT / "docs" / "diagnoses.md"


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


@pytest.mark.parametrize("callback", ["lightning", "transformers"])
def test_a_callback_names_the_options_of_its_recorder(callback: str) -> None:
    def of(module: str) -> ast.ClassDef:
        tree = ast.parse((ROOT / "tb_bnlens" / "torch" / f"{module}.py").read_text(encoding="utf-8"))
        return next(node for node in tree.body if isinstance(node, ast.ClassDef))

    made = next(n for n in of("recorder").body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    said = ast.get_docstring(of(callback)) or ""
    assert [a.arg for a in made.args.kwonlyargs if f"``{a.arg}``" not in said] == []


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
    """Path and source of the block of CONTRIBUTING.md that begins with a path there."""
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

PROJECT = re.search(r'^Homepage = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]  # type: ignore[index]


def text_files() -> Iterator[Path]:
    """What the repository ships as text, but for the built bundle and what the front end's tools install."""
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if path.suffix in (".md", ".py", ".toml", ".ts", ".tsx", ".mjs", ".css", ".yml", ".yaml", ".in"):
            hidden = parts[0].startswith(".") and parts[0] != ".github"
            if not hidden and not {"node_modules", "static", "out", "build", "dist"} & set(parts):
                yield path


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub gives to the headings of a page."""
    return {
        re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    }


def links(text: str) -> set[str]:
    """Targets of Markdown's links, those of references too."""
    return set(re.findall(r"\]\(([^)\s]+)\)", text)) | set(re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE))


def broken(link: str, page: Path) -> bool:
    """Whether a link from a page leads to a file or heading that is not here; other sites are not asked."""
    link = re.sub(rf"^{re.escape(PROJECT)}/(?:blob|tree|raw)/main/", f"{ROOT}/", link)
    if "://" in link:
        return False
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return not target.exists() or (bool(anchor) and anchor not in anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [link for link in links(page.read_text(encoding="utf-8")) if broken(link, page)] == []


def test_broken_links_are_noticed() -> None:
    readme = ROOT / "README.md"
    assert not broken(f"{PROJECT}/blob/main/docs/diagnoses.md#drift", readme)
    for link in ("#nowhere", "docs/nothing.md", f"{PROJECT}/blob/main/docs/diagnoses.md#nowhere"):
        assert broken(link, readme)


def test_references_of_the_readme_are_defined_and_absolute() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    defined = set(re.findall(r"^\[([^\]]+)\]: ", text, re.MULTILINE))
    assert defined == set(re.findall(r"\]\[([^\]]+)\]", text))
    # A package index shows the README too, where relative links lead nowhere.
    assert {link for link in links(text) if not link.startswith("https://")} == set()


def test_the_project_has_one_address() -> None:
    for path in text_files():
        for address in re.findall(
            r"https://[\w.]*github\w*\.com/[\w./-]*tensorboard-plugin-bnlens", path.read_text("utf-8")
        ):
            assert address == PROJECT, f"{path} has {address}"


def test_no_file_cites_a_document_that_is_not_here() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in text_files()
        for name in re.findall(r"\b[A-Z]{4,}\.md\b", path.read_text(encoding="utf-8"))
        if not (ROOT / name).exists() and name != "LICENSES.md"
    ]
    assert missing == []


def test_the_readme_is_short() -> None:
    shown = re.sub(r"^\[[^\]]+\]: .*$", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(shown.split()) < 1200


def test_the_sample_report_is_up_to_date() -> None:
    text = reference.README.read_text(encoding="utf-8")
    assert text == reference.with_sample(text), "run make docs and commit it"


def test_every_cause_has_a_section() -> None:
    sections = re.findall(r"^## (.*)$", DIAGNOSES.read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == [cause.id for cause in CAUSES]


@pytest.mark.parametrize(
    "section", re.split(r"^(?=## )", DIAGNOSES.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
)
def test_a_section_says_all_about_a_cause(section: str) -> None:
    parts = re.findall(r"^\*\*([\w -]+)\.\*\*", section, re.MULTILINE)
    assert parts == ["What it is", "How it is told", "Look-alikes", "Fix"]
    assert section.count("```python\n") == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_and_options_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`(?:CI=\S+ )?make ([\w-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name} mentions make {target}"
    (commands,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    known = {option for command in commands.choices.values() for option in command._option_string_actions}
    # TensorBoard's, the demo's and those of fuzz and benchmarks come with a command of their own.
    for command, rest in re.findall(r"`python -m tb_bnlens (\w+)([^`]*)`", text):
        assert command in commands.choices
        assert set(re.findall(r"--[\w-]+", rest)) <= known, f"{page.name}: {rest}"


@pytest.mark.parametrize("page", [ROOT / "README.md", DIAGNOSES], ids=lambda page: page.name)
def test_python_in_documents_uses_what_there_is(page: Path) -> None:
    blocks = code_blocks(page)
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tb_bnlens":
                assert node.attr in tb_bnlens.__all__
            if isinstance(node, ast.ImportFrom) and node.module == "tb_bnlens":
                assert {alias.name for alias in node.names} <= set(tb_bnlens.__all__)


def test_blocks_of_the_readme_import_what_is_ours() -> None:
    for block in code_blocks(ROOT / "README.md"):
        tree = ast.parse(block)
        imported = {alias.asname or alias.name for node in ast.walk(tree) for alias in getattr(node, "names", ())}
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert used & {"tb_bnlens", "BNLens", "Recorder"} <= imported


def test_sentences_of_commands_keep_their_capitals() -> None:
    assert "Report on the BatchNorm layers" in reference.PAGE.read_text(encoding="utf-8")


def test_the_json_is_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(ROOT / "tests" / "fixtures" / "format1"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (shown,) = code_blocks(ROOT / "docs" / "report.md", "json")
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


def test_the_licence_covers_what_is_bundled() -> None:
    assert "Apache License\n" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    bundled = (ROOT / "tb_bnlens" / "static" / "LICENSES.md").read_text(encoding="utf-8")
    # The only packages whose code is in the bundle: what the sources import.
    imported = {
        match.split("/")[0]
        for path in (ROOT / "frontend" / "src").rglob("*.ts*")
        for match in re.findall(r"from '([^.'][^']*)'", path.read_text(encoding="utf-8"))
    }
    assert imported and {name for name in imported if f"## {name} - " not in bundled} == set()

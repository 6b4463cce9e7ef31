"""The real terminal: encodings, widths, colour, many runs, and runs that fail."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tb_bnlens import console, metadata, reporting
from tb_bnlens.cli import CRASHED, FOUND, OK, UNREADABLE, main
from tb_bnlens.diagnosis.causes import CAUSES
from tb_bnlens.report import run_report
from tb_bnlens.report.style import Style, columns, shortened
from tests.conftest import ROOT
from tests.fixtures.event_files import EventFile
from tests.fixtures.runs import extend_run, manifest, write_run

ESCAPE = re.compile(r"\x1b\[\d*m")


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs")
    write_run(directory / "層/slow, and with a long name that no narrow console can hold", steps=40)
    write_run(directory / "fast", momentum=0.5, steps=40)
    return directory


def command(logdir: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "tb_bnlens", "report", str(logdir), *options],
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("options", [(), ("--all",)], ids=["table", "in full"])
def test_any_encoding(logdir: Path, encoding: str, options: tuple[str, ...]) -> None:
    done = command(logdir, *options, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == OK and not done.stderr
    shown = done.stdout.decode(encoding)
    assert ("層" if encoding == "utf-8" else "\\u5c64") in shown


@pytest.mark.parametrize("width", [40, 60, 200])
@pytest.mark.parametrize("options", [(), ("--all",)], ids=["table", "in full"])
def test_any_width(logdir: Path, width: int, options: tuple[str, ...]) -> None:
    done = command(logdir, *options, COLUMNS=str(width), PYTHONIOENCODING="utf-8")
    lines = done.stdout.decode().splitlines()
    code = ("        ", "A run in full: ")  # is to be copied, so nothing breaks it
    assert all(columns(line) <= max(width, 60) for line in lines if not line.startswith(code))
    assert max(map(columns, lines)) > 0.5 * width


def test_colour_where_a_terminal_wants_it(logdir: Path) -> None:
    assert not ESCAPE.search(command(logdir).stdout.decode()), "a pipe"
    coloured = command(logdir, FORCE_COLOR="1").stdout.decode()
    assert ESCAPE.search(coloured) and ESCAPE.sub("", coloured) == command(logdir).stdout.decode()
    assert not ESCAPE.search(command(logdir, FORCE_COLOR="1", NO_COLOR="1").stdout.decode())


@pytest.mark.parametrize(("environment", "wanted"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_on_a_terminal(logdir: Path, environment: dict[str, str], wanted: bool) -> None:
    terminal, end = pty.openpty()
    free = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "tb_bnlens", "report", str(logdir)],
        stdout=end,
        cwd=ROOT,
        env={**free, "TERM": "xterm", **environment},
    ):
        os.close(end)
        shown = b""
        try:
            while chunk := os.read(terminal, 4096):
                shown += chunk
        except OSError:  # Linux ends a terminal so
            pass
    os.close(terminal)
    assert bool(ESCAPE.search(shown.decode())) == wanted


# --- many runs ------------------------------------------------------------------------------------------


def test_many_runs_are_a_table_worst_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    for i in range(30):
        write_run(tmp_path / f"run {i:02}", momentum=0.999 if i == 17 else 0.5, steps=20 + i % 3)
    assert main(["report", str(tmp_path)]) == OK
    heading, _, header, first, *rest = capsys.readouterr().out.splitlines()
    assert heading.startswith("30 runs: ")
    assert header.split() == ["run", "harm", "inference", "batch", "stat.", "step", "cause"]
    assert first.startswith("X run 17 ") and "Momentum too high" in first
    assert len(rest) == 29 + 3 and "--run 'run 17'" in rest[-2]
    assert main(["report", str(tmp_path), "--all"]) == OK
    assert capsys.readouterr().out.count("BatchNorm layers)") == 30


def test_what_is_not_known_is_not_healthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    EventFile(tmp_path / "empty" / metadata.RUN_SUFFIX).manifest(manifest(), 0)
    silenced = EventFile(tmp_path / "silenced" / metadata.RUN_SUFFIX)
    silenced.manifest(replace(manifest(), ignore={cause.id: ("*",) for cause in CAUSES}), 0)
    extend_run(silenced)
    assert main(["report", str(tmp_path)]) == OK
    heading, _, _, first, second, *_ = capsys.readouterr().out.splitlines()
    assert heading == "2 runs: 1 silenced, 1 not evaluated"
    assert first.startswith("? silenced") and first.endswith("silenced")
    assert second.startswith("? empty") and second.endswith("losses not evaluated")


# --- a run that fails -----------------------------------------------------------------------------------


@pytest.fixture
def one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a", "b", "c"):
        write_run(tmp_path / name, steps=20)

    def judge(history: Any) -> Any:
        if history.run == "b":
            raise OverflowError("a step that nothing can hold\nand more")
        return run_report(history)

    monkeypatch.setattr(reporting, "run_report", judge)
    return tmp_path


def test_a_crash_costs_the_other_runs_nothing(one_fails: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(one_fails)]) == CRASHED
    said = capsys.readouterr()
    assert "3 runs: 2 with an error, 1 could not be judged" in said.out
    assert "X a " in said.out and "X c " in said.out and "? b: BN Lens failed: OverflowError" in said.out
    (line,) = said.err.splitlines()
    assert line.startswith("bnlens report: b: BN Lens failed: OverflowError: a step that nothing can hold and more (")
    assert main(["report", str(one_fails), "--json"]) == CRASHED
    report = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in report["runs"]] == ["a", "c"]
    assert [failed["run"] for failed in report["failures"]] == ["b"]


def test_exit_codes_stay_apart(one_fails: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def code(*options: str) -> int:
        return main(["report", str(one_fails), *options])

    assert code("--fail-on", "error") == FOUND, "what was found counts, whatever else fails"
    assert code("--run", "b", "--fail-on", "error") == CRASHED
    assert code("--run", "a") == OK
    assert code("--run", "nope") == UNREADABLE
    assert code("--html", str(tmp_path / "page.html")) == CRASHED
    assert code("--compare", "a", "b") == CRASHED


def test_a_crash_of_the_command_itself(logdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(reporting, "render_table", lambda *_: 1 / 0)
    assert main(["report", str(logdir)]) == CRASHED
    assert "ZeroDivisionError" in capsys.readouterr().err
    monkeypatch.setattr(reporting, "report_runs", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["report", str(logdir)]) == 130


# --- the parts ------------------------------------------------------------------------------------------


def test_prose_is_wrapped_whatever_the_prefix() -> None:
    for width in (1, 40, 110, 1000):
        lines = Style(width).wrap("a prefix that is rather long for a console: ", "word " * 40)
        assert " ".join(" ".join(lines).split()).endswith("word word") and len(lines) > 1


@pytest.mark.parametrize("width", range(4, 40))
def test_what_is_shortened_fits(width: int) -> None:
    for text in ("backbone/block_12/expand_BN", "層" * 30, "e\u0301" * 30):
        assert columns(shortened(text, width)) <= width


@pytest.mark.parametrize(("level", "shown"), [(None, ""), ("3", ""), ("0", "noise")])
def test_what_is_logged_while_a_framework_loads(
    level: str | None, shown: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(console.LOG_LEVEL, level or "")
    if level is None:
        monkeypatch.delenv(console.LOG_LEVEL)
    with console.quiet_start():
        os.write(2, b"noise")
    assert capfd.readouterr().err == shown
    with pytest.raises(ImportError), console.quiet_start():
        os.write(2, b"the reason")
        raise ImportError
    assert capfd.readouterr().err == "the reason"

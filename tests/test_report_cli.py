"""``python -m tb_bnlens report``: output, exit codes, and that it needs no TensorFlow."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import tb_bnlens
from tb_bnlens.cli import FOUND, OK, UNREADABLE, main
from tb_bnlens.report import run_report
from tb_bnlens.report.runs_table import ranked
from tb_bnlens.report.schema import Overview
from tests.diagnosis.runs import level, measured
from tests.fixtures.runs import write_run


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    write_run(tmp_path / "slow", momentum=0.999, steps=40)
    write_run(tmp_path / "fast", momentum=0.9, steps=40)
    return tmp_path


def test_text(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(logdir), "--all"]) == OK
    out = capsys.readouterr().out
    assert "slow  (step" in out and "fast  (step" in out


def test_json_is_stable_and_complete(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(logdir), "--json"]) == OK
    report = json.loads(capsys.readouterr().out)
    assert report["format"] == 1
    assert [run["run"] for run in report["runs"]] == ["fast", "slow"]
    assert {"verdict", "severity", "last_step", "losses", "findings", "layers"} <= report["runs"][0].keys()


def test_one_run(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(logdir), "--run", "slow", "--json"]) == OK
    assert [run["run"] for run in json.loads(capsys.readouterr().out)["runs"]] == ["slow"]


def test_comparison(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(logdir), "--compare", "slow", "fast", "--json"]) == OK
    difference = json.loads(capsys.readouterr().out)["comparison"]
    assert difference["runs"] == ["slow", "fast"]
    assert main(["report", str(logdir), "--compare", "slow", "fast"]) == OK
    assert "slow  ->  fast" in capsys.readouterr().out
    assert main(["report", str(logdir), "--compare", "slow", "fast", "--markdown"]) == OK
    assert "| momentum | 0.999 | 0.9 |" in capsys.readouterr().out


def test_many_runs_are_a_table_in_markdown(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(logdir), "--markdown"]) == OK
    said = capsys.readouterr()
    heading, _, header, line, *rows = said.out.splitlines()
    assert heading.startswith("### 2 runs: ") and header.count("|") == line.count("|") == 8
    # The worst first, as in the text.
    assert [row.split(" | ")[1] for row in rows] == ["slow", "fast"]
    assert rows[0].startswith("| :x: |") and "#### " not in said.out and "--run NAME" in said.err


@pytest.mark.parametrize("options", [[], ["--json"], ["--fail-on", "warning"]])
def test_a_reader_may_stop_early(logdir: Path, options: list[str]) -> None:
    """As in ``bnlens report LOGDIR | head``."""
    command = [sys.executable, "-m", "tb_bnlens", "report", str(logdir), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout and running.stderr
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == (FOUND if options == ["--fail-on", "warning"] else OK)


def test_markdown(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(logdir), "--markdown", "--all"]) == OK
    out = capsys.readouterr().out
    assert out.isascii() and out.count("\n### ") == 1 and out.startswith("### ")
    assert "| loss |" in out and "```python" in out


def test_html(logdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.html"
    assert main(["report", str(logdir), "--html", str(file)]) == OK
    said = capsys.readouterr()
    assert said.out == "" and str(file) in said.err
    assert file.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert main(["report", str(logdir), "--html", str(tmp_path / "missing" / "x.html")]) == UNREADABLE


def test_fail_on(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(logdir), "--run", "slow", "--json"]) == OK
    severity = json.loads(capsys.readouterr().out)["runs"][0]["severity"]
    assert severity in ("warning", "error")
    assert main(["report", str(logdir), "--run", "slow", "--fail-on", "warning"]) == FOUND
    assert main(["report", str(logdir), "--run", "slow", "--fail-on", "error"]) == (
        FOUND if severity == "error" else OK
    )


def test_an_unknown_run_names_those_that_exist(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(logdir), "--run", "nope"]) == UNREADABLE
    error = capsys.readouterr().err
    assert "nope" in error and "fast" in error


def test_no_record_and_no_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == UNREADABLE
    assert "BNLens" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "missing")]) == UNREADABLE
    assert "missing" in capsys.readouterr().err


def test_wrong_usage_is_2() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["report"])
    assert stopped.value.code == 2


def test_the_command_line_loads_no_tensorflow(logdir: Path) -> None:
    code = (
        "import sys; from tb_bnlens.cli import main; "
        f"main(['report', {str(logdir)!r}, '--json']); "
        "sys.exit(any(m.split('.')[0] in ('tensorflow', 'keras', 'werkzeug') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"bnlens {tb_bnlens.__version__}\n"


def test_a_run_without_a_finite_inference_loss_stands_before_any_harm() -> None:
    def judged(name: str, inference: float) -> Overview:
        return run_report(replace(measured(level(), inference=inference, batch=1.0, recalibrated=1.0), run=name))

    runs = [judged("worse", 100.0), judged("infinite", math.inf), judged("fine", 1.0)]
    assert [name for name, _ in ranked(runs)] == ["infinite", "worse", "fine"]

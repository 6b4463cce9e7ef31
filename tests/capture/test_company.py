"""A lens among other processes, forks and threads, and interrupted in the middle of a step."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tb_bnlens.report import run_report
from tests.capture import models
from tests.capture.runs import alone, assert_clean, assert_unharmed, fit, lens, record, state
from tests.capture.setups import DROPOUT, Setup
from tests.capture.test_fits import AtStep
from tests.conftest import ROOT


def test_two_processes_in_one_directory(tmp_path: Path) -> None:
    """Both train to their end, and what is left can be read; the later start is told as a restart."""
    script = textwrap.dedent(
        """
        import pathlib, sys
        from tests.capture.runs import fit, lens
        from tests.capture.setups import DROPOUT
        from tests.capture.test_fits import AtStep

        def wait(_):
            print("recording", flush=True)
            sys.stdin.readline()

        fit(DROPOUT, lens(pathlib.Path(sys.argv[1])), AtStep(3, wait))
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin and other.stdout
        assert other.stdout.readline() == "recording\n"

        def go_on(_: Any) -> None:
            assert other.stdin
            other.stdin.write("\n")
            other.stdin.flush()
            assert other.wait(120) == 0

        model = fit(DROPOUT, lens(tmp_path), AtStep(5, go_on))
    assert_unharmed(model)
    assert len(list((tmp_path / "run" / "bn_lens").iterdir())) == 2
    read = record(tmp_path)
    assert read.last_step == 8 and np.all(np.diff(read.steps) > 0)
    assert "restart" in [event.kind for event in read.manifest.events]
    assert run_report(read)["layers"]


# TensorFlow's threads are not in the child, which does not use it.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
def test_a_fork_in_mid_run(tmp_path: Path) -> None:
    """As data loaders fork: what the child inherits of the record is not written twice."""

    def fork(_: Any) -> None:
        child = multiprocessing.get_context("fork").Process(target=int)
        child.start()
        child.join(60)
        assert child.exitcode == 0

    model = fit(DROPOUT, lens(tmp_path), AtStep(3, fork))
    assert_unharmed(model)
    read = record(tmp_path)
    assert read.steps.tolist() == list(range(1, 9)) and not read.problems


def test_fits_in_threads_at_once(tmp_path: Path) -> None:
    made = [DROPOUT.make() for _ in range(2)]
    failures: list[BaseException] = []
    together = threading.Barrier(2)

    def run(i: int) -> None:
        try:
            together.wait(60)
            fit(DROPOUT, lens(tmp_path / str(i)), model=made[i])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert not failures
    for i, model in enumerate(made):
        assert_clean(model)
        ended = state(model)
        # The data of both are drawn from the one generator of Python and NumPy.
        assert {k: v.shape for k, v in ended.items() if k.startswith("weights")} == {
            k: v.shape for k, v in alone().items() if k.startswith("weights")
        }
        read = record(tmp_path / str(i))
        assert read.last_step == 8 and not read.problems and np.isfinite(read.loss("inference")).all()


class Interrupting(keras.layers.Layer):  # type: ignore[misc]
    """Ctrl-C at one of its calls."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.calls = at, 0

    def call(self, x: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return x


@pytest.mark.parametrize("at", [7, 8, 9])
def test_an_interrupt_inside_of_a_step_or_a_probe(at: int, tmp_path: Path) -> None:
    """It ends ``fit`` as it should, wherever it comes, and a further ``fit`` trains and records."""
    setup = Setup("", lambda: models.functional(Interrupting(at)), compile={"loss": "mse", "run_eagerly": True})
    model, ours = setup.make(), lens(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(setup, ours, model=model)
    fit(setup, ours, model=model, epochs=1)
    assert_clean(model)
    assert record(tmp_path).last_step is not None

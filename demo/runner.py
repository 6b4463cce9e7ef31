"""Train the runs of a story one after the other, print the report, serve the tab."""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from tb_bnlens import console

STORIES = ("band-locator", "pose-network", "pretrained-base", "frozen-base")
IN_TORCH = ("band-locator-torch",)
"""Stories that need PyTorch in place of TensorFlow."""


def train(stories: Sequence[str], logdir: Path, full: bool) -> None:
    """Train every run of these stories into ``logdir/<story>/<run>``.

    Raises:
        FileExistsError: the directory has something in it; old records would mix with the new ones.
    """
    if logdir.exists() and any(logdir.iterdir()):
        raise FileExistsError(f"{logdir} is not empty; name a new directory, or delete it first")
    if set(stories) - set(IN_TORCH):
        print("Loading TensorFlow ...", flush=True)
        with console.quiet_start():
            importlib.import_module("tensorflow")
    for story in stories:
        module = importlib.import_module(f"demo.{story.replace('-', '_')}")
        runs = getattr(module, "FULL_RUNS", module.RUNS) if full else module.RUNS
        print(f"\n{str(module.__doc__).splitlines()[0]}")
        for number, (name, run) in enumerate(runs.items(), 1):
            print(f"\n[{story}, run {number} of {len(runs)}] {name}: compiling takes a while first", flush=True)
            started = time.perf_counter()
            run(str(logdir / story / name))
            print(f"[{story}, run {number} of {len(runs)}] {name}: {time.perf_counter() - started:.0f} s", flush=True)


def report(logdir: Path) -> None:
    """Print what ``python -m tb_bnlens report --all`` says."""
    print(f"\n$ python -m tb_bnlens report {logdir} --all\n", flush=True)
    subprocess.run([sys.executable, "-m", "tb_bnlens", "report", str(logdir), "--all"], check=True)


def serve(logdir: Path, port: int | None) -> None:
    """Serve TensorBoard until Ctrl-C, and print the address of the tab."""
    from tensorboard import program

    # Without --port TensorBoard takes the next free one when 6006 is in use. A requested port that is not
    # free is no reason to lose the address after all that training either.
    asked = [] if port is None else ["--port", str(port)]
    try:
        address = _launch(program, logdir, asked)
    except program.TensorBoardServerException as e:
        print(f"\n{e}; taking a free port instead.", file=sys.stderr)
        address = _launch(program, logdir, ["--port", "0"])
    print(f"\nBN Lens is at {address}#bn_lens  (Ctrl-C to stop)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def _launch(program: ModuleType, logdir: Path, arguments: list[str]) -> str:
    board = program.TensorBoard()
    board.configure(argv=["tensorboard", "--logdir", str(logdir), *arguments])
    return str(board.launch())

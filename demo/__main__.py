"""``python -m demo [STORY]``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from demo import runner


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Train a story of the README, print the report on it and serve TensorBoard with the BN Lens tab.",
    )
    parser.add_argument("story", nargs="?", default="band-locator", choices=[*runner.STORIES, *runner.IN_TORCH, "all"])
    parser.add_argument("--logdir", type=Path, help="a new directory for the record (default: runs/demo-<time>)")
    parser.add_argument(
        "--full",
        action="store_true",
        help="the band locator as it happened: 32x320 images, batches of 100 (5 minutes a run and more on two cores)",
    )
    parser.add_argument("--serve", action=argparse.BooleanOptionalAction, default=True, help="serve TensorBoard")
    parser.add_argument("--port", type=int, help="of TensorBoard (default: 6006 or the next free one)")
    arguments = parser.parse_args()
    logdir = arguments.logdir or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    stories = runner.STORIES if arguments.story == "all" else (arguments.story,)
    try:
        runner.train(stories, logdir, arguments.full)
    except FileExistsError as e:
        parser.error(str(e))
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    runner.report(logdir)
    if arguments.serve:
        runner.serve(logdir, arguments.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())

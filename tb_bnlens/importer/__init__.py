"""A record of a run that never had the callback, from the checkpoints that it left.

Two snapshots of the moving statistics are enough to recover the batch statistics that they were chasing.
"""

from __future__ import annotations

from pathlib import Path

from tb_bnlens.importer.saved import CannotImport
from tb_bnlens.importer.series import Series, read_series
from tb_bnlens.metadata import KERAS, RUN_SUFFIX, TORCH

__all__ = ["CannotImport", "import_checkpoints"]


def import_checkpoints(
    directory: str,
    out: str,
    *,
    run: str | None = None,
    momentum: float | None = None,
    epsilon: float | None = None,
    steps_per_epoch: int | None = None,
    from_scratch: bool = False,
) -> Series:
    """Write the record of a series of checkpoints to ``<out>/<run>/bn_lens``.

    Args:
        directory: holds ``.keras`` files, ``.weights.h5`` files, TensorFlow checkpoints, or PyTorch's ``.safetensors``
            files or files of ``torch.save``.
        out: TensorBoard log directory.
        run: name of the run; the directory's where it is not given. It may name a directory below ``out``.
        momentum: of every layer, in place of what the files say. For checkpoints of PyTorch it is PyTorch's momentum,
            the share of the new batch.
        epsilon: likewise.
        steps_per_epoch: training steps between two of the numbers in the files' names; not needed where contents or
            names carry steps.
        from_scratch: the run began at step 0 with fresh statistics (mean 0, variance 1), which counts as a snapshot.

    Returns:
        What was imported, with a sentence for everything that was left out.

    Raises:
        CannotImport: nothing was written; the message says why and what to do.
        OSError: the record cannot be written there.
        ModuleNotFoundError: TensorFlow, Keras or h5py is not installed.
    """
    if steps_per_epoch is not None and steps_per_epoch < 1:
        raise CannotImport(f"--steps-per-epoch is {steps_per_epoch}; expected 1 or more")
    if momentum is not None and not 0 <= momentum <= 1:
        raise CannotImport(f"--momentum is {momentum:g}; expected what the layers were built with, in [0, 1]")
    if epsilon is not None and not epsilon > 0:
        raise CannotImport(f"--epsilon is {epsilon:g}; expected what the layers were built with, above 0")
    source = Path(directory).expanduser()
    target = _inside(out, run or source.resolve().name)
    record = target / RUN_SUFFIX
    if record.is_dir() and any(record.iterdir()):
        raise CannotImport(f"{record} holds a record already; give --run another name, or delete it")
    series = read_series(source, steps_per_epoch, least=1 if from_scratch else 2)

    from tb_bnlens.capture.log import RunLog
    from tb_bnlens.importer.constants import Constants
    from tb_bnlens.importer.record import TOLERANCE, Replay

    constants = Constants(momentum, epsilon, torch=series.torch)
    log = RunLog(str(target), TOLERANCE, None)
    log.framework = TORCH if series.torch else KERAS
    replay = Replay(series, constants, log, from_scratch=from_scratch)
    # TensorFlow's writer raises its own errors for a place that cannot be written to, and they say less.
    target.mkdir(parents=True, exist_ok=True)
    log.open()
    log.note(
        f"Made after training from {len(series.checkpoints)} checkpoints in {source.resolve().name}, steps "
        f"{series.steps[0]:,} to {series.steps[-1]:,}. Wall times are those of the import."
    )
    for sentence in constants.notes():
        log.note(sentence)
    for note in series.notes:
        log.note(note)
    replay.write()
    log.close()
    return series


def _inside(out: str, run: str) -> Path:
    """The directory of a run, which lies in ``out``."""
    if "://" in out:
        raise CannotImport(f"--out is {out!r}; expected a directory of this machine")
    root = Path(out).expanduser()
    target = root / run
    if not target.resolve().is_relative_to(root.resolve()):
        raise CannotImport(f"--run is {run!r}, which leads out of {out!r}; expected the name of a run in it")
    return target

"""The checkpoints of a directory as one series of one network by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tb_bnlens.importer.apart import Apart
from tb_bnlens.importer.saved import BadCheckpoint, CannotImport, Checkpoint
from tb_bnlens.importer.steps import NamedNumber, number_in

KERAS, WEIGHTS, TENSORFLOW, SAFETENSORS = ".keras", ".weights.h5", ".index", ".safetensors"
TORCH = (".pt", ".pth", ".ckpt", ".bin")
ENDINGS = (KERAS, WEIGHTS, TENSORFLOW, SAFETENSORS, *TORCH)
EXPECTED = (
    "model.keras files, *.weights.h5 files, TensorFlow checkpoints (*.index), or PyTorch's (*.safetensors, *.pt, *.pth)"
)
LARGEST_STEP = 2**40
"""As the reader of records has it."""


@dataclass(frozen=True)
class Series:
    """Checkpoints of one network in the order of their steps, each step once."""

    steps: tuple[int, ...]
    checkpoints: tuple[Checkpoint, ...]
    notes: tuple[str, ...]
    """Sentences on what was left out."""

    @property
    def torch(self) -> bool:
        """Whether they are checkpoints of PyTorch."""
        return self.checkpoints[0].torch


def read_series(directory: Path, steps_per_epoch: int | None, least: int) -> Series:
    """Read every checkpoint that lies in a directory.

    Args:
        directory: where to look. Subdirectories are other series.
        steps_per_epoch: steps between two numbers in the names; None if contents or names give the step.
        least: the number of checkpoints that is needed.

    Raises:
        CannotImport: fewer checkpoints of one network have a known step.
    """
    files = _find(directory)
    readable, notes = _read(files)
    if not readable:
        raise CannotImport(f"{directory}: none of {len(files)} checkpoints can be read. {' '.join(notes)}")
    with_layers = [c for c in readable if c.layers]
    notes += [f"{c.path.name} was left out: it holds no BatchNorm layer." for c in readable if not c.layers]
    if not with_layers:
        raise CannotImport(
            f"{directory}: no BatchNorm layer in {_count(readable)}, for example {readable[0].path.name}; expected "
            "moving means and variances. Without BatchNorm there is nothing to report."
        )
    fitting, others = _of_one_network(with_layers)
    notes += others
    stepped, unnumbered = _numbered(fitting, steps_per_epoch)
    notes += unnumbered
    series: dict[int, Checkpoint] = {}
    for step, checkpoint in stepped:
        if step in series:
            notes.append(f"{checkpoint.path.name} was left out: {series[step].path.name} has step {step:,} too.")
        else:
            series[step] = checkpoint
    if len(series) < least:
        raise CannotImport(
            f"{directory}: {_count(list(series.values()))} of one network at different steps; expected at least "
            f"{least}, as batch statistics are recovered from the change between two. "
            + (" ".join(notes) + " " if notes else "")
            + "Save more (keras.callbacks.ModelCheckpoint with {epoch} in the name), or give --from-scratch "
            "if training started at step 0 with freshly initialized statistics."
        )
    steps = sorted(series)
    return Series(tuple(steps), tuple(series[step] for step in steps), tuple(notes))


def _find(directory: Path) -> list[Path]:
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise CannotImport(f"{directory} {what}; expected a directory with {EXPECTED}")
    inside = sorted(directory.iterdir())
    found = [p for kind in ENDINGS for p in inside if p.name.endswith(kind) and p.is_file()]
    if not found:
        came = ", ".join(p.name for p in inside[:3]) + (", ..." if len(inside) > 3 else "")
        raise CannotImport(f"{directory} holds {came or 'nothing'}; expected {EXPECTED}, not in its subdirectories")
    return found


def _reader(path: Path, apart: Apart) -> tuple[Callable[[Path], Checkpoint], Path]:
    # Each kind needs another library, and a directory rarely holds more than one.
    if path.name.endswith(TENSORFLOW):
        from tb_bnlens.importer.tf_checkpoints import read_tf

        return read_tf, path.with_name(path.name.removesuffix(TENSORFLOW))
    if path.name.endswith((SAFETENSORS, *TORCH)):
        from tb_bnlens.importer.torch_files import read_safetensors, read_torch

        return (read_safetensors if path.name.endswith(SAFETENSORS) else read_torch), path
    return (apart.read_keras if path.name.endswith(KERAS) else apart.read_weights), path


def _read(files: Sequence[Path]) -> tuple[list[Checkpoint], list[str]]:
    readable, notes = [], []
    with Apart() as apart:
        for path in files:
            read, source = _reader(path, apart)
            try:
                readable.append(read(source))
            except BadCheckpoint as error:
                notes.append(f"{path.name} was left out: {error}. Copy it again, or delete it.")
    return readable, notes


def _of_one_network(checkpoints: Sequence[Checkpoint]) -> tuple[list[Checkpoint], list[str]]:
    counts = Counter(c.layout for c in checkpoints)
    # Among equally frequent layouts this is the first. Whole models, whose config says more, were read first.
    chosen = counts.most_common(1)[0][0]
    expected = {name: channels for name, channels, _ in chosen}
    notes = []
    for c in checkpoints:
        if c.layout == chosen:
            continue
        came = {name: channels for name, channels, _ in c.layout}
        differing = sorted(n for n in came.keys() | expected.keys() if came.get(n) != expected.get(n))
        which = f"; they differ in {', '.join(differing[:3])}{', ...' if len(differing) > 3 else ''}" * bool(differing)
        notes.append(
            f"{c.path.name} was left out: it has {_layers(came)}, and {counts[chosen]} of {len(checkpoints)} "
            f"checkpoints have {_layers(expected)}{which}. Put checkpoints of another network in another "
            "directory."
        )
    fitting = [c for c in checkpoints if c.layout == chosen]
    return _in_one_order(fitting), notes


def _in_one_order(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Layers in the same order in all checkpoints, with the config next to files that hold weights only."""
    model = next((c for c in checkpoints if c.configured), checkpoints[0])
    ordered = []
    for c in checkpoints:
        by_name = {layer.name: layer for layer in c.layers}
        layers = tuple(
            replace(by_name[like.name], settings=by_name[like.name].settings or like.settings) for like in model.layers
        )
        ordered.append(replace(c, layers=layers))
    return ordered


def _layers(of: dict[str, int]) -> str:
    return f"{len(of)} BatchNorm layer{'' if len(of) == 1 else 's'} ({sum(of.values()):,} channels)"


def _numbered(
    checkpoints: Sequence[Checkpoint], steps_per_epoch: int | None
) -> tuple[list[tuple[int, Checkpoint]], list[str]]:
    trusted = _trusts_counts(checkpoints)
    numbered, unclear, notes = [], [], []
    for c in checkpoints:
        number = number_in(_stem(c.path.name))
        step = c.iterations if trusted and c.iterations is not None else _step(number, steps_per_epoch)
        if step is not None:
            numbered.append((step, c))
        elif number is not None:
            unclear.append((number.number, c))
        else:
            notes.append(
                f"{c.path.name} was left out: neither its name nor its content gives a step. Name it like step_1200 "
                "or epoch_03."
            )
    if unclear and not numbered:
        n, c = unclear[0]
        raise CannotImport(
            f"{c.path}: its content gives no step, and the number {n} in its name may count epochs or saves. "
            "Give the steps between two such numbers with --steps-per-epoch N (1 if the number is the step)"
        )
    notes += [
        f"{c.path.name} was left out: its number {n} may count epochs, and --steps-per-epoch is not given."
        for n, c in unclear
    ]
    possible = range(LARGEST_STEP + 1)
    notes += [
        f"{c.path.name} was left out: its step is {step:,}; expected 0 to {LARGEST_STEP:,}."
        for step, c in numbered
        if step not in possible
    ]
    return [(step, c) for step, c in numbered if step in possible], notes


def _trusts_counts(checkpoints: Sequence[Checkpoint]) -> bool:
    """Whether the optimizer's counts are those of this training."""
    # A count that never changes comes from an optimizer that did not train these weights.
    counts = {c.iterations for c in checkpoints}
    return len(counts - {None}) > 1 or (len(checkpoints) == 1 and counts != {0})


def _step(number: NamedNumber | None, steps_per_epoch: int | None) -> int | None:
    """The step that a number in a name stands for, None where it may count epochs of unknown length."""
    if number is None or number.is_step:
        return None if number is None else number.number
    return None if steps_per_epoch is None else number.number * steps_per_epoch


def _stem(name: str) -> str:
    return name.removesuffix(next((ending for ending in ENDINGS if name.endswith(ending)), ""))


def _count(of: Sequence[object]) -> str:
    return f"{len(of)} checkpoint{'' if len(of) == 1 else 's'}"

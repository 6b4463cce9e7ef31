"""Records made from checkpoints of PyTorch: exact counts, its momentum, and files that lie.

``tests/frameworks/test_torch_checkpoints.py`` reads what ``torch.save`` writes, where PyTorch is installed.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tb_bnlens.cli import UNREADABLE
from tb_bnlens.history import History
from tb_bnlens.importer import CannotImport, import_checkpoints
from tb_bnlens.importer.saved import BadCheckpoint
from tb_bnlens.importer.torch_files import read_safetensors
from tb_bnlens.reader import open_logdir, read_channels, read_run

pytest.importorskip("tensorflow")  # it writes the record
MOMENTUM = 0.1
CODES = {"f4": "F32", "f8": "F64", "f2": "F16", "i8": "I64", "u2": "BF16"}


def safetensors(path: Path, state: dict[str, Any], **header: Any) -> Path:
    """Write the format: the length of a header, the header as JSON, and the numbers."""
    at, entries, raw = 0, dict(header), b""
    for name, value in state.items():
        array = np.asarray(value)
        entries[name] = {
            "dtype": CODES[array.dtype.str[1:]],
            "shape": list(array.shape),
            "data_offsets": [at, at := at + array.nbytes],
        }
        raw += array.tobytes()
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw)
    return path


def state(count: int, goal: float = 3.0, prefix: str = "module.") -> dict[str, Any]:
    """A layer that starts at 0 and 1 and has averaged ``count`` batches of mean ``goal`` and variance 4."""
    left = (1 - MOMENTUM) ** count
    return {
        f"{prefix}body.0.bn.weight": np.ones(4, np.float32),
        f"{prefix}body.0.bn.running_mean": np.full(4, goal * (1 - left), np.float32),
        f"{prefix}body.0.bn.running_var": np.full(4, 4 + (1 - 4) * left, np.float32),
        f"{prefix}body.0.bn.num_batches_tracked": np.int64(count),
        f"{prefix}head.running_mean": np.zeros(2, np.float64),
        f"{prefix}head.running_var": np.ones(2, np.float64),
    }


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def imported(directory: Path, **options: Any) -> History:
    import_checkpoints(str(directory), str(directory.parent / "logs"), **{"momentum": MOMENTUM, **options})
    return read_run(open_logdir(directory.parent / "logs"), "", "run")


def test_the_layers_own_counts_are_exact(directory: Path) -> None:
    """Epoch numbers say nothing of steps, and the last epoch was a short one."""
    for epoch, count in ((1, 10), (2, 20), (3, 23)):
        safetensors(directory / f"epoch_{epoch}.safetensors", state(count))
    history = imported(directory)
    assert [layer.name for layer in history.manifest.layers] == ["body.0.bn", "head"]
    assert history.manifest.framework == "torch"
    assert history.steps.tolist() == [10, 20, 23]
    assert history.row("updates")[:, 0].tolist() == [0, 10, 13]
    assert history.last("momentum")[0] == pytest.approx(0.9)
    seen = read_channels(open_logdir(directory.parent / "logs"), "", "run", 0)
    assert seen.row("batch_mean")[-1] == pytest.approx([3] * 4, rel=1e-4)
    assert seen.row("batch_variance")[-1] == pytest.approx([4] * 4, rel=1e-4)
    notes = " ".join(history.manifest.notes)
    assert "PyTorch's default of 1e-05" in notes and "unbiased" in notes
    assert "share that is kept" not in notes, "a record of PyTorch is shown with PyTorch's momentum"
    assert history.manifest.layers[0].epsilon == 1e-5


def test_from_scratch_counts_from_zero(directory: Path) -> None:
    safetensors(directory / "model.safetensors", state(30))
    assert imported(directory, from_scratch=True).row("updates")[:, 0].tolist() == [0, 30]


def test_a_momentum_is_needed_and_is_the_one_of_pytorch(directory: Path) -> None:
    for count in (10, 20):
        safetensors(directory / f"step_{count}.safetensors", state(count))
    with pytest.raises(CannotImport, match=r"their default is 0\.1"):
        imported(directory, momentum=None)
    notes = " ".join(imported(directory, momentum=0.9).manifest.notes)
    assert "If 0.9 was meant as the share that is kept, give --momentum 0.1" in notes


def test_half_precision_and_wrappers(tmp_path: Path) -> None:
    bfloat16 = (np.array([1.5, -2.0], "f4").view(np.uint32) >> 16).astype(np.uint16)
    path = safetensors(
        tmp_path / "x.safetensors",
        {
            "state_dict._orig_mod.bn.running_mean": bfloat16,
            "state_dict._orig_mod.bn.running_var": np.array([4, 0.25], "f2"),
        },
    )
    (layer,) = read_safetensors(path).layers
    assert (layer.name, layer.mean.tolist(), layer.spread.tolist()) == ("bn", [1.5, -2.0], [4.0, 0.25])


def entry(**changes: Any) -> bytes:
    body = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}
    text = json.dumps({"bn.running_mean": body, "bn.running_var": body}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(16)


LIES = {
    "empty": b"",
    "a header longer than the file": struct.pack("<Q", 2**62) + b"{}",
    "no JSON": struct.pack("<Q", 2) + b"{]",
    "no object": struct.pack("<Q", 2) + b"[]" + bytes(8),
    "a huge shape": entry(shape=[2**40]),
    "an offset behind the end": entry(data_offsets=[0, 2**40]),
    "a negative offset": entry(data_offsets=[-16, 0]),
    "an unknown type": entry(dtype="U128"),
    "too few bytes": entry(data_offsets=[0, 4]),
    "text for a shape": entry(shape="4"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_safetensors_file_that_lies_is_left_out(tmp_path: Path, lie: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(LIES[lie])
    with pytest.raises(BadCheckpoint, match="safetensors"):
        read_safetensors(tmp_path / "x.safetensors")


def test_random_damage_is_no_crash(tmp_path: Path) -> None:
    whole = safetensors(tmp_path / "x.safetensors", state(10)).read_bytes()
    draw = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        raw = np.frombuffer(whole, np.uint8).copy()
        raw[draw.integers(min(500, len(raw)), size=3)] = draw.integers(256, size=3)
        (tmp_path / "x.safetensors").write_bytes(
            raw.tobytes()[: draw.integers(len(raw)) if draw.random() < 0.2 else None]
        )
        try:
            read_safetensors(tmp_path / "x.safetensors")
        except BadCheckpoint:
            refused += 1
    assert refused > 50


# --- files of torch.save --------------------------------------------------------------------------------


def test_without_pytorch_it_says_what_to_install(directory: Path) -> None:
    (directory / "a.pt").write_bytes(b"")
    code = (
        "import sys; sys.modules['torch'] = None; from tb_bnlens.cli import main; "
        f"sys.exit(main(['import', {str(directory)!r}, '--out', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == UNREADABLE and done.stderr.endswith("run: pip install torch\n")

"""Checkpoints that ``torch.save`` wrote, as ``bnlens import`` reads them. They need no TensorFlow."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tb_bnlens.importer.saved import BadCheckpoint
from tb_bnlens.importer.torch_files import read_torch


class Network(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
        self.head = torch.nn.BatchNorm1d(2, dtype=torch.bfloat16)

    def forward(self, x: Any) -> Any:
        return self.head(self.body(x).mean((2, 3))[:, :2].bfloat16())


@pytest.fixture
def network() -> Network:
    made = Network()
    for _ in range(7):
        made(torch.randn(8, 3, 5, 5))
    return made


def test_a_state_dict(network: Network, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "x.pt")
    found = read_torch(tmp_path / "x.pt")
    assert [(layer.name, layer.updates, len(layer.mean)) for layer in found.layers] == [
        ("body.1", 7, 4),
        ("head", 7, 2),
    ]
    assert found.layers[0].mean.tolist() == network.body[1].running_mean.tolist()
    assert found.layers[1].spread.tolist() == network.head.running_var.tolist()
    assert found.iterations == 7 and found.torch


@pytest.mark.parametrize("legacy", [False, True])
def test_what_training_loops_save(network: Network, tmp_path: Path, legacy: bool) -> None:
    optimizer = torch.optim.Adam(network.parameters())
    wrapped = {f"module.{name}": value for name, value in network.state_dict().items()}
    saved = {"epoch": 3, "global_step": 1200, "state_dict": wrapped, "optimizer_states": [optimizer.state_dict()]}
    torch.save(saved, tmp_path / "x.ckpt", _use_new_zipfile_serialization=not legacy)
    found = read_torch(tmp_path / "x.ckpt")
    assert [layer.name for layer in found.layers] == ["body.1", "head"] and found.iterations == 1200


def test_a_whole_model_is_refused(network: Network, tmp_path: Path) -> None:
    torch.save(network, tmp_path / "x.pt")
    with pytest.raises(BadCheckpoint, match=r"save model\.state_dict\(\)"):
        read_torch(tmp_path / "x.pt")


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, legacy: bool) -> None:
    torch.save({"model": Hostile(tmp_path / "owned")}, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(BadCheckpoint):
        read_torch(tmp_path / "x.pt")
    assert not (tmp_path / "owned").exists()


def test_a_compressed_archive_is_not_unpacked(network: Network, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as whole, zipfile.ZipFile(tmp_path / "y.pt", "w", 8) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(BadCheckpoint, match="it is compressed"):
        read_torch(tmp_path / "y.pt")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    try:
        assert read_torch(tmp_path / "x.pt").layers == ()
    except BadCheckpoint as error:
        assert "\n" not in str(error)

"""Log directories at the URLs that TensorBoard accepts."""

from __future__ import annotations

import posixpath
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.compat.tensorflow_stub.io import gfile

from tb_bnlens.cli import OK, UNREADABLE, main
from tb_bnlens.reader import list_runs, open_logdir, read_run
from tests.fixtures.runs import write_run


class Bucket:
    """A file system as TensorBoard's layer takes one, over a directory."""

    def __init__(self, root: Path) -> None:
        self.root, self.reads = root, 0

    def _path(self, url: Any) -> Path:
        text = url.decode() if isinstance(url, bytes) else url
        return self.root / text.removeprefix("bucket://").lstrip("/")

    def join(self, *parts: str) -> str:
        return posixpath.join(*parts)

    def isdir(self, url: str) -> bool:
        return self._path(url).is_dir()

    def listdir(self, url: str) -> list[str]:
        return [path.name for path in self._path(url).iterdir()]

    def read(self, url: str, binary_mode: bool = False, size: Any = None, continue_from: Any = None) -> Any:
        self.reads += 1
        if "broken" in url:
            raise RuntimeError("403 Forbidden\nand much more")
        return self._path(url).read_bytes(), None


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    made = Bucket(tmp_path)
    monkeypatch.setitem(gfile._REGISTERED_FILESYSTEMS, "bucket", made)
    yield made


def test_a_url_of_another_file_system(bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "logs" / "deep" / "exp", steps=20)
    write_run(tmp_path / "logs" / "broken", steps=20)
    data = open_logdir("bucket://logs/")
    assert [run.name for run in list_runs(data)] == ["deep/exp"]
    history = read_run(data, "", "deep/exp")
    assert history.last_step == 20 and not history.problems
    assert bucket.reads == 2, "listing and reading fetch a file once"
    assert main(["report", "bucket://logs", "--run", "deep/exp"]) == OK
    assert "deep/exp  (step 20" in capsys.readouterr().out
    assert main(["report", "bucket://logs"]) == UNREADABLE, "of a run that cannot be read"
    said = capsys.readouterr()
    assert "deep/exp" in said.out and "? broken: " in said.out and "403 Forbidden" in said.err


def test_file_urls(tmp_path: Path) -> None:
    write_run(tmp_path / "a b" / "exp", steps=3)
    assert [run.name for run in list_runs(open_logdir((tmp_path / "a b").as_uri()))] == ["exp"]
    with pytest.raises(FileNotFoundError, match="names the machine 'host'"):
        open_logdir("file://host/logs")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [("nothing://x", "pip install fsspec"), ("bucket://missing", "is not a directory"), ("file:///missing", "is not")],
)
def test_what_cannot_be_opened(url: str, sentence: str, bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", url]) == UNREADABLE
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def test_a_local_path_loads_no_file_system_layer(tmp_path: Path) -> None:
    write_run(tmp_path / "exp", steps=3)
    code = (
        "import sys; from tb_bnlens.cli import main; "
        f"main(['report', {str(tmp_path)!r}, '--json']); "
        "sys.exit(any(m.split('.')[0] in ('fsspec', 'boto3') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0

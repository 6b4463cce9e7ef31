"""Wheel and source distribution of a clean clone are complete, and Node is not needed to build them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import tb_bnlens
from tests.conftest import ROOT, skip_unless_ci

pytestmark = pytest.mark.package


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        skip_unless_ci("the sources are no git clone, or there is no git")
    path = tmp_path_factory.mktemp("clone") / "clone"
    subprocess.run([git, "clone", "--quiet", str(ROOT), str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def wheel(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(work), str(clone)],
        check=True,
        # Nothing but Python can be found, least of all Node.
        env={name: value for name, value in os.environ.items() if name != "PATH"} | {"PATH": str(work / "nowhere")},
    )
    (built,) = work.glob("*.whl")
    return built


def test_it_holds_the_package_and_the_bundle(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(next(name for name in names if name.endswith("entry_points.txt")))
    assert b"bn_lens = tb_bnlens.plugin.loader:BNLensLoader" in entry_points
    assert b"bnlens = tb_bnlens.cli:main" in entry_points
    assert f"-{tb_bnlens.__version__}-" in wheel.name
    for name in ("index.js", "index.css", "LICENSES.md"):
        assert f"tb_bnlens/static/{name}" in names
    assert "tb_bnlens/py.typed" in names
    assert [name for name in names if ".dist-info/" in name and name.endswith("LICENSE")]
    for path in (ROOT / "tb_bnlens").rglob("*.py"):
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", path], cwd=ROOT, capture_output=True, check=False
        )
        assert tracked.returncode or path.relative_to(ROOT).as_posix() in names
    assert not [name for name in names if name.startswith(("tests/", "demo/", "frontend/"))]


def test_the_source_distribution_can_test_itself(clone: Path, tmp_path: Path) -> None:
    pytest.importorskip("build")
    command = [sys.executable, "-m", "build", "--sdist", "--outdir", str(tmp_path), str(clone)]
    subprocess.run(command, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        held = {name.partition("/")[2] for name in packed.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=clone, capture_output=True, text=True, check=True).stdout.split()
    # What only a git clone uses.
    assert {name for name in tracked if name not in held} <= {".gitignore"}


def test_it_installs_beside_tensorboard_alone(wheel: Path, viewer_python: str, tmp_path: Path) -> None:
    target = tmp_path / "site"
    install = [viewer_python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, env=os.environ | {"PATH": str(tmp_path)})
    code = "import tb_bnlens.plugin.static_files as s; print(*s.bundle()); print(s.STATIC); s.content('index.js')"
    done = subprocess.run(
        [viewer_python, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(target)},
    )
    names, place = done.stdout.splitlines()
    assert names == "index.css index.js"
    assert place == str(target / "tb_bnlens" / "static")

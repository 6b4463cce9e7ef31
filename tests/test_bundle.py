"""The committed bundle is the one that the sources in frontend/ build; told from its banner, without Node."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FRONTEND = ROOT / "frontend"
STATIC = ROOT / "tb_bnlens" / "static"
FILES = ("package-lock.json", "package.json", "tsconfig.json", "vite.config.mjs", "scripts/source_hash.mjs")
HOME = re.search(r'^Homepage = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]  # type: ignore[index]
WHAT_TO_RUN = 'Run "npm ci && npm run build" in frontend/ and commit tb_bnlens/static.'


def source_hash(frontend: Path) -> str:
    """SHA-256 over path and content of every source, as frontend/scripts/source_hash.mjs computes it."""
    walked = (path.relative_to(frontend).as_posix() for path in (frontend / "src").rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in sorted([*FILES, *walked]):
        digest.update(f"{path}\0".encode())
        digest.update((frontend / path).read_bytes())
        digest.update(b"\0")
    return digest.hexdigest()


@pytest.mark.parametrize("name", ["index.js", "index.css"])
def test_bundle_is_built_from_the_sources(name: str) -> None:
    bundle = STATIC / name
    assert bundle.is_file(), f"{bundle} is missing. {WHAT_TO_RUN}"
    banner = bundle.read_text(encoding="utf-8").split("\n", 1)[0]
    stamped = re.search(r"sources:([0-9a-f]{64})", banner)
    assert stamped, f"{name} has no banner with a hash of its sources. {WHAT_TO_RUN}"
    assert stamped[1] == source_hash(FRONTEND), f"{name} was not built from the sources as they are. {WHAT_TO_RUN}"


def test_hash_changes_with_a_source(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "src").mkdir()
    source = tmp_path / "src" / "a.ts"
    source.write_text("one")
    before = source_hash(tmp_path)
    source.write_text("two")
    assert source_hash(tmp_path) != before


def test_bundle_is_one_script_one_stylesheet_and_the_licences() -> None:
    assert sorted(path.name for path in STATIC.iterdir()) == ["LICENSES.md", "index.css", "index.js"]


def test_bundle_names_no_other_origin_and_renders() -> None:
    script = (STATIC / "index.js").read_text(encoding="utf-8")
    assert re.search(r"export\s*\{[^}]*\bas render\b[^}]*\}|export\s*\{\s*render\s*\}", script)
    # Names that are never fetched: the XML namespaces that the DOM wants, and links that a reader follows.
    known = ("http://www.w3.org/", HOME)
    addresses = {a for a in re.findall(r"https?://[\w./-]+", script) if not a.startswith(known)}
    assert not addresses, f"the tab must work without a network, but the bundle names {addresses}"

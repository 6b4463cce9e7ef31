"""The front end's files: those of the built bundle and no other."""

from __future__ import annotations

from pathlib import Path

STATIC = Path(__file__).parent.parent / "static"
MODULE = "index.js"
CONTENT_TYPES = {".js": "text/javascript", ".css": "text/css"}

MISSING = """\
export function render() {
  document.body.textContent =
    'The BN Lens front end is not built. In the source tree run: make frontend. Then restart TensorBoard.';
}
"""


def bundle() -> dict[str, str]:
    """Content type of every file of the bundle, by name; the module is always there."""
    found = [path.name for path in STATIC.iterdir()] if STATIC.is_dir() else []
    names = sorted({MODULE, *found})
    return {name: CONTENT_TYPES[Path(name).suffix] for name in names if Path(name).suffix in CONTENT_TYPES}


def content(name: str) -> bytes:
    """Content of a file that ``bundle`` names. If the module is not built, a module that says what to run."""
    path = STATIC / name
    return path.read_bytes() if path.is_file() else MISSING.encode()

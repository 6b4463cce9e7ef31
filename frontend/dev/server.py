"""Serves the built tab with synthetic data: ``python frontend/dev/server.py [port]``.

A page with an iframe stands for TensorBoard, with the same base address, content security policy and ``dark-mode``
class (``/?dark``), so that the tab can be seen in states that no training brings about at will: 200 layers,
hostile names, no data (``/?empty``), a route that fails (``/?broken``).
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
from fixture import LAYER_ROWS, runs
from overview import overview

STATIC = Path(__file__).resolve().parents[2] / "tb_bnlens" / "static"
ENTRY_PAGE = """<!DOCTYPE html>
<head><base href="plugin/bn_lens/" /></head>
<body><script type="module">import('./index.js').then((m) => void m.render());</script></body>"""
FRAME_STYLE = "border:0;width:100vw;height:100vh;display:block"
POLICY = (
    "default-src 'self'; font-src 'self' data:; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "connect-src 'self'; script-src 'self' 'unsafe-inline'"
)
TYPES = {".js": "text/javascript", ".css": "text/css"}


def frame(**arrays: np.ndarray) -> bytes:
    """The binary reply of frontend/src/wire.ts."""
    kinds = {name: "f8" if a.dtype == np.float64 else "f4" for name, a in arrays.items()}
    header = {"arrays": [{"name": n, "dtype": kinds[n], "shape": list(a.shape)} for n, a in arrays.items()]}
    text = json.dumps(header).encode()
    text += b" " * (-(4 + len(text)) % 8)
    body = len(text).to_bytes(4, "little") + text
    for name, a in arrays.items():
        data = np.ascontiguousarray(a, "<" + kinds[name]).tobytes()
        body += data + b"\0" * (-len(data) % 8)
    return body


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = urlparse(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        mode = "empty" if "/empty/" in url.path else "broken" if "/broken/" in url.path else ""
        name = url.path.rsplit("/", 1)[1]
        if url.path == "/":
            self.page(url.query)
        elif name == "plugin_entry.html":
            self.reply(ENTRY_PAGE.encode(), "text/html")
        elif name in ("index.js", "index.css"):
            self.reply((STATIC / name).read_bytes(), TYPES[Path(name).suffix])
        elif mode == "broken":
            self.json({"error": "The manifest has format 9; this viewer reads up to 1. Update the plugin."}, 500)
        else:
            self.data(name, query, mode == "empty")

    def page(self, query: str) -> None:
        theme = "dark-mode" if "dark" in query else ""
        prefix = "/empty" if "empty" in query else "/broken" if "broken" in query else ""
        html = f"""<!DOCTYPE html><body class="{theme}" style="margin:0">
<iframe src="{prefix}/data/plugin_entry.html?name=bn_lens" style="{FRAME_STYLE}"></iframe>"""
        self.reply(html.encode(), "text/html")

    def data(self, route: str, query: dict[str, str], empty: bool) -> None:
        if route == "runs":
            listed = [] if empty else [run_entry(name) for name in runs()]
            return self.json({"runs": listed, "problems": []})
        run = runs().get(query.get("run", ""))
        if run is None:
            return self.json({"error": f"There is no run {query.get('run')!r} any more. Choose another one."}, 404)
        if route == "overview":
            return self.json(overview(run))
        time = {"steps": run.steps, "wall_times": run.wall}
        layer = int(query.get("layer", 0))
        if route == "losses":
            losses = {f"train/{k}": v.astype(np.float32) for k, v in run.losses().items()}
            return self.reply(frame(**time, **losses), "application/octet-stream")
        if route == "series":
            return self.reply(frame(**time, values=run.series(query["row"])), "application/octet-stream")
        if route == "layer":
            rows = {n: run.rows[:, layer, i] for i, n in enumerate(LAYER_ROWS)}
            return self.reply(frame(**time, **rows), "application/octet-stream")
        when, values = run.channels[layer]
        return self.reply(frame(steps=when, values=values), "application/octet-stream")

    def json(self, value: object, status: int = 200) -> None:
        self.reply(json.dumps(finite(value)).encode(), "application/json", status)

    def reply(self, body: bytes, kind: str, status: int = 200) -> None:
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if self.headers.get("If-None-Match") == etag:
            self.send_response(304)
            self.end_headers()
            return
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # quiet
        pass


def run_entry(name: str) -> dict:
    whole = overview(runs()[name])
    return {"run": name, "severity": whole["severity"], "verdict": whole["verdict"], "last_step": whole["last_step"]}


def finite(value: object) -> object:
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 7007
    print(f"http://localhost:{port}/ and http://localhost:{port}/?dark", flush=True)
    runs()
    ThreadingHTTPServer(("localhost", port), Handler).serve_forever()

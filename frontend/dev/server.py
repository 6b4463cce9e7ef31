"""Serves the built tab with simulated runs: ``python frontend/dev/server.py [port]``.

The plugin's own handlers answer. Only its reading of a log directory is replaced. A page with an iframe stands for
TensorBoard, with the same base address, content security policy and ``dark-mode`` class (``/?dark``). ``/?one`` has a
single run, ``/?empty`` none, and in ``/?broken`` every route fails.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs

from werkzeug import serving, wrappers

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runs import BROKEN, SimulatedRun, simulated_runs

from tb_bnlens.history import History
from tb_bnlens.plugin import arrays
from tb_bnlens.plugin import plugin as served
from tb_bnlens.plugin.responses import NotThere
from tb_bnlens.reader import Run, Unreadable

PREFIX = "/data/plugin/bn_lens"
ENTRY_PAGE = """<!DOCTYPE html>
<head><base href="plugin/bn_lens/" /></head>
<body><script type="module">import('./index.js').then((m) => void m.render());</script></body>"""
FRAME_STYLE = "border:0;width:100vw;height:100vh;display:block"
POLICY = (
    "default-src 'self'; font-src 'self' data:; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "connect-src 'self'; script-src 'self' 'unsafe-inline'"
)


class SimulatedPlugin(served.BNLensPlugin):
    """The plugin on simulated runs in place of a log directory."""

    def __init__(self, runs: Mapping[str, SimulatedRun], *, broken: bool = False) -> None:
        super().__init__(SimpleNamespace(data_provider=None, sampling_hints=None))
        self._runs, self._broken = runs, broken

    def _listed(self, place: served.Place) -> tuple[Run, ...]:
        if self._broken:
            raise Unreadable("The manifest has format 9; this viewer reads up to 1. Update the plugin")
        return tuple(Run(name, name, 1, {"": _series(r.sim.steps)}) for name, r in self._runs.items())

    def _asked(self, request: wrappers.Request) -> tuple[served.Place, Run]:
        name = request.args.get("run", "")
        for run in self._listed(served._place(request)):
            if run.name == name:
                return served._place(request), run
        raise NotThere(f"There is no run {name!r} any more. Choose another one.")

    def _history(self, place: served.Place, run: Run) -> History:
        return self._runs[run.name].history

    def channels_impl(self, place: served.Place, run: Run, layer: int) -> served.Arrays:
        return arrays.channels(self._runs[run.name].channels(layer))

    def _foresee(self, place: served.Place) -> None:
        """Do nothing; the page requests each analysis."""


def _series(last_step: int) -> SimpleNamespace:
    """What the data provider says of a series."""
    return SimpleNamespace(max_step=last_step, max_wall_time=0.0, plugin_content=b"1")


def application(runs: Mapping[str, SimulatedRun]) -> serving.WSGIApplication:  # type: ignore[name-defined]
    """One WSGI application for all modes; the mode is the first part of the iframe's path."""
    modes = {
        "all": SimulatedPlugin(runs),
        "one": SimulatedPlugin({BROKEN: runs[BROKEN]}),
        "empty": SimulatedPlugin({}),
        "broken": SimulatedPlugin(runs, broken=True),
    }

    @wrappers.Request.application
    def page(request: wrappers.Request) -> wrappers.Response:
        query = parse_qs(request.query_string.decode(), keep_blank_values=True)
        mode = next((name for name in modes if name in query), "all")
        theme = "dark-mode" if "dark" in query else ""
        body = f"""<!DOCTYPE html><body class="{theme}" style="margin:0">
<iframe src="/{mode}/data/plugin_entry.html?name=bn_lens" style="{FRAME_STYLE}"></iframe>"""
        return wrappers.Response(body, mimetype="text/html")

    @wrappers.Request.application
    def entry(request: wrappers.Request) -> wrappers.Response:
        return wrappers.Response(ENTRY_PAGE, mimetype="text/html", headers={"Content-Security-Policy": POLICY})

    def route(environ, start_response):  # type: ignore[no-untyped-def]
        _, mode, *rest = environ["PATH_INFO"].split("/")
        path = "/" + "/".join(rest)
        if mode not in modes:
            return page(environ, start_response)
        handler = modes[mode].get_plugin_apps().get(path.removeprefix(PREFIX), entry)
        return handler(environ, start_response)

    return route


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 7007
    made = simulated_runs()
    print(f"http://localhost:{port}/ and http://localhost:{port}/?dark", flush=True)
    serving.run_simple("localhost", port, application(made), threaded=True)

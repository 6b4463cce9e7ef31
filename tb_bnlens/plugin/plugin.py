"""The routes of the tab: thin handlers over ``*_impl`` methods that know nothing of HTTP."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tensorboard import plugin_util
from tensorboard.context import RequestContext
from tensorboard.data import provider
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from tb_bnlens import __version__, metadata
from tb_bnlens.history import History
from tb_bnlens.plugin import arrays, static_files
from tb_bnlens.plugin.arrays import Arrays
from tb_bnlens.plugin.cache import Cache
from tb_bnlens.plugin.estimates import DERIVED
from tb_bnlens.plugin.memory import Freed, keep_little
from tb_bnlens.plugin.responses import BadRequest, NotThere, respond, route
from tb_bnlens.plugin.wire import FRAME_TYPE, JSON_TYPE, frame, to_json
from tb_bnlens.reader import Run, find_run, list_runs, read_channels, read_run

HISTORY_BYTES = 32 * 2**20
OVERVIEW_BYTES = 16 * 2**20
SUMMARY_BYTES = 4 * 2**20


@dataclass(frozen=True)
class InShort:
    """What is kept of an analysis after its report was dropped from the cache."""

    summary: Mapping[str, object]
    verdict: str


@dataclass(frozen=True)
class Overview:
    """An analysed run."""

    body: bytes
    """Its report as JSON."""
    in_short: InShort


@dataclass(frozen=True)
class Place:
    """Where a request reads."""

    ctx: RequestContext
    experiment_id: str


class BNLensPlugin(base_plugin.TBPlugin):  # type: ignore[misc]
    """Serves the records of the lens to the tab."""

    plugin_name = metadata.PLUGIN_NAME

    def __init__(self, context: base_plugin.TBContext) -> None:
        keep_little()
        self._freed = Freed()
        self._data: provider.DataProvider | None = context.data_provider
        self._cap: int | None = (context.sampling_hints or {}).get(metadata.PLUGIN_NAME)
        self._histories: Cache[History] = Cache(HISTORY_BYTES, history_bytes)
        self._overviews: Cache[Overview] = Cache(OVERVIEW_BYTES, lambda overview: len(overview.body))
        self._in_short: Cache[InShort] = Cache(
            SUMMARY_BYTES, lambda known: len(to_json(known.summary)) + len(known.verdict)
        )
        threading.Thread(target=_load_analysis, daemon=True).start()

    def is_active(self) -> bool:
        """TensorBoard activates the tab itself when ``data_plugin_names`` meets the data; this must never wait."""
        return False

    def data_plugin_names(self) -> tuple[str, ...]:
        """Both names whose data make the tab active."""
        return (metadata.PLUGIN_NAME, metadata.CHANNELS_PLUGIN_NAME)

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """An ES module in an iframe, which handles TensorBoard's reload button itself."""
        return base_plugin.FrontendMetadata(es_module_path=f"/{static_files.MODULE}", tab_name="BN Lens")

    def get_plugin_apps(self) -> dict[str, Callable[..., Any]]:
        """All routes, by path."""
        return {
            **{f"/{name}": _static_route(name, kind) for name, kind in static_files.bundle().items()},
            f"/{static_files.MODULE}": self.serve_module,
            "/runs": self.serve_runs,
            "/overview": self.serve_overview,
            "/summary": self.serve_summary,
            "/losses": self.serve_losses,
            "/series": self.serve_series,
            "/layer": self.serve_layer,
            "/channels": self.serve_channels,
        }

    # --- handlers ------------------------------------------------------------------------------------------

    @route
    def serve_module(self, request: wrappers.Request) -> wrappers.Response:
        """GET index.js: the front end. Its first request is prepared while it loads."""
        threading.Thread(target=self._prepare, args=(_place(request),), daemon=True).start()
        return _file(request, static_files.MODULE, static_files.CONTENT_TYPES[".js"])

    @route
    def serve_runs(self, request: wrappers.Request) -> wrappers.Response:
        """GET runs -> RunList."""
        body = to_json(self.runs_impl(_place(request)))
        return respond(request, body, JSON_TYPE, lambda: body)

    @route
    def serve_overview(self, request: wrappers.Request) -> wrappers.Response:
        """GET overview?run=R -> Overview."""
        place, run = self._asked(request)
        return respond(request, _tag(run, "overview"), JSON_TYPE, lambda: self.overview_impl(place, run))

    @route
    def serve_summary(self, request: wrappers.Request) -> wrappers.Response:
        """GET summary?run=R -> RunSummary: the run's row in the table of runs."""
        place, run = self._asked(request)
        return respond(
            request, _tag(run, "summary"), JSON_TYPE, lambda: to_json(self.in_short_impl(place, run).summary)
        )

    @route
    def serve_losses(self, request: wrappers.Request) -> wrappers.Response:
        """GET losses?run=R -> frame."""
        place, run = self._asked(request)
        return respond(request, _tag(run, "losses"), FRAME_TYPE, lambda: frame(self.losses_impl(place, run)))

    @route
    def serve_series(self, request: wrappers.Request) -> wrappers.Response:
        """GET series?run=R&row=distance_rms -> frame."""
        row = _parameter(request, "row")
        if row not in metadata.LAYER_INDEX and row not in DERIVED:
            known = ", ".join((*DERIVED, *metadata.LAYER_ROWS))
            raise BadRequest(f"row is {row!r}; expected one of {known}")
        place, run = self._asked(request)
        return respond(request, _tag(run, "series", row), FRAME_TYPE, lambda: frame(self.series_impl(place, run, row)))

    @route
    def serve_layer(self, request: wrappers.Request) -> wrappers.Response:
        """GET layer?run=R&layer=3 -> frame."""
        layer = _layer(request)
        place, run = self._asked(request)
        return respond(
            request, _tag(run, "layer", layer), FRAME_TYPE, lambda: frame(self.layer_impl(place, run, layer))
        )

    @route
    def serve_channels(self, request: wrappers.Request) -> wrappers.Response:
        """GET channels?run=R&layer=3 -> frame."""
        layer = _layer(request)
        place, run = self._asked(request)
        # Snapshots have another plugin name, so the run's fingerprint does not cover them.
        body = frame(self.channels_impl(place, run, layer))
        return respond(request, body, FRAME_TYPE, lambda: body)

    # --- what they serve -----------------------------------------------------------------------------------

    def runs_impl(self, place: Place) -> dict[str, object]:
        """All runs with a record, with the analyses that are ready: the list must not wait for one."""
        entries = []
        problems = []
        for run in self._listed(place):
            known = self._in_short.peek((place.experiment_id, run.run_id))
            entries.append(
                {
                    "run": run.name,
                    "severity": known.summary["severity"] if known else None,
                    "verdict": known.verdict if known else None,
                    "last_step": run.last_step,
                    "summary": known.summary if known else None,
                }
            )
            if run.format is None:
                problems.append(f"Run {run.name!r} does not state its format. The parts that can be read are shown.")
        return {"runs": entries, "problems": problems}

    def overview_impl(self, place: Place, run: Run) -> bytes:
        """The report of a run, as JSON."""
        overview = self._overview(place, run)
        self._in_short.get((place.experiment_id, run.run_id), run.fingerprint, lambda: overview.in_short)
        return overview.body

    def in_short_impl(self, place: Place, run: Run) -> InShort:
        """The row of a run in the table of runs, which is kept longer than its report."""
        key = (place.experiment_id, run.run_id)
        return self._in_short.get(key, run.fingerprint, lambda: self._overview(place, run).in_short)

    def _overview(self, place: Place, run: Run) -> Overview:
        def analyse() -> Overview:
            # Imported late: the list of runs must work even if the analysis cannot be imported.
            from tb_bnlens.report import run_report
            from tb_bnlens.report.summary import summarize

            history = self._history(place, run)
            report = run_report(history)
            body = to_json(report)
            self._freed.add(history_bytes(history))
            return Overview(body, InShort(summarize(report), report["verdict"]))

        return self._overviews.get((place.experiment_id, run.run_id), run.fingerprint, analyse)

    def losses_impl(self, place: Place, run: Run) -> Arrays:
        """Every loss row that was measured in any probe."""
        return arrays.losses(self._history(place, run))

    def series_impl(self, place: Place, run: Run, row: str) -> Arrays:
        """One row of all layers over the records."""
        return arrays.series(self._history(place, run), row)

    def layer_impl(self, place: Place, run: Run, layer: int) -> Arrays:
        """All rows of one layer over the records."""
        history = self._history(place, run)
        self._known(history, layer)
        return arrays.layer(history, layer)

    def channels_impl(self, place: Place, run: Run, layer: int) -> Arrays:
        """The per-channel snapshots of one layer."""
        found = read_channels(self._provider(), place.experiment_id, run, layer, ctx=place.ctx)
        if not len(found.steps):
            self._known(self._history(place, run), layer)
        return arrays.channels(found)

    def _prepare(self, place: Place) -> None:
        """Analyse the run if it is the only one. With several, the fragment selects one; browsers do not send it."""
        # The request for the analysis reports the error.
        with contextlib.suppress(Exception):
            runs = self._listed(place)
            if len(runs) == 1:
                self.overview_impl(place, runs[0])

    def _history(self, place: Place, run: Run) -> History:
        def read() -> History:
            history = read_run(self._provider(), place.experiment_id, run, ctx=place.ctx, cap=self._cap)
            self._freed.add(history_bytes(history))
            return history

        return self._histories.get((place.experiment_id, run.run_id), run.fingerprint, read)

    def _known(self, history: History, layer: int) -> None:
        count = len(history.manifest.layers)
        if layer >= count:
            raise NotThere(f"layer is {layer}; run {history.run!r} has {count} layers, counted from 0")

    def _listed(self, place: Place) -> tuple[Run, ...]:
        return list_runs(self._provider(), place.experiment_id, ctx=place.ctx)

    def _asked(self, request: wrappers.Request) -> tuple[Place, Run]:
        place = _place(request)
        return place, find_run(self._provider(), place.experiment_id, _parameter(request, "run"), ctx=place.ctx)

    def _provider(self) -> provider.DataProvider:
        if self._data is None:
            raise NotThere("this TensorBoard has no data provider; start it without --generic_data=false")
        return self._data


def _load_analysis() -> None:
    """Import it while TensorBoard starts: the first tab need not wait the 0.1 s that it takes."""
    with contextlib.suppress(Exception):  # whoever needs it reports the error
        importlib.import_module("tb_bnlens.report")


def history_bytes(history: History) -> int:
    """Size of a history's arrays in bytes."""
    return sum(
        array.nbytes
        for array in (history.steps, history.wall_times, history.layers, history.loss_steps, history.losses)
    )


def _file(request: wrappers.Request, name: str, kind: str) -> wrappers.Response:
    body = static_files.content(name)
    return respond(request, body, kind, lambda: body)


def _static_route(name: str, kind: str) -> Callable[..., Any]:
    @route
    def serve(self: None, request: wrappers.Request) -> wrappers.Response:
        return _file(request, name, kind)

    return lambda environ, start_response: serve(None, environ, start_response)


def _place(request: wrappers.Request) -> Place:
    return Place(plugin_util.context(request.environ), plugin_util.experiment_id(request.environ))


def _tag(run: Run, *what: object) -> tuple[object, ...]:
    # After an update of the package, the same record can lead to another report.
    return (__version__, run.name, run.fingerprint, *what)


def _parameter(request: wrappers.Request, name: str) -> str:
    values = request.args.getlist(name)
    if len(values) != 1 or not values[0]:
        came = "missing" if not values else "empty" if len(values) == 1 else "given more than once"
        raise BadRequest(f"the parameter {name} is {came}; expected one value, as in ?{name}=...")
    return str(values[0])


def _layer(request: wrappers.Request) -> int:
    text = _parameter(request, "layer")
    # ASCII digits only: int() takes signs, spaces, underscores and the digits of all scripts.
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadRequest(f"layer is {text[:40]!r}; expected the position of a layer, a whole number from 0")
    return int(text)

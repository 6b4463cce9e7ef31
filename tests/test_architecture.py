"""The seams of the house: who may import whom, and what is never loaded. Each check is shown to be able to fail."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fixtures.runs import write_run

PACKAGE = "tb_bnlens"

# What a framework's answers are made of.
RECORDING = {"capture", "capture.options", "capture.recorder", "moments", "history", "metadata"}

# Room -> rooms it may import from, its own included where that is meant. A module's room is the longest entry that
# its name starts with; a new module outside these rooms needs a line here, and with it a thought.
ARROWS: Mapping[str, set[str]] = {
    "metadata": set(),
    "numbers": {"metadata"},
    "warning": set(),
    "history": {"metadata"},
    "analysis": {"analysis", "history", "metadata"},
    "diagnosis": {"diagnosis", "analysis", "history", "metadata"},
    # Words are told what was decided; the table and its conditions know no words.
    "diagnosis.words": {"diagnosis.words", "diagnosis", "analysis", "history", "metadata", "numbers"},
    "diagnosis.diagnose": {"diagnosis", "diagnosis.words", "analysis", "history", "metadata"},
    "report": {
        "report",
        "diagnosis",
        "diagnosis.words",
        "diagnosis.diagnose",
        "analysis",
        "history",
        "metadata",
        "numbers",
    },
    "reader": {"reader", "history", "metadata"},
    # It records, from files instead of a training loop. The command line imports it on demand.
    "importer": {"importer", "capture", "moments", "history", "metadata"},
    "cli": {"reporting", "console", "report", "diagnosis", "importer", "checking", ""},
    "reporting": {"console", "reader", "report", "export", "history", "metadata"},
    "console": {"report"},
    # What the routes would answer, in a file.
    "export": {"plugin", "report", "history", "metadata"},
    "__main__": {"cli"},
    "plugin.loader": {"metadata", "plugin"},
    "plugin": {"plugin", "reader", "report", "analysis", "history", "metadata", ""},
    "record": {"history", "metadata"},
    "summary": {"record", "history", "metadata"},
    # What both sides compute by the same formula; nothing that judges.
    "moments": {"moments", "history", "metadata", "analysis.distance"},
    "capture": {
        "capture",
        "capture.options",
        "moments",
        "record",
        "history",
        "metadata",
        "numbers",
        "analysis.distance",
        "analysis.convergence",
        "warning",
        "",
    },
    # Checks that the causes to be ignored exist.
    "capture.options": {"capture", "diagnosis"},
    # Prints the verdict when the record is closed.
    "capture.recorder": {"capture", "capture.options", "metadata", "closing"},
    # It records one moment and reports on it at once.
    "checking": {
        "checking",
        "capture",
        "moments",
        "analysis.distance",
        "analysis.enough",
        "record",
        "report",
        "history",
        "metadata",
        "frameworks",
        "frameworks.keras3",
        "",
    },
    # The recorder imports it when training is over.
    "closing": {"reader", "report", "metadata", "numbers"},
    # Says what is supported, without a framework.
    "frameworks": {"frameworks", "warning"},
    "frameworks.unsupported": {"frameworks"},
    "frameworks.keras3": {"frameworks", "frameworks.keras3", *RECORDING},
    # Each backend of Keras, found by its name.
    "frameworks.keras_tensorflow": {"frameworks.keras3", "frameworks.keras_tensorflow", *RECORDING},
    "frameworks.keras2": {"frameworks.keras2", "frameworks.keras3", "frameworks.keras_tensorflow", *RECORDING},
    "frameworks.jax_errors": {"capture"},
    "frameworks.keras_jax": {"frameworks.keras3", "frameworks.jax_errors", *RECORDING},
    "frameworks.keras_torch": {"frameworks.keras3", "frameworks.torch", *RECORDING},
    "frameworks.torch": {"frameworks.torch", "capture", "moments", "history", "metadata"},
    "frameworks.flax": {"frameworks.flax", "frameworks.jax_errors", *RECORDING},
    "flax": {
        "flax",
        "frameworks.flax",
        "capture",
        "capture.options",
        "capture.recorder",
        "checking.result",
        "remedies.kept_share",
        "remedies.measured",
        "moments",
    },
    "torch": {
        "torch",
        "frameworks.torch",
        "capture",
        "capture.options",
        "capture.recorder",
        "checking.result",
        "remedies.measured",
        "moments",
        "warning",
    },
    "callback": {
        "capture",
        "capture.options",
        "history",
        "metadata",
        "frameworks",
        "frameworks.keras3",
    },
    "remedies": {"remedies", "capture", "moments", "frameworks", "frameworks.keras3", "warning"},
}

# Package from outside -> the rooms that may import it.
OUTSIDE: Mapping[str, set[str]] = {
    "tensorflow": {"frameworks.keras_tensorflow", "frameworks.keras2", "summary", "importer"},
    "tf_keras": {"frameworks.keras2"},
    "jax": {"frameworks.jax_errors", "frameworks.keras_jax", "frameworks.flax", "flax"},
    "flax": {"frameworks.flax", "flax"},
    "keras": {
        "frameworks.keras3",
        "frameworks.keras_tensorflow",
        "frameworks.keras_jax",
        "frameworks.keras_torch",
        "frameworks.unsupported",
        "checking",
        "callback",
        "remedies",
        "importer",
    },
    "torch": {"frameworks.torch", "frameworks.keras_torch", "torch", "importer"},
    "h5py": {"importer"},
    "tensorboard": {"capture", "reader", "plugin", "plugin.loader"},
    "google": {"reader"},
    "werkzeug": {"plugin"},
    "numpy": set(ARROWS)
    - {"metadata", "numbers", "warning", "plugin.loader", "__main__"}
    - {"frameworks", "frameworks.unsupported", "frameworks.jax_errors"},
}


def sources() -> dict[str, str]:
    """Source of every module but the package's own, whose lazy names are proven by what is loaded."""
    found = {}
    for path in (ROOT / PACKAGE).rglob("*.py"):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path.read_text(encoding="utf-8")
    return found


def room_of(module: str) -> str | None:
    fitting = [room for room in ARROWS if module == room or module.startswith(room + ".")]
    return max(fitting, key=len, default=None)


@functools.cache
def imports(source: str) -> tuple[str, ...]:
    """Full names of what a module imports, wherever in it."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the house imports by full names"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(names)


def forbidden_arrows(modules: Mapping[str, str]) -> list[str]:
    """Sentences on imports that the tables above do not allow."""
    wrong = []
    for module, source in modules.items():
        room = room_of(module)
        if room is None:
            wrong.append(f"{module} is in no room")
            continue
        for name in imports(source):
            top, _, rest = name.partition(".")
            if top == PACKAGE:
                reason = _inside(rest, room, modules)
            else:
                reason = _outside(top, name, room)
            wrong += [f"{module} imports {reason}"] * bool(reason)
    return wrong


def _inside(name: str, room: str, modules: Mapping[str, str]) -> str:
    """What of the package a room must not import by this name, "" where it may."""
    # `from tb_bnlens.reader import find_run` names a module and a thing in it; the longest module counts.
    target = next((m for m in _prefixes(name) if m in modules), "")
    return "" if ARROWS[room] & {target, room_of(target)} else f"{PACKAGE}.{name}"


def _outside(top: str, name: str, room: str) -> str:
    """The same of other packages."""
    if top not in OUTSIDE:
        return "" if top in sys.stdlib_module_names else f"{top}, which is no dependency"
    if room not in OUTSIDE[top]:
        return top
    only_base = room == "plugin.loader" and top == "tensorboard" and name != "tensorboard.plugins.base_plugin"
    return name if only_base else ""


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:i]) for i in range(len(parts), 0, -1))


def test_the_arrows() -> None:
    assert forbidden_arrows(sources()) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("history", "import tensorflow"),
        ("analysis.new", "import tensorboard"),
        ("analysis.new", "from tb_bnlens.reader import read_run"),
        ("report", "from werkzeug import wrappers"),
        ("report", "from tb_bnlens import reader"),
        ("reader.new", "import tensorflow as tf"),
        ("plugin.new", "import keras"),
        ("plugin.loader", "import numpy"),
        ("plugin.loader", "from tensorboard.util import tensor_util"),
        ("cli", "def f():\n    import tensorflow"),
        ("capture.new", "import werkzeug"),
        ("capture.new", "def f():\n    import tensorflow as tf"),
        ("capture.new", "import keras"),
        ("capture.new", "from tb_bnlens.frameworks.keras3 import layers"),
        ("torch.new", "import keras"),
        ("flax.new", "import keras"),
        ("torch.new", "import flax"),
        ("frameworks.keras_jax", "from flax import nnx"),
        ("frameworks.flax.new", "import torch"),
        ("torch.new", "from tb_bnlens.frameworks.keras_tensorflow import adapter"),
        ("frameworks.torch.new", "import tensorflow as tf"),
        ("callback", "import torch"),
        ("moments.new", "import tensorboard"),
        ("moments.new", "from tb_bnlens.capture import schedule"),
        ("frameworks.keras3.new", "import tensorflow"),
        ("frameworks.keras_jax", "import torch"),
        ("checking.new", "import tensorflow"),
        ("remedies.new", "import tensorflow"),
        ("capture.new", "from tb_bnlens.diagnosis import causes"),
        ("capture.new", "from tb_bnlens.analysis import lag"),
        ("callback", "from tb_bnlens.plugin import plugin"),
        ("summary", "from tb_bnlens.analysis.distance import distance"),
        ("diagnosis.conditions", "from tb_bnlens.diagnosis.words import drift"),
        ("diagnosis.causes", "from tb_bnlens.diagnosis.words.phrases import number"),
        ("diagnosis.decide", "from tb_bnlens.diagnosis.diagnose import diagnose"),
        ("diagnosis.words.drift", "from tb_bnlens.report import verdict"),
        ("analysis.facts.run", "from tb_bnlens.diagnosis.severity import Severity"),
        ("metadata", "import numpy"),
        ("frameworks.support", "import keras"),
        ("analysis.new", "import scipy"),
        ("helpers", "import math"),
    ],
)
def test_the_arrows_can_fail(module: str, line: str) -> None:
    assert len(forbidden_arrows({**sources(), module: line})) >= 1


def loaded_after(code: str, *names: str) -> set[str]:
    """Which of these modules a fresh Python has loaded after running the code."""
    script = textwrap.dedent(code) + f"\nimport sys\nprint('LOADED', *(n for n in {names!r} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


HEAVY = ("tensorflow", "keras", "torch", "jax", "flax")


def test_the_package_itself_loads_nothing() -> None:
    assert loaded_after("import tb_bnlens; dir(tb_bnlens)", *HEAVY, "numpy", "tensorboard", "werkzeug") == set()


@pytest.mark.parametrize("room", ["analysis", "diagnosis", "diagnosis.words", "history", "report"])
def test_judging_loads_no_framework(room: str) -> None:
    modules = [name for name in sources() if room_of(name) == room]
    assert modules
    code = "\n".join(f"import {PACKAGE}.{name}" for name in modules)
    assert loaded_after(code, *HEAVY, "tensorboard", "werkzeug") == set()


def test_recording_loads_no_framework(tmp_path: Path) -> None:
    """All that a recorder is made of, and a record that it writes; ``frameworks`` brings the rest."""
    modules = [
        name
        for name in sources()
        if room_of(name) in ("capture", "capture.options", "capture.recorder", "moments", "record")
    ]
    assert len(modules) > 30
    code = "\n".join(f"import {PACKAGE}.{name}" for name in modules)
    code += f"""
from tb_bnlens.capture.log import RunLog
log = RunLog({str(tmp_path)!r}, 0.1, None)
log.open()
log.write_manifest([], 1, 0)
log.write_losses({{"train": {{"batch": 1.0}}}}, 1)
log.close()
"""
    assert loaded_after(code, *HEAVY, "werkzeug") == set()
    assert loaded_after(f"import {PACKAGE}.frameworks.keras3.generation", *HEAVY) == {"keras", "tensorflow"}


def test_viewing_loads_no_tensorflow(tmp_path: Path) -> None:
    """Where TensorFlow is installed, as here: importing it would only cost seconds, so nobody would notice."""
    write_run(tmp_path / "exp", steps=3)
    code = f"""
    from tensorboard.plugins import base_plugin
    from werkzeug.test import Client
    from tensorboard.backend import application
    from tb_bnlens.plugin.loader import BNLensLoader
    from tb_bnlens.reader import open_logdir
    data = open_logdir({str(tmp_path)!r})
    plugin = BNLensLoader().load(base_plugin.TBContext(data_provider=data))
    client = Client(application.TensorBoardWSGI([plugin], data_provider=data))
    for route in ("runs", "overview?run=exp", "losses?run=exp", "layer?run=exp&layer=0", "channels?run=exp&layer=0"):
        assert client.get("/data/plugin/bn_lens/" + route).status_code == 200
    """
    assert loaded_after(code, *HEAVY) == set()


def test_the_report_loads_no_tensorflow(tmp_path: Path) -> None:
    write_run(tmp_path / "exp", steps=3)
    code = f"""
    import runpy, sys
    sys.argv = ["tb_bnlens", "report", {str(tmp_path)!r}]
    try:
        runpy.run_module("tb_bnlens", run_name="__main__")
    except SystemExit as end:
        assert not end.code
    """
    assert loaded_after(code, *HEAVY) == set()


def test_reading_keras_files_loads_no_framework() -> None:
    """The child process of an import, which has to start fast."""
    pytest.importorskip("h5py")
    assert loaded_after("from tb_bnlens.importer import apart, keras_files", *HEAVY, "tensorboard") == set()


def test_what_is_loaded_can_fail() -> None:
    assert loaded_after("import tb_bnlens.reader", "tensorboard") == {"tensorboard"}


MARKUP = re.compile(r"</?[a-z][a-z0-9]*(\s[^<>]*)?>")


def markup_in(source: str) -> list[str]:
    """String literals with HTML in them."""
    strings = (n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return [s for s in strings if MARKUP.search(s)]


def test_no_cause_writes_html() -> None:
    written = {name: markup_in(source) for name, source in sources().items() if name.startswith("diagnosis")}
    assert {name: found for name, found in written.items() if found} == {}
    assert markup_in("x = f'<b>{1}</b>'") != []
    assert markup_in("x = 'a < b and c > d'") == []


FRAME_OF_WORDS = {"diagnosis.words", "diagnosis.words.words", "diagnosis.words.phrases", "diagnosis.words.code"}
HARMLESS = {0, 1}
"""Numbers that words compare with: none, one or many; momentum 1; what is known to be positive."""


def limits_in(source: str) -> list[str]:
    """Comparisons with a number, and numbers with a name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            values = [v.value for v in [node.left, *node.comparators] if isinstance(v, ast.Constant)]
            if any(isinstance(v, int | float) and v not in HARMLESS for v in values):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            if isinstance(node.value.value, int | float) and not isinstance(node.value.value, bool):
                found.append(ast.unparse(node))
    return found


def test_words_hold_no_limits() -> None:
    files = {n: s for n, s in sources().items() if n.startswith("diagnosis.words.") and n not in FRAME_OF_WORDS}
    assert len(files) > 20
    assert {name: found for name, source in files.items() if (found := limits_in(source))} == {}
    assert limits_in("if gap.harm >= 0.5:\n    pass") == ["gap.harm >= 0.5"]
    assert limits_in("LARGE = 0.2") == ["LARGE = 0.2"]
    assert limits_in("if 3 < n:\n    pass") == ["3 < n"]
    assert limits_in("if n == 1 or x > 0:\n    pass") == []


def sentences_in(source: str) -> list[str]:
    """String literals that somebody is to read: words with a space between them, but for docstrings."""
    tree = ast.parse(source)
    holders = (n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef))
    bodies = [node for holder in holders for node in holder.body]
    documents = {id(n.value) for n in bodies if isinstance(n, ast.Expr)}
    constants = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in documents)
    return [n.value for n in constants if isinstance(n.value, str) and " " in n.value.strip()]


def test_the_decision_writes_no_words() -> None:
    for name in ("causes", "conditions", "at_the_end", "in_batches", "decide", "severity"):
        assert sentences_in(sources()[f"diagnosis.{name}"]) == [], name
    assert sentences_in("x = f'{n} layers lag'") == [" layers lag"]
    assert sentences_in('def f():\n    """A docstring here."""\n    return "drift"') == []


FETCHING = re.compile(r"\bfetch\s*\(|XMLHttpRequest|EventSource|WebSocket|sendBeacon|from 'uplot'|from \"uplot\"")


def test_no_component_fetches_or_draws_with_uplot() -> None:
    components = list((ROOT / "frontend" / "src" / "components").glob("*.tsx"))
    assert components
    assert [path.name for path in components if FETCHING.search(path.read_text(encoding="utf-8"))] == []
    assert FETCHING.search("const r = await fetch ('x')")
    assert FETCHING.search("import uPlot from 'uplot';")


def test_ships_no_generated_protobuf() -> None:
    assert list((ROOT / PACKAGE).rglob("*_pb2*")) == []

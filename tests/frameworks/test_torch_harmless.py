"""PyTorch: models and losses that keep state of their own train the same to the bit with the recorder."""

from __future__ import annotations

import argparse
import atexit
import builtins
import configparser
import contextlib
import decimal
import functools
import gc
import gzip
import hashlib
import io
import itertools
import locale
import logging
import math
import multiprocessing
import os
import queue
import random
import re
import signal
import sqlite3
import string
import subprocess
import sys
import tempfile
import threading
import time
import types
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn: Any = torch.nn

from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import tests.frameworks.counters  # noqa: E402
from tb_bnlens.capture.errors import NotEvaluated  # noqa: E402
from tb_bnlens.capture.noted import LONG  # noqa: E402
from tb_bnlens.capture.still import still  # noqa: E402
from tb_bnlens.frameworks.torch.batches import TorchBatches  # noqa: E402
from tb_bnlens.frameworks.torch.buffers import cloned_buffers  # noqa: E402
from tb_bnlens.frameworks.torch.draws import DrawsApart  # noqa: E402
from tb_bnlens.frameworks.torch.objects import OBJECTS  # noqa: E402
from tb_bnlens.frameworks.torch.writes import writes_undone  # noqa: E402
from tb_bnlens.torch import Recorder  # noqa: E402
from tests.frameworks import counters  # noqa: E402
from tests.frameworks.torch_runs import LOSS, record_of  # noqa: E402

torch.set_num_threads(1)
STEPS, ROWS = 5, 8
COUNTED = [0]
GENERATOR = np.random.default_rng(0)


class Net(nn.Module):  # type: ignore[misc, name-defined]
    """A network around a part; what is in ``seen`` is compared too."""

    def __init__(self, middle: Any = None) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)
        self.middle = nn.Identity() if middle is None else middle

    def forward(self, x: Any) -> Any:
        return self.last(self.middle(torch.relu(self.norm(self.first(x)))))


class Part(nn.Module):  # type: ignore[misc, name-defined]
    """A module with a function for its forward pass, and whatever else it is given."""

    def __init__(self, function: Callable[[Any, Any], Any], **given: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in given.items():
            setattr(self, name, value)

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


def counts(self: Any, x: Any) -> Any:
    self.held["calls"] += 1
    self.rows.append(float(x.mean().detach()))
    self.latest.append(len(self.rows))
    self.shapes.add(len(self.rows))
    self.array[0] += 1
    return x * (1 + 0.01 * (self.held["calls"] + len(self.rows) + sum(self.latest) + len(self.shapes) + self.array[0]))


LEVEL = ContextVar("level", default=0)


def counts_in_rare_places(self: Any, x: Any) -> Any:
    self.local.calls = getattr(self.local, "calls", 0) + 1
    LEVEL.set(LEVEL.get() + 1)
    self.weak[self] = self.weak.get(self, 0) + 1
    self.text.write("a")
    self.bytes.write(b"a")
    self.masked[0] = np.ma.masked if not self.masked.mask[0] else 1.0
    counted = self.local.calls + self.weak[self] + self.text.tell() + self.bytes.tell() + int(self.masked.mask[0])
    return x * (1 + 0.01 * (counted + LEVEL.get()))


def in_rare_places() -> Part:
    LEVEL.set(0)
    given = {"local": threading.local(), "weak": weakref.WeakKeyDictionary(), "text": io.StringIO()}
    masked = np.ma.masked_array([1.0, 2.0, 3.0], [False, False, True])
    return Part(counts_in_rare_places, **given, bytes=io.BytesIO(), masked=masked)


def adapts(self: Any, x: Any) -> Any:
    """As in adaptation at test time: the forward pass makes steps of an optimizer."""
    if not self.training:
        with torch.enable_grad():
            self.optimizer.zero_grad()
            self.fast(x.detach()).pow(2).mean().backward()
            self.optimizer.step()
    self.schedule.step()
    self.noise.loc = 0.9 * self.noise.loc + 0.1 * x.detach().mean(0)
    return x + self.fast(x).detach() - self.noise.loc * self.optimizer.param_groups[0]["lr"]


def adapted() -> Part:
    part = Part(adapts, fast=nn.Linear(8, 8), noise=torch.distributions.Normal(torch.zeros(8), torch.ones(8)))
    part.optimizer = torch.optim.Adam(part.fast.parameters(), 1e-2)
    part.schedule = torch.optim.lr_scheduler.StepLR(part.optimizer, 2)
    return part


class Named(str):
    """Text with an attribute."""

    calls = 0


class New:
    """Counts how many there are."""

    def __init__(self) -> None:
        MADE[0] += 1


MADE = [0]


def counts_by_name(self: Any, x: Any) -> Any:
    New()
    self.name.calls += 1
    next(iter(self.keys)).rows.append(0)
    self.proxy["rows"].append(0)
    next(iter(self.view)).append(0)
    globals()["COUNTED"][0] += 1
    setattr(counters, "COUNT", getattr(counters, "COUNT") + 1)  # noqa: B009, B010
    lengths = len(next(iter(self.keys)).rows) + len(self.proxy["rows"]) + len(next(iter(self.view)))
    return counters.scaled(x, MADE[0] + self.name.calls + COUNTED[0] + counters.COUNT + lengths)


def by_name() -> Part:
    MADE[0] = 0
    held: dict[str, Any] = {"proxy": types.MappingProxyType({"rows": []}), "view": {"rows": []}.values()}
    return Part(counts_by_name, name=Named("a"), keys={Keyed(): 0}, **held)


class Keyed:
    """A key of a dictionary that has rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []


SETTING = "BN_LENS_TESTS_COUNT"
LOG = logging.getLogger("tb_bnlens.tests.counts")


def counts_in_the_library(self: Any, x: Any) -> Any:
    os.environ[SETTING] = str(int(os.environ[SETTING]) + 1)
    decimal.getcontext().prec += 1
    LOG.setLevel(LOG.level + 1)
    self.log.addFilter(logging.Filter())
    self.stack.callback(int)
    self.config["section"][f"n{len(self.config['section'])}"] = ""
    self.kinds.register(type("Kind", (), {}), abs)
    self.view[0] += 1
    self.template.template += "a"
    warnings.filterwarnings("ignore", f"{SETTING} {own_filters()}")
    counted = int(os.environ[SETTING]) + decimal.getcontext().prec + LOG.level + len(self.log.filters) + self.view[0]
    counted += len(self.stack._exit_callbacks) + len(self.config["section"]) + len(self.template.template)
    return counters.scaled(x, counted + len(self.kinds.registry) + own_filters())


def own_filters() -> int:
    return sum(SETTING in getattr(message, "pattern", "") for _, message, *_ in warnings.filters)


def in_the_library() -> Part:
    os.environ[SETTING], decimal.getcontext().prec = "0", 28
    LOG.setLevel(1)
    warnings.resetwarnings()
    given = {"log": logging.Logger("own"), "stack": contextlib.ExitStack(), "config": configparser.ConfigParser()}
    given["config"].add_section("section")  # type: ignore[attr-defined]
    given |= {
        "view": memoryview(bytearray(1)),
        "template": string.Template(""),
        "kinds": functools.singledispatch(counters.scaled),
    }  # type: ignore[dict-item]
    return Part(counts_in_the_library, **given)


class Ending:
    """A part of a model's output, whose end changes a weight and a counter."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __del__(self) -> None:
        COUNTED[0] += 1
        with torch.no_grad():
            self.model.first.bias.mul_(0.9)


class Endings(Net):
    """Returns one beside its predictions."""

    def forward(self, x: Any) -> Any:
        return {"predictions": super().forward(x), "ending": Ending(self)}


class FailingEndings(Net):
    """Makes one, and fails where there are no gradients."""

    def forward(self, x: Any) -> Any:
        ending = Ending(self)
        if not torch.is_grad_enabled():
            raise ValueError("no gradients")
        return super().forward(x + 0 * len(ending.model.last.bias))


class Unreadable:
    """As a proxy of a client that is not set up yet."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("call setup() first")

    def __call__(self) -> int:
        return 1


def line() -> Any:
    """An end of a pipe, whose other end stays open."""
    ends = multiprocessing.Pipe()
    ends[1].other = ends[0]  # type: ignore[attr-defined]
    return ends[1]


def lines(path: Any = None, mode: str = "r") -> Any:
    """A file of numbers."""
    file = tempfile.NamedTemporaryFile("w+", suffix=".txt", delete=False)
    file.write("\n".join(map(str, range(1000))))
    file.seek(0)
    return file if path is None else open(file.name, mode)


def counting() -> Any:
    """A process that answers with the number of lines that it was told."""
    code = "import sys\nfor i, _ in enumerate(sys.stdin):\n    print(i)"
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 1, "text": True}
    process: Any = subprocess.Popen([sys.executable, "-u", "-c", code], **pipes)
    atexit.register(process.kill)
    return process


def asked(process: Any) -> int:
    process.stdin.write("\n")
    return int(process.stdout.readline())


def table() -> Any:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (n int)")
    return connection


def inserted(connection: Any) -> Any:
    connection.execute("insert into t values (1)")
    return connection.execute("select count(*) from t").fetchone()[0]


HELD: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], str]] = {
    "generator": (lambda: (i for i in range(1000)), next, "generator, an iterator whose position"),
    "cycle": (lambda: itertools.cycle(range(7)), next, "cycle, an iterator whose position"),
    "queue": (queue.Queue, lambda held: held.put(1) or held.qsize(), "Queue, which an extra pass would fill"),
    "event": (threading.Event, lambda held: held.set() or held.is_set(), "Event, for which others may wait"),
    "semaphore": (
        lambda: threading.Semaphore(99),
        lambda held: held.acquire() + 1,
        "Semaphore, for which others may wait",
    ),
    "shared value": (lambda: multiprocessing.Value("i", 1), lambda held: held.value, "Synchronized, whose memory"),
    "pool": (lambda: ThreadPoolExecutor(1), lambda held: held.submit(int, 1).result(), "ThreadPoolExecutor, whose"),
    "line": (line, lambda held: held.send(1) or 1, "Connection, to which an extra pass would send"),
    "process": (counting, asked, "Popen, with which an extra pass would talk"),
    "pipe": (lambda: counting().stdin, lambda held: held.write("a\n"), "TextIOWrapper, a pipe in which an extra pass"),
    "table": (table, inserted, "Connection, whose data are outside"),
    "file": (lambda: lines(True), lambda held: int(held.readline()), "TextIOWrapper, a file whose position"),
    "lines": (lambda: lines(True), lambda held: int(next(held)), "TextIOWrapper, a file whose position"),
    "bytes": (lambda: lines(True, "rb"), lambda held: held.read(1)[0], "BufferedReader, a file whose position"),
    "temporary file": (lines, lambda held: int(held.readline()), "_TemporaryFileWrapper, a file whose position"),
    "unreadable": (Unreadable, lambda held: held(), "Unreadable, whose attributes cannot be read"),
    "hash": (hashlib.md5, lambda held: held.update(b"a") or held.digest()[0], "HASH, whose state is kept in C"),
    "large array": (lambda: np.zeros(2**23 + 1), lambda held: held[1], "ndarray, which is too large"),
}
"""What cannot be put back: how it is made, how a pass uses it, and the message."""


def draws(self: Any, x: Any) -> Any:
    noise = torch.rand((), generator=self.torch) + self.numpy.random() + self.legacy.rand() + self.python.random()
    return x * (1 + 0.1 * noise)


def counts_in_module(self: Any, x: Any) -> Any:
    COUNTED[0] += 1
    return x * (1 + 0.01 * COUNTED[0] + 0.1 * GENERATOR.random())


def counts_and_draws(self: Any, x: Any) -> Any:
    return counts_in_module(self, x) * (1 + 0.1 * np.random.random())  # noqa: NPY002


def imports(self: Any, x: Any) -> Any:
    from tests.frameworks.counters import bump

    return counters.scaled(x, bump())


def counts_in_package(self: Any, x: Any) -> Any:
    return counters.scaled(x, tests.frameworks.counters.bump())


def counts_in_arguments(self: Any, x: Any) -> Any:
    self.arguments.step += 1
    return counters.scaled(x, self.arguments.step)


class Equals(type):
    """A metaclass whose classes are equal by name, and have no hash."""

    def __eq__(cls, other: object) -> bool:
        return isinstance(other, type) and cls.__name__ == other.__name__


class Equal(metaclass=Equals):
    """Counts in an object and in its class."""

    ever = 0

    def __init__(self) -> None:
        self.calls = Equal.ever = 0

    def __call__(self) -> int:
        self.calls += 1
        Equal.ever += 1
        return self.calls + Equal.ever


class Slot:
    """Counts in a slot whose name Python mangles."""

    __slots__ = ("__count",)

    def __init__(self) -> None:
        self.__count = 0

    def bump(self) -> int:
        self.__count += 1
        return self.__count


class Numbered(nn.Identity):  # type: ignore[misc, name-defined]
    """Takes its number from an iterator, which no pass reads."""

    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.of_kind = next(self.numbers) * 0


MANY = [[i] for i in range(9_000)]
MANY_MORE = [MANY, [[row] for row in MANY], [[row] for row in MANY]]


class WithData(nn.Identity):  # type: ignore[misc, name-defined]
    """Its methods name data that no pass reads, as in a module that makes its own loaders."""

    def train_dataloader(self) -> Any:
        return [MANY_MORE, *([i] for i in MANY)]


class Decorated(nn.Module):  # type: ignore[misc, name-defined]
    """A decorator keeps the state, and its method calls another one that keeps some."""

    def forward(self, x: Any) -> Any:
        return self.scaled(x)

    @counters.Counting
    def scaled(self, x: Any) -> Any:
        return counters.scaled(x, self.number())

    def number(self) -> int:
        COUNTED[0] += 1
        return COUNTED[0]


def decorated() -> Any:
    Decorated.scaled.calls = 0
    return Net(Decorated())


class Patches(nn.Module):  # type: ignore[misc, name-defined]
    """Takes another class in each forward pass, and counts in a class of PyTorch."""

    def forward(self, x: Any) -> Any:
        nn.Identity.calls = getattr(nn.Identity, "calls", 0) + 1
        self.__class__ = Patched
        return counters.scaled(x, nn.Identity.calls)


class Patched(Patches):
    """The other class."""

    def forward(self, x: Any) -> Any:
        self.__class__ = Patches
        return 2 * x


def patches() -> Any:
    nn.Identity.calls = 0
    return Net(Patches())


class Typed(nn.Module):  # type: ignore[misc, name-defined]
    """Keeps numbers, lists and tensors where TorchScript does, which is outside of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.seen = 0, torch.jit.Attribute([], list[float])
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[name-defined]
        self.calls += 1
        self.seen.append(float(x.mean()))
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)  # type: ignore[has-type]
        return x * (1.0 + 0.01 * (self.calls + len(self.seen))) - self.mean


class Watched(Net):
    """Counts each look for an attribute, and each call of what PyTorch lets a module override."""

    def __getattribute__(self, name: str) -> Any:
        COUNTED[0] += 1
        return super().__getattribute__(name)

    def modules(self) -> Any:
        COUNTED[0] += 1
        return super().modules()

    def named_modules(self, *args: Any, **kwargs: Any) -> Any:
        COUNTED[0] += 1
        return super().named_modules(*args, **kwargs)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        COUNTED[0] += 1
        return super().named_parameters(*args, **kwargs)


def averages(self: Any, x: Any) -> Any:
    with torch.no_grad():
        self.code.add_(0.1 * (x.mean(0) - self.code))
        self.center.data.lerp_(x.mean(0), 0.1)
        self.held[0][:4] += 0.1
        self.alias.mul_(0.9).add_(x.mean(0), alpha=0.1)
    return x - self.code - self.center - self.held[0] - self.met


def replaces_data(self: Any, x: Any) -> Any:
    if not hasattr(self.weight, "original"):
        self.weight.original = self.weight.data.clone()
    self.weight.data = self.weight.data * (0.9 if self.training else 0.5)
    return x * self.weight


def builds_at_inference(self: Any, x: Any) -> Any:
    if not self.training and not hasattr(self, "scale"):
        self.scale, self.dense = nn.Parameter(torch.ones(8)), nn.Linear(8, 8)
        self.register_buffer("offset", torch.zeros(8))
        self.register_forward_hook(lambda *_: None)
    return x


def resizes(self: Any, x: Any) -> Any:
    self.row.resize_(len(self.row) + 1).zero_()
    return counters.scaled(x, len(self.row))


def sets_for_all(self: Any, x: Any) -> Any:
    """Each of these makes the next step of training fail, or end in other weights."""
    if not self.training:
        torch.set_default_dtype(torch.float64)
        torch.set_autocast_enabled("cpu", True)
        torch.set_num_threads(2)
        torch.use_deterministic_algorithms(True)
        torch.autograd.set_detect_anomaly(True)
        np.seterr(divide="raise")
        sys.setrecursionlimit(sys.getrecursionlimit() + 1)
        os.chdir("/")
        gc.disable()
        torch.set_flush_denormal(True)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        locale.setlocale(locale.LC_ALL, "C.UTF-8")
    states: tuple[Any, ...] = (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        gc.isenabled(),
    )
    states += np.geterr()["divide"], sys.getrecursionlimit(), os.getcwd()
    states += torch.tensor([1e-320], dtype=torch.float64).mul(1.0).item(), signal.getsignal(signal.SIGUSR2)
    states += (locale.setlocale(locale.LC_ALL),)
    self.seen = [*self.seen[-1:], states]
    return x


def deletes(self: Any, x: Any) -> Any:
    if not self.training:
        del self.spare
        self.spare = nn.Linear(2, 2)  # to the end
    return x


class DropsWeights(nn.Module):  # type: ignore[misc, name-defined]
    """As in AWD-LSTM: the weight of a layer is set in each forward pass and is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.raw, self.dense = nn.Parameter(torch.randn(8, 8)), nn.Linear(8, 8)
        del self.dense._parameters["weight"]

    def forward(self, x: Any) -> Any:
        self.dense.weight = torch.dropout(self.raw, 0.3, self.training)
        return self.dense(x)


class Annealed:
    """A loss that is an object: it counts, and keeps a bank of earlier predictions."""

    __slots__ = ("bank", "calls")

    def __init__(self) -> None:
        self.calls, self.bank = 0, deque([0.0], maxlen=4)

    def __call__(self, predictions: Any, target: Any) -> Any:
        self.calls += 1
        self.bank.append(float(predictions.mean().detach()))
        return LOSS(predictions, target) * min(1.0, self.calls / 10) + 0.1 * predictions.mean() * sum(self.bank)


class Scaled(nn.Module):  # type: ignore[misc, name-defined]
    """A loss that is a module, whose buffer its forward pass writes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(()))

    def forward(self, predictions: Any, target: Any) -> Any:
        loss = LOSS(predictions, target)
        with torch.no_grad():
            self.mean.mul_(0.9).add_(loss, alpha=0.1)
        return loss / self.mean


class Hook:
    """Counts in an attribute, as a hook that is a bound method."""

    def __init__(self) -> None:
        self.calls = 0

    def scale(self, module: Any, args: Any, output: Any) -> Any:
        self.calls += 1
        return output * (1 + 0.01 * self.calls)


def hooked() -> Any:
    net, held, hook = Net(), [0], Hook()

    def count(module: Any, args: Any, output: Any) -> Any:
        held[0] += 1
        return output * (1 + 0.01 * held[0])

    net.middle.register_forward_hook(count)
    net.norm.register_forward_hook(hook.scale)
    net.first.register_forward_hook(functools.partial(lambda h, *_: h.append(0), held))
    return net


def aliased() -> Part:
    part = Part(averages, code=nn.Parameter(torch.zeros(8), requires_grad=False), center=nn.Parameter(torch.zeros(8)))
    part.register_buffer("met", torch.zeros(8))
    part.alias, part.held = part.met, [torch.zeros(8)]
    return part


def hidden() -> Any:
    """A module in a list, which no mode reaches."""
    inner = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.2))
    return Part(lambda self, x: x + self.inner[0](x), inner=[inner])


def own_state() -> Part:
    given = {"held": {"calls": 0}, "rows": [], "latest": deque([0], maxlen=3), "shapes": {0}}
    return Part(counts, **given, array=np.zeros(2, np.float32))


def own_generators() -> Part:
    generators = {"numpy": np.random.default_rng(1), "legacy": np.random.RandomState(1), "python": random.Random(1)}
    return Part(draws, torch=torch.Generator().manual_seed(1), **generators)


MODELS: dict[str, Callable[[], Any]] = {
    "watched": Watched,
    "dropped weights": lambda: Net(DropsWeights()),
    "built at inference": lambda: Net(Part(builds_at_inference)),
    "resized": lambda: Net(Part(resizes, row=torch.zeros(2))),
    "set for all": lambda: Net(Part(sets_for_all, seen=[])),
    "replaced submodule": lambda: Net(Part(deletes, spare=nn.Linear(2, 2), other=nn.Linear(2, 2))),
    "containers": lambda: Net(own_state()),
    "rare places": lambda: Net(in_rare_places()),
    "by name": lambda: Net(by_name()),
    "the library": lambda: Net(in_the_library()),
    "optimizer inside": lambda: Net(adapted()),
    "held and not used": lambda: Net(Part(lambda self, x: x, held=[make() for make, _, _ in HELD.values()])),
    "generators": lambda: Net(own_generators()),
    "globals": lambda: Net(Part(counts_in_module)),
    "written parameters": lambda: Net(aliased()),
    "replaced data": lambda: Net(Part(replaces_data, weight=nn.Parameter(torch.ones(8)))),
    "bounded embedding": lambda: Net(
        Part(lambda self, x: x + self.table(torch.arange(len(x))), table=nn.Embedding(ROWS, 8, max_norm=0.5))
    ),
    "spectral norm": lambda: Net(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))),
    "function of a module": lambda: Net(Part(lambda self, x: counters.scaled(x, counters.bump()))),
    "static method": lambda: Net(Part(lambda self, x: counters.scaled(x, counters.Shared.static()))),
    "class method": lambda: Net(Part(lambda self, x: counters.scaled(x, counters.Shared.counted()))),
    "template method": lambda: Net(Part(lambda self, x: counters.scaled(x, self.made.run()), made=counters.Made())),
    "import in forward": lambda: Net(Part(imports)),
    "namespace": lambda: Net(Part(counts_in_arguments, arguments=argparse.Namespace(step=0))),
    "private slot": lambda: Net(Part(lambda self, x: counters.scaled(x, self.slot.bump()), slot=Slot())),
    "numbered": lambda: Net(Numbered()),
    "names data": lambda: Net(WithData()),
    "scripted": lambda: Net(torch.jit.script(nn.Sequential(nn.Dropout(0.2)))),
    "scripted state": lambda: Net(torch.jit.script(Typed())),
    "decorator object": decorated,
    "patched class": patches,
    "hooks": hooked,
    "hidden module": lambda: Net(hidden()),
    "module of a package": lambda: Net(Part(counts_in_package)),
    "metaclass without a hash": lambda: Net(Part(lambda self, x: counters.scaled(x, self.held()), held=Equal())),
    "such a key": lambda: Net(Part(lambda self, x: counters.scaled(x, next(iter(self.held))()), held={Equal(): 1})),
    "input in place": lambda: nn.Sequential(Part(lambda self, x: x.mul_(0.99)), Net()),
}


class Hardness(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
    """Rows with a weight each, which the loss changes."""

    def __init__(self) -> None:
        self.weights, self.updates = np.ones(ROWS), [0]

    def __call__(self, predictions: Any, target: Any) -> Any:
        each = (predictions - target).pow(2).flatten()
        self.updates[0] += 1
        self.weights = 0.9 * self.weights + 0.1 * np.resize(each.detach().numpy(), ROWS)
        return each.mean() * float(self.weights.mean()) / self.updates[0]


LOSSES: dict[str, Callable[[], Any]] = {"object": Annealed, "module": Scaled, "closure": lambda: counting_loss()}
LOSSES["dataset"] = Hardness


def counting_loss() -> Callable[..., Any]:
    calls = 0

    def loss(predictions: Any, target: Any) -> Any:
        nonlocal calls
        calls += 1
        return LOSS(predictions, target) * (1 + 0.01 * calls + 0.01 * np.random.rand())  # noqa: NPY002

    return loss


def data() -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(3, 2, (STEPS, ROWS, 6)), dtype=torch.float32)
    return [(rows, rows[:, :1] * 1.0) for rows in x]


def trained(
    build: Callable[[], Any],
    make_loss: Callable[[], Any],
    where: Path | None,
    batches: Any = None,
    on_error: str = "raise",
) -> dict[str, Any]:
    """All that a training leaves."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    COUNTED[0] = counters.COUNT = counters.Shared.calls = 0
    GENERATOR.bit_generator.state = np.random.default_rng(0).bit_generator.state
    model, loss, given = build(), make_loss(), data()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    validation = [(x.clone(), y) for x, y in given]
    lens = None
    if where is not None:
        lens = Recorder(model, str(where), loss, overhead=math.inf, on_error=on_error, validation_data=validation)
    losses = []
    for x, y in given if batches is None else batches():
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        losses.append(value.item())
        if lens is not None:
            lens.record(x, y)
    if lens is not None:
        lens.close()
    left = dict(model.state_dict()) | (dict(loss.state_dict()) if isinstance(loss, nn.Module) else {})
    held = {f"{name}.{key}": str(v) for name, m in model.named_modules() for key, v in vars(m).items() if key != "norm"}
    left |= {name: value for name, value in held.items() if "0x" not in value and "name=" not in value}
    inner = getattr(getattr(model, "middle", None), "inner", ())
    left |= {f"inner.{name}": value for module in inner for name, value in module.state_dict().items()}
    states: tuple[Any, ...] = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    return left | {"losses": losses, "states": str(states), "validation": str(validation), "counted": COUNTED[0]}


def assert_same(plain: dict[str, Any], watched: dict[str, Any]) -> None:
    assert list(plain) == list(watched)
    for name, value in plain.items():
        same = torch.equal(value, watched[name]) if isinstance(value, torch.Tensor) else value == watched[name]
        assert same, name


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("name", MODELS)
def test_a_model_with_state_of_its_own(name: str, tmp_path: Path) -> None:
    assert_same(trained(MODELS[name], lambda: LOSS, None), trained(MODELS[name], lambda: LOSS, tmp_path))
    assert record_of(tmp_path).evidence[-1].passes.keys() >= {"inference", "batch", "training"}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_with_state_of_its_own(name: str, tmp_path: Path) -> None:
    assert_same(trained(Net, LOSSES[name], None), trained(Net, LOSSES[name], tmp_path))
    assert record_of(tmp_path).evidence[-1].passes.keys() >= {"inference", "batch", "training"}


def test_predictions_whose_end_changes_the_model(tmp_path: Path) -> None:
    """They outlive their pass, for a metric is taken of them."""

    def loss(predictions: Any, target: Any) -> Any:
        return LOSS(predictions["predictions"], target)

    assert_same(trained(Endings, lambda: loss, None), trained(Endings, lambda: loss, tmp_path))
    assert record_of(tmp_path).evidence[-1].passes.keys() >= {"inference", "batch", "training"}


def test_what_a_failed_pass_leaves_ends_within_it(tmp_path: Path) -> None:
    plain = trained(FailingEndings, lambda: LOSS, None)
    assert_same(plain, trained(FailingEndings, lambda: LOSS, tmp_path, on_error="warn"))


def test_a_loss_for_one_size_of_batch_is_measured_at_that_size(tmp_path: Path) -> None:
    """As with the mask of NT-Xent, or a queue whose length is a multiple of the batch size."""

    def fixed() -> Any:
        return lambda predictions, target: (LOSS(predictions, target) * predictions.view(ROWS, 1)).mean()

    trained(Net, fixed, tmp_path, lambda: 4 * data())
    read = record_of(tmp_path)
    assert "losses" not in read.manifest.not_evaluated
    assert "The loss fails" in read.evidence[-1].not_evaluated["pooled"]
    assert read.evidence[-1].passes.keys() >= {"inference", "batch", "training", "recombined"}


@pytest.mark.parametrize("name", HELD)
def test_what_cannot_be_put_back_is_not_used(name: str, tmp_path: Path) -> None:
    make, use, said = HELD[name]

    def build() -> Any:
        return Net(Part(lambda self, x: x * (1 + 0.01 * use(self.held)), held=make()))

    assert_same(trained(build, lambda: LOSS, None), trained(build, lambda: LOSS, tmp_path))
    assert f"uses 'held' of type {said}" in record_of(tmp_path).manifest.not_evaluated["losses"]


def counted_calls(function: Any, calls: list[int], wraps: bool) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return function(*args, **kwargs)

    return functools.wraps(function)(call) if wraps else call


PATCHED: dict[str, tuple[Any, str]] = {
    "__call__": (nn.Module, "__call__"),
    "_call_impl": (nn.Module, "_call_impl"),
    "__getattr__": (nn.Module, "__getattr__"),
    "forward": (nn.Linear, "forward"),
    "functional": (nn.functional, "batch_norm"),
    "torch": (torch, "relu"),
    "tensor": (torch.Tensor, "mul"),
}


@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("name", PATCHED)
def test_what_is_patched_into_pytorch_counts_no_pass(
    name: str, wraps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, attribute = PATCHED[name]

    def counts_of(where: Path | None) -> int:
        calls = [0]
        with monkeypatch.context() as patch:
            patch.setattr(holder, attribute, counted_calls(getattr(holder, attribute), calls, wraps))
            trained(lambda: Net(Part(lambda _, x: x.mul(2))), lambda: LOSS, where)
        return calls[0]

    assert 0 < counts_of(None) == counts_of(tmp_path)


def test_a_global_hook_counts_no_pass(tmp_path: Path) -> None:
    def counts_of(where: Path | None) -> list[int]:
        calls = [0, 0]

        def hook(*_: Any) -> None:
            calls[0] += 1
            COUNTED[0] += 1

        handles = [
            register(hook)
            for register in (
                nn.modules.module.register_module_forward_pre_hook,
                nn.modules.module.register_module_forward_hook,
            )
        ]
        try:
            trained(Net, lambda: LOSS, where)
        finally:
            for handle in handles:
                handle.remove()
        return [*calls, COUNTED[0]]

    plain = counts_of(None)
    assert plain[0] and plain == counts_of(tmp_path)


def by_function(path: Path) -> None:
    with open(file=path, mode="a") as file:
        file.write("called\n")


def by_path(path: Path) -> None:
    with path.open(mode="a") as file:
        file.write("called\n")


def whole_text(path: Path) -> None:
    path.write_text((path.read_text() if path.exists() else "") + "called\n")


def by_descriptor(path: Path) -> None:
    file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(file, b"called\n")
    os.close(file)


def compressed(path: Path) -> None:
    with gzip.open(path, "at") as file:
        file.write("called\n")


def read_only() -> None:
    with open(__file__) as one, open(os.devnull, "w") as nowhere, tempfile.TemporaryFile("w") as own:
        own.write(one.readline())
        nowhere.write("called\n")


@pytest.mark.parametrize("write", [by_function, by_path, whole_text, by_descriptor, compressed])
def test_no_pass_opens_a_file_to_write(write: Callable[[Path], None], tmp_path: Path) -> None:
    log = tmp_path / "log.txt"

    def opens(self: Any, x: Any) -> Any:
        write(log)
        return x

    opened = builtins.open, io.open, os.open, Path.open
    trained(lambda: Net(Part(opens)), lambda: LOSS, tmp_path)
    content = gzip.decompress(log.read_bytes()) if write is compressed else log.read_bytes()
    assert content == b"called\n" * STEPS
    assert opened == (builtins.open, io.open, os.open, Path.open)
    assert "uses 'open' of type" in record_of(tmp_path).manifest.not_evaluated["losses"]


def test_a_file_that_a_pass_opens_to_read_is_no_reason_against_it(tmp_path: Path) -> None:
    def opens(self: Any, x: Any) -> Any:
        read_only()
        return x

    trained(lambda: Net(Part(opens)), lambda: LOSS, tmp_path)
    assert "losses" not in record_of(tmp_path).manifest.not_evaluated


def test_an_open_of_the_users_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = open

    def own(*args: Any, **kwargs: Any) -> Any:
        return theirs(*args, **kwargs)

    def opens(self: Any, x: Any) -> Any:
        with open(tmp_path / "log.txt", "a") as file:
            file.write("called\n")
        return x

    monkeypatch.setattr(builtins, "open", own)
    trained(lambda: Net(Part(opens)), lambda: LOSS, tmp_path)
    assert builtins.open is own
    assert (tmp_path / "log.txt").read_text() == "called\n" * STEPS


def test_a_file_that_is_only_written_is_a_log(tmp_path: Path) -> None:
    def writes(self: Any, x: Any) -> Any:
        print("called", file=self.log)
        print("called", file=self.out)
        return x

    with open(tmp_path / "log.txt", "a") as log:
        model = Net(Part(writes, log=log, out=sys.stdout))
        trained(lambda: model, lambda: LOSS, tmp_path / "run")
    assert "losses" not in record_of(tmp_path / "run").manifest.not_evaluated


def test_a_model_that_catches_all_is_not_measured_without_its_queue(tmp_path: Path) -> None:
    def puts(self: Any, x: Any) -> Any:
        try:
            self.held.put(0)
        except Exception:
            return x * 2
        return x

    trained(lambda: Net(Part(puts, held=queue.Queue())), lambda: LOSS, tmp_path)
    assert "uses 'held' of type Queue" in record_of(tmp_path).manifest.not_evaluated["losses"]


def test_a_queue_is_not_filled(tmp_path: Path) -> None:
    """The loop would wait for ever: it takes out one item for each step."""
    full: Any = queue.Queue(2)

    def build() -> Any:
        full.queue.clear()
        return Net(Part(lambda self, x: full.put(0, timeout=1) or x))

    assert_same(trained(build, Emptying(full), None), trained(build, Emptying(full), tmp_path))
    assert "uses an object of type Queue" in record_of(tmp_path).manifest.not_evaluated["losses"]


class Emptying:
    """Makes a loss that takes an item out of a queue, as a loop would."""

    def __init__(self, full: Any) -> None:
        self._full = full

    def __call__(self) -> Any:
        return lambda p, t: (self._full.get(timeout=1), LOSS(p, t))[1]


class Operations(TorchFunctionMode):  # type: ignore[misc]
    """Notes the names of functions."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_a_mode_around_training_does_not_count_the_passes(tmp_path: Path) -> None:
    def operations(where: Path | None) -> Any:
        with FlopCounterMode(display=False) as mode, Operations() as named:
            trained(Net, lambda: LOSS, where)
        return mode.get_total_flops(), named.names

    assert operations(tmp_path) == operations(None)
    assert record_of(tmp_path).evidence[-1].passes


@functools.lru_cache
def scale_of(model: Any) -> Any:
    return model.weight.detach().mean()


def test_a_cache_is_not_filled_with_what_training_leaves_behind(tmp_path: Path) -> None:
    def scales(self: Any, x: Any) -> Any:
        return x if self.training else x * scale_of(self)

    trained(lambda: Net(Part(scales, weight=nn.Parameter(torch.ones(8)))), lambda: LOSS, tmp_path)
    assert scale_of.cache_info().currsize == 0
    assert record_of(tmp_path).evidence[-1].passes


def test_more_objects_than_a_pass_is_worth_are_not_walked(tmp_path: Path) -> None:
    class Node:
        def __init__(self, children: list[Any]) -> None:
            self.children = children

    def build() -> Any:
        return Net(Part(lambda self, x: x, tree=Node([Node([Node([]) for _ in range(300)]) for _ in range(300)])))

    assert_same(trained(build, lambda: LOSS, None), trained(build, lambda: LOSS, tmp_path))
    assert "Python objects" in record_of(tmp_path).manifest.not_evaluated["losses"]


def test_what_is_long_is_put_back_when_the_measurement_ends() -> None:
    short, long, table = [0], [0] * (LONG + 1), {i: 0 for i in range(LONG + 1)}
    with still():
        for _ in range(2):
            with OBJECTS.put_back([short, long, table]):
                short.append(0)
                long.append(0)
                table[-1] = 0
            assert short == [0]
        assert len(long) == LONG + 3
    assert len(long) == LONG + 1 == len(table) and -1 not in table


def test_a_stand_in_that_outlives_a_pass_is_the_object() -> None:
    given: queue.Queue[int] = queue.Queue()
    holder, kept = argparse.Namespace(given=given), []
    with OBJECTS.put_back(holder):
        kept.append(holder.given)
    kept[0].put(1)
    assert holder.given is given and given.qsize() == 1 and isinstance(kept[0], queue.Queue)


# --- what ends a pass ------------------------------------------------------------------------------------


class Stop(BaseException):
    """What a hook raises that allows no pass without gradients."""


def raising(error: BaseException) -> Any:
    def forward(self: Any, x: Any) -> Any:
        if not torch.is_grad_enabled():
            raise error
        return x

    return Net(Part(forward))


@pytest.mark.parametrize("error", [Stop("no"), SystemExit("no")], ids=repr)
def test_what_a_pass_raises_does_not_end_training(error: BaseException, tmp_path: Path) -> None:
    trained(lambda: raising(error), lambda: LOSS, tmp_path)
    assert f"by raising {error!r}" in record_of(tmp_path).manifest.not_evaluated["losses"]


class Detector(Net):
    """Returns losses in training mode, and boxes at inference; targets are asked for in training alone."""

    def forward(self, x: Any, targets: Any = None) -> Any:
        found = super().forward(x)
        if not self.training:
            return [{"box": row} for row in found]
        if targets is None:
            raise ValueError("targets must not be None in training mode")
        return {"loss": LOSS(found, targets), "size": found.square().mean()}


def warns(self: Any, x: Any) -> Any:
    if not self.training:
        warnings.warn("this is old", DeprecationWarning, stacklevel=2)
    return x


UNMEASURED: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "one kind each": (Detector, lambda x, y: ((x, y), None), "returns a list of dicts in inference mode and a dict in"),
    "argument": (
        Detector,
        lambda x, y: (x, y),
        r"without its argument 'targets' .*: pass .* record\(\(x, targets\), y\)",
    ),
    "warning": (
        lambda: Net(Part(warns)),
        lambda x, y: (x, y),
        r"a filter of warnings makes an error \(warnings.simple",
    ),
}
"""Models that allow no losses: how they are made, what of a batch is recorded, and what the reason says."""


@pytest.mark.filterwarnings("error::DeprecationWarning")
@pytest.mark.parametrize("name", UNMEASURED)
def test_a_reason_says_what_to_do(name: str, tmp_path: Path) -> None:
    build, given, said = UNMEASURED[name]
    loss = None if name == "one kind each" else LOSS
    with Recorder(build(), str(tmp_path), loss, overhead=math.inf, verbose=0) as lens:
        for x, y in data():
            lens.record(*given(x, y))
    assert re.search(said, record_of(tmp_path).manifest.not_evaluated["losses"])


on_exit = atexit.register


def last_words() -> None:
    """Nothing."""


class Registered:
    """Is compared with all that is registered."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    def __eq__(self, other: object) -> bool:
        self.found.append(other)
        return False

    __hash__ = None  # type: ignore[assignment]


FOR_GOOD: dict[str, Callable[[], Any]] = {
    "register": lambda: atexit.register(last_words),
    "umask": lambda: os.umask(0o77),
    "setitimer": lambda: signal.setitimer(signal.ITIMER_REAL, 1000),
    "on_exit": lambda: on_exit(last_words),
}


@pytest.mark.parametrize("name", FOR_GOOD)
def test_what_changes_the_process_for_good_is_not_called(name: str, tmp_path: Path) -> None:
    call = FOR_GOOD[name]

    def forward(self: Any, x: Any) -> Any:
        if not self.training:
            call()
        return x

    trained(lambda: Net(Part(forward)), lambda: LOSS, tmp_path)
    registered: Any = Registered()
    atexit.unregister(registered)
    assert last_words not in registered.found
    os.umask(umask := os.umask(0))
    assert umask != 0o77 and signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert f"uses '{name}'" in record_of(tmp_path).manifest.not_evaluated["losses"]


@pytest.mark.parametrize(("holder", "name"), [(threading.Thread, "start"), (os, "umask")])
def test_what_the_user_has_patched_stays(
    holder: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tools do that follow errors into threads."""
    theirs, came = getattr(holder, name), list[bool]()

    @functools.wraps(theirs)
    def own(*args: Any, **kwargs: Any) -> Any:
        came.append(model.training)
        return theirs(*args, **kwargs)

    def forward(self: Any, x: Any) -> Any:
        if holder is threading.Thread:
            threading.Thread(target=int, daemon=True).start()
        else:
            os.umask(0o22)
        return x

    monkeypatch.setattr(holder, name, own)
    model = Net(Part(forward))
    trained(lambda: model, lambda: LOSS, tmp_path)
    assert getattr(holder, name) is own
    assert came == [True] * STEPS
    assert f"uses '{name}'" in record_of(tmp_path).manifest.not_evaluated["losses"]


@pytest.mark.parametrize("action", ["default", "once", "module"])
def test_a_pass_does_not_use_up_a_warning(action: Any, tmp_path: Path) -> None:
    """Python shows it once, and passes do not show it."""

    def forward(self: Any, x: Any) -> Any:
        if not self.training:
            warnings.warn(f"rarely given, {action}", stacklevel=1)
        return x

    model, ((x, y), *_) = Net(Part(forward)), data()
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter(action)
        with Recorder(model, str(tmp_path), LOSS, overhead=math.inf, on_error="raise", verbose=0) as lens:
            model(x)
            lens.record(x, y)
        of_passes = len(shown)
        for _ in range(2):
            model.eval()(x)
    assert [of_passes, len(shown)] == [0, 1]
    assert warnings.showwarning.__module__ == "warnings"
    assert "losses" not in record_of(tmp_path).manifest.not_evaluated


def test_the_frames_of_an_error_that_the_loop_handles_stay(tmp_path: Path) -> None:
    def forward(_: Any, x: Any) -> Any:
        if not torch.is_grad_enabled():
            raise ValueError("not in a pass")
        return x

    def fails() -> None:
        kept = [1]
        raise OverflowError(kept)

    model, (x, y) = Net(Part(forward)), data()[0]
    with Recorder(model, str(tmp_path), LOSS, overhead=math.inf, verbose=0) as lens:
        try:
            fails()
        except OverflowError as error:
            LOSS(model(x), y).backward()
            lens.record(x, y)
            assert error.__traceback__ and error.__traceback__.tb_next
            assert error.__traceback__.tb_next.tb_frame.f_locals["kept"] == [1]
    assert (
        "a pass with batch statistics raised ValueError: not in a pass"
        in record_of(tmp_path).manifest.not_evaluated["losses"]
    )


def test_an_interrupt_reaches_the_user(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(lambda: raising(KeyboardInterrupt()), lambda: LOSS, tmp_path)


def test_a_signal_waits_for_the_pass(tmp_path: Path) -> None:
    """A handler may save the model, and what it raises ends training: a time limit, or the end of a job."""
    seen: list[Any] = []
    once = threading.Lock()  # the only thing here that is not put back

    def forward(self: Any, x: Any) -> Any:
        if not torch.is_grad_enabled() and once.acquire(blocking=False):
            signal.raise_signal(signal.SIGTERM)
            assert not seen
        return x

    model = Net(Part(forward))

    def handler(*_: Any) -> None:
        seen.append((model.training, model.norm.running_mean))
        raise TimeoutError("time is up")

    before = signal.signal(signal.SIGTERM, handler)
    running, (x, y) = model.norm.running_mean, data()[0]
    lens = Recorder(model, str(tmp_path), LOSS, overhead=math.inf, on_error="raise")
    try:
        LOSS(model(x), y).backward()
        with pytest.raises(TimeoutError, match="time is up"):
            lens.record(x, y)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(seen) == 1 and seen[0][0] and seen[0][1] is running


class Reads(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
    """Rows that depend on how often they were read."""

    def __init__(self) -> None:
        self.reads, self.generator = 0, np.random.default_rng(0)
        self.order: list[int] = []

    def __len__(self) -> int:
        return 4 * ROWS

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        self.order.append(index)
        x = torch.full((6,), float(index + self.reads + len(self.order) + self.generator.random()))
        return x, x[:1]


def test_a_dataset_that_counts_is_put_back() -> None:
    rows = Reads()
    loader = torch.utils.data.DataLoader(rows, ROWS, shuffle=True)
    state = str(rows.generator.bit_generator.state)
    assert len(TorchBatches().first(loader, ROWS, 2)) == 2
    assert (rows.reads, rows.order, str(rows.generator.bit_generator.state)) == (0, [], state)


# --- beside other threads --------------------------------------------------------------------------------


class Drawing:
    """A thread that draws all the time, and what it has drawn."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw, self._stop = draw, threading.Event()
        self.drawn: list[float] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.drawn.append(self._draw())

    def __enter__(self) -> Drawing:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()


SOURCES: dict[str, Callable[[], float]] = {
    "numpy": lambda: float(np.random.random()),  # noqa: NPY002
    "python": random.random,
    "torch": lambda: torch.rand(()).item(),
}


def test_beside_a_thread_that_cannot_change_it_all_is_put_back(tmp_path: Path) -> None:
    """As one that fills a queue of batches: it names nothing of the model."""
    with Drawing(lambda: float(len("ab"))):
        watched = trained(lambda: Net(Part(counts_in_module)), lambda: LOSS, tmp_path)
    assert_same(trained(lambda: Net(Part(counts_in_module)), lambda: LOSS, None), watched)
    assert record_of(tmp_path).evidence[-1].passes.keys() >= {"inference", "batch", "training"}


def test_beside_a_thread_that_changes_it_no_pass_is_made(tmp_path: Path) -> None:
    """What the thread does would be undone, or what a pass does would stay."""
    filled: list[float] = []
    passes: list[int] = []

    def forward(_: Any, x: Any) -> Any:
        passes.append(1)
        return x if filled is not None else -x

    model = Net(Part(forward))
    model.beats = 0

    def beat() -> float:
        filled.append(0.0)
        model.beats += 1
        time.sleep(1e-4)
        return 0.0

    with Drawing(beat) as thread:
        trained(lambda: model, lambda: LOSS, tmp_path)
    assert len(filled) == len(thread.drawn) == model.beats
    assert len(passes) == STEPS
    assert "another thread ('Thread-" in record_of(tmp_path).manifest.not_evaluated["losses"]


def test_what_a_timer_assigns_in_a_pass_stays(tmp_path: Path) -> None:
    """As one that ends training after some time."""

    def forward(self: Any, x: Any) -> Any:
        if not timer.is_alive() and not self.stop:
            timer.start()
        tries = 0 if torch.is_grad_enabled() else 100
        while tries and not self.stop:  # an extra pass, in which it fires
            tries -= 1
            time.sleep(0.01)
        return x

    def stop() -> None:
        model.middle.stop = True

    model, timer = Net(Part(forward, stop=False)), threading.Timer(0.2, stop)
    timer.daemon = True
    trained(lambda: model, lambda: LOSS, tmp_path)
    timer.join()
    assert model.middle.stop


@pytest.mark.parametrize("joins", [False, True])
def test_a_thread_of_a_pass_does_not_go_on_behind_it(joins: bool, tmp_path: Path) -> None:
    started: list[threading.Thread] = []

    def forward(self: Any, x: Any) -> Any:
        def late() -> None:
            time.sleep(0.02)
            self.calls += 1

        if not self.training:
            thread = threading.Thread(target=late, daemon=True)
            thread.start()
            started.append(thread)
        return x

    def names_a_join(self: Any, x: Any) -> Any:
        return forward(self, x) if "".join("") == "" else x

    model = Net(Part(names_a_join if joins else forward, calls=0))
    trained(lambda: model, lambda: LOSS, tmp_path)
    time.sleep(0.1)
    assert model.middle.calls == 0 and not started
    assert type(vars(threading.Thread)["start"]) is types.FunctionType
    reason = record_of(tmp_path).manifest.not_evaluated.get("losses", "")
    assert ("would start a thread" in reason) == (not joins)
    model.eval()(data()[0][0])
    started[0].join(10)
    assert model.middle.calls == 1


@pytest.mark.parametrize("wait", ["queue", "pipe"])
def test_beside_a_thread_that_waits_all_is_put_back(wait: str, tmp_path: Path) -> None:
    """As one that writes what a queue brings, prefetches and has no more room, reads from a program, or sleeps."""
    given: queue.Queue[None] = queue.Queue()
    read, write = os.pipe()

    def plain() -> dict[str, Any]:
        return trained(lambda: Net(Part(counts_and_draws)), lambda: LOSS, None)

    waits: Callable[[], Any] = given.get if wait == "queue" else functools.partial(os.read, read, 1)
    thread = threading.Thread(target=lambda: waits(), daemon=True)
    thread.start()
    time.sleep(0.1)  # until it waits
    watched = trained(lambda: Net(Part(counts_and_draws)), lambda: LOSS, tmp_path)
    given.put(None)
    os.write(write, b"a")
    thread.join()
    assert_same(plain(), watched)


def test_what_the_model_held_is_let_go_behind_each_record(tmp_path: Path) -> None:
    """Without a garbage collection: feature maps of the last step would stay in memory."""

    class Features:
        """What a forward leaves behind."""

    def leaves_features(self: Any, x: Any) -> Any:
        self.features = Features()
        return x

    model, freed = Net(Part(leaves_features)), []
    with Recorder(model, str(tmp_path), LOSS, overhead=math.inf, verbose=0) as lens:
        for x, y in data():
            LOSS(model(x), y).backward()
            gc.collect()
            gc.disable()
            try:
                held = weakref.ref(model.middle.features)
                lens.record(x, y)
                model.middle.features = None
                freed.append(held() is None)
            finally:
                gc.enable()
    assert all(freed), freed


def test_a_closed_recorder_lets_the_model_go(tmp_path: Path) -> None:
    model = Net()
    freed, given = weakref.ref(model), data()
    with Recorder(model, str(tmp_path), LOSS, verbose=0) as lens:
        for x, y in given:
            LOSS(model(x), y).backward()
            lens.record(x, y)
    gc.collect()
    gc.disable()
    try:
        del model, lens
        assert freed() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("wrapped", [False, True])
def test_classes_that_were_made_for_a_model_go_with_it(wrapped: bool, tmp_path: Path) -> None:
    """And all that their methods close over, the weights among it: a study of many trials ran out of memory."""

    def trained() -> list[Any]:
        scale = nn.Parameter(torch.ones(1))
        held = Counted()

        class Own(nn.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.net, self.held = Net(), held

            def forward(self, x: Any) -> Any:
                return scale * self.net(x)

        model: Any = Net() if wrapped else Own()
        if wrapped:
            torch.nn.utils.parametrizations.spectral_norm(model.first)
            scale = model.first.parametrizations.weight.original
        with Recorder(model, str(tmp_path), LOSS, overhead=math.inf, verbose=0) as lens:
            for x, y in data():
                LOSS(model(x), y).backward()
                lens.record(x, y)
        return [weakref.ref(type(model.first if wrapped else model)), weakref.ref(scale)]

    class Counted:
        """Walked, and denied to a pass."""

        def __init__(self) -> None:
            self.numbers = itertools.count()

    references = trained()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


@pytest.mark.parametrize("source", SOURCES)
def test_draws_of_another_thread_are_not_undone(source: str, tmp_path: Path) -> None:
    """A training pass draws for its dropout meanwhile."""
    model = Net(nn.Dropout(0.5))
    given = data()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    with Recorder(model, str(tmp_path), LOSS, overhead=math.inf, on_error="raise") as lens:
        with Drawing(SOURCES[source]) as other:
            for x, y in given:
                model.eval()(x)  # draws nothing itself
                model.train()
                lens.record(x, y)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    assert len(other.drawn) > 10 and other.drawn == [SOURCES[source]() for _ in other.drawn]
    # Without such a lock, nothing tells who has drawn.
    if source != "numpy" or isinstance(np.random.default_rng().bit_generator.lock, type(threading.RLock())):
        assert "losses" not in record_of(tmp_path).manifest.not_evaluated


def test_a_model_that_draws_from_python_beside_another_thread_is_not_run(tmp_path: Path) -> None:
    model = Net(Part(lambda self, x: x * (1 + 0.1 * random.uniform(0, 1))))
    random.seed(0)
    expected = [random.random() for _ in range(STEPS)]
    random.seed(0)
    found = []
    with Recorder(model, str(tmp_path), LOSS, overhead=math.inf, on_error="raise") as lens, Drawing(lambda: 0.0):
        for x, y in data():
            model.middle.function = lambda self, x: x
            model(x)
            model.middle.function = lambda self, x: x * (1 + 0.1 * random.uniform(0, 1))
            lens.record(x, y)
            found.append(random.random())
    assert found == expected
    assert "while another thread runs" in record_of(tmp_path).manifest.not_evaluated["losses"]


@pytest.mark.parametrize("waits_for", ["lock", "thread"])
def test_a_pass_does_not_wait_for_a_thread_that_draws(waits_for: str, tmp_path: Path) -> None:
    """Which waited for the pass in turn, where that had locked NumPy's generator."""
    lock, going = threading.Lock(), threading.Event()

    def draws() -> float:
        with lock:
            drawn = float(np.random.random())  # noqa: NPY002
        time.sleep(0.002)
        return drawn

    def waits(_: Any, x: Any) -> Any:
        time.sleep(0.004)
        if waits_for == "lock":
            with lock:
                return x
        thread = threading.Thread(target=np.random.random, daemon=True)
        thread.start()
        thread.join()
        return x

    def train() -> None:
        with Drawing(draws):
            trained(lambda: Net(Part(waits)), lambda: LOSS, tmp_path)
        going.set()

    threading.Thread(target=train, daemon=True).start()
    assert going.wait(60)


def draw_everything() -> list[Any]:
    x = torch.ones(3, 4)
    made = [torch.rand(3), torch.randn(3), torch.randint(0, 9, (3,)), torch.randperm(5), torch.bernoulli(x / 2)]
    made += [torch.dropout(x, 0.5, True), torch.nn.functional.rrelu(-x, training=True), torch.multinomial(x, 2)]
    return [*made, torch.rand_like(x), torch.randn_like(x), torch.normal(x, x), x.clone().exponential_()]


def test_draws_apart_are_those_of_the_global_generator() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with DrawsApart():
        apart = draw_everything()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(apart, draw_everything(), strict=True))
    with pytest.raises(NotEvaluated, match="while another thread runs"), DrawsApart():
        torch.ops.aten.native_dropout(torch.ones(3), 0.5, True)


def test_what_was_written_looks_as_never_written() -> None:
    """Autograd asks for the version of what it has saved."""
    weight, x = torch.ones(4, requires_grad=True), torch.arange(4.0)
    y = (weight * x).sum()
    queue = torch.zeros(6)
    with torch.no_grad(), writes_undone():
        x.mul_(2)
        x[1:3].add_(1)
        queue[2:4] = 5.0
        fresh = torch.zeros(3).add_(1)
        view = fresh[:2].mul_(3)
        torch._foreach_add_([queue, x], [queue, x])
    assert x.tolist() == [0, 1, 2, 3] and queue.tolist() == [0] * 6 and view.tolist() == [3, 3] and fresh[2] == 1
    y.backward()
    assert weight.grad.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("change", ["data", "needs", "grad", "leaf"])
def test_a_tensor_is_put_back_as_an_object(change: str) -> None:
    """Most tensors are looked at together; the one that has changed is found among them."""
    model = nn.Linear(3, 2)
    model.bias.grad = torch.ones(2)
    model.register_buffer("mean", torch.zeros(2))
    data, grad = model.bias.data_ptr(), model.bias.grad
    with OBJECTS.put_back(model):
        if change == "data":
            model.bias.data = torch.ones(2)
        elif change == "needs":
            model.bias.requires_grad_(False)
            model.mean.requires_grad_()
        elif change == "grad":
            model.bias.grad = None
            model.weight.grad = torch.ones(2, 3)
        else:
            model.mean.add_(model.bias)
    assert model.bias.data_ptr() == data and model.bias.grad is grad and model.weight.grad is None
    assert model.bias.requires_grad and (model.mean.requires_grad is False or change == "leaf")


class Derived(nn.Module):  # type: ignore[misc, name-defined]
    """Takes a derivative through two layers in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def forward(self, x: Any) -> Any:
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            y = self.net(x)
            (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return y + slope.square().mean()


def test_a_pass_writes_the_statistics_of_each_layer_apart(tmp_path: Path) -> None:
    """Their clones are neighbours in memory. What autograd saves of one layer is there when the next one is written."""
    assert_same(trained(Derived, lambda: LOSS, None), trained(Derived, lambda: LOSS, tmp_path))
    assert record_of(tmp_path).evidence[-1].passes.keys() >= {"inference", "batch", "training"}


def test_buffers_of_all_kinds_are_cloned() -> None:
    shared, wide = torch.arange(3.0), torch.ones(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    kinds = [
        shared,
        torch.tensor(7),
        torch.ones(2, 2),
        wide,
        torch.ones(3).bfloat16(),
        torch.ones(4)[::2],
        torch.eye(2),
    ]
    kinds[-1] = kinds[-1].to_sparse()
    modules = [nn.Module() for _ in range(2)]
    for module in modules:
        module.register_buffer("none", None)
        for i, tensor in enumerate(kinds):
            module.register_buffer(f"b{i}", tensor if i == 0 else tensor.clone())
    before = [dict(module.named_buffers(remove_duplicate=False)) for module in modules]
    with cloned_buffers(modules):
        first, second = (dict(module.named_buffers(remove_duplicate=False)) for module in modules)
        assert first["b0"] is second["b0"] and first["b0"] is not shared
        for name, tensor in first.items():
            own = before[0][name]
            assert torch.equal(tensor.to_dense(), own.to_dense()) and tensor.dtype == own.dtype and tensor is not own
            if tensor.layout == torch.strided:
                assert tensor.stride() == own.stride() or name == "b5"
                tensor.add_(1)
        assert second["b1"] == 7 and first["b1"] == 8
    assert shared.tolist() == [0, 1, 2] and modules[0].b0 is shared and modules[0].b1 == 7


def test_a_set_that_grew_has_its_order_back() -> None:
    """Where two values collide, their order is that in which they came, or the reverse."""
    numbers = {7}
    numbers.add(15)
    before = list(numbers)
    with OBJECTS.put_back([numbers]):
        numbers.add(3)
    assert list(numbers) == before


# --- logs of the user's ----------------------------------------------------------------------------------------


class Run:
    """As of wandb, whose module keeps a bound method."""

    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []

    def log(self, values: dict[str, Any]) -> None:
        self._log(values)

    def _log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)


def with_part(function: Callable[[Any, Any], Any]) -> Any:
    return Net(Part(function))


def test_a_pass_writes_nothing_in_logs_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from torch.utils.tensorboard import SummaryWriter

    module: Any = types.ModuleType("wandb.sdk.wandb_run")
    module.Run = Run
    Run.__module__ = module.__name__
    monkeypatch.setitem(sys.modules, module.__name__, module)
    run = Run()
    writers = {name: SummaryWriter(str(tmp_path / name)) for name in ("plain", "recorded")}
    for name, where in (("plain", None), ("recorded", tmp_path / "log")):

        def writes(self: Any, x: Any, name: str = name, log: Any = run.log) -> Any:
            log({"mean": 0})
            writers[name].add_scalar("mean", x.detach().mean(), 0)
            writers[name].add_scalars("means", {"a": x.detach().mean()})
            return x

        trained(functools.partial(with_part, writes), lambda: LOSS, where)
        writers[name].close()
        assert len(run.logged) == STEPS
        run.logged.clear()

    def events(name: str) -> int:
        files = [file for file in (tmp_path / name).rglob("events*") if file.is_file()]
        return sum(event.HasField("summary") for file in files for event in EventFileLoader(str(file)).Load())

    assert events("recorded") == events("plain") == 2 * STEPS
    assert "losses" not in record_of(tmp_path / "log").manifest.not_evaluated
    assert SummaryWriter.add_scalar.__name__ == "add_scalar" and Run.log.__name__ == "log"

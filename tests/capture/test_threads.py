"""What other threads do: tests/frameworks/test_torch_harmless.py has whole trainings beside some."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import os
import queue
import signal
import socketserver
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from threading import main_thread
from types import SimpleNamespace
from typing import Any
from xmlrpc.server import SimpleXMLRPCServer

import numpy as np
import pytest

from tb_bnlens.capture import randomness, threads
from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.objects import Objects
from tb_bnlens.capture.randomness import others_may_draw
from tb_bnlens.capture.signals import signals_wait
from tb_bnlens.capture.still import still
from tests.conftest import wait_for


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of other tests count as those of a tool: that of the browser's connection may tell any other to go on."""
    before, is_of_a_tool = set(threading.enumerate()), threads.is_of_a_tool
    for module in (threads, randomness):
        monkeypatch.setattr(module, "is_of_a_tool", lambda thread: thread in before or is_of_a_tool(thread))


@pytest.fixture
def sleeper() -> Iterator[threading.Thread]:
    wake = threading.Event()
    thread = threading.Thread(target=lambda: [wake.wait(), sum(range(10**6))], daemon=True)
    thread.start()
    yield thread
    wake.set()
    thread.join(10)


def time_of(thread: threading.Thread) -> int:
    assert thread.ident is not None
    return threads.others()[thread.ident][1]


def test_a_thread_that_sleeps_gets_no_time(sleeper: threading.Thread) -> None:
    time.sleep(0.05)  # it has begun to wait
    before = threads.others()
    time.sleep(0.05)
    assert threads.others() == before and threads.is_known(before)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems name the clock otherwise")
def test_the_clock_of_a_thread_is_that_of_the_system(sleeper: threading.Thread) -> None:
    time.sleep(0.05)
    assert sleeper.ident is not None
    assert time_of(sleeper) == time.clock_gettime_ns(time.pthread_getcpuclockid(sleeper.ident)) > 0


def test_a_thread_that_has_ended_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """``pthread_getcpuclockid`` of one may end the process."""
    frame = sys._getframe()
    ended = threading.Thread(target=lambda: None, daemon=True)
    ended.start()
    ended.join(10)
    assert ended.ident is not None
    time.sleep(0.05)  # the kernel forgets it a little later
    monkeypatch.setattr(threading, "enumerate", lambda: [ended])
    monkeypatch.setattr(sys, "_current_frames", lambda: {ended.ident: frame})
    monkeypatch.setattr(
        time, "pthread_getcpuclockid", lambda _: pytest.fail("called for a thread that ended"), raising=False
    )
    if sys.platform == "linux":
        assert time_of(ended) == -1


def test_the_thread_of_an_event_loop_may_draw() -> None:
    """It runs what a user gives it, as a loader of data that fills a queue."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    assert not others_may_draw()
    thread.start()
    try:
        assert others_may_draw()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


# --- a thread that wakes in a pass ----------------------------------------------------------------------------

LEVEL = 0
SETTINGS: Any = types.ModuleType("bn_lens_test_settings")
SETTINGS.hits = 0
sys.modules[SETTINGS.__name__] = SETTINGS


class Model:
    """Reads what other threads change here, and counts its calls."""

    kinds = 0

    def __init__(self) -> None:
        self.stop, self.calls, self.array = False, 0, np.zeros(3)
        self.table: dict[str, int] = {}
        self.rows: list[int] = []
        self.local, self.context = threading.local(), ContextVar("context", default=0)
        level = 0

        def raises_level() -> None:
            nonlocal level
            level = 1

        self.level: Callable[[], int] = lambda: level
        self.raises_level = raises_level

    def __call__(self, x: float) -> float:
        global LEVEL
        LEVEL = LEVEL + self.level()
        self.calls += 1
        return x + SETTINGS.hits + self.stop + len(self.table) + len(self.rows) + self.array[0] + Model.kinds

    @property
    def limit(self) -> int:
        return self.calls

    @limit.setter
    def limit(self, value: int) -> None:
        self.calls = value

    def end(self) -> None:
        self.stop = True


class Trainer:
    """Has attributes of the same names as the model."""

    def __init__(self, model: Model) -> None:
        self.model, self.stop, self.calls = model, False, 0

    def ends(self, now: bool) -> None:
        self.model.stop = now

    def keeps(self) -> None:
        self.calls = self.model.calls
        self.stop = True


def assigns_limit(model: Model) -> None:
    model.limit = 9


def assigns_in_imported() -> None:
    import bn_lens_test_settings as settings  # type: ignore[import-not-found]

    settings.hits = 1


def grows(model: Model) -> None:
    model.calls += 1


def adds_to(model: Model) -> None:
    array = model.array
    array += 1


def extends(rows: list[int]) -> None:
    rows += [1]


def assigns_variable(_: Model) -> None:
    global LEVEL
    LEVEL = 1


def assigns_attribute(model: Model) -> None:
    model.stop = True


def assigns_in_class(_: Model) -> None:
    Model.kinds = 1


def assigns_element(model: Model) -> None:
    model.array[0] = 1


WRITERS: dict[str, Callable[[Model], Callable[[], Any]]] = {
    "attribute": lambda model: lambda: assigns_attribute(model),
    "attribute of a class": lambda model: partial(assigns_in_class, model),
    "element": lambda model: partial(assigns_element, model),
    "variable of a module": lambda model: partial(assigns_variable, model),
    "variable of a function": lambda model: model.raises_level,
    "method": lambda model: model.end,
    "method of a dictionary": lambda model: lambda: model.table.update(a=1),
    "method in C": lambda model: partial(model.rows.append, 1),
    "attribute of another name's owner": lambda model: partial(Trainer(model).ends, True),
    "heap": lambda model: lambda: heapq.heappush(model.rows, 1),
    "property": lambda model: partial(assigns_limit, model),
    "module that it imports": lambda _: assigns_in_imported,
    "attribute that grows": lambda model: lambda: grows(model),
    "array through a variable": lambda model: partial(adds_to, model),
    "list through a variable of its own": lambda model: partial(extends, model.rows),
    "setattr": lambda model: lambda: setattr(model, "calls", 9),
}
READERS: dict[str, Callable[[Model], Callable[[], Any]]] = {
    "attribute": lambda model: lambda: print(model.calls),
    "what it counts in a variable": lambda model: lambda: counts(model),
    "containers": lambda model: lambda: print(len(model.rows), model.array.sum(), model.table.get("a")),
    "what it has of the same name": lambda model: Trainer(model).keeps,
    "what it keeps": lambda model: partial(keeps, SimpleNamespace(last={}, calls=0), model),
    "its own state": lambda model: lambda: writes_apart(model),
    "nothing": lambda _: lambda: None,
}


def keeps(watched: SimpleNamespace, model: Model) -> None:
    watched.last["calls"] = watched.calls = model.calls


def counts(model: Model) -> None:
    seen, total = model.calls, model.array.sum()
    seen += 1
    total += len(model.rows)


def writes_apart(model: Model) -> None:
    model.local.last = 1
    model.context.set(1)


@contextlib.contextmanager
def in_timer(call: Callable[[], Any]) -> Iterator[None]:
    timer = threading.Timer(60, call)
    timer.daemon = True
    timer.start()
    yield
    timer.cancel()
    timer.join(10)


@contextlib.contextmanager
def in_sleep(call: Callable[[], Any]) -> Iterator[None]:
    read, write = os.pipe()
    thread = threading.Thread(target=lambda: os.read(read, 1) == b"!" and call(), daemon=True)
    thread.start()
    yield
    os.write(write, b".")
    thread.join(10)


@contextlib.contextmanager
def in_server(call: Callable[[], Any]) -> Iterator[None]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            call()

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield
        server.shutdown()
        thread.join(10)


@contextlib.contextmanager
def in_loop(call: Callable[[], Any]) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    loop.call_later(60, call)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@contextlib.contextmanager
def in_task(call: Callable[[], Any]) -> Iterator[None]:
    async def waits() -> None:
        await asyncio.sleep(60)
        call()

    async def task() -> None:
        await waits()

    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(task())]
    thread = threading.Thread(target=loop.run_until_complete, args=(asyncio.wait(tasks),), daemon=True)
    thread.start()
    yield
    loop.call_soon_threadsafe(tasks[0].cancel)
    thread.join(10)
    loop.close()


PACKAGE = """
class Job:
    __slots__ = ("func",)

class Scheduler:
    def __init__(self, func, waits):
        self.waits, self.job = waits, Job()
        self.job.func = func

    def run(self):
        while not self.waits(60):
            self.job.func()
"""
"""As a scheduler of an installed package, of which no frame is a user's."""


@contextlib.contextmanager
def in_package(call: Callable[[], Any]) -> Iterator[None]:
    package: dict[str, Any] = {"__name__": "jobs.of_a_package"}
    exec(compile(PACKAGE, "/site-packages/jobs/of_a_package.py", "exec"), package)
    ends = threading.Event()
    thread = threading.Thread(target=package["Scheduler"](call, ends.wait).run, daemon=True)
    thread.start()
    yield
    ends.set()
    thread.join(10)


@contextlib.contextmanager
def in_served_object(call: Callable[[], Any]) -> Iterator[None]:
    class Control:
        """Its methods are called by names that come over the wire."""

        def act(self) -> None:
            call()

    with SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False) as server:
        server.register_instance(Control())
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield
        server.shutdown()
        thread.join(10)


WHERE = (in_timer, in_sleep, in_server, in_loop, in_task, in_package, in_served_object)


def passed(model: Model) -> bool:
    """Whether a pass is made; what it changes is put back."""
    time.sleep(0.05)  # the thread has begun to wait
    try:
        with Objects().put_back(model):
            model(1.0)
    except NotEvaluated as reason:
        assert "another thread ('Thread-" in str(reason)
        return False
    assert model.calls == 0
    return True


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("what", WRITERS)
def test_beside_one_that_assigns_what_the_model_holds_no_pass_is_made(where: Any, what: str) -> None:
    """It would lose what it assigns in a pass."""
    model = Model()
    with where(WRITERS[what](model)):
        assert not passed(model)
    assert passed(model)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("what", READERS)
def test_beside_one_that_reads_it_passes_are_made(where: Any, what: str) -> None:
    """As one that shows progress."""
    model = Model()
    with where(READERS[what](model)):
        assert passed(model)


def test_beside_one_that_waits_until_it_is_told_passes_are_made() -> None:
    """As one that writes what a queue brings."""
    model, given = Model(), queue.Queue[int]()

    def takes() -> None:
        model.rows.append(given.get())
        model.end()

    thread = threading.Thread(target=takes, daemon=True)
    thread.start()
    assert passed(model)
    given.put(0)
    thread.join(10)
    assert model.stop


def test_beside_another_one_that_may_tell_it_none_is_made() -> None:
    model, given = Model(), queue.Queue[int]()

    def takes() -> None:
        model.rows.append(given.get())

    with in_sleep(lambda: given.put(model.calls)):
        thread = threading.Thread(target=takes, daemon=True)
        thread.start()
        assert not passed(model)
    given.put(0)
    thread.join(10)


def test_no_pass_waits_for_a_lock_that_is_held() -> None:
    """As one that the loop holds around a step."""
    lock = threading.Lock()
    model = Model()

    def takes() -> int:
        with lock:
            return 0

    model.level = takes
    assert passed(model)
    with lock, pytest.raises(NotEvaluated, match="type lock, which is held"), Objects().put_back(model):
        model(1.0)
    assert passed(model)


def test_code_that_tries_again_and_again_is_ended() -> None:
    """It catches what a stand-in raises."""
    model, given = Model(), queue.Queue[int]()

    def tries() -> int:
        while True:
            with contextlib.suppress(Exception):
                given.put_nowait(1)
                return 0

    model.level = tries
    with pytest.raises(NotEvaluated, match="type Queue"), Objects().put_back(model):
        model(1.0)
    assert given.empty()


def test_a_second_signal_is_handled_although_the_first_handler_raises() -> None:
    came: list[int] = []

    def ends(*_: Any) -> None:
        raise TimeoutError

    before = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGUSR1)}
    signal.signal(signal.SIGALRM, ends)
    signal.signal(signal.SIGUSR1, lambda number, _: came.append(number))
    try:
        with pytest.raises(TimeoutError), signals_wait():
            signal.raise_signal(signal.SIGALRM)
            signal.raise_signal(signal.SIGUSR1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert came == [signal.SIGUSR1]


def test_no_pass_follows_one_in_which_it_wakes() -> None:
    model, wakes = Model(), threading.Event()

    def wakes_late() -> None:
        wakes.wait()
        model.end()

    thread = threading.Thread(target=wakes_late, daemon=True)
    thread.start()
    wait_for(lambda: passed(model), "the wait of the thread")
    with still():
        assert passed(model)
        with pytest.raises(NotEvaluated, match="another thread can change"), Objects().put_back(model):
            wakes.set()
            thread.join(10)


def waits_while_alive(pause: Callable[[threading.Thread], None], model: Model, found: list[bool]) -> None:
    thread = threading.Thread(target=lambda: found.append(passed(model)), daemon=True)
    thread.start()
    while thread.is_alive():
        pause(thread)
    model.stop = True


waits_for_thread = partial(waits_while_alive, lambda _: time.sleep(0.001))
waits_for_join = partial(waits_while_alive, lambda thread: thread.join(0.001))


def waits_for_future(model: Model, found: list[bool]) -> None:
    future = ThreadPoolExecutor(1).submit(passed, model)
    while not future.done():
        time.sleep(0.001)
    found.append(future.result())
    model.stop = True


def tells(done: threading.Event, model: Model, found: list[bool]) -> None:
    def train() -> None:
        found.append(passed(model))
        done.set()

    threading.Thread(target=train, daemon=True).start()


def asks_a_signal(model: Model, found: list[bool]) -> None:
    done, shown = threading.Event(), 0
    tells(done, model, found)
    while not done.is_set():
        shown += len(found)
        time.sleep(0.001)
    model.stop = True


def waits_for_a_signal(model: Model, found: list[bool]) -> None:
    done = threading.Event()
    tells(done, model, found)
    while True:
        if done.wait(0.001):
            break
    model.stop = True


@pytest.mark.parametrize(
    "waits", [waits_for_thread, waits_for_future, waits_for_join, asks_a_signal, waits_for_a_signal]
)
def test_beside_one_that_waits_for_this_one_passes_are_made(waits: Any) -> None:
    """As the thread of a window while another one trains: what it does then comes later."""
    model, found = Model(), list[bool]()
    thread = threading.Thread(target=waits, args=(model, found), daemon=True)
    thread.start()
    thread.join()  # not for some time alone, after which this one would go on
    assert found == [True] and model.stop


def of_the_module(model: Model, done: threading.Event) -> None:
    while threading.main_thread().is_alive():
        if done.wait(0.001):
            return
    model.end()


def of_a_name(model: Model, done: threading.Event) -> None:
    while main_thread().is_alive():
        if done.wait(0.001):
            return
    model.end()


@pytest.mark.parametrize("asks", [of_the_module, of_a_name])
def test_beside_one_that_waits_for_the_main_thread_this_one_makes_passes(
    asks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, done = Model(), threading.Event()
    thread = threading.Thread(target=asks, args=(model, done), daemon=True)
    thread.start()
    try:
        assert passed(model)
        monkeypatch.setattr(threading, "main_thread", lambda: thread)
        assert not passed(model)  # of another one, the main thread may end meanwhile
    finally:
        done.set()
        thread.join(10)


@pytest.mark.parametrize("how", ["other thread", "handler", "limit", "loop"])
def test_beside_one_that_may_stop_to_wait_no_pass_is_made(how: str) -> None:
    """Another one may tell it, an exception or the time ends its wait, or it assigns in between."""
    model, done, ends = Model(), threading.Event(), threading.Event()

    def waits() -> None:
        while not done.is_set():
            time.sleep(0.001)
        model.stop = True

    def waits_for_interrupt() -> None:
        try:
            while not done.is_set():
                time.sleep(0.001)
        except KeyboardInterrupt:
            model.stop = True

    def waits_long() -> None:
        began = time.monotonic()
        while not done.is_set():
            if time.monotonic() > began + 60:
                model.stop = True
            time.sleep(0.001)

    def assigns() -> None:
        while not done.is_set():
            time.sleep(0.001)
            model.stop = False

    targets = {"other thread": waits, "handler": waits_for_interrupt, "limit": waits_long, "loop": assigns}
    thread = threading.Thread(target=targets[how], daemon=True)
    thread.start()
    with in_sleep(done.set) if how == "other thread" else contextlib.nullcontext():
        assert not passed(model)
    done.set()
    thread.join(10)
    ends.set()


class Equals(type):
    """A metaclass whose classes have no hash."""

    __hash__ = None  # type: ignore[assignment]


class Equal(metaclass=Equals):
    """A part of a model, of such a class."""

    ever = 0

    def level_of_all(self) -> int:
        return self.ever


@pytest.mark.parametrize("assigns", [False, True])
def test_a_class_without_a_hash_is_one_like_any_other(assigns: bool) -> None:
    model, part, shown = Model(), Equal(), SimpleNamespace(total=0)
    model.level = part.level_of_all  # type: ignore[assignment]

    def shows() -> None:
        shown.total = part.ever

    def shows_and_assigns() -> None:
        shows()
        assigns_attribute(model)

    with in_sleep(shows_and_assigns if assigns else shows):
        assert passed(model) is not assigns


def test_a_reason_names_what_a_thread_can_change() -> None:
    model = Model()
    named = {"attribute": "'stop' of a Model", "variable of a module": "'LEVEL'", "method in C": "'rows' of a Model"}
    for what, words in named.items():
        with in_sleep(WRITERS[what](model)):
            time.sleep(0.05)
            with pytest.raises(NotEvaluated, match=words), Objects().put_back(model):
                model(1.0)


def paced(done: threading.Event) -> Iterator[None]:
    while not done.is_set():
        time.sleep(0.001)
        yield


def by_a_generator(model: Model, done: threading.Event) -> None:
    for _ in paced(done):
        model.end()


def of_several(model: Model, done: threading.Event) -> None:
    told = threading.Event()
    told.set()
    while not done.is_set():
        for signal_asked in (done, told):
            if signal_asked.is_set():
                model.end()
            else:
                time.sleep(0.001)


def by_a_helper(model: Model, done: threading.Event) -> None:
    def runs(told: bool) -> bool:
        return not told

    while runs(done.is_set()):
        model.end()
        time.sleep(0.001)


def by_a_method_given(model: Model, done: threading.Event) -> None:
    def runs(wait: Callable[[float], bool], seconds: float) -> bool:
        return not wait(seconds)

    while runs(done.wait, 0.001):
        model.end()


def of_one_or_the_other(model: Model, done: threading.Event) -> None:
    first, told = True, threading.Event()
    told.set()
    while not done.is_set():
        if (told if first else done).is_set():
            model.end()
        time.sleep(0.001)


@pytest.mark.parametrize("how", [by_a_generator, of_several, by_a_helper, by_a_method_given, of_one_or_the_other])
def test_what_an_answer_leads_to_is_known_of_a_plain_question_alone(how: Any) -> None:
    """It is assigned while nobody tells the signal that is asked."""
    model, done = Model(), threading.Event()
    thread = threading.Thread(target=how, args=(model, done), daemon=True)
    thread.start()
    try:
        assert not passed(model)
    finally:
        done.set()
        thread.join(10)


def test_the_seconds_of_a_wait_may_be_an_attribute() -> None:
    model = Model()
    pace = SimpleNamespace(seconds=0.001, done=threading.Event())

    def waits() -> None:
        while not pace.done.wait(pace.seconds):
            pass
        model.end()

    thread = threading.Thread(target=waits, daemon=True)
    thread.start()
    try:
        assert passed(model)
    finally:
        pace.done.set()
        thread.join(10)


def test_one_that_waits_for_a_queue_may_be_woken_by_one_that_knows_no_model() -> None:
    model, waiting, ends = Model(), queue.Queue[Any](), threading.Event()

    def consumes() -> None:
        for _ in iter(waiting.get, None):
            model.end()

    def relays() -> None:
        while not ends.is_set():
            time.sleep(0.2)
            waiting.put(1)

    relay = threading.Thread(target=relays, daemon=True)
    consumer = threading.Thread(target=consumes, daemon=True)
    consumer.start()
    assert passed(model)
    relay.start()
    try:
        assert not passed(model)
    finally:
        ends.set()
        relay.join(10)
        waiting.put(None)
        consumer.join(10)


def test_a_warning_that_other_code_wraps_in_a_pass_is_given_behind_it() -> None:
    model, before = Model(), warnings.showwarning
    shown: list[str] = []
    try:
        with Objects().put_back(model):
            kept = warnings.showwarning
            warnings.showwarning = lambda *given: (shown.append(str(given[0])), kept(*given))[0]  # type: ignore[func-returns-value]
        with Objects().put_back(model), warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("in a pass", stacklevel=1)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("behind it", stacklevel=1)
    finally:
        warnings.showwarning = before
    assert shown == ["behind it"]


def test_beside_another_training_passes_are_made() -> None:
    """Each has its model and its lens; both append to one list, under one lock."""
    lock, results, made = threading.Lock(), list[float](), list[bool]()
    main, both_end = threading.main_thread().ident or 0, threading.Barrier(2)

    class Counts:
        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, x: float) -> float:
            self.calls += 1
            return x

    def joins() -> bool:
        return sys._current_frames()[main].f_code.co_name in ("join", "_wait_for_tstate_lock")

    def train(model: Any) -> None:
        try:
            wait_for(joins, "the join of the main thread")
            for _ in range(5):
                model.kept = model(1.0)
                model.calls = 0
                made.append(passed(model))
                with lock:
                    results.append(1.0)
        finally:
            both_end.wait()  # the main thread stays in its first join

    both = [threading.Thread(target=train, args=(Counts(),), daemon=True) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert made == [True] * 10


def test_looking_at_a_thread_calls_no_method_of_its_objects() -> None:
    """Such as one that finds attributes, and may count or load them."""
    asked: list[str] = []

    class Lazy:
        __slots__ = ("later",)

        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            raise AttributeError(name)

    model, lazy = Model(), Lazy()
    with in_sleep(lambda: print(lazy, model.calls)):
        assert passed(model)
    assert not asked

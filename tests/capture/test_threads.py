"""What other threads do: tests/frameworks/test_torch_harmless.py has whole trainings beside some."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tb_bnlens.capture import threads
from tb_bnlens.capture.randomness import others_may_draw


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

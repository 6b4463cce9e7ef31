"""Memory of a long run is given back, where the C library can; see ``tests/benchmarks/review.py`` for how much."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from tb_bnlens.plugin import memory

READ_IN_A_THREAD = """
import sys, threading
from tb_bnlens.plugin.memory import Freed, keep_little

def held():
    return int(next(l.split()[1] for l in open("/proc/self/status") if l.startswith("RssAnon"))) / 1024

def read():
    # A large block that is freed raises what glibc keeps; a reply is decoded into many below that.
    large = bytearray(30 * 2**20)
    del large
    blocks = [bytearray(100_000) for _ in range(500)]

keep = sys.argv[1] == "kept"
if not keep:
    keep_little()
before = held()
thread = threading.Thread(target=read)
thread.start()
thread.join()
Freed().add(0 if keep else 10**9)
print(held() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, and glibc is what keeps memory")
def test_it_is_given_back() -> None:
    def held(how: str) -> float:
        command = [sys.executable, "-c", READ_IN_A_THREAD, how]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert held("given back") < 5 < 20 < held("kept"), "MB"


@pytest.mark.parametrize("fault", [OSError("no C library"), AttributeError("musl"), TypeError("Windows")])
def test_nothing_happens_where_it_cannot_be(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def library(name: object) -> object:
        asked.append(name)
        raise fault

    monkeypatch.setattr(ctypes, "CDLL", library)
    freed = memory.Freed()
    freed.add(memory.WORTH_IT)
    assert len(asked) == 1
    freed.add(memory.WORTH_IT - 1)
    assert len(asked) == 1, "a small run is not worth it"
    freed.add(1)
    assert len(asked) == 2, "many small ones are"
    memory.keep_little()
    assert len(asked) == 3

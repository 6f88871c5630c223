"""Ctrl-C at any moment of a client's life leaves no lock taken, and no thread behind."""

from __future__ import annotations

import _thread
import copy
import gc
import pickle
from collections.abc import Callable

import pytest

import morphogen as mg
from fake_server import client, two_servers
from storm import assert_survives, named

SETUP = """
import asyncio
import tempfile
from pathlib import Path
import numpy as np
import morphogen as mg
from fake_server import client, sealed_pages, two_servers
from morphogen.client.loop import LoopThread
from morphogen.engine.threads import start_thread
from storm import *

give_up_in_time()

async def nothing():
    await asyncio.sleep(0)
    return 5

def check(loop):
    assert loop.run(nothing) == 5
"""

RUN = """
loop = LoopThread(nothing)
with beside(lambda: check(loop)):
    storm(lambda: check(loop))
check(loop)
loop.close()
"""

CLOSE = """
loops = []
def close():
    while loops:
        loops[-1].close()
        loops.pop()

def use():
    close()  # again, if an interrupt cut it
    loop = LoopThread(nothing)
    loops.append(loop)
    check(loop)
    loop.close()

storm(use, INTERRUPTS // 2)
close()
"""

READ = """
with two_servers() as servers:
    pages = servers[0].table
    with client(servers) as reader:
        def read():
            assert np.array_equal(reader.get([3, 7]), pages[[3, 7]])
        with beside(read):
            storm(read, INTERRUPTS // 10)
        read()
"""

CAP = """
seal = sealed_pages()
with two_servers(seal=seal) as servers, tempfile.TemporaryDirectory() as folder:
    def connect():
        for cap in Path(folder).iterdir():
            cap.unlink(missing_ok=True)
        with client(servers, cache_dir=folder) as reader:
            assert np.array_equal(reader.get([3, 7]), seal.pages[[3, 7]])
    storm(connect, INTERRUPTS // 10)
    connect()
    assert [cap.name for cap in Path(folder).iterdir()] == [seal.root.hex() + ".cap"]
"""

SHUTDOWN = """
class Last:
    def __init__(self):
        self.loop = LoopThread(nothing)
        check(self.loop)

    def __del__(self, refused=mg.MorphogenError, start=start_thread):
        for use in (lambda: self.loop.run(nothing), lambda: start(lambda ready: ready(), "late")):
            try:
                use()
            except (refused, RuntimeError) as error:
                assert "Python is shutting down" in str(error), error
            else:
                raise AssertionError
        self.loop.close()
        print("done")

last = Last()
"""

END = """
assert not pending()
while named("morphogen-client"):
    gc.collect()
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [RUN, CLOSE, READ, CAP], ids=["run", "close", "read", "cap"])
def test_a_client_survives_a_storm_of_interrupts(script: str) -> None:
    assert_survives(SETUP + script + END)


def test_a_client_in_a_finalizer_at_the_exit_of_python_does_not_wait_for_its_thread() -> None:
    assert_survives(SETUP + SHUTDOWN)


def test_a_client_that_is_dropped_ends_its_thread() -> None:
    with two_servers() as servers:
        reader = client(servers)
        assert reader.get([3]).shape == (1, 96)
        (thread,) = named("morphogen-client")
        del reader
        gc.collect()
        thread.join()


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_client_is_neither_copied_nor_pickled(make: Callable[[object], object]) -> None:
    with two_servers() as servers, client(servers) as reader:
        for one in (reader, mg.AsyncClient([server.url for server in servers])):
            with pytest.raises(TypeError, match=r"^a client cannot be copied or pickled: make one"):
                make(one)
        assert reader.get([3]).shape == (1, 96)


def test_a_client_without_a_thread_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with two_servers() as servers:
        with monkeypatch.context() as patch:
            patch.setattr(_thread, "start_new_thread", refuse)
            message = r"^a client needs a thread: can't start new thread$"
            with pytest.raises(mg.MorphogenError, match=message):
                client(servers)
        with client(servers) as reader:
            assert reader.get([3]).shape == (1, 96)

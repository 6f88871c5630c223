"""Ctrl-C at any moment leaves an engine's lock free, and no call waits for itself."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from naive import naive_answers, open_engine, random_pages
from standin_driver import environment
from storm import SECONDS, assert_survives

SETUP = """
import gc, sys
import numpy as np
import morphogen as mg
from naive import naive_answers, random_pages, random_rows
from storm import *

give_up_in_time()
device = sys.argv[1]
array = random_pages(200, 48)
pages = mg.PageMatrix(array)
batch = mg.make_queries(random_rows(3, 2, 200), 200)[0]
right = naive_answers(array, batch)

def open_one(**options):
    if device == "cpu":
        options = {"threads": 2}
    return mg.open_engine(pages, device, **options)

def check(engine):
    assert np.array_equal(engine.answer(batch).pages, right)
"""

ANSWER = """
engine = open_one()
def ask():
    check(engine)
    engine.read_pages()
with beside(ask, ask):
    storm(ask, INTERRUPTS if device == "cpu" else INTERRUPTS // 5)
check(engine)
engine.close()
print("done")
"""

OPEN_AND_CLOSE = """
before = threads_of_process()
opened = []
def use():
    engine = open_one(progress=lambda sent, total: None)
    opened.append(engine)
    check(engine)
    engine.close()

storm(use, INTERRUPTS // 10)
for engine in opened:
    engine.close()
    assert engine.closed
use()
gc.collect()
while threads_of_process() > before:
    pass
print("done")
"""

CHANGE = """
import itertools

arrays = {0: array}
epochs = itertools.count(1)
engine = open_one()

def ask(one):
    answer = one.answer(batch)
    assert np.array_equal(answer.pages, naive_answers(arrays[answer.epoch], batch))

def change():
    for change in (engine.replace_pages, engine.next_epoch):
        epoch = next(epochs)
        after = arrays[epoch] = arrays[engine.pages.epoch].copy()
        after[::7] ^= 1 + epoch % 5
        new = change(range(0, 200, 7), after[::7], epoch)
        if new is not None:
            with new:
                ask(new)
        ask(engine)

with beside(lambda: ask(engine)):
    storm(change, INTERRUPTS // 10)
ask(engine)
engine.close()
print("done")
"""
SCRIPTS = {"answer": ANSWER, "open and close": OPEN_AND_CLOSE, "change": CHANGE}


@pytest.mark.parametrize("script", [*SCRIPTS.values()], ids=[*SCRIPTS])
def test_an_engine_survives_a_storm_of_interrupts(script: str) -> None:
    assert_survives(SETUP + script, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("script", [*SCRIPTS.values()], ids=[*SCRIPTS])
def test_a_gpu_engine_survives_a_storm_of_interrupts(script: str, standin_directory: Path) -> None:
    small = "import morphogen.engine.cuda.device_pages as device_pages\n"
    small += "device_pages.PIECE_BYTES = 1024\n"  # many pieces, and a signal's chance between them
    assert_survives(SETUP + small + script, "cuda", **environment(standin_directory))


# A call from within a call


class Meddler(mg.Query):
    """A query whose keys do something when the engine packs them."""

    act: Callable[[], object]
    held: tuple[bytes, ...]

    @property
    def keys(self) -> tuple[bytes, ...]:
        self.act()
        return self.held

    def __init__(self, query: mg.Query, act: Callable[[], object]) -> None:
        object.__setattr__(self, "held", query.keys)
        object.__setattr__(self, "act", act)


ARRAY = random_pages(200, 48)
QUERY = mg.make_query([1, 2, 3], 200)[0]


@pytest.mark.parametrize("nested", ["answer", "read_pages"])
def test_a_query_that_calls_the_engine_which_packs_it_is_refused(nested: str) -> None:
    with open_engine(ARRAY, threads=1) as engine:
        calls: dict[str, Callable[[], object]] = {
            "answer": lambda: engine.answer([QUERY]),
            "read_pages": engine.read_pages,
        }
        with pytest.raises(mg.MorphogenError, match=r"^an engine cannot be called from within its"):
            engine.answer([Meddler(QUERY, calls[nested])])
        assert np.array_equal(engine.answer([QUERY]).pages, naive_answers(ARRAY, [QUERY]))


def test_an_engine_closed_within_its_call_ends_with_that_call() -> None:
    engine = open_engine(ARRAY, threads=1)
    answer = engine.answer([Meddler(QUERY, engine.close)])
    assert np.array_equal(answer.pages, naive_answers(ARRAY, [QUERY]))
    assert engine.closed
    assert vars(engine)["_scanner"] is None
    with pytest.raises(mg.EngineClosedError):
        engine.answer([QUERY])


def test_an_engine_closed_by_the_collector_within_its_call_ends_with_that_call() -> None:
    engine = open_engine(ARRAY, threads=1)

    class Owner:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            engine.close()

    Owner()
    assert engine.answer([Meddler(QUERY, gc.collect)]).pages.any()
    assert engine.closed


def test_a_signal_handler_may_not_call_the_engine_that_it_interrupted() -> None:
    errors: list[Exception] = []

    def handle(*_: Any) -> None:
        try:
            engine.answer([QUERY])
        except mg.MorphogenError as error:
            errors.append(error)

    previous = signal.signal(signal.SIGALRM, handle)
    try:
        with open_engine(ARRAY, threads=1) as engine:
            engine.answer([Meddler(QUERY, lambda: signal.raise_signal(signal.SIGALRM))])
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert len(errors) == 1


def test_a_call_of_another_thread_waits_for_its_turn() -> None:
    others: list[threading.Thread] = []

    def ask_elsewhere() -> None:
        others.append(threading.Thread(target=engine.answer, args=([QUERY],)))
        others[0].start()

    with open_engine(ARRAY, threads=1) as engine:
        engine.answer([Meddler(QUERY, ask_elsewhere)])
        others[0].join(SECONDS)
        assert not others[0].is_alive()

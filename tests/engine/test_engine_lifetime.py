"""An engine among threads and processes: concurrent calls, close, fork, exit, memory."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import morphogen as mg
from engine_processes import EXIT, FORK, assert_ends_well
from morphogen.engine.base import Engine
from morphogen.engine.holding import HoldingEngine
from morphogen.engine.strategy import Choices, Strategy
from naive import (
    Bytes,
    guarded,
    naive_answers,
    open_engine,
    random_pages,
    random_rows,
)

# Copies


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_engine_is_neither_copied_nor_pickled(make: Callable[[Engine], object]) -> None:
    with open_engine(random_pages(5, 64)) as engine:
        with pytest.raises(TypeError, match=r"^an engine cannot be copied or pickled: open one "):
            make(engine)
        assert not engine.closed


# Many threads


def test_callers_on_many_threads_get_their_own_answers() -> None:
    array = random_pages(900, 2500)
    barrier = threading.Barrier(6, timeout=60)

    def call(caller: int) -> None:
        barrier.wait()
        for turn in range(8):
            total = (caller + turn) % 5 + 1
            batch = mg.make_queries(random_rows(total, caller % 3 + 1, 900, turn), 900)[turn % 2]
            assert np.array_equal(engine.answer(batch).pages, naive_answers(array, batch))

    with open_engine(array, threads=2) as engine, ThreadPoolExecutor(6) as executor:
        for result in [executor.submit(call, caller) for caller in range(6)]:
            result.result()


def test_threads_may_use_the_same_cores_after_a_pass_as_before() -> None:
    """They leave the caller's core, if they may use another."""
    array = random_pages(1024, 4096)
    batch = mg.make_queries(random_rows(1, 1, 1024), 1024)[0]
    naive = naive_answers(array, batch)
    mine = os.sched_getaffinity(0)
    threads = set(Path("/proc/self/task").iterdir())
    with open_engine(array, threads=4) as engine:
        team = [int(thread.name) for thread in {*Path("/proc/self/task").iterdir()} - threads]
        assert len(team) >= 3
        try:
            for cores in (mine, {min(mine)}):
                for thread in (0, *team):
                    os.sched_setaffinity(thread, cores)
                for _ in range(10):
                    assert np.array_equal(engine.answer(batch).pages, naive)
                    assert all(os.sched_getaffinity(thread) == cores for thread in (0, *team))
        finally:
            os.sched_setaffinity(0, mine)


def test_callers_of_many_engines_over_the_same_pages() -> None:
    array = random_pages(900, 2500)
    pages = mg.PageMatrix(array)

    def call(caller: int) -> None:
        batch = list(mg.make_query([caller, 900 - 1 - caller], 900))
        with open_engine(pages, threads=2) as engine:
            for _ in range(5):
                assert np.array_equal(engine.answer(batch).pages, naive_answers(array, batch))

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(call, range(4)))


# The end of an engine


def test_use_after_close() -> None:
    engine = open_engine(random_pages(20, 8))
    assert not engine.closed
    engine.close()
    engine.close()
    assert engine.closed
    assert "closed" in repr(engine)
    batch = [mg.make_query([1], 20)[0]]
    uses: list[Callable[[], object]] = [
        lambda: engine.answer(batch),
        lambda: engine.answer([]),
        engine.read_pages,
    ]
    for use in uses:
        with pytest.raises(mg.EngineClosedError, match="closed"):
            use()


def test_a_with_block_closes() -> None:
    with open_engine(random_pages(20, 8)) as engine:
        assert not engine.closed
    assert engine.closed

    def fail() -> None:
        with engine_of_error:
            raise KeyError("mine")

    engine_of_error = open_engine(random_pages(20, 8))
    with pytest.raises(KeyError, match="mine"):
        fail()
    assert engine_of_error.closed


class WaitingEngine(HoldingEngine):
    """An engine whose one answer lasts until the test says so."""

    def __init__(self) -> None:
        choices = Choices("test", Strategy(width=2, lanes=1, graph=False), widest=2)
        super().__init__(mg.TableShape(20, 8), choices)
        self.running, self.go_on = threading.Event(), threading.Event()
        self.log: list[str] = []

    def _run(self, packer: object, ranges: object, out: Bytes, strategy: Strategy) -> None:
        self.running.set()
        self.go_on.wait(60)
        for _ in range(100_000):  # time for a close that does not wait
            pass
        self.log.append("answered")

    def _replace(self, pages: mg.PageMatrix, indices: object) -> None:
        raise NotImplementedError

    def _open_next(self, pages: mg.PageMatrix, indices: object) -> Engine:
        raise NotImplementedError

    def _release(self) -> None:
        self.log.append("released")

    def _read(self) -> int:
        raise NotImplementedError


def test_close_waits_for_the_call_that_runs() -> None:
    engine = WaitingEngine()
    batch = [mg.make_query([1], 20)[0]]

    def close() -> None:
        engine.go_on.set()
        engine.close()
        engine.log.append("closed")

    with ThreadPoolExecutor(2) as executor:
        answer = executor.submit(engine.answer, batch)
        engine.running.wait(60)
        executor.submit(close).result()
        assert answer.result().micro_batch_sizes == (1,)
    assert engine.log == ["answered", "released", "closed"]


def test_close_while_others_answer() -> None:
    """Each call has its right answer or says that the engine is closed."""
    array = random_pages(900, 2500)
    batch = list(mg.make_query([1, 2, 3], 900))
    expected = naive_answers(array, batch)
    for _ in range(5):
        engine = open_engine(array, threads=2)
        started = threading.Barrier(4, timeout=60)

        def call(engine: Engine = engine, started: threading.Barrier = started) -> None:
            engine.answer(batch)
            started.wait()
            while True:
                try:
                    answer = engine.answer(batch)
                except mg.EngineClosedError:
                    return
                assert np.array_equal(answer.pages, expected)

        with ThreadPoolExecutor(3) as executor:
            results = [executor.submit(call) for _ in range(3)]
            started.wait()
            engine.close()
            for result in results:
                result.result()


TASKS = Path("/proc/self/task")
needs_tasks = pytest.mark.skipif(not TASKS.is_dir(), reason="needs /proc/self/task")


def tasks() -> set[str]:
    """The threads of this process."""
    return {task.name for task in TASKS.iterdir()}


@needs_tasks
@pytest.mark.parametrize("end", ["close", "collect", "with"])
def test_threads_end_with_their_engine(end: str) -> None:
    before = tasks()
    engine = open_engine(random_pages(900, 2500), threads=5)
    engine.answer([mg.make_query([1], 900)[0]])
    started = tasks() - before
    assert len(started) == 4
    if end == "close":
        engine.close()
    elif end == "with":
        with engine:
            pass
    else:
        del engine
        gc.collect()
    # A thread that has been joined is still listed for a moment.
    deadline = time.monotonic() + 60
    while tasks() & started and time.monotonic() < deadline:
        pass
    assert not tasks() & started


@needs_tasks
def test_one_thread_needs_no_other() -> None:
    before = tasks()
    with open_engine(random_pages(900, 2500), threads=1):
        assert not tasks() - before


def test_an_engine_keeps_its_pages() -> None:
    array = random_pages(60, 9)
    engine = open_engine(mg.PageMatrix(array.copy()))
    gc.collect()
    batch = list(mg.make_query([59], 60))
    assert np.array_equal(engine.answer(batch).pages, naive_answers(array, batch))
    engine.close()


def test_an_engine_in_a_forked_child() -> None:
    """It says whose it is, close does nothing, an own engine works; the parent notices nothing."""
    assert_ends_well(FORK, "cpu")


def test_a_process_ends_with_an_engine_open() -> None:
    assert_ends_well(EXIT, "cpu")


# Memory


def resident_bytes() -> int:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("needs /proc/self/statm")
    return int(statm.read_text(encoding="ascii").split()[1]) << 12


def test_answering_does_not_grow() -> None:
    array = random_pages(256, 4096)
    batch = mg.make_queries(random_rows(8, 3, 256), 256)[0]
    with open_engine(array, threads=2) as engine:
        out = engine.answer(batch).pages
        for _ in range(20):
            engine.answer(batch, out=out)
            engine.answer(batch)
        before = resident_bytes()
        for _ in range(400):  # 40 MB of answers
            engine.answer(batch, out=out)
            engine.answer(batch)
        assert resident_bytes() - before < 8 << 20


def test_opening_and_closing_does_not_grow() -> None:
    array = random_pages(256, 4096)
    batch = mg.make_queries(random_rows(8, 3, 256), 256)[0]

    def use() -> None:
        with open_engine(array, threads=2) as engine:
            engine.answer(batch)

    for _ in range(20):
        use()
    before = resident_bytes()
    for _ in range(200):  # over 1 MB of scratch memory each
        use()
    assert resident_bytes() - before < 32 << 20


# The pure read that speeds are compared with


def test_read_pages_reads_every_byte(instruction_set: str) -> None:
    for *shape, offset in (
        (1, 1, 0),
        (3, 5, 1),
        (7, 8, 8),
        (100, 41, 24),
        (90, 41, 3),
        (900, 4001, 0),
    ):
        # Pages may lie anywhere: on cache lines, on words, between them.
        array, _ = guarded(tuple(shape), offset, random_pages(*shape))
        padded = np.zeros(-(-array.size // 8) * 8, dtype=np.uint8)
        padded[: array.size] = array.ravel()
        for threads in (1, 3):
            with open_engine(array, threads=threads, instruction_set=instruction_set) as engine:
                assert engine.read_pages() == np.bitwise_xor.reduce(padded.view("<u8"))


def test_read_pages_reads_the_short_last_page(tmp_path: Path) -> None:
    for length in (1, 16, 17, 4000, 4001):
        data = bytes(random_pages(1, length) | 1)
        (tmp_path / "pages").write_bytes(data)
        words = np.frombuffer(data.ljust(-(-length // 8) * 8, b"\0"), dtype="<u8")
        pages = mg.PageMatrix.open(tmp_path / "pages", page_size=16)
        with open_engine(pages, threads=2) as engine:
            assert engine.read_pages() == np.bitwise_xor.reduce(words)

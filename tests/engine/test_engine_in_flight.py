"""An engine that takes several calls at a time: each has its own keys, none sees half a state."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import morphogen as mg
from held_engine import SECONDS
from morphogen.engine.base import Engine
from morphogen.engine.calls import Calls
from morphogen.engine.holding import HoldingEngine
from morphogen.engine.strategy import Choices, Strategy
from naive import Bytes, naive_answers, random_pages, random_rows

ARRAY = random_pages(200, 48)
BATCHES = [mg.make_queries(random_rows(3, 2, 200, seed), 200)[0] for seed in range(4)]


class TwoAtATime(HoldingEngine):
    """An engine in Python that takes two calls at a time, and stops amid each until it may go on.

    It reads a packer's keys only after the stop.
    """

    def __init__(self) -> None:
        choices = Choices("test", Strategy(width=2, lanes=1, graph=False), widest=2)
        pages = mg.PageMatrix(ARRAY)
        super().__init__(pages.table, choices, pages, max_in_flight=2)
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.log: list[str] = []

    def _run(self, packer: mg.planner.KeyPacker, ranges: object, out: Bytes, _: Strategy) -> None:
        self.begun.release()
        assert self.go_on.wait(SECONDS)
        keys, size = packer.packed(), packer.key_size
        for at in range(packer.query_count * packer.keys_per_query):
            bits = mg.dpf.eval_full(keys[at * size : (at + 1) * size], 200)
            chosen = np.unpackbits(bits, count=200, bitorder="little").astype(bool)
            pages = np.asarray([self.pages[page] for page in np.flatnonzero(chosen)])
            out.reshape(-1, 48)[at] = np.bitwise_xor.reduce(pages, axis=0)
        self.log.append("answered")

    def _replace(self, pages: mg.PageMatrix, indices: npt.NDArray[np.int64]) -> None:
        self.log.append("replaced")
        self._pages, self._table = pages, pages.table

    def _open_next(self, pages: mg.PageMatrix, indices: npt.NDArray[np.int64]) -> Engine:
        raise NotImplementedError

    def _release(self) -> None:
        self.log.append("released")

    def _read(self) -> int:
        return 7


@pytest.fixture
def engine() -> Iterator[TwoAtATime]:
    with TwoAtATime() as one:
        yield one
        one.go_on.set()


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(6) as pool:
        yield pool


def begin(engine: TwoAtATime, callers: ThreadPoolExecutor) -> list[Future[mg.Answer]]:
    """Two calls that have packed their keys and run."""
    calls = [callers.submit(engine.answer, batch) for batch in BATCHES[:2]]
    for _ in calls:
        assert engine.begun.acquire(timeout=SECONDS)
    return calls


def assert_answers(calls: list[Future[mg.Answer]], array: Bytes = ARRAY, epoch: int = 0) -> None:
    for call, batch in zip(calls, BATCHES, strict=False):
        answer = call.result(SECONDS)
        assert answer.epoch == epoch
        np.testing.assert_array_equal(answer.pages, naive_answers(array, batch))


def until_it_waits(engine: TwoAtATime) -> None:
    """Wait until a thread waits to be alone in the engine: from then on no call begins."""
    while engine._calls.waiting_alone() == 0:
        threading.Event().wait(0.001)


def test_an_engine_takes_one_call_at_a_time_unless_it_says_more(engine: TwoAtATime) -> None:
    with mg.open_engine(mg.PageMatrix(ARRAY), "cpu", threads=1) as cpu:
        assert (cpu.max_in_flight, cpu.replicas) == (1, 1)
    assert (engine.max_in_flight, engine.replicas) == (2, 2)


def test_calls_run_beside_each_other_each_with_its_own_keys(
    engine: TwoAtATime, callers: ThreadPoolExecutor
) -> None:
    calls = begin(engine, callers)
    engine.go_on.set()
    assert_answers(calls)


def test_a_further_call_waits_for_the_first_that_ends(
    engine: TwoAtATime, callers: ThreadPoolExecutor
) -> None:
    calls = begin(engine, callers)
    calls += [callers.submit(engine.answer, batch) for batch in BATCHES[2:]]
    while engine._calls.waiting() < 2:
        threading.Event().wait(0.001)
    assert not engine.begun.acquire(blocking=False)
    engine.go_on.set()
    assert_answers(calls)


def test_pages_are_replaced_between_calls(engine: TwoAtATime, callers: ThreadPoolExecutor) -> None:
    after = ARRAY.copy()
    after[3] ^= 1
    calls = begin(engine, callers)
    change = callers.submit(engine.replace_pages, [3], after[3:4], 1)
    until_it_waits(engine)
    later = [callers.submit(engine.answer, batch) for batch in BATCHES[:2]]
    engine.go_on.set()
    change.result(SECONDS)
    assert_answers(calls)
    assert_answers(later, after, epoch=1)
    assert engine.log == ["answered", "answered", "replaced", "answered", "answered"]


def test_closing_waits_for_all_calls_and_refuses_those_that_came_later(
    engine: TwoAtATime, callers: ThreadPoolExecutor
) -> None:
    calls = begin(engine, callers)
    end = callers.submit(engine.close)
    until_it_waits(engine)
    late = callers.submit(engine.answer, BATCHES[0])
    engine.go_on.set()
    end.result(SECONDS)
    assert_answers(calls)
    assert isinstance(late.exception(SECONDS), mg.EngineClosedError)
    assert engine.log == ["answered", "answered", "released"]


def test_an_engine_closed_within_a_call_ends_with_the_last_call(
    engine: TwoAtATime, callers: ThreadPoolExecutor
) -> None:
    call = callers.submit(engine.answer, BATCHES[0])
    assert engine.begun.acquire(timeout=SECONDS)

    class Closing(mg.Query):
        @property
        def keys(self) -> tuple[bytes, ...]:  # type: ignore[override]
            engine.close()
            return BATCHES[2][0].keys

    other = callers.submit(engine.answer, [Closing.__new__(Closing)])
    assert engine.begun.acquire(timeout=SECONDS)
    assert engine.closed
    assert engine.log == []
    engine.go_on.set()
    assert other.result(SECONDS).pages.any()
    assert_answers([call])
    assert engine.log == ["answered", "answered", "released"]


def test_a_call_from_within_a_call_is_refused_beside_others(
    engine: TwoAtATime, callers: ThreadPoolExecutor
) -> None:
    errors: list[BaseException] = []

    class Meddler(mg.Query):
        @property
        def keys(self) -> tuple[bytes, ...]:  # type: ignore[override]
            uses: list[Any] = [
                lambda: engine.answer(BATCHES[0]),
                lambda: engine.replace_pages([3], ARRAY[3:4], 1),
                engine.read_pages,
            ]
            for use in uses:
                with pytest.raises(mg.MorphogenError, match="from within its own call") as error:
                    use()
                errors.append(error.value)
            return BATCHES[0][0].keys

    call = callers.submit(engine.answer, BATCHES[0])
    assert engine.begun.acquire(timeout=SECONDS)
    engine.go_on.set()
    assert engine.answer([Meddler.__new__(Meddler)]).pages.any()
    assert_answers([call])
    assert len(errors) == 3


def test_an_error_in_one_call_leaves_the_others_and_its_place(
    engine: TwoAtATime, callers: ThreadPoolExecutor
) -> None:
    call = callers.submit(engine.answer, BATCHES[0])
    assert engine.begun.acquire(timeout=SECONDS)
    for _ in range(3):
        with pytest.raises(mg.InvalidKeyError):
            engine.answer([mg.Query([b"MGK1"])])
    engine.go_on.set()
    assert engine.read_pages() == 7
    assert_answers([call])


def test_a_call_that_waits_is_overtaken_by_a_few_others_only() -> None:
    calls = Calls("an engine", ["a place"])
    order = []

    def wait() -> None:
        with calls:
            order.append("waited")

    waiter = threading.Thread(target=wait)
    with calls:
        waiter.start()
        while not calls.waiting():
            pass
    # This thread has the interpreter, and the other must wake: it would never get its turn.
    for _ in range(1000):
        with calls:
            order.append("again")
    waiter.join()
    assert order.index("waited") <= 4

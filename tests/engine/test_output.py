"""The memory of answers: kept from one to the next, and never two callers' at a time."""

from __future__ import annotations

import gc
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import morphogen as mg
from morphogen.engine.output import LEAST_BYTES, MOST_BYTES, AnswerMemory
from naive import Bytes, naive_answers, open_engine, random_pages

SHAPE = (1, 2, LEAST_BYTES)
PAGES = random_pages(3, LEAST_BYTES)


def address(array: Bytes) -> int:
    return int(array.ctypes.data)


@pytest.fixture
def memory() -> AnswerMemory:
    return AnswerMemory()


def test_an_answer_that_nobody_has_any_more_gives_its_memory_to_the_next(
    memory: AnswerMemory,
) -> None:
    first = memory.take(SHAPE, None)
    assert first.shape == SHAPE
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous
    assert first.flags.writeable
    place = address(first)
    del first
    assert address(memory.take(SHAPE, None)) == place


def parts(array: Bytes) -> list[object]:
    return [array[0, 1, 5:], memoryview(array.data), array.reshape(-1)[::3], np.asarray(array)]


@pytest.mark.parametrize("part", range(4))
def test_no_memory_is_given_to_another_while_a_part_of_the_answer_is_referred_to(
    memory: AnswerMemory, part: int
) -> None:
    first = memory.take(SHAPE, None)
    held = parts(first)[part]
    place = address(first)
    del first
    gc.collect()
    second = memory.take(SHAPE, None)
    assert address(second) != place
    del second, held
    third = memory.take(SHAPE, None)
    fourth = memory.take(SHAPE, None)
    assert not np.may_share_memory(third, fourth)


def test_the_memory_of_one_answer_is_kept_and_only_for_answers_of_about_its_size(
    memory: AnswerMemory,
) -> None:
    arrays = [memory.take(SHAPE, None) for _ in range(3)]
    del arrays
    assert len(memory._kept) == 1
    memory.take((1, 3, LEAST_BYTES), None)  # more than is kept
    assert memory._kept[0].size > 3 * LEAST_BYTES
    memory.take((1, 1, LEAST_BYTES), None)  # less than half of it
    assert memory._kept[0].size < 2 * LEAST_BYTES


def test_what_was_kept_is_freed_before_more_is_asked_for(memory: AnswerMemory) -> None:
    tracemalloc.start()
    try:
        memory.take(SHAPE, None)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        larger = memory.take((1, 5, LEAST_BYTES), None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert before > 2 * LEAST_BYTES
    assert peak < larger.nbytes + LEAST_BYTES


def test_more_than_the_most_is_not_kept(
    memory: AnswerMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_BYTES >= 96 * (4 << 20)
    monkeypatch.setattr("morphogen.engine.output.MOST_BYTES", 2 * LEAST_BYTES)
    assert memory.take(SHAPE, None).shape == SHAPE
    assert not memory._kept


def test_arrays_lie_in_cache_lines_as_the_pages_do(memory: AnswerMemory) -> None:
    whole = np.zeros(3 * 64 + 64, dtype=np.uint8)
    for skipped in (0, 1, 16, 63):
        pages = mg.PageMatrix(whole[skipped : skipped + 3 * 64].reshape(3, 64))
        array = memory.take(SHAPE, pages)
        assert (address(array) - address(pages.body)) % 64 == 0


def test_threads_that_answer_at_once_never_share_memory(memory: AnswerMemory) -> None:
    def use(number: int) -> bool:
        for _ in range(50):
            array = memory.take((1, 1, LEAST_BYTES), None)
            array[0, 0, ::4096] = number
            if not (array[0, 0, ::4096] == number).all():
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(use, range(4)))


def test_an_engine_answers_anew_into_memory_of_an_answer_that_is_gone() -> None:
    queries = mg.make_queries([[0, 1], [2, 0]], len(PAGES))[0]
    with open_engine(PAGES, threads=2) as engine:
        kept = engine.answer(queries[:1])
        place = address(engine.answer(queries[1:]).pages)
        again = engine.answer(queries[1:])
        assert address(again.pages) == place
        assert np.array_equal(kept.pages, naive_answers(PAGES, queries[:1]))
        assert np.array_equal(again.pages, naive_answers(PAGES, queries[1:]))


def test_a_closed_engine_keeps_no_memory_and_what_it_answered_stays() -> None:
    queries = mg.make_queries([[0, 1], [2, 0]], len(PAGES))[0]
    engine = open_engine(PAGES)
    kept = engine.answer(queries[:1]).pages
    engine.answer(queries[1:])
    memory = engine._memory
    assert memory._kept
    engine.close()
    assert np.array_equal(kept, naive_answers(PAGES, queries[:1]))
    del kept
    assert not memory._kept


def test_after_the_end_no_answer_that_is_still_in_use_keeps_the_memory_of_another(
    memory: AnswerMemory,
) -> None:
    tracemalloc.start()  # numpy tells it of its memory
    try:
        before, _ = tracemalloc.get_traced_memory()
        arrays = [memory.take(SHAPE, None) for _ in range(2)]
        memory.close()
        del arrays[0]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 3 * LEAST_BYTES  # one of two, of twice as many bytes each


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_memory_of_its_own(memory: AnswerMemory) -> None:
    array = memory.take(SHAPE, None)
    array[:] = 1
    spare = memory.take(SHAPE, None)
    del spare
    child = os.fork()
    if child == 0:
        status = 1
        try:
            array[:] = 2
            place = address(array)
            del array
            other = memory.take(SHAPE, None)
            other[:] = 3
            status = 0 if address(other) == place else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (array == 1).all()

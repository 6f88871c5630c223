"""The memory of answers: kept from one to the next, and never two callers' at a time."""

from __future__ import annotations

import gc
import itertools
import os
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from morphogen.engine.output import LEAST_BYTES, MOST_BYTES, AnswerMemory
from naive import Bytes, naive_answers, open_engine, random_pages

SHAPE = (1, 2, LEAST_BYTES)
PAGES = random_pages(3, LEAST_BYTES)
UNIT = 1 << 12


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


def of(units: int) -> tuple[int, int, int]:
    return 1, units, UNIT


def blocks(memory: AnswerMemory) -> list[Bytes]:
    return list(memory._kept.values())


def kept(memory: AnswerMemory) -> list[int]:
    return [block.size // UNIT for block in blocks(memory)]


def test_answers_of_several_sizes_by_turns_lie_in_the_memory_of_those_before(
    memory: AnswerMemory,
) -> None:
    for units in (6, 24, 96):
        memory.take(of(units), None)
    assert kept(memory) == [6, 24, 96]
    for block, units in zip(blocks(memory), (6, 24, 96), strict=True):
        assert np.may_share_memory(memory.take(of(units), None), block)
    assert kept(memory) == [6, 24, 96]


def test_several_answers_of_one_size_that_are_gone_serve_as_many(memory: AnswerMemory) -> None:
    arrays = [memory.take(of(6), None) for _ in range(3)]
    del arrays
    before = blocks(memory)
    again = [memory.take(of(6), None) for _ in range(3)]
    assert [sum(np.may_share_memory(array, block) for block in before) for array in again] == [
        1
    ] * 3
    assert not kept(memory)


def test_an_answer_takes_the_smallest_that_fits_and_of_these_the_last_used(
    memory: AnswerMemory,
) -> None:
    arrays = [memory.take(of(units), None) for units in (7, 10, 8, 8, 9)]
    for _ in range(5):
        del arrays[0]
    *_, last, _ = blocks(memory)
    assert np.may_share_memory(memory.take(of(8), None), last)


def test_no_answer_holds_more_than_twice_of_what_it_needs(memory: AnswerMemory) -> None:
    memory.take(of(9), None)
    held = memory.take(of(4), None)
    assert kept(memory) == [9]
    del held
    assert kept(memory) == [9, 4]
    held = memory.take(of(5), None)
    assert held.shape == of(5)
    assert kept(memory) == [4]


def test_beyond_the_most_what_was_not_used_longest_is_freed() -> None:
    memory = AnswerMemory(most=31 * UNIT)
    for units in (3, 20, 7, 3, 8):  # the first 3 again, then 8 for which 20 has to go
        memory.take(of(units), None)
    assert kept(memory) == [7, 3, 8]
    arrays = [memory.take(of(10), None) for _ in range(4)]
    del arrays  # 40
    assert kept(memory) == [10, 10, 10]


def test_what_was_kept_is_freed_before_more_is_asked_for() -> None:
    memory = AnswerMemory(most=6 * LEAST_BYTES)
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


def test_more_than_the_most_is_not_kept_and_takes_nothing_from_what_is() -> None:
    assert MOST_BYTES >= (6 + 24 + 96 + 1) * (4 << 20)
    memory = AnswerMemory(most=10 * UNIT)
    memory.take(of(6), None)
    assert memory.take(of(10), None).shape == of(10)
    assert kept(memory) == [6]


def test_arrays_lie_in_cache_lines_as_the_pages_do(memory: AnswerMemory) -> None:
    whole = np.zeros(3 * 64 + 64, dtype=np.uint8)
    for skipped in (0, 1, 16, 63):
        pages = mg.PageMatrix(whole[skipped : skipped + 3 * 64].reshape(3, 64))
        array = memory.take(SHAPE, pages)
        assert (address(array) - address(pages.body)) % 64 == 0


@pytest.mark.parametrize("most", [40 * UNIT, MOST_BYTES], ids=["little", "much"])
def test_threads_that_answer_at_once_never_share_memory(most: int) -> None:
    memory = AnswerMemory(most)

    def use(number: int) -> bool:
        for units in (3, 6, 12, 24) * 50:
            array = memory.take(of(units), None)
            array[0, :, ::512] = number
            if not (array[0, :, ::512] == number).all():
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(use, range(4)))
    assert sum(block.size for block in blocks(memory)) <= most
    assert 24 in kept(memory)


def call_between(call: Callable[[], object], other: Callable[[], object], at: int) -> bool:
    """Do other before the nth line of our code in a call, as threads and collections do.

    Returns whether there was such a line.
    """
    left = at

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if left <= 0 or frame.f_globals["__name__"] != AnswerMemory.__module__:
            return None
        left -= 1
        if left == 0:
            other()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return left <= 0


def goes_well_with_another_before(at: int) -> bool:
    """Take and give up an answer, with calls of others before the nth line of each.

    Returns whether there was such a line.
    """
    memory = AnswerMemory(most=20 * UNIT)
    held = [memory.take(of(6), None) for _ in range(3)]
    others: list[Bytes] = []
    mine: list[Bytes] = []

    def other() -> None:
        held.pop()
        others.extend(memory.take(of(6), None) for _ in range(2))
        del others[0]  # the last that went; the other one is that which the call would take

    del held[:2]  # for all that is taken
    hit = call_between(lambda: mine.append(memory.take(of(6), None)), other, at)
    if hit:
        assert not np.may_share_memory(mine[0], others[0])
        mine[0][:] = 1
    others.clear()
    held.extend(memory.take(of(6), None) for _ in range(4))
    hit |= call_between(mine.clear, other, at)
    assert not any(np.may_share_memory(other, one) for other in others for one in held)
    others.clear()
    held.clear()
    assert kept(memory) == [6, 6, 6]
    return hit


def ends_well_with_a_close_before(at: int) -> bool:
    memory = AnswerMemory()
    held = [memory.take(of(6), None) for _ in range(2)]
    held.pop()
    hit = call_between(held.clear, memory.close, at)
    assert not hit or not kept(memory)
    return hit


def closes_well_with_an_end_before(at: int) -> bool:
    memory = AnswerMemory()
    held = [memory.take(of(6), None) for _ in range(2)]
    held.pop()
    hit = call_between(memory.close, held.clear, at)
    assert not kept(memory)
    return hit


@pytest.mark.parametrize(
    "goes",
    [
        goes_well_with_another_before,
        ends_well_with_a_close_before,
        closes_well_with_an_end_before,
    ],
)
def test_answers_may_go_and_be_asked_for_and_end_with_the_engine_at_any_point_of_another_call(
    goes: Callable[[int], bool],
) -> None:
    assert next(at for at in itertools.count(1) if not goes(at)) > 10


def test_an_engine_answers_anew_into_memory_of_an_answer_that_is_gone() -> None:
    queries = mg.make_queries([[0, 1], [2, 0]], len(PAGES))[0]
    with open_engine(PAGES, threads=2) as engine:
        kept = engine.answer(queries[:1])
        place = address(engine.answer(queries[1:]).pages)
        again = engine.answer(queries[1:])
        assert address(again.pages) == place
        assert np.array_equal(kept.pages, naive_answers(PAGES, queries[:1]))
        assert np.array_equal(again.pages, naive_answers(PAGES, queries[1:]))


def test_an_engine_that_answers_batches_of_several_sizes_answers_into_kept_memory() -> None:
    rows = [[0, 1, 2], [2, 0, 1], [1, 1, 0]]
    queries = mg.make_queries(rows, len(PAGES))[0]
    batches = [queries[:1], queries[:2], queries]
    with open_engine(PAGES) as engine:
        for batch in batches:
            engine.answer(batch)
        before = blocks(engine._memory)
        for batch, block in zip(batches, before, strict=True):
            answer = engine.answer(batch).pages
            assert np.may_share_memory(answer, block)
            assert np.array_equal(answer, naive_answers(PAGES, batch))
            del answer


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

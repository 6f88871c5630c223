"""Epochs on a GPU, over the stand-in: one copy of the pages, shared; what is copied; threads."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import morphogen as mg
import morphogen.engine.cuda.device_pages as device_pages
from gpu_epochs import (
    AFTER,
    ARRAY,
    BATCH,
    CONTENTS,
    INDICES,
    SECONDS,
    Gate,
    assert_answers,
    live,
    open_gpu,
)
from morphogen.engine.cuda import CudaEngine
from morphogen.engine.cuda.patch import Patch, difference
from naive import naive_answers, random_pages, random_rows
from standin_driver import StandIn

METHODS = ["replace_pages", "next_epoch"]


# One copy of the pages


def test_epochs_share_the_pages_on_the_device(gpu: StandIn) -> None:
    with open_gpu() as old:
        before = live(gpu)
        with old.next_epoch(INDICES, CONTENTS, 1) as new:
            assert live(gpu) == before
            assert (new.ptx, new.code, new.grid) == (old.ptx, old.code, old.grid)
            assert new.default_strategy == old.default_strategy
        assert live(gpu) == before


@pytest.mark.parametrize("end", ["close", "collect"])
@pytest.mark.parametrize("last", ["old", "new"])
def test_the_device_is_freed_with_the_last_engine(gpu: StandIn, last: str, end: str) -> None:
    engines = {"old": open_gpu()}
    engines["new"] = engines["old"].next_epoch(INDICES, CONTENTS, 1)
    arrays = {"old": ARRAY, "new": AFTER}
    (first,) = arrays.keys() - {last}
    for name in (first, last):
        assert live(gpu)["device_memory"] > 0
        assert_answers(engines[name], arrays[name])
        if end == "close":
            engines[name].close()
        else:
            del engines[name]
            gc.collect()
    assert not live(gpu)


def test_an_engine_closed_within_a_call_of_another_ends_at_once(gpu: StandIn) -> None:
    class Closer(mg.Query):
        @property
        def keys(self) -> tuple[bytes, ...]:
            old.close()
            return BATCH[0].keys

        def __init__(self) -> None:
            pass

    old = open_gpu()
    with old.next_epoch(INDICES, CONTENTS, 1) as new:
        answer = new.answer([Closer()])
        assert np.array_equal(answer.pages, naive_answers(AFTER, BATCH[:1]))
        assert old.closed
        assert vars(old)["_scanner"] is None
    assert not live(gpu)


def test_what_an_old_epoch_holds_is_freed_with_it(gpu: StandIn) -> None:
    old = open_gpu()
    new = old.next_epoch(INDICES, CONTENTS, 1)
    held = weakref.ref(vars(old)["_patch"].pages)
    assert vars(new)["_patch"] is None
    old.close()
    assert held() is None
    new.replace_pages([0], ARRAY[:1], 2)
    assert vars(old)["_patch"] is None
    new.close()


def test_an_epoch_that_nobody_closes_does_not_stay(gpu: StandIn) -> None:
    with open_gpu() as engine:
        for epoch in range(1, 20):
            engine.next_epoch([epoch], ARRAY[:1], epoch)
            gc.collect()
            assert len(vars(engine)["_scanner"].engines()) == 1


# All ways to answer


@pytest.mark.parametrize(
    "options",
    [{"max_micro_batch": 1}, {"max_micro_batch": 8, "lanes": 4}, {"lanes": 1, "graph": True}],
    ids=str,
)
def test_both_epochs_have_all_strategies(gpu: StandIn, options: dict[str, Any]) -> None:
    with open_gpu() as old, old.next_epoch(INDICES, CONTENTS, 1) as new:
        for engine, array in ((old, ARRAY), (new, AFTER), (old, ARRAY)):
            assert_answers(engine, array, **options)


def test_an_old_epochs_phases_are_timed(gpu: StandIn) -> None:
    with open_gpu() as old, old.next_epoch(INDICES, CONTENTS, 1):
        answer, times = old.time_phases(BATCH)
        assert np.array_equal(answer.pages, naive_answers(ARRAY, BATCH))
        assert [chunk.queries for chunk in times.chunks] == [2, 2, 1]


def test_an_old_epoch_writes_into_the_callers_array(gpu: StandIn) -> None:
    with open_gpu() as old, old.next_epoch(INDICES, CONTENTS, 1):
        out = np.full((5, 2, 40), 0xA5, dtype=np.uint8)
        assert old.answer(BATCH, out=out).pages is out
        assert np.array_equal(out, naive_answers(ARRAY, BATCH))


@pytest.mark.parametrize("page_size", [1, 7, 8, 40, 4096])
def test_an_old_epochs_pages_are_read_as_they_were(gpu: StandIn, page_size: int) -> None:
    array = random_pages(70, page_size)
    padded = np.zeros((70, -(-page_size // 8) * 8), dtype=np.uint8)
    padded[:, :page_size] = array
    words = np.bitwise_xor.reduce(padded.view("<u8"), axis=None)
    with open_gpu(array) as old:
        assert old.read_pages() == words
        with old.next_epoch([0, 69], array[[1, 2]] ^ 1, 1) as new:
            assert old.read_pages() == words
            assert new.read_pages() != words


def test_changes_of_many_windows_of_the_tree(gpu: StandIn) -> None:
    """A window is 64 leaves, 32,768 pages, of which the walk takes those that have changes."""
    array = random_pages(3 * 32768 + 700, 1)
    rng = np.random.default_rng(0)
    for indices in (
        np.sort(rng.choice(len(array), 300, replace=False)),
        np.array([511, 512, 32767, 32768, 65535, len(array) - 1]),
        np.array([40_000]),
    ):
        contents = array[indices] ^ 0x5A
        with open_gpu(array) as old, old.next_epoch(indices, contents, 1):
            batch = mg.make_queries(rng.integers(0, len(array), (1, 3)), len(array))[1]
            assert np.array_equal(old.answer(batch).pages, naive_answers(array, batch))


# What is copied


def copies(gpu: StandIn) -> int:
    return gpu.calls()["cuMemcpyHtoDAsync"]


@pytest.mark.parametrize(
    ("indices", "expected"),
    [([], 0), ([7], 1), ([7, 8, 9], 1), ([0, 2, 4], 3), (list(range(150)), 1), ([0, 1, 149], 2)],
    ids=str,
)
def test_neighbours_are_copied_at_once(gpu: StandIn, indices: list[int], expected: int) -> None:
    with open_gpu() as engine:
        gpu.reset_log()
        engine.replace_pages(indices, ARRAY[indices] ^ 1, 1)
        assert copies(gpu) == expected


def test_pages_that_stay_the_same_are_not_copied(gpu: StandIn) -> None:
    with open_gpu() as engine:
        gpu.reset_log()
        contents = ARRAY[[3, 4, 5]].copy()
        contents[1] ^= 1
        engine.replace_pages([3, 4, 5], contents, 1)
        assert copies(gpu) == 1
        engine.replace_pages([3, 4, 5], contents, 2)
        assert copies(gpu) == 1


@pytest.mark.parametrize("piece", [48, 100, 144, 1000])
@pytest.mark.parametrize("schedule", ["late", "random"])
def test_changes_travel_in_pieces(
    gpu: StandIn, monkeypatch: pytest.MonkeyPatch, piece: int, schedule: Any
) -> None:
    """Pages are 48 bytes on the device: pieces end within them, and between runs of them."""
    gpu.set(schedule=schedule)
    indices = [0, *range(5, 25), 30, 31, 149]
    with open_gpu() as old:
        monkeypatch.setattr(device_pages, "PIECE_BYTES", piece)
        after = ARRAY.copy()
        after[indices] = random_pages(len(indices), 40, seed=3)
        with old.next_epoch(indices, after[indices], 1) as new:
            assert_answers(new, after)
            assert_answers(old, ARRAY)


def test_pages_that_the_device_generated_are_not_replaced(gpu: StandIn) -> None:
    with CudaEngine(mg.PageMatrix(ARRAY), generate=5) as engine:
        before = engine.answer(BATCH).pages
        for change in (engine.replace_pages, engine.next_epoch):
            with pytest.raises(ValueError, match=r"^pages that the device generated cannot be "):
                change(INDICES, CONTENTS, 1)
        assert np.array_equal(engine.answer(BATCH).pages, before)


# Among threads


def test_an_old_epochs_call_that_was_under_way_is_right(gpu: StandIn) -> None:
    """It had begun before its pages were replaced on the device, and reaches that afterwards."""
    gate = Gate()
    with (
        open_gpu() as old,
        old.next_epoch([9], ARRAY[:1], 1) as new,
        ThreadPoolExecutor(1) as caller,
    ):
        answer = caller.submit(old.answer, [gate])
        assert gate.reached.wait(SECONDS)
        new.replace_pages(INDICES, CONTENTS, 2)
        gate.open.set()
        expected = naive_answers(ARRAY, BATCH[:1])
        assert np.array_equal(answer.result(SECONDS).pages, expected)


def test_calls_that_wait_for_the_device_find_what_was_replaced_meanwhile(gpu: StandIn) -> None:
    with (
        open_gpu() as old,
        old.next_epoch(INDICES, CONTENTS, 1) as new,
        ThreadPoolExecutor(3) as callers,
    ):
        with vars(old)["_scanner"].lanes.alone():  # as a change of pages has them
            waiting = [callers.submit(engine.answer, BATCH) for engine in (old, new)]
            change = callers.submit(new.next_epoch, [8, 9], ARRAY[:2], 2)
        for answer, array in zip(waiting, [ARRAY, AFTER], strict=True):
            expected = naive_answers(array, BATCH)
            assert np.array_equal(answer.result(SECONDS).pages, expected)
        newest = change.result(SECONDS)
        assert_answers(old, ARRAY)
        assert_answers(new, AFTER)
        newest.close()


def test_an_interrupt_waits_until_the_pages_are_replaced(
    gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it came between two copies, it would leave pages of two epochs behind."""
    done: list[int] = []
    caught: list[bool] = []  # one where the next interrupt is caught

    def interrupt(*_: Any) -> None:
        if caught:
            caught.clear()
            done.append(copies(gpu))
            raise KeyboardInterrupt

    monkeypatch.setattr(device_pages, "PIECE_BYTES", 48)
    engine = open_gpu()
    previous = signal.signal(signal.SIGALRM, interrupt)
    arrays, epoch = {0: ARRAY}, 0
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        while len(done) < 20:
            epoch += 1
            arrays[epoch] = arrays[engine.pages.epoch].copy()
            arrays[epoch][INDICES] ^= 1 + epoch % 7
            with contextlib.suppress(KeyboardInterrupt):
                caught.append(True)
                engine.replace_pages(INDICES, arrays[epoch][INDICES], epoch)
                caught.clear()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert_answers(engine, arrays[engine.pages.epoch])
    engine.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_forked_child_makes_no_call_on_the_driver(gpu: StandIn, method: str) -> None:
    with open_gpu() as old, old.next_epoch(INDICES, CONTENTS, 1) as new:
        gpu.reset_log()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                getattr(new, method)([9], ARRAY[:1], 2)
            except mg.EngineClosedError:
                new.close()
                old.close()
                status = 2 if gpu.calls() else 0
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert_answers(old, ARRAY)


# The arithmetic, over a model in numpy

TABLE = random_pages(9, 5)


def matrices(edits: list[dict[int, int]]) -> list[mg.PageMatrix]:
    found = [mg.PageMatrix(TABLE.copy())]
    for epoch, edit in enumerate(edits, start=1):
        indices = sorted(edit)
        contents = np.array([[edit[at]] * 5 for at in indices], np.uint8).reshape(-1, 5)
        found.append(found[-1].with_changes(indices, contents, epoch))
    return found


EDITS = st.lists(st.dictionaries(st.integers(0, 8), st.integers(0, 3), max_size=9), max_size=5)


@given(EDITS)
def test_differences_add_up(edits: list[dict[int, int]]) -> None:
    epochs = matrices(edits)
    whole: Any = difference(epochs[0], epochs[0], np.empty(0, np.int64))
    for before, after, edit in zip(epochs[:-1], epochs[1:], edits, strict=True):
        whole = whole.merged(difference(before, after, np.array(sorted(edit), np.int64)))
    first, last = epochs[0].body, epochs[-1].body
    differ = np.flatnonzero((first != last).any(axis=1))
    assert np.array_equal(whole.indices, differ)
    assert np.array_equal(whole.pages, first[differ] ^ last[differ])


@settings(max_examples=15, deadline=None)
@given(EDITS, st.randoms(use_true_random=False))
def test_any_chain_of_epochs_is_answered_in_any_order(
    gpu_for_examples: StandIn, edits: list[dict[int, int]], random: Any
) -> None:
    assert gpu_for_examples.live()
    epochs = matrices(edits)
    engines = [mg.open_engine(epochs[0], "cuda:0")]
    for epoch, edit in enumerate(edits, start=1):
        indices = sorted(edit)
        engines.append(
            random.choice(engines).next_epoch(
                range(9), np.array([epochs[epoch][at] for at in range(9)]), 100 + epoch
            )
            if random.random() < 0.5
            else engines[-1].next_epoch(indices, epochs[epoch].body[indices], 100 + epoch)
        )
    batch = mg.make_queries(random_rows(2, 2, 9), 9)[0]
    while engines:
        for engine in engines:
            array = epochs[engine.pages.epoch % 100].body
            assert np.array_equal(engine.answer(batch).pages, naive_answers(array, batch))
        engines.pop(random.randrange(len(engines))).close()


@pytest.fixture(scope="module")
def gpu_for_examples(standin_library: StandIn) -> Iterator[StandIn]:
    """One stand-in GPU for all examples of a test."""
    standin_library.reset()
    mg.driver_status.cache_clear()
    yield standin_library
    gc.collect()
    standin_library.assert_clean()
    standin_library.reset()
    standin_library.set(devices=0)
    mg.driver_status.cache_clear()


def test_a_patch_drops_pages_that_do_not_differ() -> None:
    pages = np.array([[0, 0], [0, 1], [0, 0]], np.uint8)
    patch = Patch(np.array([3, 5, 8]), pages)
    assert np.asarray(patch.indices).tolist() == [5]
    assert np.asarray(patch.pages).tolist() == [[0, 1]]

"""Engines over pages that change: in place, and beside the epoch before, on both devices."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from changing_engine import assert_answers, batch_for, changed, device
from morphogen.engine.cpu import CpuEngine
from naive import random_pages

__all__ = ["device"]

EMPTY = np.empty((0, 24), np.uint8)
ONE = np.ones((1, 24), np.uint8)


# What changes

CHANGES: dict[str, Callable[[int], list[int]]] = {
    "one page": lambda count: [count // 2],
    "the first page": lambda count: [0],
    "the last page": lambda count: [count - 1],
    "both ends": lambda count: [0, count - 1],
    "neighbours": lambda count: [3, 4, 5, 9],
    "every other page": lambda count: list(range(0, count, 2)),
    "all pages": lambda count: list(range(count)),
    "no page": lambda count: [],
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("shape", [(601, 33), (130, 64), (17, 4096)], ids=str)
def test_both_epochs_are_answered(device: str, shape: tuple[int, int], name: str) -> None:
    array = random_pages(*shape)
    indices = CHANGES[name](len(array))
    contents, after = changed(array, indices)
    with mg.open_engine(mg.PageMatrix(array.copy(), epoch=4), device) as old:
        with old.next_epoch(indices, contents, 5) as new:
            for keys, total in ((1, 7), (2, 0), (3, 1)):
                assert_answers(old, array, 4, total=total, keys=keys)
                assert_answers(new, after, 5, total=total, keys=keys)
            assert new.device == old.device
            assert "epoch 5" in repr(new)
        assert_answers(old, array, 4)


@pytest.mark.parametrize("name", CHANGES)
def test_pages_are_replaced_in_place(device: str, name: str) -> None:
    array = random_pages(601, 33)
    indices = CHANGES[name](len(array))
    contents, after = changed(array, indices)
    pages = mg.PageMatrix(array.copy())
    with mg.open_engine(pages, device) as engine:
        assert_answers(engine, array, 0)
        assert engine.replace_pages(indices, contents, 9) is None  # type: ignore[func-returns-value]
        assert_answers(engine, after, 9)
        assert "epoch 9" in repr(engine)
        assert [bytes(engine.pages[at]) for at in indices] == [bytes(page) for page in contents]
        words = mg.open_engine(mg.PageMatrix(after), device)
        assert engine.read_pages() == words.read_pages()
        words.close()
    # The pages that it was opened over are the caller's.
    assert np.array_equal(pages.body, array)
    assert pages.epoch == 0


@pytest.mark.parametrize("length", [1, 63, 64, 65, 4000])
def test_pages_of_a_file_are_replaced_up_to_its_short_last_one(
    device: str, tmp_path: Path, length: int
) -> None:
    path = tmp_path / "pages"
    path.write_bytes(bytes(random_pages(1, length) | 1))
    pages = mg.PageMatrix.open(path, page_size=64)
    array = np.array([pages[at] for at in range(len(pages))])
    indices = sorted({0, len(array) // 2, len(array) - 1})
    contents, after = changed(array, indices)
    before = path.read_bytes()
    with mg.open_engine(pages, device) as old, old.next_epoch(indices, contents, 1) as new:
        assert_answers(old, array, 0)
        assert_answers(new, after, 1)
        new.replace_pages(indices, array[indices], 2)
        assert_answers(new, array, 2)
    assert path.read_bytes() == before


def test_what_the_caller_does_to_its_arrays_afterwards_changes_nothing(device: str) -> None:
    array = random_pages(70, 48)
    indices = np.array([3, 69])
    contents, after = changed(array, indices)
    pages = mg.PageMatrix(array.copy())
    with mg.open_engine(pages, device) as old, old.next_epoch(indices, contents, 1) as new:
        contents[...] = 0
        indices[...] = 0
        assert_answers(old, array, 0)
        assert_answers(new, after, 1)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 0, 4, 1, 3)], ids=str)
def test_four_epochs_are_closed_in_any_order(device: str, order: tuple[int, ...]) -> None:
    arrays = [random_pages(601, 33)]
    engines = [mg.open_engine(mg.PageMatrix(arrays[0].copy()), device)]
    for epoch, indices in enumerate(([0, 5, 600], [5, 6], [1, 600], [0, 6, 7]), start=1):
        contents, after = changed(arrays[-1], indices, seed=epoch)
        engines.append(engines[-1].next_epoch(indices, contents, epoch))
        arrays.append(after)
    living = set(range(5))
    for closing in order:
        for epoch in living:
            assert_answers(engines[epoch], arrays[epoch], epoch, seed=epoch)
        engines[closing].close()
        living.remove(closing)
        with pytest.raises(mg.EngineClosedError, match=r"^this engine is closed$"):
            assert_answers(engines[closing], arrays[closing], closing)
    assert all(engine.closed for engine in engines)


def test_an_older_epoch_can_change_again(device: str) -> None:
    """As after an epoch that was opened and then given up."""
    array = random_pages(90, 40)
    given_up, _ = changed(array, [1, 2, 80], seed=1)
    second, other = changed(array, [2, 3], seed=2)
    third, last = changed(array, [4, 80], seed=3)
    with mg.open_engine(mg.PageMatrix(array.copy()), device) as engine:
        engine.next_epoch([1, 2, 80], given_up, 1).close()
        assert_answers(engine, array, 0)
        with engine.next_epoch([2, 3], second, 1) as new:
            assert_answers(new, other, 1)
            assert_answers(engine, array, 0)
            engine.replace_pages([4, 80], third, 2)
            assert_answers(engine, last, 2)
            assert_answers(new, other, 1)
        assert_answers(engine, last, 2)


def test_pages_may_come_back(device: str) -> None:
    array = random_pages(40, 24)
    contents, after = changed(array, [7, 8])
    with (
        mg.open_engine(mg.PageMatrix(array.copy()), device) as first,
        first.next_epoch([7, 8], contents, 1) as second,
        second.next_epoch([7, 8], array[[7, 8]], 0) as third,
    ):
        assert_answers(first, array, 0)
        assert_answers(second, after, 1)
        assert_answers(third, array, 0)


def test_an_epoch_may_be_lower_than_the_one_before(device: str) -> None:
    array = random_pages(40, 24)
    pages = mg.PageMatrix(array, epoch=5)
    with mg.open_engine(pages, device) as engine, engine.next_epoch([], EMPTY, 3) as older:
        assert_answers(older, array, 3)


# What the CPU's next engine takes over


@pytest.mark.parametrize("order", [None, "rows", "memory"])
def test_the_next_epochs_engine_has_the_options_of_the_one_before(order: str | None) -> None:
    pages = mg.PageMatrix(random_pages(40, 24))
    old = CpuEngine(pages, threads=3, instruction_set="baseline", read_order=order)
    with old, old.next_epoch([], EMPTY, 1) as new:
        assert isinstance(new, CpuEngine)
        assert (new.threads, new.instruction_set) == (3, "baseline")
        assert new.read_order == old.read_order
        assert new.read_order_source == old.read_order_source


# What is refused

REFUSED: list[tuple[str, tuple[Any, Any, Any], type[Exception], str]] = [
    ("the same epoch", ([3], ONE, 4), ValueError, r"^epoch must be another than .*, 4$"),
    ("a negative epoch", ([3], ONE, -1), ValueError, r"^epoch must be in 0\.\."),
    ("no epoch", ([3], ONE, "5"), TypeError, r"^epoch must be an int, not str$"),
    ("an index beyond the pages", ([40], ONE, 5), ValueError, "40"),
    ("a negative index", ([-1], ONE, 5), ValueError, "-1"),
    ("an index twice", ([3, 3], np.ones((2, 24), np.uint8), 5), ValueError, "ascending"),
    ("indices that descend", ([4, 3], np.ones((2, 24), np.uint8), 5), ValueError, "ascending"),
    ("half an index", ([3.5], ONE, 5), TypeError, "indices"),
    ("fewer pages", ([3, 4], ONE, 5), ValueError, "shape"),
    ("longer pages", ([3], np.ones((1, 25), np.uint8), 5), ValueError, "shape"),
    ("signed bytes", ([3], np.ones((1, 24), np.int8), 5), TypeError, "uint8"),
    ("a list for pages", ([3], [[1] * 24], 5), TypeError, r"numpy\.ndarray"),
]


@pytest.mark.parametrize("method", ["replace_pages", "next_epoch"])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [pytest.param(*rest, id=name) for name, *rest in REFUSED],
)
def test_changes_that_will_not_do_change_nothing(
    device: str, method: str, arguments: Any, error: type[Exception], message: str
) -> None:
    array = random_pages(40, 24)
    pages = mg.PageMatrix(array, epoch=4)
    with mg.open_engine(pages, device) as engine:
        with pytest.raises(error, match=message):
            getattr(engine, method)(*arguments)
        assert engine.pages is pages
        assert_answers(engine, array, 4)


@pytest.mark.parametrize("method", ["replace_pages", "next_epoch"])
def test_a_closed_engine_takes_no_pages(device: str, method: str) -> None:
    engine = mg.open_engine(mg.PageMatrix(random_pages(40, 24)), device)
    engine.close()
    with pytest.raises(mg.EngineClosedError, match=r"^this engine is closed$"):
        getattr(engine, method)([3], ONE, 1)


@pytest.mark.parametrize("method", ["replace_pages", "next_epoch"])
def test_a_forked_child_takes_no_pages(device: str, method: str) -> None:
    with mg.open_engine(mg.PageMatrix(random_pages(40, 24)), device) as engine:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                getattr(engine, method)([3], ONE, 1)
            except mg.EngineClosedError as error:
                status = 0 if "belongs to process" in str(error) else 2
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Meddler(mg.Query):
    """A query whose keys do something when the engine packs them."""

    act: Any
    held: tuple[bytes, ...]

    @property
    def keys(self) -> tuple[bytes, ...]:
        self.act()
        return self.held

    def __init__(self, query: mg.Query, act: Any) -> None:
        object.__setattr__(self, "held", query.keys)
        object.__setattr__(self, "act", act)


@pytest.mark.parametrize("method", ["replace_pages", "next_epoch"])
def test_pages_are_not_replaced_from_within_a_call(device: str, method: str) -> None:
    array = random_pages(40, 24)
    (query,) = batch_for(array, total=1)
    with mg.open_engine(mg.PageMatrix(array), device) as engine:
        meddler = Meddler(query, lambda: getattr(engine, method)([3], ONE, 1))
        with pytest.raises(mg.MorphogenError, match=r"^an engine cannot be called from within its"):
            engine.answer([meddler])
        assert_answers(engine, array, 0)


@pytest.mark.parametrize("method", ["replace_pages", "next_epoch"])
@pytest.mark.parametrize("error", [MemoryError, OSError])
def test_without_memory_for_the_pages_the_engine_goes_on(
    device: str, method: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> mg.PageMatrix:
        raise error("no memory")

    array = random_pages(40, 24)
    with mg.open_engine(mg.PageMatrix(array), device) as engine:
        with monkeypatch.context() as patched:
            patched.setattr(mg.PageMatrix, "with_changes", fail)
            with pytest.raises(error, match="no memory"):
                getattr(engine, method)([3], ONE, 1)
        assert_answers(engine, array, 0)
        engine.replace_pages([3], ONE, 1)
        assert engine.pages.epoch == 1


def test_without_threads_for_the_next_epochs_engine_this_one_goes_on() -> None:
    """In a process of its own, whose threads have no memory."""
    result = subprocess.run(
        [sys.executable, "-c", NO_THREADS], capture_output=True, text=True, timeout=120, check=False
    )
    assert (result.stderr, result.stdout) == ("", "cannot start 1000 threads\n0 1\n")


NO_THREADS = """
import resource
import numpy as np
import morphogen as mg
from morphogen.engine.cpu import CpuEngine
engine = CpuEngine(mg.PageMatrix(np.ones((9, 9), np.uint8)), threads=1)
engine._threads = 1000
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), -1))
try:
    engine.next_epoch([1], np.zeros((1, 9), np.uint8), 1)
except mg.DeviceError as error:
    print(str(error).partition(":")[0])
print(engine.pages.epoch, int(engine.pages[1][0]))
engine.answer(list(mg.make_query([3], 9)))
engine.close()
"""

"""Calling an engine: chunk widths, arguments it refuses, the caller's own output array."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from morphogen.engine.cpu import CpuEngine
from naive import (
    GUARD,
    naive_answers,
    open_engine,
    random_pages,
    random_rows,
)

# Chunks


def test_chunks_are_as_wide_as_asked() -> None:
    array = random_pages(20, 8)
    batch = mg.make_queries(random_rows(70, 1, 20), 20)[0]
    with open_engine(array) as engine:
        widest = engine.max_micro_batch
        assert widest >= 2
        for width in range(1, widest + 1):
            for total in (0, 1, width - 1, width, width + 1, 70):
                sizes = engine.answer(batch[:total], max_micro_batch=width).micro_batch_sizes
                ranges = mg.planner.micro_batch_ranges(total, width)
                assert sizes == tuple(stop - start for start, stop in ranges)


@pytest.mark.parametrize(
    ("keys", "queries", "sizes"),
    [
        (1, 96, (96,)),
        (1, 97, (96, 1)),
        (2, 48, (48,)),
        (2, 97, (48, 48, 1)),
        (3, 32, (32,)),
        (3, 33, (32, 1)),
    ],
)
@pytest.mark.parametrize("page_size", [8, 24, 200])
def test_a_pass_takes_96_keys_of_however_many_queries(
    keys: int, queries: int, sizes: tuple[int, ...], page_size: int
) -> None:
    array = random_pages(1100, page_size)
    batch = mg.make_queries(random_rows(queries, keys, 1100), 1100)[0]
    with open_engine(array) as engine:
        answer = engine.answer(batch)
        assert answer.micro_batch_sizes == sizes
        assert engine.answer(batch, lanes=1).micro_batch_sizes == sizes
        np.testing.assert_array_equal(answer.pages, naive_answers(array, batch))
        np.testing.assert_array_equal(answer.pages, engine.answer(batch, max_micro_batch=1).pages)
        assert engine.check_width(None, keys) == 96 // keys


@pytest.mark.parametrize("keys", [1, 2, 3])
def test_a_width_that_is_asked_for_counts_queries_whatever_their_keys(keys: int) -> None:
    batch = mg.make_queries(random_rows(70, keys, 20), 20)[0]
    with open_engine(random_pages(20, 8)) as engine:
        assert (engine.max_micro_batch, engine.widest_micro_batch) == (32, 32)
        assert engine.answer(batch, max_micro_batch=32).micro_batch_sizes == (32, 32, 6)
        assert engine.answer(batch, max_micro_batch=20).micro_batch_sizes == (20, 20, 20, 10)
        assert engine.check_width(20, keys) == 20


@pytest.mark.parametrize("width", [0, -1, 2**70, 33])
def test_chunks_wider_than_the_engine(width: int) -> None:
    with open_engine(random_pages(20, 8)) as engine:
        widest = engine.max_micro_batch
        if width == 33:
            width = widest + 1
        message = rf"max_micro_batch must be in 1\.\.{widest} on cpu, not {width}$"
        with pytest.raises(ValueError, match=message):
            engine.answer([], max_micro_batch=width)


@pytest.mark.parametrize("width", [1.0, "2", [2]])
def test_chunks_of_another_type(width: Any) -> None:
    with open_engine(random_pages(20, 8)) as engine:
        message = rf"max_micro_batch must be an int, not {type(width).__name__}$"
        with pytest.raises(TypeError, match=message):
            engine.answer([], max_micro_batch=width)


def test_the_answer_names_its_pages() -> None:
    with open_engine(mg.PageMatrix(random_pages(20, 8), epoch=12)) as engine:
        answer = engine.answer([mg.make_query([3], 20)[0]])
        assert (answer.epoch, answer.num_pages) == (12, 20)
        assert (engine.device, engine.pages.epoch) == ("cpu", 12)


def test_an_empty_batch() -> None:
    with open_engine(random_pages(20, 8)) as engine:
        answer = engine.answer([])
        assert answer.pages.shape == (0, 3, 8)
        assert answer.micro_batch_sizes == ()
        out = np.empty((0, 3, 8), dtype=np.uint8)
        assert engine.answer([], out=out).pages is out


def test_both_parties_in_one_batch() -> None:
    array = random_pages(300, 50)
    with open_engine(array) as engine:
        pages = engine.answer(list(mg.make_query([7, 250], 300))).pages
    assert np.array_equal(pages[0] ^ pages[1], array[[7, 250]])


# Arguments of an engine


@pytest.mark.parametrize("batch", [None, (), iter([]), b"", np.zeros(2)])
def test_queries_that_are_no_list(batch: Any) -> None:
    with open_engine(random_pages(20, 8)) as engine:
        name = type(batch).__name__
        with pytest.raises(TypeError, match=rf"must be a list of Query, not {name}$"):
            engine.answer(batch)


def test_mixed_key_counts() -> None:
    batch = [mg.make_query([1, 2], 20)[0], mg.make_query([1], 20)[0]]
    with open_engine(random_pages(20, 8)) as engine:
        message = r"queries\[0\] has 2, queries\[1\] has 1$"
        with pytest.raises(ValueError, match=message):
            engine.answer(batch)


@pytest.mark.parametrize("pages", [None, random_pages(4, 4), b"pages"], ids=type)
def test_pages_of_another_type(pages: Any) -> None:
    name = type(pages).__name__
    with pytest.raises(TypeError, match=rf"pages must be a PageMatrix, not {name}$"):
        mg.open_engine(pages, device="cpu")


@pytest.mark.parametrize("threads", [0, -1, 1025, -(2**70), 2**70])
def test_threads_out_of_range(threads: int) -> None:
    with pytest.raises(ValueError, match=rf"threads must be in 1\.\.1024, not {threads}$"):
        open_engine(random_pages(4, 4), threads=threads)


@pytest.mark.parametrize("threads", [1.0, "1", [1]])
def test_threads_of_another_type(threads: Any) -> None:
    with pytest.raises(TypeError, match=rf"threads must be an int, not {type(threads).__name__}$"):
        open_engine(random_pages(4, 4), threads=threads)


TOO_MANY_THREADS = """
import os, resource
import numpy as np
import morphogen as mg
pages = mg.PageMatrix(np.ones((9, 9), np.uint8))
mg.open_engine(pages, "cpu", threads=1).close()
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), -1))
try:
    mg.open_engine(pages, "cpu", threads=1024)
except mg.DeviceError as error:
    print(error)
with mg.open_engine(pages, "cpu", threads=2) as engine:
    print(engine.answer([mg.make_query([3], 9)[0]]).pages.shape)
"""


def test_more_threads_than_can_be() -> None:
    """If memory for their stacks runs out, the threads that were started end again."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc/self/statm")
    result = subprocess.run(
        [sys.executable, "-c", TOO_MANY_THREADS], capture_output=True, text=True, timeout=120
    )
    assert result.stderr == ""
    message, shape = result.stdout.splitlines()
    assert message.startswith("cannot start 1024 threads: ")
    assert shape == "(1, 1, 9)"


def test_unknown_instruction_set() -> None:
    with pytest.raises(ValueError, match=r"must be one of .*'baseline'.*, not 'mmx'$"):
        open_engine(random_pages(4, 4), instruction_set="mmx")
    with pytest.raises(TypeError, match=r"instruction_set must be a str, not int$"):
        open_engine(random_pages(4, 4), instruction_set=2)


@pytest.mark.parametrize("device", ["gpu", "", "CPU", "cuda:", "cuda:x", "cpu:0", "cuda:\u0661"])
def test_unknown_device(device: str) -> None:
    with pytest.raises(ValueError, match=rf"device must be .* not '{device}'$"):
        mg.open_engine(mg.PageMatrix(random_pages(4, 4)), device=device)


def test_device_of_a_number_that_no_device_has() -> None:
    test_unknown_device("cuda:" + "9" * 5000)


def test_device_of_another_type() -> None:
    with pytest.raises(
        TypeError, match=r"device must be a str, or a list or tuple of them, not int$"
    ):
        mg.open_engine(mg.PageMatrix(random_pages(4, 4)), device=0)  # type: ignore[arg-type]


def test_the_widest_instruction_set_and_all_cores_by_default() -> None:
    with open_engine(random_pages(4, 4)) as engine:
        assert isinstance(engine, CpuEngine)
        assert engine.instruction_set == mg.instruction_set.supported()[0]
        assert engine.threads >= 1


# out


def test_out_is_used_again_whatever_it_holds() -> None:
    array = random_pages(700, 77)
    out = np.empty((5, 3, 77), dtype=np.uint8)
    with open_engine(array, threads=1) as engine:
        for seed in range(6):
            out[...] = (0, 255, GUARD)[seed % 3]
            batch = mg.make_queries(random_rows(5, 3, 700, seed), 700)[seed % 2]
            answer = engine.answer(batch, out=out)
            assert answer.pages is out
            assert np.array_equal(out, naive_answers(array, batch))


def test_scratch_memory_is_used_again_whatever_it_holds() -> None:
    """Wide batches, narrow ones, other key counts: nothing of one shows in the next."""
    array = random_pages(300, 130)
    with open_engine(array, threads=2) as engine:
        for seed, (total, keys) in enumerate([(32, 3), (1, 1), (40, 2), (1, 3), (7, 1), (32, 3)]):
            batch = mg.make_queries(random_rows(total, keys, 300, seed), 300)[0]
            assert np.array_equal(engine.answer(batch).pages, naive_answers(array, batch))


def test_answers_without_out_are_their_own() -> None:
    array = random_pages(50, 10)
    batch = [mg.make_query([3], 50)[0]]
    with open_engine(array) as engine:
        first = engine.answer(batch).pages
        second = engine.answer(batch).pages
        second[...] = 0
        assert np.array_equal(first, naive_answers(array, batch))


def test_out_may_be_a_view_into_more() -> None:
    array = random_pages(50, 10)
    batch = mg.make_queries([[1, 2], [3, 4]], 50)[0]
    everything = np.full((4, 2, 2, 10), GUARD, dtype=np.uint8)
    with open_engine(array) as engine:
        engine.answer(batch, out=everything[1])
    assert np.array_equal(everything[1], naive_answers(array, batch))
    assert (everything[[0, 2, 3]] == GUARD).all()


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([[[0]]], TypeError, r"out must be a numpy\.ndarray, not list$"),
        (bytearray(40), TypeError, r"out must be a numpy\.ndarray, not bytearray$"),
        (np.zeros((2, 2, 10), dtype=np.int8), TypeError, r"have dtype uint8, not int8$"),
        (np.zeros((2, 2, 10)), TypeError, r"have dtype uint8, not float64$"),
        (np.zeros((2, 2, 11), np.uint8), ValueError, r"shape \(2, 2, 10\), not \(2, 2, 11\)$"),
        (np.zeros((3, 2, 10), np.uint8), ValueError, r"shape \(2, 2, 10\), not \(3, 2, 10\)$"),
        (np.zeros((2, 20), np.uint8), ValueError, r"shape \(2, 2, 10\), not \(2, 20\)$"),
        (np.zeros((2, 2, 20), np.uint8)[..., ::2], ValueError, r"C-contiguous, not strided by"),
        (np.zeros((2, 4, 10), np.uint8)[:, :2], ValueError, r"C-contiguous, not strided by"),
        (np.zeros((10, 2, 2), np.uint8).T, ValueError, r"C-contiguous, not strided by"),
        (np.frombuffer(bytes(40), np.uint8).reshape(2, 2, 10), ValueError, r"not read-only$"),
    ],
)
def test_out_that_will_not_do(out: Any, error: type[Exception], message: str) -> None:
    batch = mg.make_queries([[1, 2], [3, 4]], 50)[0]
    with open_engine(random_pages(50, 10)) as engine:
        with pytest.raises(error, match=message):
            engine.answer(batch, out=out)
        assert engine.answer(batch).pages.shape == (2, 2, 10)


def test_out_in_the_memory_of_the_pages() -> None:
    memory = np.zeros(50 * 10 + 40, dtype=np.uint8)
    array = memory[:500].reshape(50, 10)
    batch = mg.make_queries([[1, 2], [3, 4]], 50)[0]
    with open_engine(array) as engine:
        for start in (0, 200, 460, 499):
            out = memory[start:][:40].reshape(2, 2, 10)
            with pytest.raises(ValueError, match="memory of the pages"):
                engine.answer(batch, out=out)
        assert not memory.any()
        engine.answer(batch, out=memory[500:].reshape(2, 2, 10))


def test_out_in_the_memory_of_a_short_last_page_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pages").write_bytes(bytes(1000))
    pages = mg.PageMatrix.open(tmp_path / "pages", page_size=64)
    assert pages.tail is not None
    pages.tail.setflags(write=True)  # a caller can: it is a copy of the file's end
    own = pages.tail.reshape(1, 1, 64)
    (query,), _ = mg.make_queries([[3]], pages.num_pages)
    with (
        mg.open_engine(pages, device="cpu") as engine,
        pytest.raises(ValueError, match=r"^out must not lie in the memory of the pages$"),
    ):
        engine.answer([query], out=own)

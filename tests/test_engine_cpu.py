"""The CPU engine: answers right to the byte, whatever chunks, threads and instruction sets."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import morphogen as mg
from conftest import Bytes, naive_answers, random_table
from morphogen.engine.base import Engine

GUARD = 0xA5


def guarded(shape: tuple[int, ...], offset: int = 3, content: Any = None) -> tuple[Bytes, Bytes]:
    """An array at an offset from a cache line, amid guard bytes, and the memory it lies in."""
    size = int(np.prod(shape))
    memory = np.full(size + 256, GUARD, dtype=np.uint8)
    start = 64 - memory.ctypes.data % 64 + offset
    array = memory[start:][:size].reshape(shape)
    if content is not None:
        array[...] = content
    return array, memory


def assert_guards(array: Bytes, memory: Bytes) -> None:
    start = array.ctypes.data - memory.ctypes.data
    assert (memory[:start] == GUARD).all()
    assert (memory[start + array.size :] == GUARD).all()


def open_engine(table: Bytes | mg.PageMatrix, **options: Any) -> Engine:
    pages = table if isinstance(table, mg.PageMatrix) else mg.PageMatrix(table)
    return mg.open_engine(pages, device="cpu", **options)


def random_rows(total: int, keys: int, num_pages: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, total, keys]).integers(0, num_pages, (total, keys))


# Parity

# Enough bytes for three threads to share, the last of 4,500 bytes a page, odd in every way.
PARITY_TABLE = random_table(1237, 4501)


@pytest.fixture(scope="module")
def parity_batch() -> tuple[np.ndarray[Any, Any], list[list[mg.Query]], list[Bytes]]:
    """Rows, both parties' queries and their naive answers, as many as the largest batch has."""
    rows = random_rows(40, 3, len(PARITY_TABLE))
    queries = list(mg.make_queries(rows, len(PARITY_TABLE)))
    return rows, queries, [naive_answers(PARITY_TABLE, batch) for batch in queries]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_batches_equal_the_single_query_loop_and_numpy(
    instruction_set: str, threads: int, parity_batch: Any
) -> None:
    rows, queries, naive = parity_batch
    with open_engine(PARITY_TABLE, threads=threads, instruction_set=instruction_set) as engine:
        assert engine.instruction_set == instruction_set
        assert engine.threads == threads
        for total in (0, 1, 2, 3, 4, 5, 7, 8, 16, 32, 33, 40):
            answers = []
            for party in (0, 1):
                batch = queries[party][:total]
                answer = engine.answer(batch)
                answers.append(answer)
                assert answer.pages.shape == (total, 3, PARITY_TABLE.shape[1])
                assert answer.pages.dtype == np.uint8
                assert np.array_equal(answer.pages, naive[party][:total])
                assert sum(answer.micro_batch_sizes) == total
                if total in (0, 1, 5, 8):
                    single = engine.answer(batch, max_micro_batch=1)
                    assert single.micro_batch_sizes == (1,) * total
                    assert np.array_equal(single.pages, answer.pages)
                    pairs = engine.answer(batch, max_micro_batch=2)
                    assert np.array_equal(pairs.pages, answer.pages)
            assert np.array_equal(mg.reconstruct(*answers), PARITY_TABLE[rows[:total]])


@pytest.mark.parametrize("page_size", [12, 24, 192, 200])
@pytest.mark.parametrize("keys", [1, 2, 3])
def test_every_number_of_keys_in_a_pass(instruction_set: str, keys: int, page_size: int) -> None:
    table = random_table(140, page_size)
    batch = mg.make_queries(random_rows(33, keys, len(table)), len(table))[1]
    naive = naive_answers(table, batch)
    with open_engine(table, threads=1, instruction_set=instruction_set) as engine:
        for width in range(1, engine.max_micro_batch + 1):
            total = min(33, width + 1)
            answer = engine.answer(batch[:total], max_micro_batch=width)
            assert answer.micro_batch_sizes[0] == width
            assert np.array_equal(answer.pages, naive[:total])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    page_size=st.integers(1, 9000),
    num_pages=st.integers(1, 3000),
    keys=st.integers(1, 3),
    total=st.integers(0, 40),
    width=st.integers(1, 40),
    threads=st.integers(1, 3),
    name=st.sampled_from(mg.instruction_set.supported()),
    offset=st.integers(0, 64),
)
def test_any_shape(
    page_size: int,
    num_pages: int,
    keys: int,
    total: int,
    width: int,
    threads: int,
    name: str,
    offset: int,
) -> None:
    num_pages = min(num_pages, (3 << 20) // page_size + 1)
    total = min(total, (64 << 20) // (page_size * num_pages * keys) + 1)
    content = random_table(num_pages, page_size)
    table, table_memory = guarded(content.shape, offset, content)
    rows = random_rows(total, keys, num_pages)
    queries = mg.make_queries(rows, num_pages)
    shape = (total, keys if total else 3, page_size)
    answers = []
    with open_engine(table, threads=threads, instruction_set=name) as engine:
        for batch in queries:
            out, out_memory = guarded(shape, offset // 2)
            answer = engine.answer(
                batch, out=out, max_micro_batch=min(width, engine.max_micro_batch)
            )
            assert answer.pages is out
            assert np.array_equal(out, naive_answers(content, batch).reshape(shape))
            assert_guards(out, out_memory)
            answers.append(answer)
    assert np.array_equal(mg.reconstruct(*answers).reshape(shape), content[rows].reshape(shape))
    assert np.array_equal(table, content)
    assert_guards(table, table_memory)


# Pages are cut into columns of 64, 32, ..., 1 bytes and into strips of 4,096.
WIDTHS = [
    *range(1, 10),
    *(15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65, 95, 127, 128, 129, 191, 192, 193),
    *(255, 257, 511, 513, 1000, 4032, 4095, 4096, 4097, 4159, 8191, 8193, 12_289, 70_000),
]


@pytest.mark.parametrize("page_size", WIDTHS)
def test_every_column_width(instruction_set: str, page_size: int) -> None:
    content = random_table(75, page_size)
    for keys, total, offset in (
        (1, 1, 0),
        (1, 9, 1),
        (3, 2, 32),
        (3, 5, 63),
        (3, 17, 7),
        (2, 1, 5),
    ):
        # At some offset from a cache line, to which wide pages' columns are laid.
        table, table_memory = guarded(content.shape, offset, content)
        batch = mg.make_queries(random_rows(total, keys, 75), 75)[0]
        with open_engine(table, threads=1, instruction_set=instruction_set) as engine:
            out, out_memory = guarded((total, keys, page_size))
            engine.answer(batch, out=out)
            assert np.array_equal(out, naive_answers(content, batch))
            assert_guards(out, out_memory)
        assert_guards(table, table_memory)


TAILS = [*range(1, 35), *(63, 64, 65, 127, 128, 129), *range(504, 523), 1023, 1024, 1025, 1537]


@pytest.mark.parametrize("page_size", [3, 64, 100])
def test_every_tail_of_pages(instruction_set: str, page_size: int) -> None:
    for num_pages in TAILS:
        table = random_table(num_pages, page_size)
        rows = random_rows(5, 2, num_pages)
        queries = mg.make_queries(rows, num_pages)
        with open_engine(table, threads=1, instruction_set=instruction_set) as engine:
            for batch in queries:
                for width in (1, 2, 5):
                    answer = engine.answer(batch, max_micro_batch=width)
                    assert np.array_equal(answer.pages, naive_answers(table, batch))


def test_every_border_between_threads(instruction_set: str) -> None:
    """Tables that end just before, at and after a place where one thread's pages could end."""
    for num_pages in (1, 2, 63, 64, 65, 66, 127, 128, 129, 191, 192, 193, 513):
        table = random_table(num_pages, 65_537)  # so wide that several threads get some
        batch = mg.make_query([num_pages - 1, num_pages // 2], num_pages)
        for threads in (2, 3, 5):
            with open_engine(table, threads=threads, instruction_set=instruction_set) as engine:
                answer = engine.answer(list(batch))
                assert np.array_equal(answer.pages, naive_answers(table, batch))


def test_many_leaves_and_subtrees(instruction_set: str) -> None:
    """Tables of small pages, whose selection bits span many leaves and more than one subtree."""
    for num_pages, page_size in ((70_001, 16), (524_289, 3), (1_048_700, 5), (600_000, 9)):
        table = random_table(num_pages, page_size)
        rows = [[0, num_pages - 1, 524_288 % num_pages], [512, 65_535, num_pages - 2]]
        queries = mg.make_queries(rows, num_pages)
        with open_engine(table, threads=2, instruction_set=instruction_set) as engine:
            answers = [engine.answer(batch) for batch in queries]
        assert np.array_equal(answers[1].pages, naive_answers(table, queries[1]))
        assert np.array_equal(mg.reconstruct(*answers), table[np.array(rows)])


@pytest.mark.parametrize("page_size", [5, 64, 100])
def test_a_short_last_page_at_every_place_in_its_octet(
    instruction_set: str, page_size: int, tmp_path: Path
) -> None:
    path = tmp_path / "table"
    for num_pages in (*range(1, 18), 64, 65, 512, 513, 514, 1025):
        content = random_table(num_pages, page_size) | 1
        rest = num_pages % (page_size - 1) + 1
        content[-1, rest:] = 0
        path.write_bytes(bytes(content)[: (num_pages - 1) * page_size + rest])
        pages = mg.PageMatrix.open(path, page_size=page_size)
        assert pages.tail is not None
        rows = np.concatenate([[[num_pages - 1] * 2], random_rows(4, 2, num_pages)])
        queries = mg.make_queries(rows, num_pages)
        with open_engine(pages, threads=2, instruction_set=instruction_set) as engine:
            answers = [engine.answer(batch) for batch in queries]
        for answer, batch in zip(answers, queries, strict=True):
            assert np.array_equal(answer.pages, naive_answers(content, batch))
        assert np.array_equal(mg.reconstruct(*answers), content[rows])


def test_a_large_mapped_file_with_a_short_last_page(instruction_set: str, tmp_path: Path) -> None:
    """Large enough for threads: the tail is the last one's."""
    content = random_table(1003, 4096)
    content[-1, 77:] = 0
    (tmp_path / "table").write_bytes(bytes(content)[: 1002 * 4096 + 77])
    pages = mg.PageMatrix.open(tmp_path / "table")
    queries = mg.make_queries([[1002], [1001], [0], [500]], 1003)
    with open_engine(pages, threads=3, instruction_set=instruction_set) as engine:
        answers = [engine.answer(batch) for batch in queries]
    assert np.array_equal(answers[0].pages, naive_answers(content, queries[0]))
    assert np.array_equal(mg.reconstruct(*answers)[:, 0], content[[1002, 1001, 0, 500]])


def test_more_threads_than_pages() -> None:
    table = random_table(5, 1 << 20)
    batch = list(mg.make_query([0, 4, 2], 5))
    with open_engine(table, threads=19) as engine:
        for _ in range(3):
            assert np.array_equal(engine.answer(batch).pages, naive_answers(table, batch))


BEYOND_THE_TABLE = """
import ctypes, mmap, sys
import numpy as np
import morphogen as mg

PAGE = mmap.PAGESIZE
PROT_NONE = 0
libc = ctypes.CDLL(None, use_errno=True)

def walled(size):
    "Memory of whole pages between two that cannot be touched."
    inner = -(-size // PAGE) * PAGE
    region = mmap.mmap(-1, inner + 2 * PAGE)
    array = np.frombuffer(region, dtype=np.uint8)
    for offset in (0, inner + PAGE):
        address = ctypes.c_void_p(array.ctypes.data + offset)
        if libc.mprotect(address, PAGE, PROT_NONE):
            sys.exit("no mprotect")
    return array[PAGE:-PAGE]

rng = np.random.default_rng(3)
widths = (1, 3, 8, 31, 33, 63, 64, 65, 100, 5000)
shapes = [(num_pages, width) for num_pages in (1, 3, 8, 13, 64, 77) for width in widths]
for num_pages, page_size in [*shapes, (1300, 4001)]:
    size = num_pages * page_size
    memory = walled(size)
    content = rng.integers(0, 256, (num_pages, page_size), dtype=np.uint8)
    for table in (memory[:size], memory[len(memory) - size:]):
        table = table.reshape(num_pages, page_size)
        table[...] = content
        for total in (1, 2, 3, 16):
            rows = rng.integers(0, num_pages, (total, 3))
            result = walled(2 * total * 3 * page_size)
            for flush_left in (True, False):
                batches = mg.make_queries(rows, num_pages)
                share = total * 3 * page_size
                part = result[:2 * share] if flush_left else result[len(result) - 2 * share:]
                outs = part.reshape(2, total, 3, page_size)
                with mg.open_engine(mg.PageMatrix(table), "cpu", threads=2,
                                    instruction_set=sys.argv[1]) as engine:
                    for batch, out in zip(batches, outs):
                        engine.answer(batch, out=out)
                assert np.array_equal(outs[0] ^ outs[1], content[rows])
print("done")
"""


def test_nothing_beyond_the_table_is_read_or_written(instruction_set: str) -> None:
    """The table and out end, and begin, at memory that cannot be touched."""
    result = subprocess.run(
        [sys.executable, "-c", BEYOND_THE_TABLE, instruction_set], capture_output=True, text=True
    )
    if result.stderr == "no mprotect\n":
        pytest.skip("needs mprotect")
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "done\n")


# Chunks


def test_chunks_are_as_wide_as_asked() -> None:
    table = random_table(20, 8)
    batch = mg.make_queries(random_rows(70, 1, 20), 20)[0]
    with open_engine(table) as engine:
        widest = engine.max_micro_batch
        assert widest >= 2
        for width in range(1, widest + 1):
            for total in (0, 1, width - 1, width, width + 1, 70):
                sizes = engine.answer(batch[:total], max_micro_batch=width).micro_batch_sizes
                ranges = mg.planner.micro_batch_ranges(total, width)
                assert sizes == tuple(stop - start for start, stop in ranges)
        default = engine.answer(batch)
        assert max(default.micro_batch_sizes) == widest


@pytest.mark.parametrize("width", [0, -1, 2**70, 33])
def test_chunks_wider_than_the_engine(width: int) -> None:
    with open_engine(random_table(20, 8)) as engine:
        widest = engine.max_micro_batch
        if width == 33:
            width = widest + 1
        message = rf"max_micro_batch must be in 1\.\.{widest} on cpu, not {width}$"
        with pytest.raises(ValueError, match=message):
            engine.answer([], max_micro_batch=width)


@pytest.mark.parametrize("width", [1.0, "2", [2]])
def test_chunks_of_another_type(width: Any) -> None:
    with open_engine(random_table(20, 8)) as engine:
        message = rf"max_micro_batch must be an int, not {type(width).__name__}$"
        with pytest.raises(TypeError, match=message):
            engine.answer([], max_micro_batch=width)


def test_the_answer_names_its_table() -> None:
    with open_engine(mg.PageMatrix(random_table(20, 8), epoch=12)) as engine:
        answer = engine.answer([mg.make_query([3], 20)[0]])
        assert (answer.epoch, answer.num_pages) == (12, 20)
        assert (engine.device, engine.pages.epoch) == ("cpu", 12)


def test_an_empty_batch() -> None:
    with open_engine(random_table(20, 8)) as engine:
        answer = engine.answer([])
        assert answer.pages.shape == (0, 3, 8)
        assert answer.micro_batch_sizes == ()
        out = np.empty((0, 3, 8), dtype=np.uint8)
        assert engine.answer([], out=out).pages is out


def test_both_parties_in_one_batch() -> None:
    table = random_table(300, 50)
    with open_engine(table) as engine:
        pages = engine.answer(list(mg.make_query([7, 250], 300))).pages
    assert np.array_equal(pages[0] ^ pages[1], table[[7, 250]])


# What an engine is given


@pytest.mark.parametrize("batch", [None, (), iter([]), b"", np.zeros(2)])
def test_queries_that_are_no_list(batch: Any) -> None:
    with open_engine(random_table(20, 8)) as engine:
        name = type(batch).__name__
        with pytest.raises(TypeError, match=rf"must be a list of Query, not {name}$"):
            engine.answer(batch)


def test_mixed_key_counts() -> None:
    batch = [mg.make_query([1, 2], 20)[0], mg.make_query([1], 20)[0]]
    with open_engine(random_table(20, 8)) as engine:
        message = r"queries\[0\] has 2, queries\[1\] has 1$"
        with pytest.raises(ValueError, match=message):
            engine.answer(batch)


@pytest.mark.parametrize("pages", [None, random_table(4, 4), b"pages"], ids=type)
def test_pages_of_another_type(pages: Any) -> None:
    name = type(pages).__name__
    with pytest.raises(TypeError, match=rf"pages must be a PageMatrix, not {name}$"):
        mg.open_engine(pages, device="cpu")


@pytest.mark.parametrize("threads", [0, -1, 1025, -(2**70), 2**70])
def test_threads_out_of_range(threads: int) -> None:
    with pytest.raises(ValueError, match=rf"threads must be in 1\.\.1024, not {threads}$"):
        open_engine(random_table(4, 4), threads=threads)


@pytest.mark.parametrize("threads", [1.0, "1", [1]])
def test_threads_of_another_type(threads: Any) -> None:
    with pytest.raises(TypeError, match=rf"threads must be an int, not {type(threads).__name__}$"):
        open_engine(random_table(4, 4), threads=threads)


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
    """Where memory for their stacks runs out, those that were started end again."""
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
        open_engine(random_table(4, 4), instruction_set="mmx")
    with pytest.raises(TypeError, match=r"instruction_set must be a str, not int$"):
        open_engine(random_table(4, 4), instruction_set=2)


@pytest.mark.parametrize("device", ["gpu", "", "CPU", "cuda:", "cuda:x", "cpu:0"])
def test_unknown_device(device: str) -> None:
    with pytest.raises(ValueError, match=rf"device must be .* not '{device}'$"):
        mg.open_engine(mg.PageMatrix(random_table(4, 4)), device=device)


def test_device_of_another_type() -> None:
    with pytest.raises(TypeError, match=r"device must be a str, not int$"):
        mg.open_engine(mg.PageMatrix(random_table(4, 4)), device=0)  # type: ignore[arg-type]


def test_the_widest_instruction_set_and_all_cores_by_default() -> None:
    with open_engine(random_table(4, 4)) as engine:
        assert engine.instruction_set == mg.instruction_set.supported()[0]
        assert engine.threads >= 1


# out


def test_out_is_used_again_whatever_it_holds() -> None:
    table = random_table(700, 77)
    out = np.empty((5, 3, 77), dtype=np.uint8)
    with open_engine(table, threads=1) as engine:
        for seed in range(6):
            out[...] = (0, 255, GUARD)[seed % 3]
            batch = mg.make_queries(random_rows(5, 3, 700, seed), 700)[seed % 2]
            answer = engine.answer(batch, out=out)
            assert answer.pages is out
            assert np.array_equal(out, naive_answers(table, batch))


def test_scratch_memory_is_used_again_whatever_it_holds() -> None:
    """Wide batches, narrow ones, other key counts: nothing of one shows in the next."""
    table = random_table(300, 130)
    with open_engine(table, threads=2) as engine:
        for seed, (total, keys) in enumerate([(32, 3), (1, 1), (40, 2), (1, 3), (7, 1), (32, 3)]):
            batch = mg.make_queries(random_rows(total, keys, 300, seed), 300)[0]
            assert np.array_equal(engine.answer(batch).pages, naive_answers(table, batch))


def test_answers_without_out_are_their_own() -> None:
    table = random_table(50, 10)
    batch = [mg.make_query([3], 50)[0]]
    with open_engine(table) as engine:
        first = engine.answer(batch).pages
        second = engine.answer(batch).pages
        second[...] = 0
        assert np.array_equal(first, naive_answers(table, batch))


def test_out_may_be_a_view_into_more() -> None:
    table = random_table(50, 10)
    batch = mg.make_queries([[1, 2], [3, 4]], 50)[0]
    everything = np.full((4, 2, 2, 10), GUARD, dtype=np.uint8)
    with open_engine(table) as engine:
        engine.answer(batch, out=everything[1])
    assert np.array_equal(everything[1], naive_answers(table, batch))
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
    with open_engine(random_table(50, 10)) as engine:
        with pytest.raises(error, match=message):
            engine.answer(batch, out=out)
        assert engine.answer(batch).pages.shape == (2, 2, 10)


def test_out_in_the_memory_of_the_pages() -> None:
    memory = np.zeros(50 * 10 + 40, dtype=np.uint8)
    table = memory[:500].reshape(50, 10)
    batch = mg.make_queries([[1, 2], [3, 4]], 50)[0]
    with open_engine(table) as engine:
        for start in (0, 200, 460, 499):
            out = memory[start:][:40].reshape(2, 2, 10)
            with pytest.raises(ValueError, match="memory of the pages"):
                engine.answer(batch, out=out)
        assert not memory.any()
        engine.answer(batch, out=memory[500:].reshape(2, 2, 10))


# Many threads


def test_callers_on_many_threads_get_their_own_answers() -> None:
    table = random_table(900, 2500)
    barrier = threading.Barrier(6, timeout=60)

    def call(caller: int) -> None:
        barrier.wait()
        for turn in range(8):
            total = (caller + turn) % 5 + 1
            batch = mg.make_queries(random_rows(total, caller % 3 + 1, 900, turn), 900)[turn % 2]
            assert np.array_equal(engine.answer(batch).pages, naive_answers(table, batch))

    with open_engine(table, threads=2) as engine, ThreadPoolExecutor(6) as executor:
        for result in [executor.submit(call, caller) for caller in range(6)]:
            result.result()


def test_callers_of_many_engines_over_one_table() -> None:
    table = random_table(900, 2500)
    pages = mg.PageMatrix(table)

    def call(caller: int) -> None:
        batch = list(mg.make_query([caller, 900 - 1 - caller], 900))
        with open_engine(pages, threads=2) as engine:
            for _ in range(5):
                assert np.array_equal(engine.answer(batch).pages, naive_answers(table, batch))

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(call, range(4)))


# The end of an engine


def test_use_after_close() -> None:
    engine = open_engine(random_table(20, 8))
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
    with open_engine(random_table(20, 8)) as engine:
        assert not engine.closed
    assert engine.closed

    def fail() -> None:
        with engine_of_error:
            raise KeyError("mine")

    engine_of_error = open_engine(random_table(20, 8))
    with pytest.raises(KeyError, match="mine"):
        fail()
    assert engine_of_error.closed


class WaitingEngine(Engine):
    """An engine whose one answer lasts until the test says so."""

    def __init__(self) -> None:
        super().__init__(mg.PageMatrix(random_table(20, 8)), "test", 2)
        self.running, self.go_on = threading.Event(), threading.Event()
        self.log: list[str] = []

    def _run(self, ranges: list[tuple[int, int]], out: Bytes) -> None:
        self.running.set()
        self.go_on.wait(60)
        for _ in range(100_000):  # time for a close that does not wait
            pass
        self.log.append("answered")

    def _release(self) -> None:
        self.log.append("released")

    def read_pages(self) -> int:
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
    table = random_table(900, 2500)
    batch = list(mg.make_query([1, 2, 3], 900))
    expected = naive_answers(table, batch)
    for _ in range(5):
        engine = open_engine(table, threads=2)
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
    engine = open_engine(random_table(900, 2500), threads=5)
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
    with open_engine(random_table(900, 2500), threads=1):
        assert not tasks() - before


def test_an_engine_keeps_its_pages() -> None:
    table = random_table(60, 9)
    engine = open_engine(mg.PageMatrix(table.copy()))
    gc.collect()
    batch = list(mg.make_query([59], 60))
    assert np.array_equal(engine.answer(batch).pages, naive_answers(table, batch))
    engine.close()


FORK = """
import os, sys, threading
import numpy as np
import morphogen as mg

table = np.random.default_rng(0).integers(0, 256, (900, 4001), dtype=np.uint8)
pages = mg.PageMatrix(table)
engine = mg.open_engine(pages, "cpu", threads=3)
queries = list(mg.make_query([1, 899], 900))

def right(engine):
    found = engine.answer(queries).pages
    return np.array_equal(found[0] ^ found[1], table[[1, 899]])

def in_child():
    checks = []
    for use in (lambda: engine.answer(queries), lambda: engine.answer([]), engine.read_pages):
        try:
            use()
        except mg.EngineClosedError as error:
            checks.append(f"to process {os.getppid()}, not to its fork {os.getpid()}" in str(error))
        else:
            checks.append(False)
    engine.close()
    with engine:
        pass
    with mg.open_engine(pages, "cpu", threads=2) as own:
        checks.append(right(own))
    return all(checks)

def fork():
    child = os.fork()
    if child == 0:
        good = in_child()
        sys.exit(0 if good else 3)  # as a child does that ends on its own
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

assert right(engine)
assert fork() == 0
assert right(engine)

stop = threading.Event()
first = threading.Event()
def work():
    while not stop.is_set():
        assert right(engine)
        first.set()
worker = threading.Thread(target=work)
worker.start()
first.wait()
assert [fork() for _ in range(5)] == [0] * 5
stop.set()
worker.join()
assert right(engine)
engine.close()
print("done")
"""


def test_an_engine_in_a_forked_child() -> None:
    """It says whose it is, close does nothing, an own engine works; the parent notices nothing."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "done\n")


EXIT = """
import numpy as np
import morphogen as mg
engine = mg.open_engine(mg.PageMatrix(np.ones((900, 4001), np.uint8)), "cpu", threads=4)
engine.answer([mg.make_query([1], 900)[0]])
print("done")
"""


def test_a_process_ends_with_an_engine_open() -> None:
    result = subprocess.run(
        [sys.executable, "-c", EXIT], capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "done\n")


# Memory


def resident_bytes() -> int:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("needs /proc/self/statm")
    return int(statm.read_text(encoding="ascii").split()[1]) << 12


def test_answering_does_not_grow() -> None:
    table = random_table(256, 4096)
    batch = mg.make_queries(random_rows(8, 3, 256), 256)[0]
    with open_engine(table, threads=2) as engine:
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
    table = random_table(256, 4096)
    batch = mg.make_queries(random_rows(8, 3, 256), 256)[0]

    def use() -> None:
        with open_engine(table, threads=2) as engine:
            engine.answer(batch)

    for _ in range(20):
        use()
    before = resident_bytes()
    for _ in range(200):  # over 1 MB of scratch memory each
        use()
    assert resident_bytes() - before < 32 << 20


# The pure read that speeds are compared with


def test_read_pages_reads_every_byte(instruction_set: str) -> None:
    for shape in ((1, 1), (3, 5), (7, 8), (100, 41), (900, 4001)):
        table = random_table(*shape)
        padded = np.zeros(-(-table.size // 8) * 8, dtype=np.uint8)
        padded[: table.size] = table.ravel()
        for threads in (1, 3):
            with open_engine(table, threads=threads, instruction_set=instruction_set) as engine:
                assert engine.read_pages() == np.bitwise_xor.reduce(padded.view("<u8"))


def test_read_pages_reads_the_short_last_page(tmp_path: Path) -> None:
    for length in (1, 16, 17, 4000, 4001):
        data = bytes(random_table(1, length) | 1)
        (tmp_path / "table").write_bytes(data)
        words = np.frombuffer(data.ljust(-(-length // 8) * 8, b"\0"), dtype="<u8")
        pages = mg.PageMatrix.open(tmp_path / "table", page_size=16)
        with open_engine(pages, threads=2) as engine:
            assert engine.read_pages() == np.bitwise_xor.reduce(words)

"""The CPU engine's answers: right to the byte for all chunks, threads and instruction sets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import morphogen as mg
from morphogen.engine.cpu import READ_ORDERS, CpuEngine  # type: ignore[attr-defined]
from naive import (
    Bytes,
    assert_guards,
    guarded,
    naive_answers,
    open_engine,
    random_pages,
    random_rows,
)

# Parity

# Enough bytes for three threads to share, the last of 4,500 bytes a page, odd in every way.
PARITY_PAGES = random_pages(1237, 4501)


@pytest.fixture(scope="module")
def parity_batch() -> tuple[np.ndarray[Any, Any], list[list[mg.Query]], list[Bytes]]:
    """Rows, both parties' queries and their naive answers, as many as the largest batch has."""
    rows = random_rows(40, 3, len(PARITY_PAGES))
    queries = list(mg.make_queries(rows, len(PARITY_PAGES)))
    return rows, queries, [naive_answers(PARITY_PAGES, batch) for batch in queries]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_batches_equal_the_single_query_loop_and_numpy(
    instruction_set: str, threads: int, parity_batch: Any
) -> None:
    rows, queries, naive = parity_batch
    with open_engine(PARITY_PAGES, threads=threads, instruction_set=instruction_set) as engine:
        assert isinstance(engine, CpuEngine)
        assert engine.instruction_set == instruction_set
        assert engine.threads == threads
        for total in (0, 1, 2, 3, 4, 5, 7, 8, 16, 32, 33, 40):
            answers = []
            for party in (0, 1):
                batch = queries[party][:total]
                answer = engine.answer(batch)
                answers.append(answer)
                assert answer.pages.shape == (total, 3, PARITY_PAGES.shape[1])
                assert answer.pages.dtype == np.uint8
                assert np.array_equal(answer.pages, naive[party][:total])
                assert sum(answer.micro_batch_sizes) == total
                if total in (0, 1, 5, 8):
                    single = engine.answer(batch, max_micro_batch=1)
                    assert single.micro_batch_sizes == (1,) * total
                    assert np.array_equal(single.pages, answer.pages)
                    pairs = engine.answer(batch, max_micro_batch=2)
                    assert np.array_equal(pairs.pages, answer.pages)
            assert np.array_equal(mg.reconstruct(*answers), PARITY_PAGES[rows[:total]])


@pytest.mark.parametrize("page_size", [12, 24, 192, 200])
@pytest.mark.parametrize("keys", [1, 2, 3])
def test_every_number_of_keys_in_a_pass(instruction_set: str, keys: int, page_size: int) -> None:
    matrix = random_pages(140, page_size)
    batch = mg.make_queries(random_rows(33, keys, len(matrix)), len(matrix))[1]
    naive = naive_answers(matrix, batch)
    with open_engine(matrix, threads=1, instruction_set=instruction_set) as engine:
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
    content = random_pages(num_pages, page_size)
    matrix, memory_around = guarded(content.shape, offset, content)
    rows = random_rows(total, keys, num_pages)
    queries = mg.make_queries(rows, num_pages)
    shape = (total, keys if total else 3, page_size)
    answers = []
    with open_engine(matrix, threads=threads, instruction_set=name) as engine:
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
    assert np.array_equal(matrix, content)
    assert_guards(matrix, memory_around)


# Pages are cut into columns of 64, 32, ..., 1 bytes and into strips of 4,096.
WIDTHS = [
    *range(1, 10),
    *(15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65, 95, 127, 128, 129, 191, 192, 193),
    *(255, 257, 511, 513, 1000, 4032, 4095, 4096, 4097, 4159, 8191, 8193, 12_289, 70_000),
]


@pytest.mark.parametrize("page_size", WIDTHS)
def test_every_column_width(instruction_set: str, page_size: int) -> None:
    content = random_pages(75, page_size)
    for keys, total, offset in (
        (1, 1, 0),
        (1, 9, 1),
        (3, 2, 32),
        (3, 5, 63),
        (3, 17, 7),
        (2, 1, 5),
    ):
        # At some offset from a cache line, to which wide pages' columns are laid.
        matrix, memory_around = guarded(content.shape, offset, content)
        batch = mg.make_queries(random_rows(total, keys, 75), 75)[0]
        with open_engine(matrix, threads=1, instruction_set=instruction_set) as engine:
            out, out_memory = guarded((total, keys, page_size))
            engine.answer(batch, out=out)
            assert np.array_equal(out, naive_answers(content, batch))
            assert_guards(out, out_memory)
        assert_guards(matrix, memory_around)


TAILS = [*range(1, 35), *(63, 64, 65, 127, 128, 129), *range(504, 523), 1023, 1024, 1025, 1537]


@pytest.mark.parametrize("page_size", [3, 64, 100])
def test_every_tail_of_pages(instruction_set: str, page_size: int) -> None:
    for num_pages in TAILS:
        matrix = random_pages(num_pages, page_size)
        rows = random_rows(5, 2, num_pages)
        queries = mg.make_queries(rows, num_pages)
        with open_engine(matrix, threads=1, instruction_set=instruction_set) as engine:
            for batch in queries:
                for width in (1, 2, 5):
                    answer = engine.answer(batch, max_micro_batch=width)
                    assert np.array_equal(answer.pages, naive_answers(matrix, batch))


def test_every_border_between_threads(instruction_set: str) -> None:
    """Pages that end just before, at and after a place where one thread's pages could end."""
    for num_pages in (1, 2, 63, 64, 65, 66, 127, 128, 129, 191, 192, 193, 513):
        matrix = random_pages(num_pages, 65_537)  # so wide that several threads get some
        batch = mg.make_query([num_pages - 1, num_pages // 2], num_pages)
        for threads in (2, 3, 5):
            with open_engine(matrix, threads=threads, instruction_set=instruction_set) as engine:
                answer = engine.answer(list(batch))
                assert np.array_equal(answer.pages, naive_answers(matrix, batch))


def test_many_leaves_and_subtrees(instruction_set: str) -> None:
    """Small pages, whose selection bits span many leaves and more than one subtree."""
    for num_pages, page_size in ((70_001, 16), (524_289, 3), (1_048_700, 5), (600_000, 9)):
        matrix = random_pages(num_pages, page_size)
        rows = [[0, num_pages - 1, 524_288 % num_pages], [512, 65_535, num_pages - 2]]
        queries = mg.make_queries(rows, num_pages)
        with open_engine(matrix, threads=2, instruction_set=instruction_set) as engine:
            answers = [engine.answer(batch) for batch in queries]
        assert np.array_equal(answers[1].pages, naive_answers(matrix, queries[1]))
        assert np.array_equal(mg.reconstruct(*answers), matrix[np.array(rows)])


@pytest.mark.parametrize("page_size", [5, 64, 100])
def test_a_short_last_page_at_every_place_in_its_octet(
    instruction_set: str, page_size: int, tmp_path: Path
) -> None:
    path = tmp_path / "pages"
    for num_pages in (*range(1, 18), 64, 65, 512, 513, 514, 1025):
        content = random_pages(num_pages, page_size)
        content |= 1
        rest = num_pages % (page_size - 1) + 1
        content[-1, rest:] = 0
        path.write_bytes(bytes(content)[: (num_pages - 1) * page_size + rest])
        pages = mg.PageMatrix.open(path, page_size=page_size)
        assert pages.tail is not None
        rows: Any = np.concatenate([[[num_pages - 1] * 2], random_rows(4, 2, num_pages)])
        queries = mg.make_queries(rows, num_pages)
        with open_engine(pages, threads=2, instruction_set=instruction_set) as engine:
            answers = [engine.answer(batch) for batch in queries]
        for answer, batch in zip(answers, queries, strict=True):
            assert np.array_equal(answer.pages, naive_answers(content, batch))
        assert np.array_equal(mg.reconstruct(*answers), content[rows])


def test_a_large_mapped_file_with_a_short_last_page(instruction_set: str, tmp_path: Path) -> None:
    """Large enough for threads: the tail is the last one's."""
    content = random_pages(1003, 4096)
    content[-1, 77:] = 0
    (tmp_path / "pages").write_bytes(bytes(content)[: 1002 * 4096 + 77])
    pages = mg.PageMatrix.open(tmp_path / "pages")
    queries = mg.make_queries([[1002], [1001], [0], [500]], 1003)
    with open_engine(pages, threads=3, instruction_set=instruction_set) as engine:
        answers = [engine.answer(batch) for batch in queries]
    assert np.array_equal(answers[0].pages, naive_answers(content, queries[0]))
    assert np.array_equal(mg.reconstruct(*answers)[:, 0], content[[1002, 1001, 0, 500]])


def test_more_threads_than_pages() -> None:
    matrix = random_pages(5, 1 << 20)
    batch = list(mg.make_query([0, 4, 2], 5))
    with open_engine(matrix, threads=19) as engine:
        for _ in range(3):
            assert np.array_equal(engine.answer(batch).pages, naive_answers(matrix, batch))


BEYOND_THE_TABLE = """
import ctypes, mmap, sys
import numpy as np
import morphogen as mg
from morphogen.engine.cpu import CpuEngine

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
widths = (1, 3, 8, 16, 31, 32, 33, 63, 64, 65, 100, 5000)
shapes = [(num_pages, width) for num_pages in (1, 3, 8, 13, 64, 77) for width in widths]
# Enough pages for buckets of 3 and of 6 keys, and none for whole lines of narrow ones.
more = [(259, 5000), *((num_pages, width) for num_pages in (515, 2051) for width in (16, 32, 100))]
for num_pages, page_size in [*shapes, *more, (1300, 4001)]:
    size = num_pages * page_size
    memory = walled(size)
    content = rng.integers(0, 256, (num_pages, page_size), dtype=np.uint8)
    for matrix in (memory[:size], memory[len(memory) - size:]):
        matrix = matrix.reshape(num_pages, page_size)
        matrix[...] = content
        for total in (1, 2, 3, 16):
            rows = rng.integers(0, num_pages, (total, 3))
            result = walled(2 * total * 3 * page_size)
            for flush_left in (True, False):
                batches = mg.make_queries(rows, num_pages)
                share = total * 3 * page_size
                part = result[:2 * share] if flush_left else result[len(result) - 2 * share:]
                outs = part.reshape(2, total, 3, page_size)
                with CpuEngine(mg.PageMatrix(matrix), threads=2, instruction_set=sys.argv[1],
                               read_order=sys.argv[2]) as engine:
                    for batch, out in zip(batches, outs):
                        engine.answer(batch, out=out)
                assert np.array_equal(outs[0] ^ outs[1], content[rows])
print("done")
"""


@pytest.mark.parametrize("order", READ_ORDERS)
def test_nothing_beyond_the_pages_is_read_or_written(instruction_set: str, order: str) -> None:
    """The pages and out end, and begin, at memory that cannot be touched."""
    result = subprocess.run(
        [sys.executable, "-c", BEYOND_THE_TABLE, instruction_set, order],
        capture_output=True,
        text=True,
    )
    if result.stderr == "no mprotect\n":
        pytest.skip("needs mprotect")
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "done\n")

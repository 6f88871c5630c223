"""The CPU engine over wide pages: strips, threads that share them, and the memory of a pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import morphogen as mg
from morphogen.engine.cpu import CpuEngine  # type: ignore[attr-defined]
from naive import assert_guards, guarded, naive_answers, random_pages, random_rows

MIB = 1 << 20
# Pages and their size: sizes that divide into no strips and columns, tables of fewer pages than
# threads, and so many pages that threads share a strip.
SHAPES = {
    "a column and a byte more": (70, 65_537),
    "odd and large": (9, MIB + 13),
    "three pages": (3, 5 * MIB),
    "two pages": (2, 5 * MIB),
    "one page": (1, 5 * MIB),
    "shared strips": (3_000, 8_192),
    "shared strips, odd": (1_700, 12_293),
}


@pytest.mark.parametrize("shape", list(SHAPES.values()), ids=list(SHAPES))
def test_answers_are_naive_whatever_the_threads_and_keys(
    instruction_set: str, shape: tuple[int, int]
) -> None:
    array, memory_around = guarded(shape, 5, random_pages(*shape))
    pages = mg.PageMatrix(array)
    batches = {
        (queries, keys): mg.make_queries(random_rows(queries, keys, shape[0]), shape[0])[1]
        for queries, keys in ((1, 1), (2, 3), (32, 3))
        if queries * keys * shape[1] < 64 * MIB
    }
    naive = {size: naive_answers(array, batch) for size, batch in batches.items()}
    for threads in (1, 2, 3, 8):
        with CpuEngine(pages, threads=threads, instruction_set=instruction_set) as engine:
            for size, batch in batches.items():
                out, out_memory = guarded((*size, shape[1]))
                engine.answer(batch, out=out)
                assert np.array_equal(out, naive[size]), (threads, size)
                assert_guards(out, out_memory)
    assert_guards(array, memory_around)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_short_last_page_is_in_every_strip(
    instruction_set: str, threads: int, tmp_path: Path
) -> None:
    content = random_pages(131, 70_000)
    content[-1, 3:] = 0
    path = tmp_path / "pages"
    path.write_bytes(bytes(content)[: 130 * 70_000 + 3])
    pages = mg.PageMatrix.open(path, page_size=70_000)
    with CpuEngine(pages, threads=threads, instruction_set=instruction_set) as engine:
        for queries in (1, 2, 9):
            batch = mg.make_queries(random_rows(queries, 3, 131), 131)[0]
            assert np.array_equal(engine.answer(batch).pages, naive_answers(content, batch))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_table_of_several_blocks_of_strips(threads: int) -> None:
    """Strips are scanned over 512 MiB of pages at a time."""
    array = np.zeros((640, MIB + 64), dtype=np.uint8)  # mapped, and mostly never written
    rows = np.array([[0, 511, 639], [510, 512, 513], [77, 600, 638]])
    array[rows.ravel(), :70_000] = random_pages(9, 70_000)
    array[rows.ravel(), -9:] = random_pages(9, 9)
    queries = mg.make_queries(rows, len(array))
    with CpuEngine(mg.PageMatrix(array), threads=threads) as engine:
        answers = [engine.answer(batch) for batch in queries]
    assert np.array_equal(mg.reconstruct(*answers), array[rows])


@pytest.mark.parametrize("page_size", [3 * MIB, 2 * MIB + 64 * 61 + 13])
@pytest.mark.parametrize("order", ["memory", "rows"])
def test_many_answers_go_past_the_caches_to_any_address(
    instruction_set: str, order: str, page_size: int
) -> None:
    content = random_pages(5, page_size)
    batch = mg.make_queries(random_rows(3, 3, 5), 5)[0]
    naive = naive_answers(content, batch)
    pages = mg.PageMatrix(content)
    with CpuEngine(pages, threads=2, instruction_set=instruction_set, read_order=order) as engine:
        for offset in (0, 16, 33):
            out, out_memory = guarded((3, 3, page_size), offset)
            engine.answer(batch, out=out)
            assert np.array_equal(out, naive)
            assert_guards(out, out_memory)


@pytest.mark.parametrize(
    ("num_pages", "page_size"), [(3, 5 * MIB), (70_000, 4096), (1 << 20, 16), (2, 64 * MIB)]
)
def test_a_pass_takes_under_64_mib_whatever_the_page_and_threads(
    num_pages: int, page_size: int
) -> None:
    pages = mg.PageMatrix(np.zeros((num_pages, page_size), dtype=np.uint8))
    batch = mg.make_queries(random_rows(32, 3, num_pages), num_pages)[0]
    out = np.empty((32, 3, page_size), dtype=np.uint8) if page_size < 64 * MIB else None
    with CpuEngine(pages, threads=200) as engine:
        for queries in (batch[:1], batch) if out is not None else (batch[:1],):
            engine.answer(queries, out=None if out is None else out[: len(queries)])
            assert 0 < engine._scratch_bytes() < 64 * MIB


@pytest.mark.parametrize("page_size", [1, 9, 16, 64, 255, 1_501, 4_096, 8_192, 32_768, 4 * MIB])
def test_twenty_threads_can_share_any_pass(instruction_set: str, page_size: int) -> None:
    # Narrow pages of more leaves than a thread expands at a time, or enough pages for buckets.
    num_pages = (1 << 20) + 1 if page_size < 16 else 2_100 if page_size <= 8_192 else 2
    if page_size == 32_768:
        num_pages = 8_200  # in memory's order without strips
    pages = mg.PageMatrix(np.zeros((num_pages, page_size), dtype=np.uint8))
    for queries in (2, 10, 21, 32):
        batch = mg.make_queries(random_rows(queries, 3, num_pages), num_pages)[0]
        with CpuEngine(pages, threads=1, instruction_set=instruction_set) as engine:
            engine.answer(batch)
            assert 20 * engine._scratch_bytes() < 56 * MIB

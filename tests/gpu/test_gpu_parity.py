"""The answers of a GPU equal those of the CPU engine, byte for byte.

GPU_CHECK_TEST_PAGES limits the pages of a table, for a run on the stand-in GPU.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from morphogen.bench.workload import generated_pages, unbacked_pages
from morphogen.engine.cuda import CudaEngine
from morphogen.planner import micro_batch_ranges
from naive import (
    GUARD,
    Bytes,
    assert_guards,
    guarded,
    open_engine,
    random_pages,
    random_rows,
)

pytestmark = pytest.mark.gpu

MOST_PAGES = int(os.environ.get("GPU_CHECK_TEST_PAGES", "70000"))

PAGE_SIZES = (1, 16, 32, 48, 1000, 4096, 16384)
# Sizes around the pages of a load, a selection word, a run and a leaf of the tree; many leaves;
# and a tail.
NUM_PAGES = (1, 2, 7, 31, 33, 63, 65, 511, 512, 513, 1025, 4099, 20_000, 65_536, 70_000)
SHAPES = [
    (num_pages, page_size)
    for page_size, num_pages in itertools.product(PAGE_SIZES, NUM_PAGES)
    if num_pages <= MOST_PAGES
]

# Width, lanes, and whether launches are replayed.
STRATEGIES = [(1, 1, False), (2, 2, True), (2, 4, False), (3, 4, True)]
STRATEGIES += [
    (4, 1, True),
    (4, 2, False),
    (8, 1, False),
    (8, 2, True),
    (8, 4, False),
    (5, 1, True),
]


def open_gpu(table: Bytes | mg.PageMatrix) -> CudaEngine:
    pages = table if isinstance(table, mg.PageMatrix) else mg.PageMatrix(table)
    engine = mg.open_engine(pages, device="cuda")
    assert isinstance(engine, CudaEngine)
    return engine


@pytest.mark.parametrize(("num_pages", "page_size"), SHAPES)
def test_answers_equal_the_cpu_engines(num_pages: int, page_size: int) -> None:
    """Answer batches of 1 to 5 queries of 1 to 3 keys for both servers, in the same buffers."""
    table = random_pages(num_pages, page_size)
    with open_gpu(table) as engine, open_engine(table) as reference:
        for keys, total in itertools.product((1, 2, 3), (1, 2, 3, 4, 5)):
            rows = random_rows(total, keys, num_pages)
            batches = mg.make_queries(rows, num_pages)
            answers = [engine.answer(batch) for batch in batches]
            for answer, batch in zip(answers, batches, strict=True):
                assert np.array_equal(answer.pages, reference.answer(batch).pages), (keys, total)
                sizes = tuple(stop - start for start, stop in micro_batch_ranges(total))
                assert answer.micro_batch_sizes == sizes
            assert np.array_equal(mg.reconstruct(*answers), table[rows]), (keys, total)


@pytest.mark.parametrize("page_size", [1, 48, 4096])
@pytest.mark.parametrize("num_pages", sorted({min(n, MOST_PAGES) for n in (255, 4099, 70_000)}))
def test_wide_chunks_equal_the_cpu_engines(num_pages: int, page_size: int) -> None:
    """Answer by the binary tensor cores, before and after pages are replaced."""
    if mg.driver_status().devices[0].compute_capability[0] not in (8, 9):
        pytest.skip("this GPU has no tensor cores for bits")
    table = random_pages(num_pages, page_size)
    rng = np.random.default_rng(num_pages)
    indices = np.unique(rng.integers(0, len(table), 9))
    with (
        mg.open_engine(mg.PageMatrix(table), device="cuda", layout="bits") as engine,
        open_engine(table) as reference,
    ):
        for epoch in (1, 2):
            for queries in (5, 11, 32):  # 15, 33 and 96 keys: a kernel each
                batch = mg.make_queries(random_rows(queries, 3, len(table)), len(table))[0]
                answer = engine.answer(batch, max_micro_batch=queries)
                assert np.array_equal(answer.pages, reference.answer(batch).pages), (queries, epoch)
            contents = rng.integers(0, 256, (len(indices), page_size), dtype=np.uint8)
            for one in (engine, reference):
                one.replace_pages(indices.tolist(), contents, epoch)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_the_pure_read_reads_every_byte(page_size: int) -> None:
    table = random_pages(min(MOST_PAGES, 3001), page_size)
    padded = np.zeros((len(table), -(-page_size // 16) * 16), dtype=np.uint8)
    padded[:, :page_size] = table
    with open_gpu(table) as engine:
        for _ in range(3):
            assert engine.read_pages() == np.bitwise_xor.reduce(padded.view("<u8"), axis=None)


def test_every_page_can_be_fetched() -> None:
    """Fetch the first and last pages of every block's run, and pages between."""
    num_pages = min(MOST_PAGES, 40_001)
    table = random_pages(num_pages, 64)
    edges = np.linspace(0, num_pages, 200, dtype=int)
    wanted = np.unique(np.clip(np.concatenate((edges - 1, edges, edges + 1)), 0, num_pages - 1))
    rows = np.resize(wanted, (-(-wanted.size // 3), 3))
    with open_gpu(table) as engine:
        answers = [engine.answer(batch) for batch in mg.make_queries(rows, num_pages)]
    assert np.array_equal(mg.reconstruct(*answers), table[rows])


def test_a_batch_in_chunks_equals_the_single_query_loop() -> None:
    table = random_pages(min(MOST_PAGES, 5000), 4096)
    batch = mg.make_queries(random_rows(33, 3, len(table)), len(table))[0]
    with open_gpu(table) as engine:
        answer = engine.answer(batch)
        single = engine.answer(batch, max_micro_batch=1)
    assert answer.micro_batch_sizes == (2,) * 16 + (1,)
    assert single.micro_batch_sizes == (1,) * 33
    assert np.array_equal(answer.pages, single.pages)


@pytest.mark.parametrize("page_size", [16, 1000, 4096, 16384])
def test_every_strategy_answers_as_the_cpu_does(page_size: int) -> None:
    """Run chunks of 1 to 8 queries of 1 to 3 keys in 1, 2 and 4 lanes, launched and replayed."""
    table = random_pages(min(MOST_PAGES, 20_001), page_size)
    with open_gpu(table) as engine, open_engine(table) as reference:
        for keys in (1, 2, 3):
            batch = mg.make_queries(random_rows(11, keys, len(table)), len(table))[keys % 2]
            expected = reference.answer(batch).pages
            for width, lanes, graph in STRATEGIES:
                answer = engine.answer(batch, max_micro_batch=width, lanes=lanes, graph=graph)
                assert np.array_equal(answer.pages, expected), (keys, width, lanes, graph)
                assert max(answer.micro_batch_sizes) == width


def test_buffers_are_used_again_whatever_they_hold() -> None:
    """Run chunks of all kinds in any order: no chunk shows in a later one, in either lane."""
    table = random_pages(min(MOST_PAGES, 3000), 1000)
    order = np.random.default_rng(0).integers(1, (6, 4), (60, 2)).tolist()
    with open_gpu(table) as engine, open_engine(table) as reference:
        for seed, (total, keys) in enumerate(order):
            rows = random_rows(total, keys, len(table), seed)
            batch = mg.make_queries(rows, len(table))[seed % 2]
            assert np.array_equal(engine.answer(batch).pages, reference.answer(batch).pages), seed


@pytest.mark.parametrize("page_size", [1, 1000, 4096])
def test_out_is_filled_and_nothing_beside_it(page_size: int) -> None:
    table = random_pages(min(MOST_PAGES, 3000), page_size)
    batch = mg.make_queries(random_rows(5, 3, len(table)), len(table))[0]
    out, memory = guarded((5, 3, page_size))
    with open_gpu(table) as engine, open_engine(table) as reference:
        expected = reference.answer(batch).pages
        for content in (0, 255, GUARD):
            out[...] = content
            assert engine.answer(batch, out=out).pages is out
            assert np.array_equal(out, expected)
            assert_guards(out, memory)


def test_a_mapped_file_with_a_short_last_page(tmp_path: Any) -> None:
    num_pages = min(MOST_PAGES, 3000)
    data = random_pages(num_pages, 4096)
    (tmp_path / "table").write_bytes(data.tobytes()[:-1234])
    pages = mg.PageMatrix.open(tmp_path / "table", page_size=4096)
    batch = mg.make_queries([[0, num_pages // 2, num_pages - 1]], num_pages)[1]
    with open_gpu(pages) as engine, open_engine(pages) as reference:
        assert np.array_equal(engine.answer(batch).pages, reference.answer(batch).pages)


@pytest.mark.parametrize("page_size", [1, 48, 1000, 4096])
def test_both_epochs_are_answered_while_pages_change(page_size: int) -> None:
    num_pages = min(MOST_PAGES, 5001)
    table = random_pages(num_pages, page_size)
    after = table.copy()
    indices = np.unique([0, 1, 2, *range(7, num_pages, 11), num_pages - 1])
    after[indices] ^= 0xA5
    batch = mg.make_queries(random_rows(3, 3, num_pages), num_pages)[0]
    with (
        open_gpu(table) as old,
        old.next_epoch(indices, after[indices], 1) as new,
        open_engine(table) as before,
        open_engine(after) as changed,
    ):
        for _ in range(3):
            assert np.array_equal(old.answer(batch).pages, before.answer(batch).pages)
            assert np.array_equal(new.answer(batch).pages, changed.answer(batch).pages)
        new.replace_pages(indices, table[indices], 2)
        assert np.array_equal(new.answer(batch).pages, before.answer(batch).pages)
        assert np.array_equal(old.answer(batch).pages, before.answer(batch).pages)


@pytest.mark.parametrize("page_size", [1, 48, 1000, 4096])
def test_pages_that_the_device_makes(page_size: int) -> None:
    num_pages, seed = min(MOST_PAGES, 3001), 2**64 - 5
    table = np.ascontiguousarray(generated_pages(seed, np.arange(num_pages), page_size))
    batch = mg.make_queries(random_rows(3, 3, num_pages), num_pages)[0]
    with open_gpu(random_pages(1, 1)) as engine:
        ordinal = int(engine.device.removeprefix("cuda:"))
    unbacked = mg.PageMatrix(unbacked_pages(num_pages, page_size))
    with CudaEngine(unbacked, ordinal, generate=seed) as engine, open_engine(table) as reference:
        assert np.array_equal(engine.answer(batch).pages, reference.answer(batch).pages)


def test_an_empty_batch() -> None:
    with open_gpu(random_pages(9, 20)) as engine:
        answer = engine.answer([])
    assert answer.pages.shape == (0, 3, 20)
    assert answer.micro_batch_sizes == ()

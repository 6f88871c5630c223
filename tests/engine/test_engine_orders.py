"""Both orders in which a pass may read pages: right to the byte with every method of each.

A processor's make decides which order is used by default, and how it takes vectors some methods.
The tests of other files only see those; these ask for each.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import morphogen as mg
from morphogen.engine.cpu import (  # type: ignore[attr-defined]
    READ_ORDERS,
    CpuEngine,
    measure_read_order,
)
from naive import (
    Bytes,
    assert_guards,
    guarded,
    naive_answers,
    random_pages,
    random_rows,
)

Batch = tuple[list[mg.Query], Bytes]  # queries, and their naive answers

# Pages and their size, by the method for up to 6 keys, whose rows are read side by side, or more.
SHAPES = {
    "tiny pages": (3_000, 5),
    "four pages a line": (5_000, 16),
    "two pages a line": (2_600, 32),
    "no whole pages a line": (2_600, 40),
    "a page a line": (4_200, 64),
    "sums in registers, the least": (2_600, 256),
    "sums in registers, an odd line": (2_510, 321),
    "added at once, on cache lines": (2_500, 1_024),
    "added at once, at any place": (2_300, 1_000),
    "queued": (2_100, 1_152),
    "queued, with an odd end": (2_050, 1_501),
    "one row a page": (2_200, 4_096),
    "rows on lines, not 4 KiB apart": (350, 4_672),
    "rows a byte more than 4 KiB apart": (330, 4_097),
    "rows a byte less than 8 KiB apart": (170, 8_191),
    "wide, in strips": (300, 66_000),
    "so wide that a thread takes strips side by side": (9, 300_000),
    "too few pages for buckets": (100, 4_096),
    "one page": (1, 4_096),
    "a leaf and a page": (513, 256),
    "a page less than two leaves": (1_023, 192),
}


@pytest.fixture(scope="module", params=list(SHAPES.values()), ids=list(SHAPES))
def array(request: pytest.FixtureRequest) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    array: np.ndarray[tuple[int, int], np.dtype[np.uint8]] = random_pages(*request.param)
    return array


@pytest.mark.parametrize(
    ("order", "whole_vectors"),
    [("rows", False), ("memory", False), ("memory", True)],
    ids=["rows", "memory", "memory and whole vectors"],
)
def test_every_method_gives_the_naive_answer(
    instruction_set: str,
    order: str,
    whole_vectors: bool,
    array: np.ndarray[tuple[int, int], np.dtype[np.uint8]],
) -> None:
    pages = mg.PageMatrix(array)
    with CpuEngine(pages, threads=2, instruction_set=instruction_set, read_order=order) as engine:
        assert engine.read_order == order
        engine._choose_methods(whole_vectors)
        # Keys a pass: the most for buckets and one more, one group of 8 and one key more, and the
        # most for two and four octets a step.
        for queries, keys in ((1, 1), (1, 3), (2, 2), (2, 3), (7, 1), (3, 3), (16, 3), (17, 3)):
            batch = mg.make_queries(random_rows(queries, keys, len(array)), len(array))[0]
            answer = engine.answer(batch)
            assert answer.micro_batch_sizes == (queries,)
            assert np.array_equal(answer.pages, naive_answers(array, batch)), (queries, keys)


@cache
def streams_of_narrow_pages(page_size: int) -> tuple[mg.PageMatrix, list[Batch]]:
    """Pages, and batches with their naive answers, which are the same for all instruction sets."""
    # Four streams of 32 KiB or more, four half as long, and so on, then steps that fill no stream,
    # and pages that fill no step.
    longest = 512
    while longest * page_size < 32 << 10:
        longest *= 2
    array = random_pages(8 * longest - 439, page_size)
    batches: list[Batch] = []
    # The most keys for masks with and without products, one key more, and a full pass.
    for queries, keys in ((1, 1), (1, 3), (2, 2), (2, 3), (7, 1), (3, 3), (32, 3)):
        batch = mg.make_queries(random_rows(queries, keys, len(array)), len(array))[0]
        batches.append((batch, naive_answers(array, batch)))
    return mg.PageMatrix(array), batches


NARROW = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 20, 32, 33, 48, 65, 100, 255)


@pytest.mark.parametrize(("order", "threads"), [("rows", 1), ("memory", 8)])
@pytest.mark.parametrize("page_size", NARROW)
def test_narrow_pages_are_right_in_streams_of_every_length_and_in_what_is_left_of_them(
    instruction_set: str, page_size: int, order: str, threads: int
) -> None:
    pages, batches = streams_of_narrow_pages(page_size)
    with CpuEngine(
        pages, threads=threads, instruction_set=instruction_set, read_order=order
    ) as engine:
        for batch, answers in batches:
            assert np.array_equal(engine.answer(batch).pages, answers), answers.shape


@pytest.mark.parametrize("order", READ_ORDERS)
@pytest.mark.parametrize("page_size", [16, 32, 100, 512, 1_536, 4_096, 12_000])
def test_short_last_page_counts_wherever_it_falls_in_a_leaf(
    instruction_set: str, order: str, page_size: int, tmp_path: Path
) -> None:
    path = tmp_path / "pages"
    for num_pages in (2, 65, 449, 512, 513, 2_100 if page_size < 4_096 else 600):
        array = random_pages(num_pages, page_size)
        array[-1, 3:] = 0
        path.write_bytes(array.tobytes()[: (num_pages - 1) * page_size + 3])
        pages = mg.PageMatrix.open(path, page_size=page_size)
        with CpuEngine(pages, instruction_set=instruction_set, read_order=order) as engine:
            for queries in (1, 2, 5):
                batch = mg.make_queries(random_rows(queries, 3, num_pages), num_pages)[1]
                assert np.array_equal(engine.answer(batch).pages, naive_answers(array, batch))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    page_size=st.one_of(st.integers(1, 300), st.integers(1, 80).map(lambda n: 64 * n)),
    num_pages=st.integers(1, 6_000),
    keys=st.integers(1, 3),
    queries=st.integers(1, 34),
    threads=st.integers(1, 3),
    name=st.sampled_from(mg.instruction_set.supported()),
    order=st.sampled_from(READ_ORDERS),
    whole_vectors=st.booleans(),
    offset=st.integers(0, 64),
)
def test_any_shape_in_any_order(
    page_size: int,
    num_pages: int,
    keys: int,
    queries: int,
    threads: int,
    name: str,
    order: str,
    whole_vectors: bool,
    offset: int,
) -> None:
    num_pages = min(num_pages, (4 << 20) // page_size + 1)
    queries = min(queries, (32 << 20) // (page_size * num_pages * keys) + 1)
    content = random_pages(num_pages, page_size)
    array, memory_around = guarded(content.shape, offset, content)
    batch = mg.make_queries(random_rows(queries, keys, num_pages), num_pages)[0]
    pages = mg.PageMatrix(array)
    with CpuEngine(pages, threads=threads, instruction_set=name, read_order=order) as engine:
        engine._choose_methods(whole_vectors)
        out, out_memory = guarded((queries, keys, page_size), offset // 2)
        for _ in range(2):  # the second time in scratch memory that the first has written
            engine.answer(batch, out=out)
            assert np.array_equal(out, naive_answers(content, batch))
            assert_guards(out, out_memory)
    assert_guards(array, memory_around)


def test_order_must_be_one_that_there_is() -> None:
    pages = mg.PageMatrix(random_pages(8, 8))
    with pytest.raises(ValueError, match=r"read_order must be one of .*'rows'.* not 'columns'"):
        CpuEngine(pages, read_order="columns")
    with pytest.raises(TypeError, match=r"^read_order must be a str, not int$"):
        CpuEngine(pages, read_order=1)  # type: ignore[arg-type]


def test_by_default_the_order_is_that_of_the_processors_make_or_measured_once() -> None:
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    makes = {"GenuineIntel": "rows", "AuthenticAMD": "memory"}
    known = next((order for name, order in makes.items() if name in facts), None)
    pages = mg.PageMatrix(random_pages(8, 8))
    with CpuEngine(pages) as engine, CpuEngine(pages) as second:
        assert engine.read_order == known or known is None
        assert engine.read_order_source == ("measurement" if known is None else "make")
        assert second.read_order == engine.read_order


def test_an_order_that_the_caller_chose_is_the_callers() -> None:
    with CpuEngine(mg.PageMatrix(random_pages(8, 8)), read_order="rows") as engine:
        assert (engine.read_order, engine.read_order_source) == ("rows", "caller")


def test_the_measurement_names_an_order_that_there_is(instruction_set: str) -> None:
    assert measure_read_order(instruction_set) in READ_ORDERS
    with pytest.raises(ValueError, match=r"^instruction_set must be one of .* not 'mmx'$"):
        measure_read_order("mmx")

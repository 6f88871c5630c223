"""Engines over slices: keys of the whole table, answers of the slice's own pages."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import morphogen as mg
from morphogen.engine.cpu import READ_ORDERS, CpuEngine  # type: ignore[attr-defined]
from naive import Bytes, open_engine, random_pages, random_rows, unpack

LEAF = mg.dpf.PAGES_PER_LEAF
# Queries x keys: from a lone key to the widest chunk.
BATCHES = [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (7, 1), (3, 3), (8, 3), (49, 1), (32, 3)]


def read_pages(pages: mg.PageMatrix) -> Bytes:
    """Read a slice's pages one by one."""
    return np.stack([pages[at] for at in range(pages.num_pages)])


def slice_answers(content: Bytes, first: int, total: int, queries: list[mg.Query]) -> Bytes:
    """The XOR of those pages of a slice that each key of the whole table selects."""
    answers = []
    for query in queries:
        for key in query.keys:
            bits = unpack(mg.dpf.eval_full(key, total), total)[first:][: len(content)]
            answers.append(np.bitwise_xor.reduce(content[bits], axis=0, initial=0, dtype=np.uint8))
    keys = len(queries[0].keys)
    return np.array(answers, dtype=np.uint8).reshape(len(queries), keys, content.shape[1])


def assert_answers(
    pages: mg.PageMatrix,
    batches: Any = tuple(BATCHES),
    content: Bytes | None = None,
    **options: Any,
) -> None:
    """Compare answers with those of plain numpy, over this content or what the slice reads."""
    if content is None:
        content = read_pages(pages)
    with CpuEngine(pages, **options) as engine:
        for total, keys in batches:
            queries = mg.make_queries(
                random_rows(total, keys, pages.table.num_pages), pages.table.num_pages
            )[total % 2]
            answer = engine.answer(queries)
            expected = slice_answers(content, pages.first, pages.table.num_pages, queries)
            assert np.array_equal(answer.pages, expected), (total, keys)
            assert answer.num_pages == pages.table.num_pages


@pytest.mark.parametrize("read_order", READ_ORDERS)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("page_size", [1, 8, 20, 64, 100, 300, 4096])
def test_a_slice_answers_for_its_own_pages(
    instruction_set: str, page_size: int, threads: int, read_order: str
) -> None:
    pages = mg.PageMatrix(random_pages(5 * LEAF + 77, page_size))
    options: dict[str, Any] = {
        "threads": threads,
        "instruction_set": instruction_set,
        "read_order": read_order,
    }
    few = [(1, 1), (2, 3), (8, 3)]
    for first, count in ((0, LEAF), (LEAF, 2 * LEAF), (3 * LEAF, 45), (5 * LEAF, 77)):
        assert_answers(pages.slice(first, count), few, **options)


@pytest.mark.parametrize("page_size", [1, 8, 20, 64, 100, 1000])
def test_every_number_of_keys_over_a_slice(instruction_set: str, page_size: int) -> None:
    pages = mg.PageMatrix(random_pages(3 * LEAF + 9, page_size)).slice(LEAF)
    for read_order in READ_ORDERS:
        assert_answers(pages, threads=1, instruction_set=instruction_set, read_order=read_order)


@pytest.mark.parametrize("page_size", [65_536, 70_000, 1 << 20])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_slice_of_large_pages(
    instruction_set: str, page_size: int, threads: int, tmp_path: Path
) -> None:
    content = random_pages(5, page_size)
    with (tmp_path / "pages").open("wb") as file:
        file.seek(3 * LEAF * page_size)  # a hole, which takes no room
        file.write(content.tobytes()[:-7])
    pages = mg.PageMatrix.open(tmp_path / "pages", page_size, first=3 * LEAF)
    assert np.array_equal(pages[0], content[0])
    few = [(1, 1), (2, 3), (8, 3)]
    assert_answers(pages, few, threads=threads, instruction_set=instruction_set)


@pytest.mark.parametrize("threads", [1, 2])
def test_strips_that_go_back_to_leaves_before_those_whose_nodes_are_held(
    instruction_set: str, threads: int, tmp_path: Path
) -> None:
    """A key's tree holds nodes of up to 1,024 leaves, and each strip of pages begins anew."""
    first, page_size = 2047 * LEAF, 8192
    content = random_pages(LEAF + 77, page_size)
    with (tmp_path / "pages").open("wb") as file:
        file.seek(first * page_size)  # a hole, which takes no room
        file.write(content.tobytes())
    pages = mg.PageMatrix.open(tmp_path / "pages", page_size, first=first)
    for read_order in READ_ORDERS:
        options: dict[str, Any] = {"instruction_set": instruction_set, "read_order": read_order}
        assert_answers(pages, [(2, 3), (32, 3)], content, threads=threads, **options)


@pytest.mark.parametrize("first", [1, 301, 1024, 1499])
def test_a_slice_that_begins_amid_a_batch_of_leaves(instruction_set: str, first: int) -> None:
    """A scan expands hundreds of leaves of narrow pages at a time."""
    table = random_pages(1500 * LEAF + 77, 1)
    pages, content = mg.PageMatrix(table).slice(first * LEAF), table[first * LEAF :]
    for threads in (1, 3):
        options: dict[str, Any] = {"threads": threads, "instruction_set": instruction_set}
        assert_answers(pages, [(1, 1), (3, 3)], content, **options)


@pytest.mark.parametrize("page_size", [1, 20, 64, 1000])
@pytest.mark.parametrize("leaves", [1, 2, 3, 4])
def test_answers_over_slices_add_up_to_the_answer_over_the_table(
    page_size: int, leaves: int, tmp_path: Path
) -> None:
    num_pages = 5 * LEAF + 100
    (tmp_path / "pages").write_bytes(
        random_pages(num_pages, page_size).tobytes()[: -(page_size // 2) or None]
    )
    whole = mg.PageMatrix.open(tmp_path / "pages", page_size)
    queries = list(mg.make_queries(random_rows(5, 3, num_pages), num_pages))
    with open_engine(whole) as engine:
        right = [engine.answer(batch).pages for batch in queries]
    starts = range(0, num_pages, leaves * LEAF)
    counts = [min(leaves * LEAF, num_pages - start) for start in starts]
    opened = [
        mg.PageMatrix.open(tmp_path / "pages", page_size, first=start, count=count)
        for start, count in zip(starts, counts, strict=True)
    ]
    cut = [whole.slice(start, count) for start, count in zip(starts, counts, strict=True)]
    for slices in (opened, cut):
        parts = []
        for part in slices:
            with open_engine(part, threads=1) as engine:
                parts.append([engine.answer(batch).pages for batch in queries])
        for party in (0, 1):
            total = reduce(np.bitwise_xor, [part[party] for part in parts])
            assert np.array_equal(total, right[party])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_slice(data: st.DataObject) -> None:
    page_size = data.draw(st.integers(1, 5000))
    num_pages = data.draw(st.integers(1, min(8 * LEAF, (8 << 20) // page_size)))
    first = data.draw(st.integers(0, (num_pages - 1) // LEAF)) * LEAF
    count = data.draw(st.integers(1, num_pages - first))
    pages = mg.PageMatrix(random_pages(num_pages, page_size)).slice(first, count)
    assert_answers(
        pages,
        [(data.draw(st.integers(1, 12)), data.draw(st.integers(1, 3)))],
        threads=data.draw(st.integers(1, 3)),
        instruction_set=data.draw(st.sampled_from(mg.instruction_set.supported())),
        read_order=data.draw(st.sampled_from(READ_ORDERS)),
    )


def test_the_table_of_an_engine_is_the_whole_one() -> None:
    pages = mg.PageMatrix(random_pages(2000, 8), epoch=5)
    with open_engine(pages) as engine, open_engine(pages.slice(512)) as part:
        assert part.table == engine.table == mg.TableShape(2000, 8, 5)
        assert (part.pages.num_pages, part.pages.first) == (1488, 512)
        assert engine.pages is pages
    assert "512 to 1999 of 2000" in repr(part)


def test_keys_must_be_for_the_whole_table() -> None:
    pages = mg.PageMatrix(random_pages(2000, 8))
    with open_engine(pages.slice(1024, 400)) as engine:
        with pytest.raises(mg.KeyDomainError, match="the table has 2000 pages"):
            engine.answer([mg.make_query([1], 400)[0]])
        assert engine.answer([mg.make_query([1], 2000)[0]]).num_pages == 2000


def test_read_pages_reads_those_of_the_slice() -> None:
    content = random_pages(2000, 8)
    with open_engine(mg.PageMatrix(content).slice(512, 600)) as engine:
        assert engine.read_pages() == np.bitwise_xor.reduce(
            content[512:1112].view("<u8"), axis=None
        )


@pytest.mark.parametrize("mapped", [False, True])
def test_a_slice_goes_on_to_other_epochs(mapped: bool, tmp_path: Path) -> None:
    content = random_pages(2000, 40)
    (tmp_path / "pages").write_bytes(content.tobytes()[:-13])
    content[-1, -13:] = 0
    whole = mg.PageMatrix.open(tmp_path / "pages", 40) if mapped else mg.PageMatrix(content.copy())
    queries = mg.make_queries(random_rows(4, 3, 2000), 2000)[0]
    with open_engine(whole.slice(1024)) as engine:
        engine.replace_pages([0, 700, 975], random_pages(3, 40, seed=1), epoch=1)
        content[[1024, 1724, 1999]] = random_pages(3, 40, seed=1)
        expected = slice_answers(content[1024:], 1024, 2000, queries)
        answer = engine.answer(queries)
        assert (answer.epoch, engine.table.epoch) == (1, 1)
        assert np.array_equal(answer.pages, expected)
        with engine.next_epoch([5, 975], random_pages(2, 40, seed=2), epoch=2) as after:
            assert np.array_equal(engine.answer(queries).pages, expected)
            content[[1029, 1999]] = random_pages(2, 40, seed=2)
            answer = after.answer(queries)
            assert (answer.epoch, answer.num_pages) == (2, 2000)
            expected = slice_answers(content[1024:], 1024, 2000, queries)
            assert np.array_equal(answer.pages, expected)
        with pytest.raises(ValueError, match=r"^an index must be in 0\.\.975, not 976$"):
            engine.replace_pages([976], random_pages(1, 40), epoch=3)

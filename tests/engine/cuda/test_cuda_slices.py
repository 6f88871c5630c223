"""The GPU engine over slices, on the stand-in driver: keys of the table, the slice's pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from naive import Bytes, open_engine, random_pages, random_rows, unpack
from standin_driver import StandIn

LEAF = mg.dpf.PAGES_PER_LEAF


def slice_answers(content: Bytes, first: int, num_pages: int, queries: list[mg.Query]) -> Bytes:
    """The XOR of the pages from first on that each key selects."""
    answers = []
    for query in queries:
        for key in query.keys:
            bits = unpack(mg.dpf.eval_full(key, num_pages), num_pages)[first:][: len(content)]
            answers.append(np.bitwise_xor.reduce(content[bits], axis=0, initial=0, dtype=np.uint8))
    return np.array(answers).reshape(len(queries), len(queries[0].keys), content.shape[1])


def open_gpu(pages: mg.PageMatrix) -> Any:
    return mg.open_engine(pages, device="cuda:0")


@pytest.mark.parametrize("keys", [1, 2, 3])
@pytest.mark.parametrize("page_size", [1, 8, 20, 64, 100])
def test_a_slice_answers_for_its_own_pages(gpu: StandIn, page_size: int, keys: int) -> None:
    num_pages = 4 * LEAF + 77
    content = random_pages(num_pages, page_size)
    pages = mg.PageMatrix(content, epoch=3)
    queries = mg.make_queries(random_rows(3, keys, num_pages), num_pages)[keys % 2]
    for first, count in ((0, 600), (LEAF, LEAF), (3 * LEAF, LEAF + 77), (4 * LEAF, 77)):
        with open_gpu(pages.slice(first, count)) as engine:
            answer = engine.answer(queries)
            wanted = slice_answers(content[first : first + count], first, num_pages, queries)
            assert np.array_equal(answer.pages, wanted)
            assert (answer.num_pages, answer.epoch) == (num_pages, 3)
            assert engine.table == mg.TableShape(num_pages, page_size, 3)


@pytest.mark.parametrize("page_size", [4096, 65_536, 1 << 20])
def test_a_slice_of_large_pages(gpu: StandIn, page_size: int, tmp_path: Path) -> None:
    content = random_pages(min(60, 2**22 // page_size), page_size)
    with (tmp_path / "pages").open("wb") as file:
        file.seek(3 * LEAF * page_size)  # a hole, which takes no room
        file.write(content.tobytes()[:-9])
    content[-1, -9:] = 0
    pages = mg.PageMatrix.open(tmp_path / "pages", page_size, first=3 * LEAF)
    num_pages = pages.table.num_pages
    queries = mg.make_queries(random_rows(2, 1, num_pages), num_pages)[1]
    with open_gpu(pages) as engine:
        wanted = slice_answers(content, 3 * LEAF, num_pages, queries)
        assert np.array_equal(engine.answer(queries).pages, wanted)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_answers_over_slices_add_up_whatever_the_chunks(gpu: StandIn, width: int) -> None:
    num_pages = 3 * LEAF + 9
    pages = mg.PageMatrix(random_pages(num_pages, 32))
    queries = mg.make_queries(random_rows(8, 3, num_pages), num_pages)[0]
    total = np.zeros((8, 3, 32), np.uint8)
    for first, count in ((0, LEAF), (LEAF, 2 * LEAF), (3 * LEAF, 9)):
        with open_gpu(pages.slice(first, count)) as engine:
            total ^= engine.answer(queries, max_micro_batch=width).pages
    with open_engine(pages) as reference:
        assert np.array_equal(total, reference.answer(queries).pages)


def test_a_slice_goes_on_to_other_epochs_and_the_one_before_still_answers(gpu: StandIn) -> None:
    """The engine of the epoch before patches its answers on the host, by the slice's leaves."""
    num_pages = 4 * LEAF + 77
    content = random_pages(num_pages, 40)
    queries = mg.make_queries(random_rows(4, 3, num_pages), num_pages)[0]
    indices = [0, 5, 511, 512, 700, 1100]

    def wanted() -> Bytes:
        return slice_answers(content[2 * LEAF :], 2 * LEAF, num_pages, queries)

    with open_gpu(mg.PageMatrix(content.copy()).slice(2 * LEAF)) as engine:
        before = wanted()
        with engine.next_epoch(indices, random_pages(6, 40, seed=1), epoch=1) as after:
            content[2 * LEAF + np.array(indices)] = random_pages(6, 40, seed=1)
            middle = wanted()
            assert np.array_equal(after.answer(queries).pages, middle)
            assert np.array_equal(engine.answer(queries).pages, before)
            with after.next_epoch([5, 700], random_pages(2, 40, seed=2), epoch=2) as last:
                content[[2 * LEAF + 5, 2 * LEAF + 700]] = random_pages(2, 40, seed=2)
                assert np.array_equal(last.answer(queries).pages, wanted())
                assert np.array_equal(after.answer(queries).pages, middle)
                assert np.array_equal(engine.answer(queries).pages, before)
                last.replace_pages([1099], random_pages(1, 40, seed=3), epoch=3)
                content[2 * LEAF + 1099] = random_pages(1, 40, seed=3)[0]
                assert np.array_equal(last.answer(queries).pages, wanted())
                assert last.table.epoch == 3
                assert np.array_equal(engine.answer(queries).pages, before)

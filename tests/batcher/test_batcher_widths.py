"""The width of a batcher's chunks: by keys unless a caller says how many queries."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from held_engine import SECONDS, HeldEngine
from morphogen.batcher.entry import Entry
from morphogen.batcher.future import AnswerFuture
from morphogen.batcher.queue import WaitingQueue
from naive import Bytes, naive_answers, open_engine, random_pages, random_rows

PAGES = 700
TABLE = random_pages(PAGES, 48)


def some_queries(total: int, keys: int) -> list[mg.Query]:
    return mg.make_queries(random_rows(total, keys, PAGES), PAGES)[0]


def answers(futures: list[Future[mg.Answer]]) -> Bytes:
    return np.concatenate([future.result(SECONDS).pages for future in futures])


@pytest.mark.parametrize(
    ("keys", "total", "chunks"),
    [(1, 100, [96, 4]), (2, 100, [48, 48, 4]), (3, 100, [32, 32, 32, 4])],
)
def test_a_chunk_takes_96_keys_and_counts_queries(keys: int, total: int, chunks: list[int]) -> None:
    queries = some_queries(total, keys)
    with open_engine(TABLE) as engine, mg.MicroBatcher(engine) as batcher:
        futures = batcher.submit_many(queries)
        np.testing.assert_array_equal(answers(futures), naive_answers(TABLE, queries))
        sizes = [future.result().micro_batch_sizes for future in futures]
        assert sizes == [(size,) for size in chunks for _ in range(size)]
        statistics = batcher.statistics()
        assert statistics.chunk_sizes == {size: chunks.count(size) for size in set(chunks)}
        assert statistics.mean_chunk_size == total / len(chunks)
        assert (batcher.width_for(keys), batcher.max_micro_batch) == (chunks[0], 32)


@pytest.mark.parametrize("keys", [1, 2, 3])
def test_a_width_that_is_asked_for_is_a_number_of_queries(keys: int) -> None:
    with open_engine(TABLE) as engine, mg.MicroBatcher(engine, max_micro_batch=5) as batcher:
        answers(batcher.submit_many(some_queries(12, keys)))
        assert batcher.statistics().chunk_sizes == {2: 1, 5: 2}
        assert batcher.width_for(keys) == batcher.max_micro_batch == 5


def test_an_engine_whose_width_is_a_number_of_queries_gets_no_more_of_one_key() -> None:
    with HeldEngine(open_engine(TABLE), 2) as engine, mg.MicroBatcher(engine) as batcher:
        answers(batcher.submit_many(some_queries(5, keys=1)))
        assert engine.chunks == [2, 2, 1]


def test_each_chunk_has_the_width_of_its_own_queries() -> None:
    with HeldEngine(open_engine(TABLE), 2, keys=6) as engine, mg.MicroBatcher(engine) as batcher:
        queries = [*some_queries(3, 3), *some_queries(8, 1), *some_queries(4, 2)]
        futures = batcher.submit_many(queries)
        for query, future in zip(queries, futures, strict=True):
            np.testing.assert_array_equal(
                future.result(SECONDS).pages, naive_answers(TABLE, [query])
            )
        assert engine.chunks == [2, 1, 6, 2, 3, 1]


def test_an_interrupt_while_queries_are_counted_leaves_none_half_queued() -> None:
    class Interrupted:
        def __len__(self) -> int:
            raise KeyboardInterrupt

    query: Any = Interrupted()
    queue = WaitingQueue(10, None, (6, 3, 2))
    with pytest.raises(KeyboardInterrupt):
        queue.add([AnswerFuture(lambda _: None)], [Entry(query, 0.0, None, None)])
    assert len(queue) == 0

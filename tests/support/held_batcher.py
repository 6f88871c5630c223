"""A batcher over an engine that a test holds, and queries for it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future

import pytest

import morphogen as mg
from held_engine import SECONDS, HeldEngine
from naive import Bytes, open_engine, random_pages, random_rows

PAGES, PAGE_SIZE = 700, 48


@pytest.fixture(scope="module")
def table() -> Bytes:
    return random_pages(PAGES, PAGE_SIZE)


@pytest.fixture
def engine(table: Bytes) -> Iterator[HeldEngine]:
    with HeldEngine(open_engine(table, threads=1), 4) as held:
        yield held
        held.held.set()


def some_queries(total: int, seed: int = 0, keys: int = 3) -> list[mg.Query]:
    return mg.make_queries(random_rows(total, keys, PAGES, seed), PAGES)[0]


def result(future: Future[mg.Answer]) -> Bytes:
    return future.result(SECONDS).pages


class Busy:
    """An engine that is held within a first chunk while a test fills the queue behind it."""

    def __init__(self, engine: HeldEngine, batcher: mg.MicroBatcher) -> None:
        self.engine = engine
        engine.held.clear()
        self.first = batcher.submit_many(some_queries(1, seed=99))[0]
        assert engine.begun.acquire(timeout=SECONDS)

    def release(self) -> None:
        self.engine.held.set()
        self.first.result(SECONDS)

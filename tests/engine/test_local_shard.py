"""Shards in this process: engines over slices, each with a thread of its own."""

from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from engine_processes import assert_ends_well
from held_engine import HeldEngine
from morphogen.engine.sharded import Part, Pass, ShardedEngine
from morphogen.engine.shards.local import LocalShard
from morphogen.sharding import plan_shards
from naive import Bytes, naive_answers, random_pages, random_rows
from storm import assert_survives

SECONDS = 60  # only a failed test waits this long


def local_shards(pages: mg.PageMatrix, shards: int, replicas: int = 1) -> list[list[LocalShard]]:
    return [
        [
            LocalShard(mg.open_engine(pages.slice(one.first, one.count), "cpu", threads=1))
            for _ in range(replicas)
        ]
        for one in plan_shards(pages.num_pages, shards)
    ]


def open_local(
    pages: mg.PageMatrix, shards: int, replicas: int = 1, **options: Any
) -> ShardedEngine:
    return ShardedEngine(local_shards(pages, shards, replicas), pages.table, **options)


@pytest.mark.parametrize("shape", [(4096, 16), (4099, 33), (513, 4096), (1, 5)], ids=str)
@pytest.mark.parametrize("replicas", [1, 2])
def test_shards_in_this_process_equal_one_engine(shape: tuple[int, int], replicas: int) -> None:
    array = random_pages(*shape)
    pages = mg.PageMatrix(array)
    for shards in {min(shards, -(-shape[0] // 512)) for shards in (1, 2, 4, 8)}:
        with open_local(pages, shards, replicas) as engine:
            for total in (0, 1, 2, 7, 32):
                queries = mg.make_queries(random_rows(total, 3, shape[0]), shape[0])[total % 2]
                found = engine.answer(queries, max_micro_batch=5)
                assert np.array_equal(found.pages, naive_answers(array, queries))


def test_a_short_last_page_of_a_file_is_answered(tmp_path: Path) -> None:
    (tmp_path / "pages").write_bytes(bytes(random_pages(1, 1200 * 16 + 5)))
    pages = mg.PageMatrix.open(tmp_path / "pages", page_size=16)
    queries = list(mg.make_query([0, 1199, 1200], 1201))
    with open_local(pages, 3) as engine:
        found = engine.answer(queries).pages
    assert [bytes(page) for page in found[0] ^ found[1]] == [
        bytes(pages[at]) for at in (0, 1199, 1200)
    ]


# Its thread


class Teller:
    """Gathers what a shard tells."""

    def __init__(self) -> None:
        self.told: list[tuple[int, Part | Exception]] = []
        self.done = threading.Semaphore(0)

    def ask(self, shard: LocalShard, number: int, **named: Any) -> None:
        job = job_of(number, **named)

        def tell(outcome: Part | Exception) -> None:
            self.told.append((number, outcome))
            self.done.release()

        shard.submit(job, tell)

    def wait(self, count: int) -> list[tuple[int, Part | Exception]]:
        for _ in range(count):
            assert self.done.acquire(timeout=SECONDS)
        return self.told


ARRAY = random_pages(700, 24)
QUERIES = mg.make_queries(random_rows(2, 2, 700), 700)[0]


def job_of(number: int, epoch: int = 0, root: bytes | None = None) -> Pass:
    keys = b"".join(key for query in QUERIES for key in query.keys)
    return Pass(number, epoch, root, keys, 2, 2)


def shard_of(array: Bytes, **options: Any) -> LocalShard:
    return LocalShard(mg.open_engine(mg.PageMatrix(array), "cpu", threads=1), **options)


def held_shard() -> tuple[LocalShard, HeldEngine]:
    engine = HeldEngine(mg.open_engine(mg.PageMatrix(ARRAY), "cpu", threads=1), width=2)
    engine.held.clear()
    return LocalShard(engine), engine


def test_passes_are_answered_in_order() -> None:
    teller, shard = Teller(), shard_of(ARRAY, root=b"r")
    for number in range(20):
        teller.ask(shard, number, root=b"r")
    told = teller.wait(20)
    assert [number for number, _ in told] == [*range(20)]
    for number, part in told:
        assert isinstance(part, Part)
        assert (part.number, part.range, part.epoch, part.root) == (number, shard.range, 0, b"r")
        assert np.array_equal(part.pages, naive_answers(ARRAY, QUERIES))
    shard.close()


@pytest.mark.parametrize("named", [{"epoch": 1}, {"root": b"other"}], ids=["epoch", "root"])
def test_a_pass_for_another_version_is_refused(named: dict[str, Any]) -> None:
    teller, shard = Teller(), shard_of(ARRAY)
    teller.ask(shard, 0, **named)
    ((_, error),) = teller.wait(1)
    assert isinstance(error, mg.ShardMismatchError)
    assert "which this shard has" in str(error)
    shard.close()


def test_keys_are_in_no_repr() -> None:
    job = job_of(3)
    assert "keys=" not in repr(job)
    assert job.keys[:4] == b"MGK1"
    assert "MGK1" not in repr(job)


def test_close_waits_for_the_pass_that_runs_and_refuses_those_that_wait() -> None:
    teller = Teller()
    shard, engine = held_shard()
    for number in range(3):
        teller.ask(shard, number)
    assert engine.begun.acquire(timeout=SECONDS)
    closer = threading.Thread(target=shard.close)
    closer.start()
    while shard.usable:
        pass
    assert not teller.told
    engine.held.set()
    closer.join(SECONDS)
    (_, first), *others = teller.wait(3)
    assert isinstance(first, Part)
    assert all(isinstance(error, mg.EngineClosedError) for _, error in others)
    assert engine.inner.closed
    with pytest.raises(mg.EngineClosedError, match=r"^the shard on cpu is closed$"):
        teller.ask(shard, 3)
    shard.close()


def test_what_a_callers_function_raises_does_not_end_the_thread() -> None:
    teller, shard = Teller(), shard_of(ARRAY)

    def fail(outcome: object) -> None:
        raise RuntimeError("mine")

    shard.submit(job_of(0), fail)
    teller.ask(shard, 1)
    assert isinstance(teller.wait(1)[0][1], Part)
    shard.close()


def test_a_shard_that_is_dropped_ends_its_thread() -> None:
    before = set(threading.enumerate())
    shard = shard_of(ARRAY)
    (thread,) = set(threading.enumerate()) - before
    del shard
    gc.collect()
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_a_forked_child_is_refused() -> None:
    shard = shard_of(ARRAY)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            shard.submit(job_of(0), lambda outcome: None)
        except mg.EngineClosedError as error:
            status = 0 if "belongs to process" in str(error) else 2
        shard.close()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    shard.close()


# Engines over them


def test_a_process_ends_with_an_engine_over_shards_open() -> None:
    script = """
from morphogen.engine.shards.local import LocalShard
from morphogen.engine.sharded import ShardedEngine
shard = LocalShard(mg.open_engine(pages, "cpu", threads=1))
over = ShardedEngine([[shard]], pages.table)
assert right(over)
print("done")
"""
    assert_ends_well(script, "cpu")


def test_replicas_answer_callers_at_the_same_time() -> None:
    pages = mg.PageMatrix(ARRAY)
    held = [held_shard() for _ in range(2)]
    engine = ShardedEngine([[shard for shard, _ in held]], pages.table)
    assert engine.max_in_flight == 2
    with engine, ThreadPoolExecutor(2) as executor:
        answers = [executor.submit(engine.answer, QUERIES) for _ in range(2)]
        for _, inner in held:  # both are asked before one is answered
            assert inner.begun.acquire(timeout=SECONDS)
        for _, inner in held:
            inner.held.set()
        for answer in answers:
            assert np.array_equal(answer.result().pages, naive_answers(ARRAY, QUERIES))


def test_close_waits_for_calls_that_run() -> None:
    pages = mg.PageMatrix(ARRAY)
    shard, inner = held_shard()
    engine = ShardedEngine([[shard]], pages.table)
    with ThreadPoolExecutor(2) as executor:
        answer = executor.submit(engine.answer, QUERIES)
        assert inner.begun.acquire(timeout=SECONDS)
        closing = executor.submit(engine.close)
        while not engine._calls.waiting_alone():
            pass
        assert not closing.done()
        assert not inner.inner.closed
        inner.held.set()
        closing.result()
        assert np.array_equal(answer.result().pages, naive_answers(ARRAY, QUERIES))
    assert inner.inner.closed


def test_a_replica_that_fails_under_load_loses_no_query() -> None:
    pages = mg.PageMatrix(ARRAY)
    shards = local_shards(pages, 2, replicas=2)
    expected = naive_answers(ARRAY, QUERIES)
    stop = threading.Event()

    def ask() -> int:
        asked = 0
        while not stop.is_set() or asked < 20:
            assert np.array_equal(engine.answer(QUERIES).pages, expected)
            asked += 1
        return asked

    with ShardedEngine(shards, pages.table, timeout=SECONDS) as engine:
        with ThreadPoolExecutor(3) as executor:
            results = [executor.submit(ask) for _ in range(3)]
            for at in (0, 1, 0):
                engine.shards[0][at].close()
                (new,), _ = local_shards(pages, 2)
                engine.replace_replica(0, at, new)
            stop.set()
            assert sum(result.result() for result in results) >= 60
        assert engine.statistics().usable == (2, 2)


def test_an_epoch_is_taken_up_while_others_ask() -> None:
    pages = mg.PageMatrix(ARRAY)
    after = ARRAY.copy()
    after[[3, 600]] ^= 1
    right = {epoch: naive_answers(some, QUERIES) for epoch, some in ((0, ARRAY), (1, after))}
    stop, answered = threading.Event(), threading.Semaphore(0)

    def ask() -> None:
        while not stop.is_set():
            answer = engine.answer(QUERIES)
            assert np.array_equal(answer.pages, right[answer.epoch % 2])
            answered.release()

    with open_local(pages, 2, replicas=2) as engine, ThreadPoolExecutor(3) as executor:
        results = [executor.submit(ask) for _ in range(3)]
        for epoch in range(1, 7):
            engine.replace_pages([3, 600], (after if epoch % 2 else ARRAY)[[3, 600]], epoch)
            assert answered.acquire(timeout=SECONDS)
        stop.set()
        for result in results:
            result.result()
        assert engine.table.epoch == 6


STORM = """
import sys
import numpy as np
import morphogen as mg
from morphogen.engine.shards.local import LocalShard
from morphogen.engine.sharded import ShardedEngine
from morphogen.sharding import plan_shards
from naive import naive_answers, random_pages, random_rows
from storm import *

give_up_in_time()
array = random_pages(700, 24)
pages = mg.PageMatrix(array)
batch = mg.make_queries(random_rows(3, 2, 700), 700)[0]
right = naive_answers(array, batch)
before = threads_of_process()
shards = [
    [LocalShard(mg.open_engine(pages.slice(one.first, one.count), "cpu", threads=1)) for _ in "ab"]
    for one in plan_shards(700, 2)
]
engine = ShardedEngine(shards, pages.table, timeout=60.0, hedge=0.05)
out = np.empty_like(right)

def check():
    assert np.array_equal(engine.answer(batch, max_micro_batch=1).pages, right)

def ask():
    out[...] = 0
    engine.answer(batch, out=out, max_micro_batch=1)
    assert np.array_equal(out, right)
"""
STORM_ASK = """
with beside(check, check):
    storm(ask, INTERRUPTS // 3)
check()
"""
STORM_CHANGE = """
import itertools
epochs = itertools.count(1)

def change():
    contents = array[[1, 650]]
    engine.next_epoch([1, 650], contents, next(epochs)).close()
    engine.replace_pages([1, 650], contents, next(epochs))

with beside(check):
    storm(change, INTERRUPTS // 30)
check()
"""


@pytest.mark.parametrize("work", [STORM_ASK, STORM_CHANGE], ids=["ask", "change"])
def test_an_engine_over_shards_survives_a_storm_of_interrupts(work: str) -> None:
    # Of epochs that were opened when the interrupt came, too, no thread is left.
    end = """
engine.close()
del engine, shards
gc.collect()
while threads_of_process() > before:
    pass
print("done")
"""
    assert_survives(STORM + work + end, "cpu")

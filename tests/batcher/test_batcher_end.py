"""MicroBatcher's end: what was taken is answered, and nothing more is taken."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest

import morphogen as mg
import morphogen.batcher.worker as worker
from held_batcher import Busy, engine, result, some_queries, table
from held_engine import SECONDS, HeldEngine
from naive import Bytes, open_engine

__all__ = ["engine", "table"]


def test_closing_answers_what_was_taken_and_takes_no_more(engine: HeldEngine) -> None:
    batcher = mg.MicroBatcher(engine)
    busy = Busy(engine, batcher)
    futures = batcher.submit_many(some_queries(9))
    assert not batcher.close(timeout=0)
    assert batcher.closed
    for call in (batcher.submit, lambda query: batcher.submit_many([query])):
        with pytest.raises(mg.BatcherClosedError, match=r"^this batcher is closed$"):
            call(some_queries(1)[0])
    assert not any(future.done() for future in futures)
    engine.held.set()
    assert batcher.close()
    assert all(future.done() and future.result().pages.any() for future in [*futures, busy.first])
    assert "morphogen-batcher" not in {thread.name for thread in threading.enumerate()}
    assert batcher.close()
    assert not engine.closed


def test_closing_waits_for_a_lone_query_on_another_thread(engine: HeldEngine) -> None:
    batcher = mg.MicroBatcher(engine)
    engine.held.clear()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: result(batcher.submit(some_queries(1)[0])))
        assert engine.begun.acquire(timeout=SECONDS)
        assert not batcher.close(timeout=0)
        engine.held.set()
        assert batcher.close(SECONDS)
        assert asked.result(SECONDS).any()


def test_closing_ends_where_all_that_waits_is_too_late(engine: HeldEngine) -> None:
    batcher = mg.MicroBatcher(engine)
    busy = Busy(engine, batcher)
    late = batcher.submit(some_queries(1)[0], timeout=0)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(batcher.close)
        while not batcher.closed:
            threading.Event().wait(0.001)
        busy.release()
        assert closing.result(SECONDS)
    assert isinstance(late.exception(), mg.DeadlineError)


def test_no_memory_for_an_answer_fails_that_answer_alone(
    engine: HeldEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = worker.Answer, []

    def short_of_memory(*parts: Any) -> mg.Answer:
        made.append(parts)
        if len(made) == 2:
            raise MemoryError
        return real(*parts)

    with mg.MicroBatcher(engine) as batcher:
        monkeypatch.setattr(worker, "Answer", short_of_memory)
        outcomes = [future.exception(SECONDS) for future in batcher.submit_many(some_queries(3))]
        assert [type(outcome) for outcome in outcomes] == [type(None), MemoryError, type(None)]
        assert result(batcher.submit_many(some_queries(1))[0]).any()


def test_closing_from_a_callback_does_not_wait_for_itself(engine: HeldEngine) -> None:
    batcher = mg.MicroBatcher(engine)
    busy = Busy(engine, batcher)
    first, *others = batcher.submit_many(some_queries(6))
    first.add_done_callback(lambda _: batcher.close())
    busy.release()
    assert not wait([first, *others], SECONDS).not_done
    assert batcher.close(SECONDS)


def test_a_batcher_of_a_closed_engine_passes_its_error_on(table: Bytes) -> None:
    engine = open_engine(table, threads=1)
    with mg.MicroBatcher(engine) as batcher:
        engine.close()
        for future in (batcher.submit(some_queries(1)[0]), *batcher.submit_many(some_queries(2))):
            assert isinstance(future.exception(SECONDS), mg.EngineClosedError)


def test_representations_show_no_keys(engine: HeldEngine) -> None:
    with mg.MicroBatcher(engine) as batcher:
        assert repr(batcher).startswith("MicroBatcher(HeldEngine(")
        assert repr(batcher).endswith("chunks of at most 4)")
    assert repr(batcher).endswith(", closed)")
    assert (batcher.engine, batcher.max_micro_batch, batcher.max_queued) == (engine, 4, 1024)
    gc.collect()

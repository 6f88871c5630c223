"""Engines over pages that change, among threads: every batch is of one epoch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from changing_engine import assert_answers, batch_for, changed, device
from morphogen.engine.base import Engine
from naive import naive_answers, random_pages

__all__ = ["device"]

SECONDS = 60  # only a failed test waits this long
ONE = np.ones((1, 24), np.uint8)


@pytest.fixture
def hammered(device: str) -> Iterator[Any]:
    """Call engines from four threads, and check each answer by its epoch."""
    array = random_pages(70, 48)
    arrays = {0: array}
    batches = [batch_for(array, total=1 + seed, keys=1 + seed % 3, seed=seed) for seed in range(4)]
    stop = threading.Event()
    called = threading.Semaphore(0)

    def call(engine: Engine, batch: list[mg.Query]) -> int:
        epochs = set()
        while not stop.is_set():
            answer = engine.answer(batch)
            called.release()
            assert np.array_equal(answer.pages, naive_answers(arrays[answer.epoch], batch))
            epochs.add(answer.epoch)
        return len(epochs)

    with ThreadPoolExecutor(8) as executor:
        try:
            yield device, arrays, batches, executor, call, called, stop
        finally:
            stop.set()


def test_every_batch_is_of_one_epoch_while_pages_are_replaced(hammered: Any) -> None:
    device, arrays, batches, executor, call, called, stop = hammered
    with mg.open_engine(mg.PageMatrix(arrays[0].copy()), device) as engine:
        callers = [executor.submit(call, engine, batch) for batch in batches]
        for epoch in range(1, 30):
            assert called.acquire(timeout=SECONDS)
            indices = sorted({epoch % 70, 69, (7 * epoch) % 70})
            contents, arrays[epoch] = changed(arrays[epoch - 1], indices, seed=epoch)
            engine.replace_pages(indices, contents, epoch)
            while called.acquire(blocking=False):
                pass  # the next epoch comes after a call that is still to end
            assert_answers(engine, arrays[epoch], epoch)
        stop.set()
        assert sum(caller.result(SECONDS) for caller in callers) > len(callers)


def test_old_epochs_are_answered_while_new_ones_come(hammered: Any) -> None:
    device, arrays, batches, executor, call, called, stop = hammered
    engines = [mg.open_engine(mg.PageMatrix(arrays[0].copy()), device)]
    callers = [executor.submit(call, engines[0], batch) for batch in batches]
    for epoch in range(1, 12):
        assert called.acquire(timeout=SECONDS)
        indices = sorted({epoch % 70, 69, (7 * epoch) % 70})
        contents, arrays[epoch] = changed(arrays[epoch - 1], indices, seed=epoch)
        engines.append(engines[-1].next_epoch(indices, contents, epoch))
        assert_answers(engines[-1], arrays[epoch], epoch)
        if epoch > 3:
            engines[epoch - 2].close()
    stop.set()
    assert [caller.result(SECONDS) for caller in callers] == [1] * 4
    for engine in engines:
        engine.close()


@pytest.mark.parametrize("method", ["replace_pages", "next_epoch"])
def test_pages_replaced_meanwhile_by_another_thread_stay_replaced(
    device: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = random_pages(40, 24)
    make = mg.PageMatrix.with_changes
    turns = []

    def meddle(pages: mg.PageMatrix, *arguments: Any) -> mg.PageMatrix:
        turns.append(pages.epoch)
        if len(turns) == 1:
            with ThreadPoolExecutor(1) as other:
                other.submit(engine.replace_pages, [5], 2 * ONE, 7).result(SECONDS)
        return make(pages, *arguments)

    with mg.open_engine(mg.PageMatrix(array.copy()), device) as engine:
        monkeypatch.setattr(mg.PageMatrix, "with_changes", meddle)
        new = getattr(engine, method)([3], ONE, 1) or engine
        assert turns == [0, 0, 7]
        array[5] = 2
        if new is not engine:
            assert_answers(engine, array, 7)
        array[3] = 1
        assert_answers(new, array, 1)
        new.close()

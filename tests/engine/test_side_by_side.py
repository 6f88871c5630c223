"""Engines that are opened side by side: all of them, or none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from morphogen.engine.devices.opening import open_side_by_side
from morphogen.engine.threads import start_thread
from morphogen.progress import Progress

SECONDS = 60  # only a failed test waits this long
PAGES = mg.PageMatrix(np.zeros((9, 8), dtype=np.uint8))


def cpu_engine() -> mg.Engine:
    return mg.open_engine(PAGES, device="cpu", threads=1)


def opener(*sent: int, then: Callable[[], Any] = cpu_engine) -> Callable[[Progress], Any]:
    """What tells of bytes, and then opens an engine, or fails."""

    def open_engine(tell: Progress) -> Any:
        for count in sent:
            tell(count, 100)
        return then()

    return open_engine


def test_engines_come_in_order_and_progress_is_the_sum() -> None:
    told: list[tuple[int, int]] = []
    threads = set()

    def progress(sent: int, total: int) -> None:
        told.append((sent, total))
        threads.add(threading.get_ident())

    openers = [("first", opener(10, 40)), ("second", opener()), ("third", opener(30, 60))]
    engines = open_side_by_side(openers, 100, progress)
    assert [engine.closed for engine in engines] == [False] * 3
    assert told[-1] == (100, 100)
    assert told == sorted(told)
    assert len(told) == 4
    assert threads == {threading.get_ident()}
    for engine in engines:
        engine.close()


def fails(error: Exception) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


@pytest.mark.parametrize("kind", [mg.DeviceError, mg.DeviceOutOfMemoryError])
def test_a_device_that_fails_is_named_and_the_other_engines_are_closed(
    kind: type[mg.DeviceError],
) -> None:
    engines = []
    opened = threading.Event()

    def keep() -> mg.Engine:
        engines.append(cpu_engine())
        opened.set()
        return engines[0]

    def fail() -> Any:
        assert opened.wait(SECONDS)
        raise kind("cuMemAlloc failed")

    openers = [("cuda:0", opener(then=keep)), ("cuda:1", opener(then=fail))]
    with pytest.raises(kind, match=r"^cuda:1: cuMemAlloc failed$") as caught:
        open_side_by_side(openers, 0, None)
    assert type(caught.value) is kind
    assert engines[0].closed


def test_an_upload_stops_after_another_failed() -> None:
    failed, ended = threading.Event(), threading.Event()
    told: list[int] = []

    def endless(tell: Progress) -> Any:
        tell(1, 9)
        failed.set()
        try:
            while True:
                tell(2, 9)
        finally:
            ended.set()

    def fail(tell: Progress) -> Any:
        assert failed.wait(SECONDS)
        raise mg.DeviceError("lost")

    with pytest.raises(mg.DeviceError, match=r"^b: lost$"):
        open_side_by_side([("a", endless), ("b", fail)], 18, lambda sent, total: told.append(sent))
    assert ended.is_set()


def test_an_interrupted_progress_stops_all_uploads() -> None:
    ended = threading.Event()

    def endless(tell: Progress) -> Any:
        try:
            while True:
                tell(1, 2)
        finally:
            ended.set()

    def interrupt(sent: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_side_by_side([("a", endless), ("b", opener(then=cpu_engine))], 2, interrupt)
    assert ended.is_set()


def test_threads_that_cannot_be_started_are_a_device_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(target: Any, name: str) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("morphogen.engine.devices.opening.start_thread", refuse)
    with pytest.raises(mg.DeviceError, match=r"^cannot start 2 threads: can't start new thread$"):
        open_side_by_side([("a", opener()), ("b", opener())], 0, None)


def test_an_interrupt_that_takes_a_thread_s_message_hangs_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(SimpleQueue[Any]):
        interrupts = 1

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            news = super().get(block, timeout)
            if self.interrupts:
                self.interrupts -= 1
                raise KeyboardInterrupt
            return news

    monkeypatch.setattr("morphogen.engine.devices.opening.SimpleQueue", Interrupted)
    engines = []

    def keep() -> mg.Engine:
        engines.append(cpu_engine())
        return engines[-1]

    with pytest.raises(KeyboardInterrupt):
        open_side_by_side([("a", opener(then=keep)), ("b", opener(then=keep))], 0, None)
    assert [engine.closed for engine in engines] == [True] * len(engines)


def test_an_interrupt_while_a_thread_starts_leaves_no_engine_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engines = []

    def keep() -> mg.Engine:
        engines.append(cpu_engine())
        return engines[-1]

    def interrupt(target: Any, name: str) -> None:
        start_thread(target, name)
        raise KeyboardInterrupt

    monkeypatch.setattr("morphogen.engine.devices.opening.start_thread", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_side_by_side([("a", opener(then=keep)), ("b", opener(then=keep))], 0, None)
    assert [engine.closed for engine in engines] == [True] * len(engines)

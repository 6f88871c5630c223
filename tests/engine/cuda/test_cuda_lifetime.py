"""The GPU engine's life, over the stand-in driver: closing, threads, interrupts, forks."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import morphogen as mg
import morphogen.engine.cuda.device_pages as device_pages
from naive import naive_answers, random_pages, random_rows
from small_gpu_engine import ARRAY, BATCH, assert_answers, open_gpu
from standin_driver import StandIn


def live(gpu: StandIn) -> Counter[str]:
    return +Counter(gpu.live())


# Closing


@pytest.mark.parametrize("end", ["close", "with", "collect", "cycle"])
def test_all_is_freed_with_the_engine(gpu: StandIn, end: str) -> None:
    engine = open_gpu()
    assert_answers(engine)
    assert live(gpu)["device_memory"] >= 3
    if end == "close":
        engine.close()
        engine.close()
    elif end == "with":
        with engine:
            pass
    elif end == "cycle":
        engine.itself = engine
    if end in {"collect", "cycle"}:
        del engine
        gc.collect()
    assert not live(gpu)
    gpu.assert_clean()


def test_an_engine_that_nobody_closes_keeps_its_pages(gpu: StandIn) -> None:
    engine = mg.open_engine(mg.PageMatrix(ARRAY.copy()), device="cuda:0")
    gc.collect()
    assert_answers(engine)
    engine.close()


def test_use_after_close(gpu: StandIn) -> None:
    engine = open_gpu()
    engine.close()
    for use in (lambda: engine.answer(BATCH), engine.read_pages, lambda: engine.time_phases(BATCH)):
        with pytest.raises(mg.EngineClosedError, match=r"^this engine is closed$"):
            use()
    assert engine.closed
    assert engine.device == "cuda:0"
    assert repr(engine).endswith("on cuda:0, closed)")


def test_opening_and_closing_does_not_grow(gpu: StandIn) -> None:
    for _ in range(20):
        with open_gpu():
            pass
        assert not live(gpu)


def test_what_the_thread_had_current_stays_so(gpu: StandIn) -> None:
    from cuda.bindings import driver

    result, context = driver.cuDevicePrimaryCtxRetain(0)
    assert not result
    driver.cuCtxPushCurrent(context)
    with open_gpu() as engine:
        assert_answers(engine)
        with pytest.raises(mg.InvalidKeyError):
            engine.answer([mg.Query(key[:-1] for key in BATCH[0].keys)])
        assert int(driver.cuCtxGetCurrent()[1]) == int(context)
    assert gpu.live()["current"] == 1
    driver.cuCtxPopCurrent()
    driver.cuDevicePrimaryCtxRelease(0)


# Threads


def test_callers_on_many_threads_get_their_own_answers(gpu: StandIn) -> None:
    with open_gpu() as engine, ThreadPoolExecutor(6) as callers:

        def call(seed: int) -> bool:
            batch = mg.make_queries(random_rows(1 + seed % 4, 2, 150, seed), 150)[seed % 2]
            return np.array_equal(engine.answer(batch).pages, naive_answers(ARRAY, batch))

        assert all(callers.map(call, range(48)))


def test_close_while_others_answer(gpu: StandIn) -> None:
    engine = open_gpu()
    outcomes: list[type | None] = []
    started = threading.Barrier(5)

    def call() -> None:
        started.wait()
        try:
            while True:
                assert_answers(engine)
        except mg.EngineClosedError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    engine.close()
    for thread in threads:
        thread.join()
    assert outcomes == [mg.EngineClosedError] * 4
    gpu.assert_clean()


def test_an_engine_collected_on_another_thread(gpu: StandIn) -> None:
    engines = [open_gpu()]
    thread = threading.Thread(target=engines.clear)
    thread.start()
    thread.join()
    gc.collect()
    assert not live(gpu)


def others_run_during(work: Callable[[], object]) -> bool:
    """Whether another thread runs Python in the middle of some work of one C call."""
    seen: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.append(time.perf_counter())

    thread = threading.Thread(target=watch)
    thread.start()
    begun = time.perf_counter()
    work()
    ended = time.perf_counter()
    done.set()
    thread.join()
    # Not at its ends: there the interpreter may switch by itself.
    margin = (ended - begun) / 4
    return any(begun + margin < at < ended - margin for at in seen)


def test_others_run_python_while_a_chunk_runs(gpu: StandIn) -> None:
    array = random_pages(2048, 4096)
    batch = mg.make_queries(random_rows(2, 3, 2048), 2048)[0]
    with mg.open_engine(mg.PageMatrix(array), device="cuda:0") as engine:
        assert others_run_during(lambda: engine.answer(batch))
    # The control: a C function that is called with Python's lock held.
    assert not others_run_during(lambda: ctypes.PyDLL(None).usleep(100_000))


def test_what_owns_driver_memory_is_not_cleared_by_the_collector(gpu: StandIn) -> None:
    # Cleared in a cycle before its owner, it would no longer know the context to free itself in.
    import morphogen.engine.cuda._driver as _driver
    import morphogen.engine.cuda.device_pages as device_pages
    import morphogen.engine.cuda.lane as lane

    tracked = 1 << 14  # Py_TPFLAGS_HAVE_GC
    names = ("Context", "DeviceMemory", "HostMemory", "Stream", "Event", "Module", "Kernel")
    owners = [getattr(_driver, name) for name in names]
    for owner in [*owners, device_pages.DevicePages, lane.Lane]:
        assert not owner.__flags__ & tracked, owner


# Interrupts


@pytest.mark.parametrize("work", ["answer", "graph", "upload"])
def test_an_interrupt_ends_the_work_and_nothing_else(
    gpu: StandIn, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    monkeypatch.setattr(device_pages, "PIECE_BYTES", 64)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    def work_on() -> None:
        while True:
            if work == "answer":
                engine.answer(BATCH * 40)
            elif work == "graph":
                engine.answer(BATCH * 40, max_micro_batch=8, lanes=4, graph=True)
            else:
                open_gpu().close()

    previous = signal.signal(signal.SIGALRM, interrupt)
    engine = open_gpu()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            work_on()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert_answers(engine)
    engine.close()


# Forks


@pytest.mark.parametrize("options", [{}, {"max_micro_batch": 8, "lanes": 4, "graph": True}])
def test_an_engine_in_a_forked_child(gpu: StandIn, options: dict[str, Any]) -> None:
    engine = open_gpu()
    engine.answer(BATCH, **options)
    gpu.reset_log()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            engine.answer(BATCH)
        except mg.EngineClosedError as error:
            engine.close()
            del engine
            gc.collect()
            # The driver's state is the parent's: not a single call may be made on it.
            status = 0 if "belongs to process" in str(error) and not gpu.calls() else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert_answers(engine)
    engine.close()


def test_a_forked_child_finds_out_for_itself(gpu: StandIn) -> None:
    assert mg.driver_status().usable
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # A real driver answers this in the child of a process that has used it.
            gpu.inject("cuInit", "CUDA_ERROR_NOT_INITIALIZED")
            open_gpu()
        except mg.DeviceUnavailableError as error:
            status = 0 if "a process forked from one that has used CUDA" in str(error) else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert mg.driver_status().usable

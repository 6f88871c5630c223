"""A GPU engine among threads, processes and errors, and the device memory that it leaves."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver  # type: ignore[import-untyped]

import morphogen as mg
from engine_processes import EXIT, FORK, assert_ends_well
from morphogen.engine.cuda import CudaEngine
from morphogen.engine.strategy import Strategy
from naive import Bytes, naive_answers, open_engine, random_pages, random_rows

pytestmark = pytest.mark.gpu


def open_gpu(table: Bytes | mg.PageMatrix) -> CudaEngine:
    pages = table if isinstance(table, mg.PageMatrix) else mg.PageMatrix(table)
    engine = mg.open_engine(pages, device="cuda")
    assert isinstance(engine, CudaEngine)
    return engine


def usable_device() -> mg.DeviceStatus:
    return next(device for device in mg.driver_status().devices if device.usable)


def test_the_first_usable_device_is_chosen() -> None:
    name = f"cuda:{usable_device().ordinal}"
    for device in ("auto", "cuda", name):
        with mg.open_engine(mg.PageMatrix(random_pages(9, 20)), device=device) as engine:
            assert engine.device == name
            assert engine.max_micro_batch == 2


def test_all_gpus_share_a_table() -> None:
    usable = [found.ordinal for found in mg.driver_status().devices if found.usable]
    table = random_pages(512 * len(usable) + 7, 2500)
    batch = mg.make_queries(random_rows(7, 3, len(table)), len(table))[0]
    names = [f"cuda:{ordinal}" for ordinal in usable]
    # Beside the CPU, a single GPU has a part that begins in the middle of the table, too.
    for device in ("cuda:all", ["cpu", *names]):
        with mg.open_engine(mg.PageMatrix(table), device) as engine:
            assert engine.device.removeprefix("cpu,") == ",".join(names)
            assert np.array_equal(engine.answer(batch).pages, naive_answers(table, batch))


# Threads


def test_callers_on_many_threads_get_their_own_answers() -> None:
    table = random_pages(900, 2500)

    def call(caller: int) -> None:
        for turn in range(8):
            total = (caller + turn) % 5 + 1
            batch = mg.make_queries(random_rows(total, caller % 3 + 1, 900, turn), 900)[turn % 2]
            assert np.array_equal(engine.answer(batch).pages, naive_answers(table, batch))

    with open_gpu(table) as engine, ThreadPoolExecutor(6) as executor:
        list(executor.map(call, range(6)))


def test_engines_of_many_threads_on_one_device() -> None:
    table = random_pages(900, 2500)
    pages = mg.PageMatrix(table)

    def call(caller: int) -> None:
        batch = list(mg.make_query([caller, 899 - caller], 900))
        with open_gpu(pages) as engine:
            for _ in range(5):
                assert np.array_equal(engine.answer(batch).pages, naive_answers(table, batch))

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(call, range(8)))


def test_an_engine_is_closed_by_another_thread() -> None:
    """Each call returns its right answer or says that the engine is closed."""
    table = random_pages(900, 2500)
    batch = list(mg.make_query([1, 2, 3], 900))
    expected = naive_answers(table, batch)

    def call(engine: CudaEngine) -> None:
        while True:
            try:
                answer = engine.answer(batch)
            except mg.EngineClosedError:
                return
            assert np.array_equal(answer.pages, expected)

    for _ in range(5):
        engine = open_gpu(table)
        engine.answer(batch)
        with ThreadPoolExecutor(3) as executor:
            results = [executor.submit(call, engine) for _ in range(3)]
            engine.close()
            for result in results:
                result.result()


# Processes


@pytest.mark.parametrize("script", [FORK, EXIT], ids=["fork", "exit with an engine open"])
def test_a_process_of_its_own(script: str) -> None:
    assert_ends_well(script, "cuda")


# Memory

TABLE = (16_384, 4096)  # 64 MiB
SLACK = 16 << 20  # the driver caches some memory, and other programs may use the device


def check(result: tuple[Any, ...]) -> Any:
    error, *values = result
    assert error == driver.CUresult.CUDA_SUCCESS
    return values[0] if len(values) == 1 else values


@pytest.fixture
def free_memory() -> Iterator[Callable[[], int]]:
    """Return a function that reads the free bytes of the device, while its context lives."""
    device = check(driver.cuDeviceGet(usable_device().ordinal))
    context = check(driver.cuDevicePrimaryCtxRetain(device))

    def ask() -> int:
        gc.collect()
        check(driver.cuCtxPushCurrent(context))
        free, _ = check(driver.cuMemGetInfo())
        check(driver.cuCtxPopCurrent())
        return int(free)

    # The first engine of a process loads things that stay.
    open_gpu(random_pages(9, 20)).close()
    yield ask
    check(driver.cuDevicePrimaryCtxRelease(device))


@pytest.mark.parametrize("end", ["close", "with", "collect", "error"])
def test_an_engine_gives_its_memory_back(free_memory: Callable[[], int], end: str) -> None:
    table = random_pages(*TABLE)
    batch = mg.make_queries(random_rows(3, 3, len(table)), len(table))[0]
    before = free_memory()
    engine = open_gpu(table)
    engine.answer(batch)
    assert free_memory() <= before - table.nbytes + SLACK
    if end == "close":
        engine.close()
        with pytest.raises(mg.EngineClosedError):
            engine.answer(batch)
    elif end == "with":
        with engine:
            pass
    elif end == "error":
        with pytest.raises(KeyError), engine:
            raise KeyError
    del engine
    assert free_memory() >= before - SLACK


def test_nothing_is_lost_in_many_rounds(free_memory: Callable[[], int]) -> None:
    table = random_pages(256, 4096)
    batch = mg.make_queries(random_rows(3, 3, 256), 256)[0]
    before = free_memory()
    for _ in range(50):  # 50 MiB of tables
        with open_gpu(table) as engine:
            engine.answer(batch)
    assert free_memory() >= before - SLACK


def test_answering_takes_no_memory(free_memory: Callable[[], int]) -> None:
    table = random_pages(256, 4096)
    batch = mg.make_queries(random_rows(5, 3, 256), 256)[0]
    with open_gpu(table) as engine:
        engine.answer(batch)
        before = free_memory()
        for _ in range(30):
            engine.answer(batch)
            engine.read_pages()
        assert free_memory() >= before - SLACK


def test_pages_that_do_not_fit(tmp_path: Path, free_memory: Callable[[], int]) -> None:
    # The file is sparse: it takes no disk space, and mapping it takes no memory.
    with (tmp_path / "table").open("wb") as file:
        file.truncate(usable_device().memory + (1 << 30))
    pages = mg.PageMatrix.open(tmp_path / "table", page_size=4096)
    before = free_memory()
    with pytest.raises(mg.DeviceOutOfMemoryError) as caught:
        open_gpu(pages)
    found = re.search(r"need (\d+) bytes .* (\d+) are free", str(caught.value))
    assert found, caught.value
    assert int(found[1]) > pages.nbytes
    assert int(found[2]) == pytest.approx(before, abs=SLACK)
    assert free_memory() >= before - SLACK
    with mg.open_engine(pages, device="auto") as engine:
        assert engine.device == "cpu"
    with open_gpu(random_pages(9, 20)) as engine:
        assert len(engine.answer([]).pages) == 0


# Bad input


def hostile_batches() -> dict[str, Any]:
    """Return batches that every engine refuses. `Query` refuses malformed keys before that."""
    good = mg.make_query([3, 4, 5], 900)[0]
    larger = mg.make_query([3, 4, 5], 2**20)[0].keys
    # The bad query is in the last of several chunks: an engine checks the batch before it works.
    return {
        "keys of a larger table": [good] * 4 + [mg.Query(larger)],
        "fewer keys in one query": [good] * 4 + [mg.Query(good.keys[:2])],
        "bytes": [good] * 4 + [b"".join(good.keys)],
        "a query alone": good,
        "None": [good] * 4 + [None],
    }


def test_bad_batches_raise_as_on_the_cpu_before_any_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    table = random_pages(900, 100)
    good = mg.make_queries(random_rows(5, 3, 900), 900)[0]
    launches: list[object] = []

    def raised_by(engine: Any, batch: Any) -> tuple[type[BaseException], str]:
        with pytest.raises((TypeError, ValueError)) as caught:
            engine.answer(batch)
        return caught.type, str(caught.value)

    with open_gpu(table) as engine, open_engine(table) as reference:
        run = engine._run

        def spy(packer: Any, ranges: list[tuple[int, int]], out: Bytes, strategy: Strategy) -> None:
            launches.append(ranges)
            run(packer, ranges, out, strategy)

        monkeypatch.setattr(engine, "_run", spy)
        for name, batch in hostile_batches().items():
            assert raised_by(engine, batch) == raised_by(reference, batch), name
        with pytest.raises(ValueError, match=r"max_micro_batch must be in 1\.\.8 on cuda:\d+"):
            engine.answer(good, max_micro_batch=9)
        with pytest.raises(ValueError, match="out must have shape"):
            engine.answer(good, out=np.empty((5, 3, 99), dtype=np.uint8))
        assert not launches
        assert np.array_equal(engine.answer(good).pages, naive_answers(table, good))
        assert launches == [[(0, 2), (2, 4), (4, 5)]]


# Times


@pytest.mark.parametrize("width", [1, 2])
def test_phases(width: int) -> None:
    table = random_pages(2000, 4096)
    batch = mg.make_queries(random_rows(5, 3, 2000), 2000)[0]
    with open_gpu(table) as engine:
        engine.answer(batch)
        answer, times = engine.time_phases(batch, max_micro_batch=width)
    assert np.array_equal(answer.pages, naive_answers(table, batch))
    assert tuple(chunk.queries for chunk in times.chunks) == answer.micro_batch_sizes
    for chunk in times.chunks:
        assert 0 < chunk.submit < times.total
        assert 0 < chunk.device < times.total
        assert 0 <= chunk.wait < times.total
        assert 0 < chunk.copy < times.total
    host = times.prepare + sum(chunk.submit + chunk.wait + chunk.copy for chunk in times.chunks)
    assert host <= times.total

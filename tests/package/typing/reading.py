"""Reading pages without a network: keys, tables, engines, plans. Checked, never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import morphogen as mg
from morphogen.engine import device_candidates, open_engine
from morphogen.engine.cpu import CpuEngine
from morphogen.engine.cuda import CudaEngine
from morphogen.engine.cuda.grid import Grid
from morphogen.engine.cuda.phases import ChunkTimes, PhaseTimes
from morphogen.engine.strategy import Strategy

Bytes = npt.NDArray[np.uint8]


def keys() -> None:
    pair = mg.dpf.gen(3, 1000)
    assert_type(pair, tuple[bytes, bytes])
    mg.dpf.gen(np.int64(3), np.uint32(1000), entropy=bytearray(48))
    assert_type(mg.dpf.key_size(1000), int)
    for key in (pair[0], bytearray(pair[0]), memoryview(pair[0]), np.array(pair[0]).data):
        assert_type(mg.dpf.eval_full(key, 1000), Bytes)
        assert_type(mg.dpf.eval_at(key, 3, 1000), int)
        assert_type(mg.dpf.parse_key(key), tuple[bytes, int, int])
    mg.dpf.eval_full(pair[1], 1000, instruction_set="baseline")
    assert_type(mg.dpf.MAX_PAGES, int)
    assert_type(mg.instruction_set.compiled(), tuple[str, ...])
    assert_type(mg.instruction_set.supported(), tuple[str, ...])


def tables(array: Bytes, path: Path) -> None:
    pages = mg.PageMatrix(array, epoch=7)
    assert_type(mg.PageMatrix.open(path), mg.PageMatrix)
    assert_type(mg.PageMatrix.open("pages.bin", 512, 7, offset=4096), mg.PageMatrix)
    assert_type(pages.num_pages, int)
    assert_type(pages.page_size, int)
    assert_type(pages.epoch, int)
    assert_type(pages.nbytes, int)
    assert_type(pages.body, Bytes)
    assert_type(pages.tail, Bytes | None)
    assert_type(pages[0], Bytes)
    assert_type(len(pages), int)


def queries() -> None:
    assert_type(mg.make_query([1, 2, 3], 1000), tuple[mg.Query, mg.Query])
    mg.make_query((np.int64(1),), np.uint32(1000))
    rows = np.zeros((8, 3), dtype=np.int64)
    assert_type(mg.make_queries(rows, 1000), tuple[list[mg.Query], list[mg.Query]])
    mg.make_queries([[1, 2, 3], [4, 5, 6]], 1000)
    query = mg.Query([mg.dpf.gen(1, 1000)[0], bytearray(112)])
    assert_type(query.keys, tuple[bytes, ...])
    assert_type(len(query), int)


def answers(pages: mg.PageMatrix, asked: list[mg.Query], out: Bytes) -> None:
    with mg.open_engine(pages) as engine:
        assert_type(engine, mg.Engine)
    mg.open_engine(pages, "cpu", threads=1, instruction_set="avx2")
    mg.open_engine(pages, device="cuda:1", progress=lambda done, total: print(done / total))
    assert_type(open_engine(pages), mg.Engine)
    assert_type(device_candidates("auto"), tuple[int | None, ...])
    answer = engine.answer(asked)
    assert_type(answer, mg.Answer)
    engine.answer(asked, out=out, max_micro_batch=1, lanes=2, graph=True)
    assert_type(answer.pages, Bytes)
    assert_type(answer.epoch, int)
    assert_type(answer.num_pages, int)
    assert_type(answer.micro_batch_sizes, tuple[int, ...])
    assert_type(np.asarray(answer, dtype=np.uint8), Bytes)
    assert_type(mg.reconstruct(answer, answer), Bytes)
    assert_type(engine.pages, mg.PageMatrix)
    assert_type(engine.device, str)
    assert_type(engine.max_micro_batch, int)
    assert_type(engine.widest_micro_batch, int)
    assert_type(engine.default_strategy, Strategy)
    assert_type(engine.check_width(None), int)
    assert_type(engine.closed, bool)
    assert_type(engine.read_pages(), int)
    assert_type(engine.close(), None)


def engines(pages: mg.PageMatrix, asked: list[mg.Query]) -> None:
    with CpuEngine(pages, threads=2, read_order="rows") as cpu:
        assert_type(cpu, CpuEngine)
        assert_type((cpu.threads, cpu.instruction_set, cpu.read_order), tuple[int, str, str])
    with CudaEngine(pages, 1) as gpu:
        assert_type(gpu, CudaEngine)
        assert_type(gpu.ptx, str)
        assert_type(gpu.grid, Grid)
        assert_type(gpu.time_phases(asked), tuple[mg.Answer, PhaseTimes])
        _, times = gpu.time_phases(asked, max_micro_batch=1)
        assert_type(times.chunks, tuple[ChunkTimes, ...])
    either: list[mg.Engine] = [cpu, gpu]
    for engine in either:
        engine.answer(asked)


def plans(asked: list[mg.Query]) -> None:
    assert_type(mg.planner.micro_batch_ranges(5), list[tuple[int, int]])
    mg.planner.micro_batch_ranges(np.int64(5), max_micro_batch=4)
    packer = mg.planner.KeyPacker(1000)
    assert_type(packer.pack(asked), None)
    assert_type(packer.packed(), bytes)
    assert_type(packer.num_pages, int)
    assert_type(packer.key_size, int)
    assert_type(packer.keys_per_query, int)
    assert_type(packer.query_count, int)


def devices() -> None:
    status = mg.driver_status()
    assert_type(status, mg.DriverStatus)
    assert_type((status.driver_version, status.reason, status.usable), tuple[str, str, bool])
    for device in status.devices:
        assert_type(device, mg.DeviceStatus)
        assert_type(device.ordinal, int)
        assert_type(device.name, str)
        assert_type(device.compute_capability, tuple[int, int])
        assert_type(device.multiprocessors, int)
        assert_type(device.memory, int)
        assert_type((device.ptx, device.reason, device.usable), tuple[str, str, bool])


def errors(pages: mg.PageMatrix) -> str:
    assert_type(mg.__version__, str)
    try:
        mg.open_engine(pages, "cuda")
    except (mg.DeviceOutOfMemoryError, mg.DeviceUnavailableError) as error:
        as_device: mg.DeviceError = error
        return str(as_device)
    except mg.WireError as error:
        return assert_type(error.field, str)
    except mg.MorphogenError as error:
        return str(error)
    values: tuple[type[ValueError], ...] = (mg.InvalidKeyError, mg.DomainMismatchError)
    values = (*values, mg.KeyDomainError, mg.WireError, mg.TableFileError, mg.TableBuildError)
    others: tuple[type[mg.MorphogenError], ...] = (
        mg.BatcherClosedError,
        mg.EngineClosedError,
        mg.EpochMismatchError,
        mg.IntegrityError,
        mg.OverloadedError,
        mg.ServerError,
        mg.TableMismatchError,
    )
    late: type[TimeoutError] = mg.DeadlineError
    short: type[MemoryError] = mg.DeviceOutOfMemoryError
    everything: list[Any] = [values, others, late, short]
    return repr(everything)

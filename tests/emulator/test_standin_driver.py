"""The stand-in driver through cuda.bindings: it must fail where a real driver would."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from native_build import NATIVE, cxx
from standin_driver import Settings, StandIn, environment, other_driver
from standin_gpu import BYTES, COUNT, POISON, PTX, Gpu, cu, fails, gpu, ok

__all__ = ["gpu"]  # a fixture


def test_numbers_are_those_of_the_driver(standin: StandIn) -> None:
    enums = {"results": cu.CUresult, "attributes": cu.CUdevice_attribute}
    for section, enum in enums.items():
        for name, number in standin.report(section).items():
            assert getattr(enum, name) == number
    assert standin.report("settings").keys() == Settings.__annotations__.keys()


def test_signatures_are_those_of_cuda_h(tmp_path: Path) -> None:
    include = next((Path(p) / "cu13/include" for p in nvidia_paths()), tmp_path)
    if not (include / "cuda.h").exists():
        pytest.skip("needs cuda.h, of nvidia-cuda-runtime 13")
    options = ["-std=c++17", "-DSTANDIN_CUDA_H", f"-I{include}", "-fsyntax-only", "-Werror"]
    subprocess.run([cxx(), *options, *NATIVE.glob("standin_*.cpp")], check=True)


def nvidia_paths() -> list[str]:
    try:
        import nvidia  # type: ignore[import-untyped]
    except ImportError:
        return []
    return list(nvidia.__path__)


@pytest.mark.parametrize("schedule", ["late", "eager", "random"])
def test_copies_and_kernels(schedule: Any, gpu: Gpu, standin: StandIn) -> None:
    standin.set(schedule=schedule)
    words = np.arange(COUNT, dtype=np.uint32)
    out = np.zeros_like(words)
    ok(cu.cuMemcpyHtoDAsync(gpu.memory, words, BYTES, gpu.stream))
    ok(gpu.launch(gpu.memory, gpu.mapped))
    ok(gpu.launch(gpu.mapped, gpu.memory, count=50))
    ok(cu.cuEventRecord(gpu.event, gpu.stream))
    ok(cu.cuMemcpyDtoHAsync(out, gpu.memory, BYTES, gpu.stream))
    ok(cu.cuEventSynchronize(gpu.event))
    assert (gpu.pinned == words + 1).all()
    assert (out == words + np.repeat([2, 0], 50)).all()
    assert [launch[:3] for launch in standin.launches()] == [("add_one", (4, 1, 1), (32, 1, 1))] * 2
    assert standin.calls()["cuLaunchKernel"] == 2
    gpu.close()


def test_memory(gpu: Gpu, standin: StandIn) -> None:
    assert (gpu.pinned == POISON).all()
    out = np.zeros(COUNT, np.uint32)
    ok(cu.cuMemcpyDtoH(out, gpu.memory, BYTES))
    assert (out == POISON).all()

    ok(cu.cuMemsetD32Async(gpu.memory, 7, COUNT, gpu.stream))
    ok(cu.cuMemsetD8Async(int(gpu.memory) + 3, 1, 1, gpu.stream))
    ok(cu.cuCtxSynchronize())
    ok(cu.cuMemcpyDtoH(out, gpu.memory, BYTES))
    assert out[:2].tolist() == [7 + (1 << 24), 7]

    ok(cu.cuMemcpyHtoD(int(gpu.memory) + 4, np.full(1, 9, np.uint32), 4))
    ok(cu.cuMemcpyDtoH(out, gpu.memory, BYTES))
    assert out[1] == 9

    standin.set_free_memory(1000)
    assert ok(cu.cuMemGetInfo()) == (1000, 1 << 30)
    assert fails(cu.cuMemAlloc(1001), "OUT_OF_MEMORY")
    all_of_it = ok(cu.cuMemAlloc(1000))
    assert fails(cu.cuMemAlloc(1), "OUT_OF_MEMORY")
    assert standin.live()["device_bytes"] == BYTES + 1000
    ok(cu.cuMemFree(all_of_it))
    assert ok(cu.cuMemGetInfo())[0] == 1000
    standin.set(host_memory=2 * BYTES)
    assert fails(cu.cuMemHostAlloc(BYTES + 1, 0), "OUT_OF_MEMORY")
    gpu.close()


def test_device_addresses_mean_nothing_to_the_host(standin_directory: Path) -> None:
    script = """
import ctypes, cuda.bindings.driver as cu
cu.cuInit(0)
cu.cuCtxPushCurrent(cu.cuDevicePrimaryCtxRetain(0)[1])
address = int(cu.cuMemAlloc(64)[1])
print("allocated", flush=True)
ctypes.string_at(address, 1)
"""
    process = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(standin_directory),
        capture_output=True,
    )
    assert process.stdout == b"allocated\n"
    assert process.returncode != 0


def test_work_waits_until_somebody_waits_for_it(gpu: Gpu) -> None:
    gpu.pinned[:] = 1
    ok(cu.cuMemcpyHtoDAsync(gpu.memory, gpu.pointer, BYTES, gpu.stream))
    ok(cu.cuEventRecord(gpu.event, gpu.stream))
    ok(gpu.launch(gpu.memory, gpu.mapped))
    gpu.pinned[:] = 5  # too early: the copy has not read it
    assert fails(cu.cuEventQuery(gpu.event), "NOT_READY")
    ok(cu.cuEventSynchronize(gpu.event))
    ok(cu.cuEventQuery(gpu.event))
    assert (gpu.pinned == 5).all()  # too early: the kernel has not run
    assert fails(cu.cuStreamQuery(gpu.stream), "NOT_READY")
    ok(cu.cuStreamQuery(gpu.stream))
    assert (gpu.pinned == 6).all()
    gpu.close()


def test_pageable_memory_is_read_at_the_call(gpu: Gpu) -> None:
    words = np.ones(COUNT, np.uint32)
    out = np.zeros(COUNT, np.uint32)
    ok(cu.cuMemcpyHtoDAsync(gpu.memory, words, BYTES, gpu.stream))
    words[:] = 2
    ok(cu.cuMemcpyDtoHAsync(out, gpu.memory, BYTES, gpu.stream))
    assert (out == 1).all()
    gpu.close()


@pytest.mark.parametrize("waits", [False, True])
def test_streams_run_apart_unless_told_to_wait(waits: bool, gpu: Gpu) -> None:
    other = ok(cu.cuStreamCreate(1))
    ok(cu.cuMemsetD32Async(gpu.memory, 1, COUNT, other))
    ok(cu.cuEventRecord(gpu.event, other))
    if waits:
        ok(cu.cuStreamWaitEvent(gpu.stream, gpu.event, 0))
    ok(gpu.launch(gpu.memory, gpu.mapped))
    ok(cu.cuStreamSynchronize(gpu.stream))
    assert (gpu.pinned == (2 if waits else POISON + 1)).all()
    ok(cu.cuStreamDestroy(other))
    gpu.close()


@pytest.mark.parametrize("blocking", [False, True])
def test_the_default_stream_waits_for_blocking_streams(blocking: bool, gpu: Gpu) -> None:
    other = ok(cu.cuStreamCreate(0 if blocking else 1))
    out = np.zeros(COUNT, np.uint32)
    ok(cu.cuMemsetD32Async(gpu.memory, 1, COUNT, other))
    ok(cu.cuMemcpyDtoH(out, gpu.memory, BYTES))
    assert (out == (1 if blocking else POISON)).all()
    ok(cu.cuMemsetD32Async(gpu.memory, 2, COUNT, 0))
    ok(cu.cuMemcpyDtoHAsync(out, gpu.memory, BYTES, other))
    assert (out == (2 if blocking else 1)).all()
    ok(cu.cuStreamDestroy(other))
    gpu.close()


def test_two_threads_wait_for_each_other_s_streams(gpu: Gpu) -> None:
    """Work that crosses between streams all the time ends, though two threads do it."""
    streams = [gpu.stream, ok(cu.cuStreamCreate(1))]
    for i in range(200):
        ok(cu.cuEventRecord(gpu.event, streams[i % 2]))
        ok(cu.cuStreamWaitEvent(streams[(i + 1) % 2], gpu.event, 0))

    def wait(stream: Any) -> None:
        ok(cu.cuCtxPushCurrent(gpu.context))
        ok(cu.cuStreamSynchronize(stream))
        ok(cu.cuCtxPopCurrent())

    threads = [threading.Thread(target=wait, args=[stream]) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    ok(cu.cuStreamDestroy(streams[1]))
    gpu.close()


def test_events_tell_the_time(gpu: Gpu, standin: StandIn) -> None:
    end, untimed = ok(cu.cuEventCreate(0)), ok(cu.cuEventCreate(2))
    assert fails(cu.cuEventElapsedTime(gpu.event, end), "INVALID_HANDLE")
    assert len(standin.misuse()) == 1
    for event in (gpu.event, end, untimed):
        ok(cu.cuEventRecord(event, gpu.stream))
    assert fails(cu.cuEventElapsedTime(gpu.event, end), "NOT_READY")
    ok(cu.cuStreamSynchronize(gpu.stream))
    assert 0 <= ok(cu.cuEventElapsedTime(gpu.event, end)) < 1000
    assert fails(cu.cuEventElapsedTime(gpu.event, untimed), "INVALID_HANDLE")
    standin.reset()


def test_device_properties(standin: StandIn) -> None:
    standin.set(devices=2, compute_capability=90, multiprocessors=132, driver_version=13010)
    ok(cu.cuInit(0))
    assert ok(cu.cuDriverGetVersion()) == 13010
    assert ok(cu.cuDeviceGetCount()) == 2
    assert fails(cu.cuDeviceGet(2), "INVALID_DEVICE")
    device = ok(cu.cuDeviceGet(1))
    assert ok(cu.cuDeviceGetName(64, device)).split(b"\0")[0] == b"Stand-in GPU"
    assert ok(cu.cuDeviceGetUuid(device)).bytes == b"\2" * 16
    assert ok(cu.cuDeviceTotalMem(device)) == 1 << 30
    prefix = "CU_DEVICE_ATTRIBUTE_"
    attributes = {
        name.removeprefix(prefix): ok(
            cu.cuDeviceGetAttribute(getattr(cu.CUdevice_attribute, name), device)
        )
        for name in standin.report("attributes")
    }
    assert attributes["COMPUTE_CAPABILITY_MAJOR"] == 9
    assert attributes["COMPUTE_CAPABILITY_MINOR"] == 0
    assert attributes["MULTIPROCESSOR_COUNT"] == 132
    assert ok(cu.cuDevicePrimaryCtxGetState(device)) == (0, 0)


def test_properties_of_a_kernel(gpu: Gpu, standin: StandIn) -> None:
    attribute = cu.CUfunction_attribute
    for name, expected in {
        "MAX_THREADS_PER_BLOCK": 1024,
        "SHARED_SIZE_BYTES": 0,
        "LOCAL_SIZE_BYTES": 0,
        "NUM_REGS": 64,
        "PTX_VERSION": 80,
        "BINARY_VERSION": 80,
    }.items():
        found = ok(
            cu.cuFuncGetAttribute(getattr(attribute, f"CU_FUNC_ATTRIBUTE_{name}"), gpu.kernel)
        )
        assert (name, found) == (name, expected)
    assert ok(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(gpu.kernel, 256, 0)) == 4
    standin.set(registers=32)
    assert ok(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(gpu.kernel, 256, 0)) == 8
    gpu.close()


def test_more_than_48_kib_of_shared_memory_must_be_asked_for(gpu: Gpu, standin: StandIn) -> None:
    def launch(shared: int) -> Any:
        nothing: tuple[Any, Any] = ((0, 0, 0), (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32))
        return cu.cuLaunchKernel(gpu.kernel, 1, 1, 1, 32, 1, 1, shared, gpu.stream, nothing, 0)

    most = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    assert ok(cu.cuFuncGetAttribute(most, gpu.kernel)) == 48 * 1024
    ok(cu.cuFuncSetAttribute(gpu.kernel, most, 100 * 1024))
    ok(launch(100 * 1024))
    assert ok(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(gpu.kernel, 32, 100 * 1024)) == 1
    gpu.close()


def loaded(image: bytes) -> tuple[str, str]:
    """Return the result and the error log of cuModuleLoadDataEx for an image."""
    option = cu.CUjit_option
    log = bytes(300)  # the driver writes into it
    options = [option.CU_JIT_ERROR_LOG_BUFFER, option.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES]
    values = [log, len(log)]
    result, _ = cu.cuModuleLoadDataEx(image, len(options), options, values)
    return result.name, log.rstrip(b"\0").decode()


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        (b"9.0", b"9.1", "UNSUPPORTED_PTX_VERSION", "Unsupported .version 9.1; current version"),
        (b"sm_80", b"sm_90", "INVALID_PTX", "higher than default SM version"),
        (b"sm_80", b"sm_80a", None, ""),
        (b"add.s32", b"bogus.s32", "INVALID_PTX", "bogus"),
        (b".version 9.0", b"", "INVALID_PTX", "Missing .version"),
        (b"\n.version", b"\x7fELF\n.version", "INVALID_IMAGE", "was not told of"),
    ],
)
def test_loading_modules(old: bytes, new: bytes, error: str, message: str, gpu: Gpu) -> None:
    result, log = loaded(PTX.replace(old, new))
    assert result == (f"CUDA_ERROR_{error}" if error else "CUDA_SUCCESS")
    assert message in log
    gpu.abandon()
    StandIn().reset()


@pytest.mark.parametrize(
    ("version", "newest"),
    [(11040, "7.4"), (12040, "8.4"), (12060, "8.5"), (12090, "8.8"), (13000, "9.0")],
)
def test_the_newest_ptx_of_a_driver(version: int, newest: str, gpu: Gpu, standin: StandIn) -> None:
    standin.set(driver_version=version)
    assert f"current version is '{newest}'" in loaded(PTX.replace(b"9.0", b"9.9"))[1]
    gpu.close()


def test_parameters_are_copied_at_the_launch(gpu: Gpu) -> None:
    values = [ctypes.c_uint64(int(address)) for address in (gpu.memory, gpu.mapped)]
    count = ctypes.c_uint32(COUNT)
    pointers = (ctypes.c_void_p * 3)(*(ctypes.addressof(v) for v in (*values, count)))
    kernel = (gpu.kernel, 4, 1, 1, 32, 1, 1, 0, gpu.stream)
    ok(cu.cuLaunchKernel(*kernel, ctypes.addressof(pointers), 0))
    count.value = 0
    ok(cu.cuStreamSynchronize(gpu.stream))
    assert (gpu.pinned == POISON + 1).all()
    gpu.close()


@pytest.fixture
def null(standin: StandIn) -> Iterator[StandIn]:
    standin.set_null(True)
    yield standin
    standin.set_null(False)


def test_null_does_nothing(null: StandIn) -> None:
    gpu = Gpu()
    before = time.monotonic_ns()
    ok(gpu.launch(gpu.memory, gpu.mapped))
    assert before <= null.last_launch_ns() <= time.monotonic_ns()
    ok(cu.cuStreamSynchronize(gpu.stream))
    assert (gpu.pinned == 0).all()
    assert null.calls()["cuLaunchKernel"] == 1
    assert null.launches() == []
    gpu.close()


def test_functions_that_it_lacks_are_not_found(standin: StandIn) -> None:
    with pytest.raises(RuntimeError, match="not found"):
        cu.cuMemAllocManaged(8, 1)
    with pytest.raises(RuntimeError, match="not found"):
        cu.cuProfilerStart()


def test_a_process_of_its_own(standin_directory: Path) -> None:
    script = "import cuda.bindings.driver as cu; print(cu.cuInit(0)[0].name)"
    for settings, result in (
        (Settings(), "CUDA_SUCCESS"),
        (Settings(devices=0), "CUDA_ERROR_NO_DEVICE"),
        (Settings(init_error=803), "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
    ):
        process = subprocess.run(
            [sys.executable, "-c", script],
            env=environment(standin_directory, **settings),
            capture_output=True,
            text=True,
            check=True,
        )
        assert process.stdout.split() == [result]
    with pytest.raises(TypeError, match="no such setting: device"):
        environment(standin_directory, device=1)  # type: ignore[call-arg]


def test_no_other_driver_is_taken_for_it(standin: StandIn, tmp_path: Path) -> None:
    assert other_driver() is None
    source = tmp_path / "other.cpp"
    source.write_text("int nothing;", encoding="utf-8")
    other = tmp_path / "libcuda.so.580.65"
    subprocess.run([cxx(), "-shared", "-fPIC", "-o", other, source], check=True)
    script = f"""
import ctypes, standin_driver
ctypes.CDLL({str(other)!r})
print(standin_driver.other_driver())
try: standin_driver.StandIn({str(other)!r})
except RuntimeError as error: print(error)
"""
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.splitlines() == [str(other), f"{other} is not the stand-in"]

"""Refusals, reports and injected errors of the stand-in driver: wrong calls, leaks, faults."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import pytest

from standin_driver import StandIn
from standin_gpu import BYTES, Gpu, cu, fails, gpu, ok

__all__ = ["gpu"]  # a fixture


# The name of a wrong call, the call, its result, and its text in the report.
WRONG_CALLS: dict[str, tuple[Callable[[Gpu], Any], str, str]] = {
    "free twice": (
        lambda gpu: [cu.cuMemFree(gpu.memory), cu.cuMemFree(gpu.memory)][1],
        "INVALID_VALUE",
        "cuMemFree: no allocation begins there",
    ),
    "free host memory that is not": (
        lambda gpu: cu.cuMemFreeHost(gpu.pointer + 8),
        "INVALID_VALUE",
        "cuMemFreeHost: no allocation begins there",
    ),
    "launch with more shared memory than was asked for": (
        lambda gpu: cu.cuLaunchKernel(
            *(gpu.kernel, 1, 1, 1, 32, 1, 1, 100 * 1024, gpu.stream),
            ((0, 0, 0), (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32)),
            0,
        ),
        "INVALID_VALUE",
        "cuLaunchKernel: more shared memory than was asked for",
    ),
    "ask for more shared memory than a device has": (
        lambda gpu: cu.cuFuncSetAttribute(
            gpu.kernel,
            cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            164 * 1024,
        ),
        "INVALID_VALUE",
        "cuFuncSetAttribute: too much shared memory",
    ),
    "destroy a stream twice": (
        lambda gpu: [cu.cuStreamDestroy(gpu.stream), cu.cuStreamDestroy(gpu.stream)][1],
        "INVALID_HANDLE",
        "cuStreamDestroy: no such stream",
    ),
    "copy beyond the end": (
        lambda gpu: cu.cuMemcpyHtoDAsync(gpu.memory, gpu.pointer, BYTES + 1, gpu.stream),
        "INVALID_VALUE",
        "cuMemcpyHtoDAsync: a range that is not in one allocation of the device",
    ),
    "copy beyond pinned memory": (
        lambda gpu: cu.cuMemcpyDtoHAsync(gpu.pointer + 8, gpu.memory, BYTES, gpu.stream),
        "INVALID_VALUE",
        "cuMemcpyDtoHAsync: a range beyond the end of pinned memory",
    ),
    "a host pointer as device memory": (
        lambda gpu: cu.cuMemsetD8Async(gpu.pointer, 0, 1, gpu.stream),
        "INVALID_VALUE",
        "cuMemsetD8Async: a range that is not in one allocation of the device",
    ),
    "too many threads": (
        lambda gpu: gpu.launch(gpu.memory, gpu.memory, block=1025),
        "INVALID_VALUE",
        "cuLaunchKernel: a block that no device takes",
    ),
    "no context": (
        lambda gpu: [cu.cuCtxPopCurrent(), cu.cuMemAlloc(8)][1],
        "INVALID_CONTEXT",
        "cuMemAlloc: no context is current",
    ),
    "a destroyed context": (
        lambda gpu: [cu.cuDevicePrimaryCtxRelease(0), cu.cuMemAlloc(8)][1],
        "CONTEXT_IS_DESTROYED",
        "cuMemAlloc: the current context is destroyed",
    ),
    "release too often": (
        lambda gpu: [cu.cuDevicePrimaryCtxRelease(0), cu.cuDevicePrimaryCtxRelease(0)][1],
        "INVALID_CONTEXT",
        "cuDevicePrimaryCtxRelease: not retained",
    ),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_calls_are_refused_and_reported(name: str, gpu: Gpu, standin: StandIn) -> None:
    function, error, report = WRONG_CALLS[name]
    assert fails(function(gpu), error)
    assert standin.misuse() == [report]
    with pytest.raises(AssertionError):
        standin.assert_clean()
    standin.reset()


def test_contexts_are_counted_and_every_thread_has_its_own_stack(
    gpu: Gpu, standin: StandIn
) -> None:
    assert int(ok(cu.cuDevicePrimaryCtxRetain(0))) == int(gpu.context)
    assert standin.live()["retains"] == 2
    assert ok(cu.cuDevicePrimaryCtxGetState(0)) == (0, 1)
    currents: list[int] = []
    thread = threading.Thread(target=lambda: currents.append(int(ok(cu.cuCtxGetCurrent()))))
    thread.start()
    thread.join()
    assert currents == [0]
    assert int(ok(cu.cuCtxGetCurrent())) == int(gpu.context)
    ok(cu.cuCtxPushCurrent(gpu.context))
    ok(cu.cuCtxSetCurrent(0))
    assert int(ok(cu.cuCtxPopCurrent())) == int(gpu.context)
    ok(cu.cuCtxSetCurrent(gpu.context))
    ok(cu.cuDevicePrimaryCtxRelease(0))
    gpu.close()
    assert ok(cu.cuDevicePrimaryCtxGetState(0)) == (0, 0)


def test_objects_left_in_a_destroyed_context_are_leaks(gpu: Gpu, standin: StandIn) -> None:
    assert standin.live() == {
        "retains": 1,
        "device_memory": 1,
        "device_bytes": BYTES,
        "host_memory": 1,
        "host_bytes": BYTES,
        "modules": 1,
        "streams": 1,
        "events": 1,
        "graphs": 0,
        "graph_execs": 0,
        "current": 1,
    }
    gpu.abandon()
    assert not any(standin.live().values())
    assert standin.leaks() == [
        f"1 {kind} left in a destroyed context"
        for kind in ("device allocation", "host allocation", "module", "stream", "event")
    ]
    with pytest.raises(AssertionError):
        standin.assert_clean()
    standin.reset()


def test_injected_faults_strike_once(gpu: Gpu, standin: StandIn) -> None:
    standin.inject("cuMemAlloc", "CUDA_ERROR_OUT_OF_MEMORY", call=2)
    first = ok(cu.cuMemAlloc(8))
    assert fails(cu.cuMemAlloc(8), "OUT_OF_MEMORY")
    ok(cu.cuMemFree(first))
    standin.inject("cuMemAlloc", cu.CUresult.CUDA_ERROR_UNKNOWN)
    standin.clear()
    ok(cu.cuMemFree(ok(cu.cuMemAlloc(8))))
    with pytest.raises(ValueError, match="no function that fails so"):
        standin.inject("cuNothing", 1)
    with pytest.raises(ValueError, match="no function that fails so"):
        standin.inject("cuMemAlloc", 1, late=True)
    gpu.close()
    entry = next(entry for entry in standin.log() if entry.result == 2)
    assert entry == ("cuMemAlloc", 2, threading.get_native_id())


def test_sticky_faults_end_the_context(gpu: Gpu, standin: StandIn) -> None:
    standin.inject("cuLaunchKernel", "CUDA_ERROR_LAUNCH_FAILED", sticky=True)
    assert fails(gpu.launch(gpu.memory, gpu.memory), "LAUNCH_FAILED")
    assert fails(cu.cuMemFree(gpu.memory), "LAUNCH_FAILED")
    assert fails(cu.cuStreamDestroy(gpu.stream), "LAUNCH_FAILED")
    gpu.abandon()
    assert standin.leaks() == []  # no call could free anything in it
    Gpu().close()


def test_a_lost_device_stays_lost(gpu: Gpu, standin: StandIn) -> None:
    error = "CUDA_ERROR_DEVICE_UNAVAILABLE"
    standin.inject("cuEventRecord", error, device_lost=True)
    assert fails(cu.cuEventRecord(gpu.event, gpu.stream), "DEVICE_UNAVAILABLE")
    assert fails(cu.cuStreamSynchronize(gpu.stream), "DEVICE_UNAVAILABLE")
    gpu.abandon()
    assert fails(cu.cuDevicePrimaryCtxRetain(0), "DEVICE_UNAVAILABLE")
    standin.clear()
    Gpu().close()


@pytest.mark.parametrize("schedule", ["late", "eager"])
def test_late_faults_come_out_where_somebody_waits(
    schedule: Any, gpu: Gpu, standin: StandIn
) -> None:
    standin.set(schedule=schedule)
    standin.inject("cuLaunchKernel", "CUDA_ERROR_ECC_UNCORRECTABLE", late=True)
    ok(gpu.launch(gpu.memory, gpu.memory))
    assert fails(cu.cuStreamSynchronize(gpu.stream), "ECC_UNCORRECTABLE")
    assert fails(cu.cuMemAlloc(8), "ECC_UNCORRECTABLE")
    gpu.abandon()


def test_a_kernel_that_reads_elsewhere_fails_like_on_a_device(
    gpu: Gpu, standin: StandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    ok(gpu.launch(gpu.memory, gpu.pointer))  # this is the host's pointer
    ok(cu.cuEventRecord(gpu.event, gpu.stream))
    assert fails(cu.cuEventSynchronize(gpu.event), "ILLEGAL_ADDRESS")
    (failure,) = standin.failures()
    assert "add_one" in failure
    assert "in no allocation" in failure
    assert failure in capfd.readouterr().err
    assert fails(cu.cuMemcpyDtoH(gpu.pinned, gpu.memory, BYTES), "ILLEGAL_ADDRESS")
    gpu.abandon()
    Gpu().close()

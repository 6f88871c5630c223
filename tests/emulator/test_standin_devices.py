"""Several devices of the stand-in driver: each has memory and faults of its own."""

from __future__ import annotations

from typing import Any

import pytest

from standin_driver import StandIn
from standin_gpu import BYTES, Gpu, cu, fails, gpu, ok

__all__ = ["gpu"]  # a fixture, with one device


def in_context(gpu: Gpu, function: Any, *arguments: Any) -> Any:
    """Call a function with a device's context on top."""
    ok(cu.cuCtxPushCurrent(gpu.context))
    try:
        return function(*arguments)
    finally:
        ok(cu.cuCtxPopCurrent())


def test_eight_devices_at_most(standin: StandIn) -> None:
    standin.set(devices=8)
    ok(cu.cuInit(0))
    assert ok(cu.cuDeviceGetCount()) == 8
    gpus = [Gpu(device) for device in range(8)]
    assert len({int(one.memory) >> 44 for one in gpus}) == 8
    assert max(int(one.memory) for one in gpus) < min(int(one.mapped) for one in gpus)
    assert standin.used() == [BYTES] * 8
    for one in reversed(gpus):
        one.close()
    assert standin.used() == [0] * 8


def test_each_device_has_memory_of_its_own(standin: StandIn) -> None:
    standin.set(devices=3)
    standin.set_device(1, free_memory=1000, total_memory=5000, compute_capability=90)
    standin.set_device(2, free_memory=2000, multiprocessors=9)
    gpus = [Gpu(device) for device in range(3)]
    seen = [in_context(one, lambda: ok(cu.cuMemGetInfo())) for one in gpus]
    assert seen == [
        (2**30 - BYTES, 2**30),
        (1000 - BYTES, 5000),
        (2000 - BYTES, 2**30),
    ]
    assert fails(in_context(gpus[1], cu.cuMemAlloc, 601), "OUT_OF_MEMORY")
    more = in_context(gpus[2], cu.cuMemAlloc, 601)
    in_context(gpus[2], cu.cuMemFree, ok(more))
    name = cu.CUdevice_attribute
    assert [
        ok(cu.cuDeviceGetAttribute(attribute, device))
        for attribute in (
            name.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            name.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        )
        for device in range(3)
    ] == [8, 9, 8, 4, 4, 9]
    standin.set(free_memory=10_000)  # of all again
    assert [in_context(one, lambda: ok(cu.cuMemGetInfo()))[0] for one in gpus] == [9600] * 3
    standin.set_free_memory(77)
    assert [in_context(one, lambda: ok(cu.cuMemGetInfo()))[0] for one in gpus] == [77] * 3
    for one in reversed(gpus):
        one.close()


def test_a_lost_device_leaves_the_others(standin: StandIn) -> None:
    standin.set(devices=2)
    first, second = Gpu(0), Gpu(1)
    ok(in_context(second, second.launch, second.memory, second.memory))
    standin.lose(1, "CUDA_ERROR_ECC_UNCORRECTABLE")
    for call in (cu.cuStreamSynchronize, cu.cuStreamQuery, cu.cuStreamDestroy):
        assert fails(in_context(second, call, second.stream), "ECC_UNCORRECTABLE")
    assert fails(in_context(second, cu.cuMemAlloc, 8), "ECC_UNCORRECTABLE")
    assert fails(cu.cuDevicePrimaryCtxRetain(1), "ECC_UNCORRECTABLE")
    second.abandon()
    ok(first.launch(first.memory, first.memory))
    ok(cu.cuStreamSynchronize(first.stream))
    first.close()
    assert standin.leaks() == []
    standin.clear()
    Gpu(1).close()


def test_a_fault_of_one_device_counts_its_calls_alone(standin: StandIn) -> None:
    standin.set(devices=2)
    first, second = Gpu(0), Gpu(1)
    standin.inject("cuMemAlloc", "CUDA_ERROR_UNKNOWN", call=2, device=0)
    kept = []
    for one, error in ((first, ""), (second, ""), (second, ""), (first, "UNKNOWN"), (first, "")):
        answer = in_context(one, cu.cuMemAlloc, 8)
        if error:
            assert fails(answer, error)
        else:
            kept.append((one, ok(answer)))
    for one, address in kept:
        ok(in_context(one, cu.cuMemFree, address))
    second.close()
    first.close()


def test_what_no_device_has_is_refused(standin: StandIn) -> None:
    with pytest.raises(ValueError, match=r"^device 8 has no free_memory of its own$"):
        standin.set_device(8, free_memory=1)
    with pytest.raises(ValueError, match=r"^device 0 has no seed of its own$"):
        standin.set_device(0, seed=1)
    with pytest.raises(ValueError, match=r"^there is no device 8$"):
        standin.lose(8)

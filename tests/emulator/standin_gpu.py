"""A device of the stand-in driver, ready for calls, for tests of the stand-in itself."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from standin_driver import StandIn

cu = pytest.importorskip("cuda.bindings.driver", reason="needs cuda-bindings")

Words = npt.NDArray[np.uint32]

# This computes out[i] = in[i] + 1 for i < n, as nvcc compiles it.
PTX = b"""
.version 9.0
.target sm_80
.address_size 64
.visible .entry add_one(
    .param .u64 add_one_param_0,
    .param .u64 add_one_param_1,
    .param .u32 add_one_param_2
)
{
    .reg .pred %p<2>;
    .reg .b32 %r<8>;
    .reg .b64 %rd<8>;
    ld.param.u64 %rd1, [add_one_param_0];
    ld.param.u64 %rd2, [add_one_param_1];
    ld.param.u32 %r2, [add_one_param_2];
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mov.u32 %r5, %tid.x;
    mad.lo.s32 %r1, %r3, %r4, %r5;
    setp.ge.u32 %p1, %r1, %r2;
    @%p1 bra $L__BB0_2;
    cvta.to.global.u64 %rd3, %rd1;
    mul.wide.u32 %rd4, %r1, 4;
    add.s64 %rd5, %rd3, %rd4;
    ld.global.u32 %r6, [%rd5];
    add.s32 %r7, %r6, 1;
    cvta.to.global.u64 %rd6, %rd2;
    add.s64 %rd7, %rd6, %rd4;
    st.global.u32 [%rd7], %r7;
$L__BB0_2:
    ret;
}
"""
POISON = 0xA5A5A5A5
COUNT = 100
BYTES = 4 * COUNT


class DriverError(Exception):
    pass


def ok(answer: tuple[Any, ...]) -> Any:
    """Return the values of a call that succeeded."""
    if answer[0] != cu.CUresult.CUDA_SUCCESS:
        raise DriverError(answer[0].name)
    return answer[1] if len(answer) == 2 else answer[1:]


def fails(answer: tuple[Any, ...], error: str) -> bool:
    name: str = answer[0].name
    return name == f"CUDA_ERROR_{error}"


class Gpu:
    """The objects of an engine: a context, a stream, pinned and device memory, a kernel."""

    def __init__(self, device: int = 0) -> None:
        ok(cu.cuInit(0))
        self.device = device
        self.context = ok(cu.cuDevicePrimaryCtxRetain(device))
        ok(cu.cuCtxPushCurrent(self.context))
        self.module = ok(cu.cuModuleLoadData(PTX))
        self.kernel = ok(cu.cuModuleGetFunction(self.module, b"add_one"))
        self.stream = ok(cu.cuStreamCreate(1))
        self.event = ok(cu.cuEventCreate(0))
        self.memory = ok(cu.cuMemAlloc(BYTES))
        self.pointer = ok(cu.cuMemHostAlloc(BYTES, 2))
        self.mapped = ok(cu.cuMemHostGetDevicePointer(self.pointer, 0))
        words = (ctypes.c_uint32 * COUNT).from_address(self.pointer)
        self.pinned: Words = np.ctypeslib.as_array(words)

    def launch(self, source: Any, target: Any, count: int = COUNT, block: int = 32) -> Any:
        values = (int(source), int(target), count)
        types = (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32)
        grid = (-(-COUNT // 32), 1, 1)
        return cu.cuLaunchKernel(
            self.kernel, *grid, block, 1, 1, 0, self.stream, (values, types), 0
        )

    def close(self) -> None:
        ok(cu.cuEventDestroy(self.event))
        ok(cu.cuStreamDestroy(self.stream))
        ok(cu.cuMemFree(self.memory))
        ok(cu.cuMemFreeHost(self.pointer))
        ok(cu.cuModuleUnload(self.module))
        self.abandon()

    def abandon(self) -> None:
        ok(cu.cuCtxPopCurrent())
        ok(cu.cuDevicePrimaryCtxRelease(self.device))


@pytest.fixture
def gpu(standin: StandIn) -> Gpu:
    return Gpu()

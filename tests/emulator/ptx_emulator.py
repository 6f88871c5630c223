"""Runs PTX on the CPU: builds the emulator of native/ptx_emulator.h and wraps it.

>>> module = Module(text, build(directory))
>>> module.launch("kernel", grid=4, block=128, args=[array, 7])

An array among the arguments is passed as a device pointer, and the kernel writes into it. Arrays
that only a struct points at are given by address: ``arrays={address: array}``, see `place`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from native_build import build_library

Array = npt.NDArray[Any]

BASE_ADDRESS = 0x7_0000_0000  # the start of device memory
ALIGNMENT = 256  # of allocations, as in a driver
GUARD_BYTES = 1 << 20  # between arrays; these addresses belong to none

_MESSAGE_BYTES = 4096


class EmulatorError(Exception):
    """A fault that the emulator found in PTX or in its execution."""


class _KernelInfo(ctypes.Structure):
    _fields_ = [
        ("parameters", ctypes.c_uint64),
        ("parameter_bytes", ctypes.c_uint64),
        ("shared_bytes", ctypes.c_uint64),
        ("max_threads", ctypes.c_uint64),
    ]


class _Parameter(ctypes.Structure):
    _fields_ = [
        ("offset", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("alignment", ctypes.c_uint64),
    ]


class _Array(ctypes.Structure):
    _fields_ = [
        ("address", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("data", ctypes.c_void_p),
        ("writable", ctypes.c_uint64),
    ]


class _Launch(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("dynamic_shared_bytes", ctypes.c_uint64),
        ("arrays", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("instruction_limit", ctypes.c_uint64),
    ]


class _Statistics(ctypes.Structure):
    _fields_ = [("instructions", ctypes.c_uint64), ("global_load_bytes", ctypes.c_uint64)]


@dataclass(frozen=True)
class Parameter:
    offset: int
    size: int
    alignment: int


@dataclass(frozen=True)
class KernelInfo:
    parameters: tuple[Parameter, ...]
    parameter_bytes: int
    shared_bytes: int
    max_threads: int  # 0 if the PTX sets no limit


@dataclass(frozen=True)
class Statistics:
    instructions: int  # each counts once for each warp
    global_load_bytes: int


def build(directory: Path) -> ctypes.CDLL:
    """Build the emulator in a directory, unless it exists, and load it."""
    loaded = ctypes.CDLL(str(build_library("libptx_emulator.so", ("ptx_*.cpp",), directory)))
    loaded.ptx_open.restype = ctypes.c_void_p
    loaded.ptx_kernels.restype = ctypes.c_uint64
    for name in ("ptx_version", "ptx_target", "ptx_kernel_name"):
        getattr(loaded, name).restype = ctypes.c_char_p
    return loaded


@pytest.fixture(scope="session")
def emulator(native_folder: Path) -> ctypes.CDLL:
    """Return the emulator's library, as `Module` takes it."""
    return build(native_folder)


def place(arrays: Iterable[Array], base: int = BASE_ADDRESS) -> dict[int, Array]:
    """Assign device addresses to arrays, far from each other."""
    placed: dict[int, Array] = {}
    for array in arrays:
        placed[base] = array
        base += -(-(array.nbytes + GUARD_BYTES) // ALIGNMENT) * ALIGNMENT
    return placed


def _dimensions(size: int | Sequence[int]) -> tuple[int, int, int]:
    sizes = (size,) if isinstance(size, int) else tuple(size)
    x, y, z = (*sizes, 1, 1)[:3]
    return x, y, z


class Module:
    """A parsed module of PTX."""

    def __init__(self, text: str, library: ctypes.CDLL) -> None:
        self._library = library
        self._handle: ctypes.c_void_p | None = None
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        data = text.encode()
        handle = library.ptx_open(
            data, ctypes.c_uint64(len(data)), message, ctypes.c_uint64(_MESSAGE_BYTES)
        )
        if handle is None:
            raise EmulatorError(message.value.decode())
        self._handle = ctypes.c_void_p(handle)
        self.version: str = library.ptx_version(self._handle).decode()
        self.target: str = library.ptx_target(self._handle).decode()
        names = [
            library.ptx_kernel_name(self._handle, ctypes.c_uint64(i)).decode()
            for i in range(library.ptx_kernels(self._handle))
        ]
        self.kernels: dict[str, KernelInfo] = {name: self._info(name) for name in names}

    def __del__(self) -> None:
        if self._handle is not None:
            self._library.ptx_close(self._handle)

    def _info(self, name: str) -> KernelInfo:
        info = _KernelInfo()
        self._library.ptx_kernel_info(self._handle, name.encode(), ctypes.byref(info), None)
        parameters = (_Parameter * info.parameters)()
        self._library.ptx_kernel_info(self._handle, name.encode(), ctypes.byref(info), parameters)
        return KernelInfo(
            tuple(Parameter(p.offset, p.size, p.alignment) for p in parameters),
            info.parameter_bytes,
            info.shared_bytes,
            info.max_threads,
        )

    def launch(
        self,
        name: str,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence[Any],
        arrays: Mapping[int, Array] | None = None,
        *,
        seed: int = 0,
        dynamic_shared_bytes: int = 0,
        instruction_limit: int = 10_000_000,
    ) -> Statistics:
        """Run a kernel, or raise EmulatorError. Arguments are integers, bytes or arrays."""
        info = self.kernels[name]
        memory = dict(arrays or {})
        top = max((address + array.nbytes for address, array in memory.items()), default=0)
        base = max(BASE_ADDRESS, -(-(top + GUARD_BYTES) // ALIGNMENT) * ALIGNMENT)
        passed = place((a for a in args if isinstance(a, np.ndarray)), base)
        memory |= passed
        addresses = iter(passed)
        packed = bytearray(info.parameter_bytes)
        assert len(args) == len(info.parameters), "wrong number of arguments"
        for parameter, value in zip(info.parameters, args, strict=True):
            raw = value
            if not isinstance(value, bytes):
                number = next(addresses) if isinstance(value, np.ndarray) else int(value)
                raw = number.to_bytes(parameter.size, "little", signed=number < 0)
            assert len(raw) == parameter.size, "an argument of the wrong size"
            packed[parameter.offset : parameter.offset + parameter.size] = raw

        regions = (_Array * max(1, len(memory)))()
        for region, (address, array) in zip(regions, memory.items(), strict=False):
            assert array.flags.c_contiguous
            writable = bool(array.flags.writeable)
            region.address, region.bytes, region.writable = address, array.nbytes, writable
            region.data = array.ctypes.data
        how = _Launch(
            _dimensions(grid),
            _dimensions(block),
            dynamic_shared_bytes,
            len(memory),
            seed,
            instruction_limit,
        )
        statistics = _Statistics()
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        ok = self._library.ptx_launch(
            self._handle,
            name.encode(),
            ctypes.byref(how),
            bytes(packed),
            regions,
            ctypes.byref(statistics),
            message,
            ctypes.c_uint64(_MESSAGE_BYTES),
        )
        if not ok:
            raise EmulatorError(message.value.decode())
        return Statistics(statistics.instructions, statistics.global_load_bytes)

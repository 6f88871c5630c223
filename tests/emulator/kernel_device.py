"""Launches of page kernels in the emulator without an engine, in device memory set up as its."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass

import numpy as np
import pytest

import morphogen as mg
import morphogen.engine.cuda.ptx as ptx
import ptx_emulator
from morphogen.engine.cuda.variants import Variant
from naive import Bytes, naive_answer, random_pages

VECTOR_BYTES = 16
BLOCK_THREADS = 1024  # of all kernels but the wide ones
MAX_TILE = 256  # vectors
WIDE = {12: (512, 256), 24: (256, 256)}  # threads and vectors of a tile, by the kernel's keys
MAX_KEY_BYTES = 608
COUNTER_BYTES = 4


@pytest.fixture(scope="module")
def kernels(emulator: ctypes.CDLL) -> ptx_emulator.Module:
    return open_kernels(emulator, f"{ptx.SOURCE}.compute_80.ptx")


def open_kernels(emulator: ctypes.CDLL, name: str) -> ptx_emulator.Module:
    """Open a file of the package's PTX in the emulator."""
    return ptx_emulator.Module((ptx.FOLDER / name).read_text(encoding="ascii"), emulator)


def kernel_keys(count: int) -> int:
    """Return the number of keys of the kernel that runs a chunk of `count` keys."""
    return next(keys for keys in (*range(1, 7), *WIDE) if keys >= count)


def block_shape(keys: int) -> tuple[int, int]:
    """Return a kernel's threads of a block and most vectors of a tile."""
    return WIDE.get(keys, (BLOCK_THREADS, MAX_TILE))


@dataclass(frozen=True)
class Cut:
    """The runs that a table is cut into, and the vectors of a tile."""

    runs: int = 1
    tile_vectors: int = MAX_TILE


class Device:
    """Device memory as an engine sets it up, for one table and chunks of up to `keys` keys.

    The table's pages may be those of a larger one, from the first page of a leaf on.
    """

    def __init__(self, table: Bytes, keys: int, cut: Cut, *, first_leaf: int = 0) -> None:
        self.first_leaf = first_leaf
        self.num_pages, self.page_size = table.shape
        self.vectors = -(-self.page_size // VECTOR_BYTES)
        self.cut = cut
        self.tile_vectors = min(cut.tile_vectors, block_shape(kernel_keys(keys))[1])
        self.tiles = -(-self.vectors // self.tile_vectors)
        self.pages = np.zeros((self.num_pages, self.vectors * VECTOR_BYTES), dtype=np.uint8)
        self.pages[:, : self.page_size] = table
        self.pages.flags.writeable = False  # a kernel that writes to the pages is stopped
        self.sums = np.zeros((keys, self.vectors * VECTOR_BYTES), dtype=np.uint8)
        self.finished = np.zeros(self.tiles, dtype=np.uint32)
        self.answers = np.full_like(self.sums, 0xA5)

    def launch(
        self,
        kernels: ptx_emulator.Module,
        keys: list[bytes],
        *,
        seed: int = 0,
        variant: Variant | None = None,
    ) -> Bytes:
        arrays = [self.pages, self.sums, self.finished, self.answers]
        memory = ptx_emulator.place(arrays)
        pages_per_run, longer_runs = divmod(self.num_pages, self.cut.runs)
        job = struct.pack(
            "<6Q7I4x",
            *memory,
            self.first_leaf,
            pages_per_run,
            longer_runs,
            self.cut.runs,
            self.tiles,
            self.tile_vectors,
            self.vectors,
            len(keys[0]),
            len(keys),
        )
        size = kernel_keys(len(keys))
        packed = b"".join(keys).ljust(size * MAX_KEY_BYTES, b"\xa5")
        threads = block_shape(size)[0]
        self.statistics = kernels.launch(
            f"morphogen_scan_{size}_{variant.name}" if variant else f"morphogen_scan_{size}",
            self.tiles * self.cut.runs,
            variant.block_threads(size, threads) if variant else threads,
            [job, packed],
            memory,
            seed=seed,
            dynamic_shared_bytes=variant.dynamic_shared if variant else 0,
        )
        return self.answers[: len(keys), : self.page_size]

    def assert_clean(self) -> None:
        """Check that the memory is as the next launch needs it."""
        assert not self.sums.any()
        assert not self.finished.any()
        assert not self.answers[:, self.page_size :].any()


def keys_for(num_pages: int, count: int, seed: int = 0) -> list[bytes]:
    rng = np.random.default_rng([num_pages, count, seed])
    indices = rng.integers(0, num_pages, count).tolist()
    return [mg.dpf.gen(index, num_pages)[k % 2] for k, index in enumerate(indices)]


def expected(table: Bytes, keys: list[bytes]) -> Bytes:
    return np.array([naive_answer(table, key) for key in keys])


def assert_scans(
    kernels: ptx_emulator.Module,
    shape: tuple[int, int],
    count: int,
    cut: Cut,
    *,
    seed: int = 0,
    variant: Variant | None = None,
) -> None:
    """Launch a chunk of `count` keys over random pages; check the answers and the memory."""
    array = random_pages(*shape)
    keys = keys_for(len(array), count)
    device = Device(array, count, cut)
    answers = device.launch(kernels, keys, seed=seed, variant=variant)
    assert np.array_equal(answers, expected(array, keys))
    device.assert_clean()

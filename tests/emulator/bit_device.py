"""Launches of the kernels for wide chunks in the emulator without an engine."""

from __future__ import annotations

import ctypes
import struct

import numpy as np
import pytest

import morphogen.engine.cuda.ptx as ptx
import ptx_emulator
from kernel_device import VECTOR_BYTES
from naive import Bytes

GROUP_PAGES = 256
UNIT_BYTES = 512  # of the 2 bytes of each page of a group
LEAF_PAGES = 512
TRANSPOSE_THREADS, EXPAND_THREADS = 256, 128
# Threads, and units of a warp, by the kernel's keys.
SHAPES = {24: (512, 4), 48: (512, 2), 96: (384, 2)}


@pytest.fixture(scope="module")
def bit_kernels(emulator: ctypes.CDLL) -> ptx_emulator.Module:
    text = (ptx.FOLDER / "page_bits.compute_80.ptx").read_text(encoding="ascii")
    return ptx_emulator.Module(text, emulator)


def slots_for(count: int) -> int:
    """Return the number of keys of the kernel that runs a chunk of `count` keys."""
    return next(keys for keys in SHAPES if keys >= count)


def most_vectors(slots: int) -> int:
    """Return the most vectors of a kernel's tile."""
    threads, units = SHAPES[slots]
    return threads // 32 * units * 2 // VECTOR_BYTES


def laid_out(pages: Bytes) -> Bytes:
    """Pages, whole vectors of 16 bytes each, as kernels/bit_jobs.h says: by its words alone."""
    groups, page_bytes = -(-len(pages) // GROUP_PAGES), pages.shape[1]
    whole = np.zeros((groups * GROUP_PAGES, page_bytes), np.uint8)
    whole[: len(pages)] = pages
    bits = np.unpackbits(whole, axis=1, bitorder="little").astype(bool)
    # group, 64 pages (c), 32 pages of them, page, unit, byte, bit of the byte (g)
    bits = bits.reshape(groups, 4, 2, 32, page_bytes // 2, 2, 8)
    # group, unit, g, c, half, byte, page
    words = np.packbits(bits.transpose(0, 4, 6, 1, 2, 5, 3), axis=-1, bitorder="little")
    return words.reshape(groups, page_bytes // 2 * UNIT_BYTES)


class BitDevice:
    """Device memory as an engine sets it up, for one table and chunks of up to `keys` keys."""

    def __init__(
        self, table: Bytes, keys: int, *, runs: int = 1, tile_vectors: int = 8, first_leaf: int = 0
    ) -> None:
        self.first_leaf, self.runs = first_leaf, runs
        self.num_pages, self.page_size = table.shape
        self.slots = slots_for(keys)
        self.vectors = -(-self.page_size // VECTOR_BYTES)
        self.tile_vectors = min(tile_vectors, most_vectors(self.slots))
        self.tiles = -(-self.vectors // self.tile_vectors)
        self.leaves = -(-self.num_pages // LEAF_PAGES)
        self.groups = -(-self.num_pages // GROUP_PAGES)
        self.pages = np.zeros((self.num_pages, self.vectors * VECTOR_BYTES), dtype=np.uint8)
        self.pages[:, : self.page_size] = table
        self.pages.flags.writeable = False
        self.bit_pages = np.full(
            (self.groups, self.vectors * VECTOR_BYTES // 2 * UNIT_BYTES), 0xA5, dtype=np.uint8
        )
        self.selection = np.full((2 * self.leaves, self.slots, 32), 0xA5, dtype=np.uint8)
        self.sums = np.zeros((keys, self.vectors * VECTOR_BYTES), dtype=np.uint8)
        self.finished = np.zeros(self.tiles, dtype=np.uint32)
        self.answers = np.full_like(self.sums, 0xA5)

    def transpose(
        self, kernels: ptx_emulator.Module, first: int = 0, count: int | None = None
    ) -> None:
        memory = ptx_emulator.place([self.pages, self.bit_pages])
        groups = self.groups if count is None else count
        job = struct.pack("<5QI4x", *memory, self.num_pages, first, groups, self.vectors)
        kernels.launch("morphogen_transpose", 3, TRANSPOSE_THREADS, [job], memory)

    def expand(
        self, kernels: ptx_emulator.Module, keys: list[bytes], *, log_leaves: int = 0
    ) -> None:
        packed = np.frombuffer(b"".join(keys), np.uint8).copy()
        packed.flags.writeable = False
        memory = ptx_emulator.place([packed, self.selection])
        nodes = (self.first_leaf + self.leaves - 1 >> log_leaves) - (self.first_leaf >> log_leaves)
        blocks = nodes // EXPAND_THREADS + 1
        job = struct.pack(
            "<4Q5I4x",
            *memory,
            self.first_leaf,
            self.leaves,
            len(keys[0]),
            len(keys),
            self.slots,
            blocks,
            log_leaves,
        )
        kernels.launch("morphogen_expand", len(keys) * blocks, EXPAND_THREADS, [job], memory)

    def scan(self, kernels: ptx_emulator.Module, count: int, *, seed: int = 0) -> Bytes:
        self.bit_pages.flags.writeable = self.selection.flags.writeable = False
        arrays = [self.bit_pages, self.selection, self.sums, self.finished, self.answers]
        memory = ptx_emulator.place(arrays)
        groups_per_run, longer_runs = divmod(self.groups, self.runs)
        job = struct.pack(
            "<6Q6I",
            *memory,
            groups_per_run,
            longer_runs,
            self.runs,
            self.tiles,
            self.tile_vectors,
            self.vectors,
            count,
        )
        grid, threads = self.tiles * self.runs, SHAPES[self.slots][0]
        name = f"morphogen_bits_{self.slots}"
        self.statistics = kernels.launch(name, grid, threads, [job], memory, seed=seed)
        self.bit_pages.flags.writeable = self.selection.flags.writeable = True
        return self.answers[:count, : self.page_size]

    def answer(self, kernels: ptx_emulator.Module, keys: list[bytes], *, seed: int = 0) -> Bytes:
        self.expand(kernels, keys)
        return self.scan(kernels, len(keys), seed=seed)

    def assert_clean(self) -> None:
        """Check that the memory is as the next launch needs it."""
        assert not self.sums.any()
        assert not self.finished.any()
        assert not self.answers[:, self.page_size :].any()

"""The shipped PTX, instruction by instruction: its answers, byte for byte.

They are compared with the naive XOR of the pages that `morphogen.dpf` selects; test_cuda_answers.py
compares with the CPU engine, and tests what the engine does with these kernels. Here launches are
made by hand: cuts of the pages that no engine would make, kernels for numbers of keys that no chunk
has, what a launch leaves behind, and every access checked against the buffers' ends.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import morphogen as mg
import ptx_emulator
from kernel_device import (
    BLOCK_THREADS,
    MAX_KEY_BYTES,
    MAX_TILE,
    WIDE,
    Cut,
    Device,
    assert_scans,
    block_shape,
    expected,
    kernels,
    keys_for,
)
from naive import random_pages

__all__ = ["kernels"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("page_size", [1, 16, 32, 48, 1000, 4096, 16384])
def test_every_page_size_and_number_of_keys(
    kernels: ptx_emulator.Module, page_size: int, count: int
) -> None:
    # Two leaves of the tree and a tail, except where a page is so wide that this takes long.
    num_pages = 1111 if page_size <= 48 else 150
    assert_scans(kernels, (num_pages, page_size), count, Cut(runs=3))


@pytest.mark.parametrize("runs", [1, 2, 5, 64])
def test_runs_that_begin_anywhere(kernels: ptx_emulator.Module, runs: int) -> None:
    # Runs of 2,048 pages begin at no multiple of a leaf or a word; 64 of them have 32 pages each.
    num_pages = 2048 - 1
    assert_scans(kernels, (num_pages, 512), 3, Cut(runs=runs), seed=runs)


@pytest.mark.parametrize("num_pages", [1, 31, 32, 33, 512, 513, 1025])
def test_tails_of_pages(kernels: ptx_emulator.Module, num_pages: int) -> None:
    assert_scans(kernels, (num_pages, 1040), 2, Cut(runs=min(num_pages, 2)))


@pytest.mark.parametrize("tile_vectors", [1, 7, 31, 32, 33, 100, 255, 256])
def test_tiles_of_any_width(kernels: ptx_emulator.Module, tile_vectors: int) -> None:
    # The last tile is narrower: it may be cut among warps in another way.
    page_size = 16 * (2 * tile_vectors + tile_vectors // 2 + 1)
    cut = Cut(runs=2, tile_vectors=tile_vectors)
    assert_scans(kernels, (40, page_size), 3, cut, seed=1)


def test_more_leaves_than_are_expanded_at_a_time(kernels: ptx_emulator.Module) -> None:
    # A window has 20 leaves, 10,240 pages: a second one needs more than the 2,048 pages that the
    # other cases stay under. Its pages are small for that.
    num_pages = 25 * 512 + 3
    assert_scans(kernels, (num_pages, 16), 6, Cut())


@pytest.mark.parametrize("seed", range(4))
def test_launches_into_the_same_buffers(kernels: ptx_emulator.Module, seed: int) -> None:
    array = random_pages(300, 600)
    device = Device(array, 6, Cut(runs=4))
    for turn, count in enumerate([6, 1, 3, 6, 2]):
        keys = keys_for(300, count, turn)
        answers = device.launch(kernels, keys, seed=seed)
        assert np.array_equal(answers, expected(array, keys))
        device.assert_clean()


@pytest.mark.parametrize("seed", range(12))
def test_blocks_and_warps_in_any_order(kernels: ptx_emulator.Module, seed: int) -> None:
    # The last block to finish must see every block's sums, whichever that is.
    assert_scans(kernels, (24, 4096), 6, Cut(runs=12), seed=seed)


def test_keys_of_the_deepest_tree(kernels: ptx_emulator.Module) -> None:
    # Keys for 2^40 pages, of which only the first are there: a kernel goes by the key's own depth.
    array = random_pages(600, 32)
    keys = [mg.dpf.gen(index, 2**40)[1] for index in (5, 599, 2**39)]
    assert len(keys[0]) == MAX_KEY_BYTES
    bits = [[mg.dpf.eval_at(key, page, 2**40) for page in range(600)] for key in keys]
    wanted = [np.bitwise_xor.reduce(array[np.array(row, dtype=bool)], axis=0) for row in bits]
    device = Device(array, 3, Cut(runs=2))
    assert np.array_equal(device.launch(kernels, keys), wanted)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 12, 24])
@pytest.mark.parametrize(
    ("num_pages", "first_leaf"), [(2**12, 0), (2**12, 1), (2**12, 5), (2**31 + 9, 2**22 - 3)]
)
def test_pages_from_the_middle_of_a_table(
    kernels: ptx_emulator.Module, num_pages: int, first_leaf: int, count: int
) -> None:
    """Keys are those of the whole table, and only the leaves of these pages are expanded."""
    first, array = first_leaf * 512, random_pages(600, 32)
    rng = np.random.default_rng([num_pages, first_leaf])
    inside = (first + rng.integers(0, 600, count)).tolist()
    keys = [mg.dpf.gen(index, num_pages)[k % 2] for k, index in enumerate(inside)]
    bits = [
        [mg.dpf.eval_at(key, page, num_pages) for page in range(first, first + 600)] for key in keys
    ]
    wanted = [np.bitwise_xor.reduce(array[np.array(row, dtype=bool)], axis=0) for row in bits]
    device = Device(array, count, Cut(runs=3), first_leaf=first_leaf)
    assert np.array_equal(device.launch(kernels, keys), wanted)
    device.assert_clean()


def test_sums_left_behind_would_be_seen(kernels: ptx_emulator.Module) -> None:
    # The other tests rely on this: buffers that are not clean give wrong answers.
    array = random_pages(70, 64)
    keys = keys_for(70, 2)
    device = Device(array, 2, Cut())
    device.sums[1, 5] = 1
    answers = device.launch(kernels, keys)
    wanted = expected(array, keys)
    wanted[1, 5] ^= 1
    assert np.array_equal(answers, wanted)


def test_a_page_that_is_missing_would_be_seen(kernels: ptx_emulator.Module) -> None:
    array = random_pages(70, 64)
    device = Device(array, 1, Cut())
    device.pages = device.pages[:-1].copy()  # while the job still says 70
    with pytest.raises(ptx_emulator.EmulatorError, match="morphogen_scan_1"):
        device.launch(kernels, keys_for(70, 1))


@pytest.mark.parametrize("vectors", [1, 31, 1023, 1024, 1025, 20000])
@pytest.mark.parametrize("blocks", [1, 3])
def test_a_pure_read_reads_every_byte(
    kernels: ptx_emulator.Module, vectors: int, blocks: int
) -> None:
    pages = np.random.default_rng(vectors).integers(2**63, size=2 * vectors, dtype=np.uint64)
    total, finished, answer = (
        np.zeros(1, np.uint64),
        np.zeros(1, np.uint32),
        np.ones(1, np.uint64),
    )
    memory = ptx_emulator.place([pages, total, finished, answer])
    at = list(memory)
    job = struct.pack("<5Q", at[0], vectors, at[1], at[2], at[3])
    for _ in range(2):
        statistics = kernels.launch("morphogen_read", blocks, BLOCK_THREADS, [job], memory)
        assert answer[0] == np.bitwise_xor.reduce(pages)
        assert not total.any()
        assert not finished.any()
    assert statistics.global_load_bytes >= pages.nbytes


@pytest.mark.parametrize("page_size", [1, 8, 16, 20, 31])
def test_a_fill_writes_pages_and_zeros_their_padding(
    kernels: ptx_emulator.Module, page_size: int
) -> None:
    num_pages = 77
    words = -(-page_size // 16) * 2
    pages = np.full((num_pages, words), 0xA5, dtype=np.uint64)
    memory = ptx_emulator.place([pages])
    job = struct.pack("<5Q", *memory, pages.size, words, page_size, 11)
    kernels.launch("morphogen_fill", 2, BLOCK_THREADS, [job], memory)
    content = pages.view(np.uint8).reshape(num_pages, -1)
    assert not content[:, page_size:].any()
    assert (
        len(np.unique(content[:, :page_size], axis=0)) > min(num_pages, 2 ** (8 * page_size)) // 2
    )
    # The published first outputs of SplitMix64 for the seed 1234567, from this seed on.
    known = np.zeros((1, 2), dtype=np.uint64)
    memory = ptx_emulator.place([known])
    job = struct.pack("<5Q", *memory, 2, 2, 16, 1234567)
    kernels.launch("morphogen_fill", 1, BLOCK_THREADS, [job], memory)
    assert known.tolist() == [[6457827717110365317, 3203168211198807973]]


def test_the_kernels_are_those_of_the_sources(kernels: ptx_emulator.Module) -> None:
    assert kernels.version == "9.0"
    scans = {f"morphogen_scan_{keys}": keys for keys in (*range(1, 7), *WIDE)}
    assert set(kernels.kernels) == {*scans, "morphogen_read", "morphogen_fill"}
    for name, keys in scans.items():
        info = kernels.kernels[name]
        assert info.max_threads == block_shape(keys)[0]
        assert info.shared_bytes <= 48 * 1024
        # Any driver takes 4 KiB of parameters, one for CUDA 12.1 or newer 32,764 bytes.
        assert info.parameter_bytes <= (4096 if keys <= 6 else 32764)


def test_the_source_declares_what_these_tests_assume() -> None:
    header = (Path(__file__).resolve().parents[3] / "kernels" / "page_jobs.h").read_text(
        encoding="utf-8"
    )
    for text in (
        f"constexpr unsigned kBlockThreads = {BLOCK_THREADS};",
        f"constexpr unsigned kTileVectors = {MAX_TILE};",
        "constexpr int kWideChunkKeys = 12;",
        "constexpr int kWidestChunkKeys = 24;",
        "return {512, kTileVectors, 20, 6};",
        "return {256, kTileVectors, 16, 2};",
    ):
        assert text in header

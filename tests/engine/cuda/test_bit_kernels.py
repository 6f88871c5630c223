"""The PTX of the kernels for wide chunks, instruction by instruction: its answers, byte for byte.

Launches are made by hand, over the emulator's products of bit matrices.
"""

from __future__ import annotations

import numpy as np
import pytest

import morphogen as mg
import ptx_emulator
from bit_device import BitDevice, bit_kernels, laid_out, most_vectors, slots_for
from kernel_device import MAX_KEY_BYTES, expected, keys_for
from naive import Bytes, random_pages

__all__ = ["bit_kernels"]


def opened(
    kernels: ptx_emulator.Module,
    shape: tuple[int, int],
    count: int,
    *,
    runs: int = 1,
    tile_vectors: int = 8,
) -> tuple[Bytes, BitDevice]:
    table = random_pages(*shape)
    device = BitDevice(table, count, runs=runs, tile_vectors=tile_vectors)
    device.transpose(kernels)
    return table, device


def assert_answers(
    kernels: ptx_emulator.Module,
    shape: tuple[int, int],
    count: int,
    *,
    runs: int = 1,
    tile_vectors: int = 8,
    seed: int = 0,
) -> None:
    table, device = opened(kernels, shape, count, runs=runs, tile_vectors=tile_vectors)
    keys = keys_for(len(table), count)
    assert np.array_equal(device.answer(kernels, keys, seed=seed), expected(table, keys))
    device.assert_clean()


def test_a_chunk_of_each_kernel(bit_kernels: ptx_emulator.Module) -> None:
    for count in (24, 48, 96):
        assert_answers(bit_kernels, (600, 48), count, runs=2)


@pytest.mark.parametrize(("pages", "page_size"), [(1, 16), (256, 32), (300, 20), (777, 1)])
def test_pages_are_laid_out_as_the_header_says(
    bit_kernels: ptx_emulator.Module, pages: int, page_size: int
) -> None:
    _, device = opened(bit_kernels, (pages, page_size), 24)
    assert np.array_equal(device.bit_pages, laid_out(device.pages))


def test_some_groups_are_laid_out_again_alone(bit_kernels: ptx_emulator.Module) -> None:
    _, device = opened(bit_kernels, (1100, 32), 24)
    before = device.bit_pages.copy()
    device.pages = random_pages(1100, 32, seed=5)
    device.transpose(bit_kernels, first=1, count=2)
    after = laid_out(device.pages)
    assert np.array_equal(device.bit_pages[1:3], after[1:3])
    assert np.array_equal(device.bit_pages[[0, 3, 4]], before[[0, 3, 4]])


@pytest.mark.parametrize("log_leaves", [0, 1, 3])
@pytest.mark.parametrize(("num_pages", "first_leaf"), [(2**13, 0), (2**13, 3), (2**31, 2**21 + 5)])
def test_a_key_is_expanded_to_the_bits_of_the_pages_that_are_there(
    bit_kernels: ptx_emulator.Module, num_pages: int, first_leaf: int, log_leaves: int
) -> None:
    first, there = 512 * first_leaf, 5 * 512 - 100
    keys = [mg.dpf.gen(first + 7 * k, num_pages)[k % 2] for k in range(2)]
    device = BitDevice(np.zeros((there, 1), np.uint8), 2, first_leaf=first_leaf)
    device.expand(bit_kernels, keys, log_leaves=log_leaves)
    found = np.unpackbits(device.selection, axis=-1, bitorder="little")
    for k, key in enumerate(keys):
        wanted = [mg.dpf.eval_at(key, first + page, num_pages) for page in range(there)]
        assert found[:, k].reshape(-1)[:there].tolist() == wanted
    assert (device.selection[:, 2:] == 0xA5).all()  # missing keys are left alone


@pytest.mark.slow
@pytest.mark.parametrize("count", [13, 24, 25, 48, 95, 96])
@pytest.mark.parametrize(("pages", "page_size"), [(1, 1), (257, 130), (520, 1000), (2600, 16)])
def test_every_shape_and_number_of_keys(
    bit_kernels: ptx_emulator.Module, pages: int, page_size: int, count: int
) -> None:
    assert_answers(bit_kernels, (pages, page_size), count, runs=min(2, -(-pages // 256)))


@pytest.mark.slow
@pytest.mark.parametrize("count", [24, 48, 96])
@pytest.mark.parametrize("runs", [1, 3, 7])
def test_more_groups_than_have_their_bits_at_hand(
    bit_kernels: ptx_emulator.Module, runs: int, count: int
) -> None:
    # Seven windows of the smallest, and rows that do not divide them.
    assert_answers(bit_kernels, (7 * 4 * 256 - 5, 16), count, runs=runs, seed=runs)


@pytest.mark.slow
@pytest.mark.parametrize("count", [24, 48, 96])
def test_tiles_of_any_width(bit_kernels: ptx_emulator.Module, count: int) -> None:
    for tile_vectors in range(1, most_vectors(slots_for(count)) + 1):
        page_size = 16 * (tile_vectors + 1)
        assert_answers(bit_kernels, (600, page_size), count, runs=2, tile_vectors=tile_vectors)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_launches_into_the_same_buffers(bit_kernels: ptx_emulator.Module, seed: int) -> None:
    table, device = opened(bit_kernels, (600, 40), 24, runs=3, tile_vectors=2)
    for turn, count in enumerate([24, 14, 20]):
        keys = keys_for(600, count, turn)
        answers = device.answer(bit_kernels, keys, seed=seed)
        assert np.array_equal(answers, expected(table, keys))
        device.assert_clean()


@pytest.mark.slow
def test_keys_of_the_deepest_tree(bit_kernels: ptx_emulator.Module) -> None:
    table = random_pages(600, 32)
    keys = [mg.dpf.gen(index, 2**40)[1] for index in (5, 599, 2**39)]
    assert len(keys[0]) == MAX_KEY_BYTES
    device = BitDevice(table, 3)
    device.transpose(bit_kernels)
    bits = [[mg.dpf.eval_at(key, page, 2**40) for page in range(600)] for key in keys]
    wanted = [np.bitwise_xor.reduce(table[np.array(row, dtype=bool)], axis=0) for row in bits]
    assert np.array_equal(device.answer(bit_kernels, keys), wanted)


def test_a_bit_in_the_wrong_place_would_be_seen(bit_kernels: ptx_emulator.Module) -> None:
    table, device = opened(bit_kernels, (300, 16), 24)
    keys = keys_for(300, 24)
    wanted = expected(table, keys)
    assert np.array_equal(device.answer(bit_kernels, keys), wanted)
    # Page 64 + 3 of the first group, byte 5, bit 6: unit 2, thread 4 * 6 + 1, its second word.
    device.bit_pages[0, 2 * 512 + 25 * 16 + 4] ^= 1 << 3
    chosen = [mg.dpf.eval_at(key, 67, 300) for key in keys]
    wanted[:, 5] ^= np.array(chosen, np.uint8) << 6
    assert np.array_equal(device.answer(bit_kernels, keys), wanted)

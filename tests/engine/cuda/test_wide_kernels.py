"""The kernels for chunks of 4 and 8 queries: the shipped PTX, byte for byte, in the emulator.

They differ from the others where it matters most: they jump instead of masking, keep their sums in
registers from window to window, fold them a few keys at a time, and leave out the keys that a chunk
lacks.
"""

from __future__ import annotations

import numpy as np
import pytest

import morphogen as mg
import ptx_emulator
from kernel_device import Cut, Device, assert_scans, expected, kernels, keys_for
from naive import naive_answers, open_engine, random_pages, random_rows

__all__ = ["kernels"]

SHORT_AND_FULL = [7, 12, 13, 24]


@pytest.mark.parametrize("count", SHORT_AND_FULL)
@pytest.mark.parametrize("page_size", [1, 16, 48, 500, 512, 1000, 4096, 16384])
def test_every_page_size(kernels: ptx_emulator.Module, page_size: int, count: int) -> None:
    num_pages = 1111 if page_size <= 48 else 150
    assert_scans(kernels, (num_pages, page_size), count, Cut(runs=3))


@pytest.mark.parametrize("count", range(7, 25))
def test_every_number_of_keys(kernels: ptx_emulator.Module, count: int) -> None:
    assert_scans(kernels, (70, 520), count, Cut(runs=2))


@pytest.mark.parametrize("count", [12, 24])
@pytest.mark.parametrize("num_pages", [1, 2, 3, 4, 5, 31, 32, 33, 511, 512, 513, 1027])
def test_tails_of_pages(kernels: ptx_emulator.Module, num_pages: int, count: int) -> None:
    # A jump takes 4 pages, a word of bits 32, a leaf 512.
    assert_scans(kernels, (num_pages, 512), count, Cut(runs=min(num_pages, 2)))


@pytest.mark.parametrize("count", [12, 24])
@pytest.mark.parametrize("runs", [1, 5, 64])
def test_runs_that_begin_anywhere(kernels: ptx_emulator.Module, runs: int, count: int) -> None:
    num_pages = 2048 - 1
    assert_scans(kernels, (num_pages, 512), count, Cut(runs=runs), seed=runs)


@pytest.mark.parametrize("count", [12, 24])
@pytest.mark.parametrize("tile_vectors", [1, 31, 32, 33, 100, 128])
def test_tiles_of_any_width(kernels: ptx_emulator.Module, tile_vectors: int, count: int) -> None:
    page_size = 16 * (2 * tile_vectors + tile_vectors // 2 + 1)
    cut = Cut(runs=2, tile_vectors=tile_vectors)
    assert_scans(kernels, (40, page_size), count, cut, seed=1)


@pytest.mark.parametrize("count", [12, 24])
@pytest.mark.parametrize("page_size", [16, 512])
def test_sums_are_kept_from_window_to_window(
    kernels: ptx_emulator.Module, page_size: int, count: int
) -> None:
    # A window has 20 leaves for 12 keys and 16 for 24: these pages have two of either.
    num_pages = 21 * 512 + 3
    array = random_pages(num_pages, page_size)
    keys = keys_for(num_pages, count)
    device = Device(array, count, Cut())
    answers = device.launch(kernels, keys)
    query = mg.Query(tuple(keys[:3]))
    with open_engine(array) as engine:
        assert np.array_equal(answers[:3], engine.answer([query]).pages[0])
    assert np.array_equal(answers, expected(array, keys))


@pytest.mark.parametrize("capacity", [12, 24])
def test_launches_into_the_same_buffers(kernels: ptx_emulator.Module, capacity: int) -> None:
    array = random_pages(300, 600)
    device = Device(array, capacity, Cut(runs=4))
    for turn, count in enumerate([capacity, capacity - 1, capacity // 2 + 1, capacity, capacity]):
        keys = keys_for(300, count, turn)
        answers = device.launch(kernels, keys, seed=turn)
        assert np.array_equal(answers, expected(array, keys))
        device.assert_clean()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [12, 24])
def test_blocks_and_warps_in_any_order(kernels: ptx_emulator.Module, seed: int, count: int) -> None:
    assert_scans(kernels, (24, 4096), count, Cut(runs=6), seed=seed)


@pytest.mark.parametrize("count", [12, 24])
def test_answers_equal_the_cpu_engines(kernels: ptx_emulator.Module, count: int) -> None:
    num_pages = 777
    array = random_pages(num_pages, 640)
    batch = mg.make_queries(random_rows(count // 3, 3, num_pages), num_pages)[0]
    keys = [key for query in batch for key in query.keys]
    device = Device(array, count, Cut(runs=3))
    answers = device.launch(kernels, keys).reshape(-1, 3, 640)
    with open_engine(array) as engine:
        assert np.array_equal(answers, engine.answer(batch).pages)
    assert np.array_equal(answers, naive_answers(array, batch))


@pytest.mark.parametrize("count", [12, 24])
def test_more_keys_cost_fewer_instructions_each(kernels: ptx_emulator.Module, count: int) -> None:
    # The jump pays: a page costs a key less than half of its cost by masks.
    array = random_pages(2000, 4096)
    few, many = Device(array, 6, Cut()), Device(array, count, Cut())
    few.launch(kernels, keys_for(2000, 6))
    many.launch(kernels, keys_for(2000, count))
    assert many.statistics.instructions / count < few.statistics.instructions / 6
    assert many.statistics.global_load_bytes < 1.2 * few.statistics.global_load_bytes

"""The grid of a launch: the blocks into which it cuts the pages."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from morphogen.engine.cuda.grid import MAX_TURNS, MIN_RUN_PAGES, Grid, plan_grid

H200 = 132  # multiprocessors, each with one block


def test_one_run_for_each_block_of_the_device() -> None:
    assert plan_grid(65536, 256, 256, H200) == Grid(tiles=1, tile_vectors=256, runs=132)


def test_wide_pages_are_cut_into_equal_tiles() -> None:
    assert plan_grid(65536, 1024, 256, H200) == Grid(tiles=4, tile_vectors=256, runs=33)
    # Not 256 and 1: both tiles take the same time.
    assert plan_grid(65536, 257, 256, H200) == Grid(tiles=2, tile_vectors=129, runs=66)


def test_few_pages_have_no_short_runs() -> None:
    assert plan_grid(1, 256, 256, H200).runs == 1
    assert plan_grid(MIN_RUN_PAGES * 2 - 1, 256, 256, H200).runs == 1
    assert plan_grid(MIN_RUN_PAGES * 2, 256, 256, H200).runs == 2


@pytest.mark.parametrize("tiles", [100, 133, 200])
def test_no_turn_of_the_device_is_nearly_empty(tiles: int) -> None:
    # 133 tiles of one run would take a second turn for a single block.
    grid = plan_grid(1 << 20, tiles * 256, 256, H200)
    turns = -(-grid.blocks // H200)
    assert grid.blocks / (turns * H200) > 0.85


@given(
    num_pages=st.integers(1, 2**40),
    vectors=st.integers(1, 2**20),
    resident=st.integers(1, 400),
)
def test_every_grid(num_pages: int, vectors: int, resident: int) -> None:
    grid = plan_grid(num_pages, vectors, 256, resident)
    assert 1 <= grid.tile_vectors <= 256
    # Every tile has columns, and together they have all.
    assert (grid.tiles - 1) * grid.tile_vectors < vectors <= grid.tiles * grid.tile_vectors
    # Every run has pages.
    assert 1 <= grid.runs <= num_pages
    assert grid.blocks <= max(MAX_TURNS * resident, grid.tiles)
    assert grid.blocks < 2**31

"""The grid of a launch: the blocks into which it cuts a page matrix."""

from __future__ import annotations

from dataclasses import dataclass

# A run shorter than this would walk its keys' trees for too few pages.
MIN_RUN_PAGES = 64
# If pages are so wide that a device holds but a few runs of each tile at a time, a launch has up to
# this many times more blocks than it holds, as far as that fills the last turn better.
MAX_TURNS = 8


@dataclass(frozen=True, slots=True)
class Grid:
    """The blocks of a launch: every tile of a page's columns times every run of pages.

    Attributes
    ----------
    tiles : int
        Parts of a page.
    tile_vectors : int
        Vectors of 16 bytes in a part; the last may have fewer.
    runs : int
        Parts of the page matrix, each with whole pages.
    """

    tiles: int
    tile_vectors: int
    runs: int

    @property
    def blocks(self) -> int:
        """Blocks of the launch."""
        return self.tiles * self.runs


def plan_grid(
    num_pages: int,
    vectors: int,
    max_tile_vectors: int,
    resident_blocks: int,
    *,
    least_run: int = MIN_RUN_PAGES,
) -> Grid:
    """Cut a page matrix so that a device's multiprocessors are all busy until the end.

    Parameters
    ----------
    num_pages : int
    vectors : int
        Vectors of 16 bytes in a page.
    max_tile_vectors : int
        The most columns that a block can take.
    resident_blocks : int
        Blocks that the device runs at a time.
    least_run : int, optional
        The fewest pages of a run, if there are as many.

    Returns
    -------
    Grid
        The one that fills the device best, with as few blocks as that takes.
    """
    tiles = -(-vectors // max_tile_vectors)
    most = max(1, num_pages // least_run)
    least = max(1, resident_blocks // tiles)
    candidates = [least]
    if tiles * least != resident_blocks:
        candidates += range(least + 1, max(least, MAX_TURNS * resident_blocks // tiles) + 1)

    def idle(runs: int) -> float:
        turns = -(-tiles * runs // resident_blocks)
        return 1 - tiles * runs / (turns * resident_blocks)

    # Fewer runs walk fewer trees: more of them must fill the device noticeably better.
    runs = min(candidates, key=lambda runs: (round(idle(runs), 1), runs))
    return Grid(tiles, -(-vectors // tiles), min(runs, most))

"""Sizes, chunks and grids in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from morphogen.engine.cuda.grid import Grid


def describe_chunks(sizes: Iterable[int]) -> str:
    """Sizes of chunks in short: "8", "4x2", "3x2+1".

    Parameters
    ----------
    sizes : iterable of int

    Returns
    -------
    str
    """
    parts = []
    for size, run in groupby(sizes):
        count = sum(1 for _ in run)
        parts.append(str(size) if count == 1 else f"{count}x{size}")
    return "+".join(parts)


def describe_grid(grid: Grid) -> str:
    """A GPU's grid in short: "132 blocks: 1 tile x 132 runs".

    Parameters
    ----------
    grid : Grid

    Returns
    -------
    str
    """

    def many(count: int, word: str) -> str:
        return f"{count} {word}" if count == 1 else f"{count} {word}s"

    return f"{many(grid.blocks, 'block')}: {many(grid.tiles, 'tile')} x {many(grid.runs, 'run')}"


def describe_kernels(kernels: Mapping[int, str]) -> str:
    """The variants that a GPU's engine takes by itself: "default", "red for 6 keys".

    Parameters
    ----------
    kernels : mapping of int to str
        By the most keys of a kernel, as `Tuning.kernels`.

    Returns
    -------
    str
    """
    return ", ".join(f"{name} for {keys} keys" for keys, name in kernels.items()) or "default"


def describe_size(size: int) -> str:
    """A number of bytes for people: "740 bytes", "739.3 KiB".

    Parameters
    ----------
    size : int

    Returns
    -------
    str
    """
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{size} bytes" if unit == "bytes" else f"{value:,.1f} {unit}"

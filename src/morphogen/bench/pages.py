"""The table of a benchmark: random pages, those of a file, or those that a GPU makes itself."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from morphogen.bench.config import BenchmarkConfig
from morphogen.bench.workload import (
    PageReader,
    Pages,
    generated_pages,
    random_pages,
    unbacked_pages,
)
from morphogen.pages import PageMatrix


def pages_of_file(path: str | os.PathLike[str], page_size: int, most: int | None) -> int:
    """How many pages of a file are measured.

    Parameters
    ----------
    path : path-like
    page_size : int
    most : int or None
        No more than these; None for all.

    Returns
    -------
    int

    Raises
    ------
    OSError, ValueError
        As `PageMatrix.open` does.
    """
    pages = PageMatrix.open(path, page_size).num_pages
    return pages if most is None else min(pages, most)


def open_pages(
    config: BenchmarkConfig, progress: Callable[[int, int], None] | None = None
) -> PageMatrix:
    """The table that a configuration asks for.

    Parameters
    ----------
    config : BenchmarkConfig
    progress : callable, optional
        Called with the bytes made and the bytes in all, a hundred times.

    Returns
    -------
    PageMatrix
        Not to be read where the device makes the pages.

    Raises
    ------
    OSError, ValueError
        If a file cannot be mapped, or has fewer pages.
    """
    if config.generated:
        return PageMatrix(unbacked_pages(config.num_pages, config.page_size))
    if config.matrix_file is None:
        progress = progress and _by_the_hundredth(progress)
        return PageMatrix(
            random_pages(config.num_pages, config.page_size, config.seed, progress=progress)
        )
    matrix = PageMatrix.open(config.matrix_file, config.page_size)
    if matrix.num_pages < config.num_pages:
        raise ValueError(
            f"{config.matrix_file} must have at least {config.num_pages} pages of "
            f"{config.page_size} bytes, not {matrix.num_pages}"
        )
    # A short last page lies behind the body; with fewer pages than the file's there is none.
    return (
        matrix
        if matrix.num_pages == config.num_pages
        else PageMatrix(matrix.body[: config.num_pages])
    )


def page_reader(config: BenchmarkConfig, matrix: PageMatrix) -> PageReader:
    """What gives any pages of the table, without the engine that is measured.

    Parameters
    ----------
    config : BenchmarkConfig
    matrix : PageMatrix
        As `open_pages` gives it.

    Returns
    -------
    callable
    """
    if config.generated:
        return lambda start, stop: generated_pages(
            config.seed, np.arange(start, stop), config.page_size
        )

    def read(start: int, stop: int) -> Pages:
        pages = matrix.body[start:stop]
        if matrix.tail is None or stop < matrix.num_pages:
            return pages
        return np.concatenate([pages, matrix.tail[np.newaxis]])

    return read


def with_progress(
    read: PageReader, num_pages: int, progress: Callable[[int, int], None] | None
) -> PageReader:
    """A reader that tells how far it has come.

    Parameters
    ----------
    read : callable
    num_pages : int
    progress : callable or None
        Called with the pages that were read before, and the pages in all, a hundred times.

    Returns
    -------
    callable
    """
    if progress is None:
        return read
    progress = _by_the_hundredth(progress)

    def tell(start: int, stop: int) -> Pages:
        progress(start, num_pages)
        return read(start, stop)

    return tell


def _by_the_hundredth(progress: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """The same, called only when another hundredth is done: drawing a bar takes its time."""
    told = -1

    def tell(done: int, total: int) -> None:
        nonlocal told
        if 100 * done // total != told:
            told = 100 * done // total
            progress(done, total)

    return tell

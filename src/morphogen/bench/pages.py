"""The pages of a benchmark: random ones, those of a file, or those that a GPU makes itself."""

from __future__ import annotations

import os

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
from morphogen.progress import Progress, by_the_hundredth


def pages_of_file(path: str | os.PathLike[str], page_size: int, most: int | None) -> int:
    """The number of pages of a file that are measured.

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


def open_pages(config: BenchmarkConfig, progress: Progress | None = None) -> PageMatrix:
    """Open the pages that a configuration asks for.

    Parameters
    ----------
    config : BenchmarkConfig
    progress : callable, optional
        Called with the bytes made and the bytes in all, a hundred times.

    Returns
    -------
    PageMatrix
        Not to be read if the device makes the pages.

    Raises
    ------
    OSError, ValueError
        If a file cannot be mapped, or has fewer pages.
    """
    if config.generated:
        return PageMatrix(unbacked_pages(config.num_pages, config.page_size))
    if config.matrix_file is None:
        told = progress and by_the_hundredth(progress)
        return PageMatrix(
            random_pages(config.num_pages, config.page_size, config.seed, progress=told)
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
    """A reader of any pages, without the engine that is measured.

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


def with_progress(read: PageReader, num_pages: int, progress: Progress) -> PageReader:
    """A reader that reports its progress.

    Parameters
    ----------
    read : callable
    num_pages : int
    progress : callable
        Called with the pages that were read before, and the pages in all, a hundred times.

    Returns
    -------
    callable
    """
    told = by_the_hundredth(progress)

    def tell(start: int, stop: int) -> Pages:
        told(start, num_pages)
        return read(start, stop)

    return tell

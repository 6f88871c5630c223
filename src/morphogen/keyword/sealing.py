"""The sealing of a file: its pages prove themselves in a table file of version 2."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import SupportsIndex

from morphogen.authentication.hashing import HASH_BYTES
from morphogen.authentication.shape import (
    LEAST_PAGE_OF_LEVEL,
    Shape,
    default_proof_levels,
    tree_height,
)
from morphogen.authentication.tree import chunk_of
from morphogen.checks import as_int, check_range
from morphogen.keyword.file import check_digest, is_table, open_table
from morphogen.keyword.header import TableHeader, altered
from morphogen.keyword.layout import Bytes, TableLayout
from morphogen.keyword.stream import write_pages
from morphogen.pages import MAX_PAGE_SIZE, PageMatrix
from morphogen.progress import Progress, by_the_hundredth

DEFAULT_PAGE_SIZE = 4096


def seal_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    page_size: SupportsIndex | None = None,
    proof_levels: SupportsIndex | None = None,
    progress: Progress | None = None,
) -> TableHeader:
    """Write a file's bytes, or a table's pages, as pages that prove themselves.

    Parameters
    ----------
    source : path-like
        Any file, of whose bytes each page takes page_size - 32 * proof_levels; the last page is
        padded with zeros. Or a keyword table of version 1, whose pages stay as they are.
    target : path-like
        The table file of version 2 to write, whole or not at all.
    page_size : int, optional
        Bytes a page, by default 4096. A keyword table has its own.
    proof_levels : int, optional
        Siblings in each page. By default as many as `default_proof_levels` says, and at most one
        for each 256 bytes of a page. Those of a keyword table are 0.
    progress : callable, optional
        Called with the bytes written and those in all.

    Returns
    -------
    TableHeader
        The header that was written.

    Raises
    ------
    OSError
        If a file cannot be read or written. A target that was there before is still there.
    TableFileError
        If source begins as a table and is not a whole one.
    TypeError, ValueError
        If page_size or proof_levels has the wrong type or is out of range, source is empty, no
        file, or sealed already, or target is something other than a file.
    """
    size = None if page_size is None else as_int("page_size", page_size)
    levels = None if proof_levels is None else as_int("proof_levels", proof_levels)
    if is_table(source):
        contents, layout = _of_table(source, size, levels, progress)
        shape = Shape(layout.num_pages, layout.page_size, 0)
    else:
        contents, shape = _of_file(source, DEFAULT_PAGE_SIZE if size is None else size, levels)
        layout = None

    def fill(pages: Bytes, start: int) -> None:
        pages[:, : shape.content_size] = chunk_of(contents, start, len(pages))

    tell = by_the_hundredth(progress) if progress is not None else lambda done, total: None
    return write_pages(target, shape, layout, fill, tell)


def _of_table(
    source: str | os.PathLike[str], size: int | None, levels: int | None, progress: Progress | None
) -> tuple[PageMatrix, TableLayout]:
    opened = open_table(source, verify=False)
    layout = opened.layout
    if layout is None or layout.version > 1:
        raise ValueError(f"{os.fspath(source)} is sealed already")
    if size not in (None, layout.page_size):
        raise ValueError(
            f"page_size must be {layout.page_size}, that of the keyword table, not {size}"
        )
    if levels:
        raise ValueError(
            f"proof_levels must be 0 for a keyword table that was built without them, not {levels}"
        )
    if not check_digest(opened, progress):
        raise altered(source, "its pages do not have the SHA-256 of its header")
    return opened.pages, replace(layout, version=2)


def _of_file(
    source: str | os.PathLike[str], size: int, levels: int | None
) -> tuple[PageMatrix, Shape]:
    check_range("page_size", size, 1, MAX_PAGE_SIZE)
    length = Path(source).stat().st_size
    if levels is None:
        levels = _chosen_levels(length, size)
    content_size = size - HASH_BYTES * levels
    if levels < 0 or content_size < 1:
        most = (size - 1) // HASH_BYTES
        raise ValueError(f"proof_levels must be in 0..{most} for pages of {size}, not {levels}")
    num_pages = max(1, -(-length // content_size))
    check_range("proof_levels", levels, 0, tree_height(num_pages))
    contents = PageMatrix.open(source, content_size)
    return contents, Shape(contents.num_pages, size, levels)


def _chosen_levels(length: int, size: int) -> int:
    """The fewest levels that are as many as so many pages should have."""
    for levels in range(size // LEAST_PAGE_OF_LEVEL):
        num_pages = max(1, -(-length // (size - HASH_BYTES * levels)))
        if levels >= default_proof_levels(num_pages):
            return levels
    return size // LEAST_PAGE_OF_LEVEL

"""The application of deltas: to pages that are served, and to table files."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from morphogen.authentication.changes import Changed, change_pages
from morphogen.authentication.hashing import HASH_BYTES, Bytes
from morphogen.authentication.shape import Shape
from morphogen.epochs.delta import Delta, DeltaHeader, open_delta
from morphogen.errors import DeltaError
from morphogen.keyword.file import OpenedTable, TableHeader, is_table, open_table
from morphogen.keyword.stream import write_pages
from morphogen.pages import PageMatrix, check_array
from morphogen.progress import StagedProgress, by_the_hundredth, stage


@dataclass(frozen=True, slots=True, eq=False)
class Applied:
    """The epoch of a table that a delta leads to.

    Attributes
    ----------
    pages : PageMatrix
        All pages, of the delta's epoch: those before `with_changes`.
    changed : Changed
        The pages that differ from those before, the new cap and the new root.
    header : DeltaHeader
        The delta's, which has the new layout.
    """

    pages: PageMatrix
    changed: Changed
    header: DeltaHeader


def apply_delta(pages: PageMatrix, cap: Bytes, root: bytes, delta: Delta) -> Applied:
    """Apply a delta to pages, of which only those are read whose hashes change.

    Parameters
    ----------
    pages : PageMatrix
        The table before. It stays as it is.
    cap : numpy.ndarray
        uint8 (nodes, 32): its cap.
    root : bytes
        Its root.
    delta : Delta
        From `morphogen.epochs.delta.open_delta`.

    Returns
    -------
    Applied
        The table after, whose root is the one that the delta says.

    Raises
    ------
    DeltaError
        If the delta is for a table of another root or shape, or leads to another root than it says.
    OSError
        If the file of the pages cannot be mapped again.
    TypeError, ValueError
        If cap or root has another type or shape.
    """
    header = delta.header
    _check_base(delta, pages, root)
    shape = Shape(header.num_pages, header.page_size, header.proof_levels)
    check_array("cap", cap, (shape.cap_nodes, HASH_BYTES))
    changed = change_pages(
        pages,
        cap,
        header.proof_levels,
        header.authenticated_layout,
        delta.indices,
        delta.contents,
    )
    _check_result(delta, changed.root)
    after = pages.with_changes(changed.indices, changed.pages, header.to_epoch)
    return Applied(after, changed, header)


def apply_to_table(
    old: str | os.PathLike[str],
    delta: str | os.PathLike[str],
    new: str | os.PathLike[str],
    progress: StagedProgress | None = None,
) -> TableHeader:
    """Write the table file that a delta makes of another, whole or not at all.

    All of it is hashed, and only some of it is in memory at a time. It is byte for byte the file of
    which the delta was made.

    Parameters
    ----------
    old : path-like
        A table file of version 2.
    delta : path-like
        A delta file.
    new : path-like
        A file that is there is replaced. A link is followed.
    progress : callable, optional
        Called with the bytes done, those in all, and the stage: "checking" the delta, "writing".

    Returns
    -------
    TableHeader
        The header that was written.

    Raises
    ------
    DeltaError
        If the delta is no whole one, is for a table of another root, shape or kind, or leads to
        another root than it says, as it does where a page of the old table was altered; also if old
        has no root.
    OSError
        If a file cannot be read or written. A file that was there before is still there.
    TableFileError
        If old was truncated, or its header was altered.
    ValueError
        If new is something other than a file.
    """
    tell = progress if progress is not None else lambda done, total, name: None
    base = open_sealed(old)
    found = open_delta(delta, stage(tell, "checking"))
    header, root = found.header, base.header.root
    assert root is not None
    _check_base(found, base.pages, root)
    if (header.layout is None) != (base.layout is None):
        raise DeltaError(f"{found.name} has keys and {os.fspath(old)} has none, or the reverse")
    size = header.content_size

    def fill(pages: Bytes, start: int) -> None:
        stop = start + len(pages)
        pages[:, :size] = base.pages.body[start:stop, :size]
        first, last = np.searchsorted(found.indices, (start, stop))
        pages[found.indices[first:last] - start, :size] = found.contents[first:last]

    return write_pages(
        new,
        Shape(header.num_pages, header.page_size, header.proof_levels),
        header.layout,
        fill,
        by_the_hundredth(stage(tell, "writing")),
        lambda written: _check_result(found, written.root),
    )


def open_sealed(path: str | os.PathLike[str]) -> OpenedTable:
    """Map a table file whose pages prove themselves. The pages are not verified.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    OpenedTable
        Its pages, without a short last one.

    Raises
    ------
    DeltaError
        If it has no root: a table of version 1, or a file of plain pages.
    OSError
        If the file cannot be opened or mapped.
    TableFileError
        If it was truncated, or its header was altered.
    """
    if not is_table(path):
        raise DeltaError(f"{os.fspath(path)} is no table: morphogen table seal makes one of a file")
    opened = open_table(path, verify=False)
    if opened.header.root is None:
        raise DeltaError(
            f"{os.fspath(path)} is a table of version 1, which has no root: morphogen table seal "
            "makes one that has"
        )
    return opened


def _check_base(delta: Delta, pages: PageMatrix, root: bytes) -> None:
    header = delta.header
    if (header.num_pages, header.page_size) != (pages.num_pages, pages.page_size):
        raise DeltaError(
            f"{delta.name} is for a table of {header.num_pages} pages of {header.page_size} bytes, "
            f"not {pages.num_pages} of {pages.page_size}"
        )
    if header.root_before != root:
        raise DeltaError(
            f"{delta.name} is for the table with the root {header.root_before.hex()}, not "
            f"{root.hex()}"
        )


def _check_result(delta: Delta, root: bytes | None) -> None:
    after = delta.header.root_after
    if root != after:
        raise DeltaError(
            f"{delta.name} leads to another root than it says, {after.hex()}: it is wrong, or a "
            "page before was altered"
        )

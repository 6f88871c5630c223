"""The delta between two table files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from morphogen.authentication.changes import cap_of_groups
from morphogen.authentication.hashing import Bytes
from morphogen.authentication.shape import Shape
from morphogen.epochs.apply import open_sealed
from morphogen.epochs.delta import DeltaHeader, write_delta
from morphogen.epochs.delta_header import check_epochs
from morphogen.errors import DeltaError
from morphogen.keyword.file import OpenedTable, read_cap
from morphogen.keyword.header import altered
from morphogen.pages import PageMatrix, check_epoch
from morphogen.progress import Progress, StagedProgress, by_the_hundredth, stage

_CHUNK_BYTES = 1 << 20  # of pages that are compared or copied at a time, if one is not longer


def diff_tables(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    path: str | os.PathLike[str],
    from_epoch: SupportsIndex,
    to_epoch: SupportsIndex,
    progress: StagedProgress | None = None,
) -> DeltaHeader:
    """Write the delta that makes one table file of another, whole or not at all.

    Both are read, and only some of them is in memory at a time.

    Parameters
    ----------
    old, new : path-like
        Table files of version 2, of one shape.
    path : path-like
        The delta file. A file that is there is replaced. A link is followed.
    from_epoch, to_epoch : int
        Versions of the tables, the second above the first.
    progress : callable, optional
        Called with the bytes done, those in all, and the stage: "comparing", "writing".

    Returns
    -------
    DeltaHeader
        The header that was written. Where its ``file_size`` is not below that of the new table,
        that is the better file to send.

    Raises
    ------
    DeltaError
        If a table has no root, they differ in shape or in whether they have keys, or their hashes
        differ where their contents do not.
    OSError
        If a file cannot be read or written. A file that was there before is still there.
    TableFileError
        If a table was truncated, or its header, its cap, or a page that changes was altered.
    TypeError, ValueError
        If an epoch is no int, out of range, or not above the other, or path is something other than
        a file.
    """
    check_epochs(check_epoch(from_epoch), check_epoch(to_epoch))
    tell = progress if progress is not None else lambda done, total, name: None
    before, after = open_sealed(old), open_sealed(new)
    _check_shapes(before, after, old, new)
    header = after.header
    shape = Shape(header.num_pages, header.page_size, header.proof_levels)
    caps = read_cap(old), read_cap(new)
    indices = _changed(before.pages, after.pages, shape, stage(tell, "comparing"))
    groups = np.unique(indices >> shape.proof_levels)
    differ = (caps[0] != caps[1]).any(axis=1)
    differ[groups] = False
    if differ.any():
        raise DeltaError(
            f"{os.fspath(old)} or {os.fspath(new)} was altered: other hashes of the same contents"
        )
    for run, nodes in cap_of_groups(after.pages, groups, shape):
        if not np.array_equal(caps[1][run], nodes):
            raise altered(new, "its cap is not that of its pages")
    assert before.header.root is not None
    assert header.root is not None
    return write_delta(
        path,
        from_epoch=from_epoch,
        to_epoch=to_epoch,
        num_pages=shape.num_pages,
        page_size=shape.page_size,
        proof_levels=shape.proof_levels,
        root_before=before.header.root,
        root_after=header.root,
        layout=after.layout,
        indices=indices,
        contents=_contents(after.pages, indices, shape),
        progress=by_the_hundredth(stage(tell, "writing")),
    )


def _check_shapes(
    before: OpenedTable,
    after: OpenedTable,
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
) -> None:
    shapes = [
        f"{header.num_pages} pages of {header.page_size} bytes with {header.proof_levels} proof "
        f"levels, {'without' if header.layout is None else 'with'} keys"
        for header in (before.header, after.header)
    ]
    if shapes[0] != shapes[1]:
        raise DeltaError(
            f"there is no delta between {os.fspath(old)}, {shapes[0]}, and {os.fspath(new)}, "
            f"{shapes[1]}"
        )


def _changed(
    before: PageMatrix, after: PageMatrix, shape: Shape, progress: Progress
) -> npt.NDArray[np.int64]:
    """The pages whose contents differ."""
    tell = by_the_hundredth(progress)
    found = [np.empty(0, dtype=np.int64)]
    step = max(1, _CHUNK_BYTES // shape.page_size)
    for start in range(0, shape.num_pages, step):
        tell(start * shape.page_size, after.nbytes)
        rows = slice(start, start + step), slice(shape.content_size)
        differ = (before.body[rows] != after.body[rows]).any(axis=1)
        if differ.any():
            found.append(start + np.flatnonzero(differ))
    tell(after.nbytes, after.nbytes)
    return np.concatenate(found)


def _contents(pages: PageMatrix, indices: npt.NDArray[np.int64], shape: Shape) -> Iterator[Bytes]:
    step = max(1, _CHUNK_BYTES // shape.page_size)
    for start in range(0, len(indices), step):
        yield pages.body[indices[start : start + step], : shape.content_size]

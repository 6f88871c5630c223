"""Which pages of two epochs differ."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from morphogen.authentication.hashing import Bytes
from morphogen.authentication.tree import chunk_of
from morphogen.pages import PageMatrix
from morphogen.progress import Progress

_COMPARED_BYTES = 1 << 22  # of two tables at a time
Indices = npt.NDArray[np.int64]


def differing_pages(
    old: PageMatrix, new: PageMatrix, progress: Progress | None = None
) -> Indices | None:
    """Compare two tables, a few MiB at a time.

    Parameters
    ----------
    old, new : PageMatrix
        With pages of one size.
    progress : callable, optional
        Called with the bytes compared and those in all.

    Returns
    -------
    numpy.ndarray or None
        int64: the pages that differ, ascending. None where the tables have other numbers of pages.
    """
    if old.num_pages != new.num_pages:
        return None
    step = max(1, _COMPARED_BYTES // old.page_size)
    found = [np.empty(0, dtype=np.int64)]
    for start in range(0, old.num_pages, step):
        if progress is not None:
            progress(start * old.page_size, old.nbytes)
        one, other = chunk_of(old, start, step), chunk_of(new, start, step)
        if not np.array_equal(one, other):
            found.append(start + np.flatnonzero((one != other).any(axis=1)))
    return np.concatenate(found)


def rows_of(pages: PageMatrix, indices: Indices) -> Bytes:
    """Take some pages of a table.

    Parameters
    ----------
    pages : PageMatrix
        All of them.
    indices : numpy.ndarray
        int64: the numbers of some, ascending, each once.

    Returns
    -------
    numpy.ndarray
        uint8 (indices, page_size). All pages of a file are not copied.
    """
    if len(indices) == len(pages.body) == pages.num_pages:
        return pages.body
    rows: Bytes = pages.body[indices[indices < len(pages.body)]]
    if len(rows) < len(indices):
        assert pages.tail is not None
        rows = np.concatenate((rows, pages.tail[np.newaxis]))
    return rows

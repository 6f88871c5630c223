"""The page matrix: pages of one size, in memory or mapped from a file."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, SupportsIndex

import numpy as np
import numpy.typing as npt

import morphogen.dpf as dpf
from morphogen.checks import as_int, check_range
from morphogen.pages.changes import (
    MAX_EPOCH as MAX_EPOCH,
    check_array as check_array,
    check_changes as check_changes,
    check_epoch as check_epoch,
)
from morphogen.pages.mapped_file import MappedFile, special_kind as special_kind

MAX_PAGE_SIZE = 2**40
_COPIED_BYTES = 1 << 20  # of earlier changes at a time, if a page is not longer


class PageMatrix:
    """A matrix of pages over an existing array, without a copy.

    Parameters
    ----------
    array : numpy.ndarray
        uint8 of shape (num_pages, page_size), C-contiguous, with at least one page and one byte a
        page. It is not copied: do not change it while an engine uses it.
    epoch : int, optional
        Version of the pages, 0 to 2**63 - 1. Equal epochs must mean equal bytes on both servers.

    Raises
    ------
    TypeError
        If array is not an array of uint8, or epoch no int.
    ValueError
        If its shape or its memory layout does not fit, or epoch is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import morphogen as mg
    >>> mg.PageMatrix(np.zeros((1000, 64), dtype=np.uint8), epoch=7)
    PageMatrix(1000 pages of 64 bytes, epoch 7, in memory)
    """

    __slots__ = ("_body", "_changed", "_epoch", "_file", "_num_pages", "_page_size", "_tail")

    _body: npt.NDArray[np.uint8]
    _changed: npt.NDArray[np.int64]  # pages of the body that are others than the file's
    _epoch: int
    _file: MappedFile | None
    _num_pages: int
    _page_size: int
    _tail: npt.NDArray[np.uint8] | None

    def __init__(self, array: npt.NDArray[np.uint8], epoch: int = 0) -> None:
        check_array("array", array)
        if array.ndim != 2:
            raise ValueError(f"array must have 2 dimensions, not {array.ndim}")
        if array.shape[0] < 1 or array.shape[1] < 1:
            raise ValueError(
                f"array must have at least one page of at least one byte, not shape {array.shape}"
            )
        if not array.flags.c_contiguous:
            raise ValueError(f"array must be C-contiguous, not strided by {array.strides}")
        self._set(array, None, None, check_epoch(epoch))

    def _set(
        self,
        body: npt.NDArray[np.uint8],
        tail: npt.NDArray[np.uint8] | None,
        file: MappedFile | None,
        epoch: int,
    ) -> None:
        num_pages = body.shape[0] + (tail is not None)
        if num_pages > dpf.MAX_PAGES:
            raise ValueError(f"a table has at most {dpf.MAX_PAGES} pages, not {num_pages}")
        self._epoch = epoch
        self._body = body.view(np.ndarray)
        self._body.flags.writeable = False
        self._tail = tail
        self._file = file
        self._changed = np.empty(0, dtype=np.int64)
        self._num_pages = num_pages
        self._page_size = int(body.shape[1])

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        page_size: int = 4096,
        epoch: int = 0,
        *,
        offset: int = 0,
    ) -> PageMatrix:
        """Map a file as a page matrix, without reading it into memory.

        Parameters
        ----------
        path : path-like
            A file of at least one byte. A short last page is copied aside and padded with zeros;
            the file is not changed.
        page_size : int, optional
            Bytes a page, 1 or more.
        epoch : int, optional
            Version of the pages, 0 to 2**63 - 1.
        offset : int, optional
            Bytes of the file before the first page, such as those of a header.

        Returns
        -------
        PageMatrix
            Over the mapped file.

        Raises
        ------
        OSError
            If the file cannot be opened or mapped.
        TypeError
            If page_size, epoch or offset is no int.
        ValueError
            If it has no byte after offset, is a pipe, a device or the like, offset is negative,
            page_size is not in 1..2**40, or epoch is out of range.

        Notes
        -----
        A file that somebody truncates while it is mapped makes the operating system end the process
        with SIGBUS at the next access; no library can turn that into an exception. The file may be
        larger than memory.
        """
        size, start, version = _checked(page_size, offset, epoch)
        kind = special_kind(path)
        if kind:
            raise ValueError(f"a table needs a file to map: {os.fspath(path)} is a {kind}")
        with Path(path).open("rb") as file:
            return cls._map(file, size, version, start)

    @classmethod
    def _map(
        cls,
        file: BinaryIO,
        page_size: int,
        epoch: int,
        offset: int,
        num_pages: int | None = None,
    ) -> PageMatrix:
        """Map an open file, whose header the caller may have read, as a page matrix.

        More may follow ``num_pages`` pages, which the caller knows to be there.
        """
        size, start, version = _checked(page_size, offset, epoch)
        mapped = MappedFile(file, start)
        flat = mapped.map()
        whole, rest = divmod(len(flat), size)
        if num_pages is not None:
            whole, rest = num_pages, 0
        tail = None
        if rest:
            tail = np.zeros(size, dtype=np.uint8)
            tail[:rest] = flat[whole * size :]
            tail.flags.writeable = False
        matrix = cls.__new__(cls)
        matrix._set(flat[: whole * size].reshape(whole, size), tail, mapped, version)
        return matrix

    def with_changes(
        self,
        indices: Iterable[SupportsIndex] | npt.NDArray[np.integer[Any]],
        pages: npt.NDArray[np.uint8],
        epoch: SupportsIndex,
    ) -> PageMatrix:
        """Make the matrix of another epoch, in which some pages are others.

        Parameters
        ----------
        indices : iterable of int
            The pages that change, ascending, each once. There may be none.
        pages : numpy.ndarray
            uint8 of shape (indices, page_size): their new bytes. They are copied.
        epoch : int
            Version of the new matrix, 0 to 2**63 - 1.

        Returns
        -------
        PageMatrix
            One of its own: this one stays as it is, and so do engines over it.

        Raises
        ------
        OSError
            If the file cannot be mapped again.
        TypeError
            If an index or epoch is no int, or pages is no array of uint8.
        ValueError
            If an index or epoch is out of range, an index is not above the one before, pages has
            another shape, or the file was truncated.

        Notes
        -----
        Over a file it is a private mapping of the same file, whatever its name names by now: in
        memory are the pages that differ from the file, which is not changed. Over an array it is a
        copy.
        """
        changed = check_changes(indices, pages, self._num_pages, self._page_size)
        version = check_epoch(epoch)
        tail = self._tail
        if tail is not None and len(changed) and changed[-1] == len(self._body):
            tail = pages[-1].copy()
            tail.flags.writeable = False
            changed, pages = changed[:-1], pages[:-1]
        if self._file is None:
            body = self._body.copy()
            body[changed] = pages
            return PageMatrix(body, version)

        writeable, frozen = self._file.map_privately(self._body.shape)
        kept = np.setdiff1d(self._changed, changed, assume_unique=True)
        parts = 1 + len(kept) * self._page_size // _COPIED_BYTES
        for some in np.array_split(kept, min(parts, len(kept) or 1)):
            writeable[some] = self._body[some]
        writeable[changed] = pages
        matrix = PageMatrix.__new__(PageMatrix)
        matrix._set(frozen, tail, self._file, version)
        matrix._changed = np.union1d(kept, changed)
        return matrix

    @property
    def num_pages(self) -> int:
        """The number of pages, with a padded last one."""
        return self._num_pages

    @property
    def page_size(self) -> int:
        """Bytes a page."""
        return self._page_size

    @property
    def epoch(self) -> int:
        """Version of the pages."""
        return self._epoch

    @property
    def nbytes(self) -> int:
        """Bytes of all pages, with the padding of the last."""
        return self._num_pages * self._page_size

    @property
    def mapped(self) -> bool:
        """Whether the pages are those of a mapped file, which may not be in memory."""
        return self._file is not None

    @property
    def body(self) -> npt.NDArray[np.uint8]:
        """The pages that lie contiguously: uint8 of shape (pages, page_size), read-only."""
        return self._body

    @property
    def tail(self) -> npt.NDArray[np.uint8] | None:
        """The last page if it was copied aside: uint8 of shape (page_size,), else None."""
        return self._tail

    def __len__(self) -> int:
        return self._num_pages

    def __getitem__(self, index: SupportsIndex) -> npt.NDArray[np.uint8]:
        """One page: uint8 of shape (page_size,), read-only."""
        position = operator.index(index)
        check_range("a page's index", position, 0, self._num_pages - 1, error=IndexError)
        if position == self._body.shape[0]:
            assert self._tail is not None
            return self._tail
        page: npt.NDArray[np.uint8] = self._body[position]
        return page

    def __reduce__(self) -> Any:
        raise TypeError("a PageMatrix cannot be pickled: open it where it is used")

    def __repr__(self) -> str:
        kind = "mapped" if self.mapped else "in memory"
        return (
            f"PageMatrix({self._num_pages} pages of {self._page_size} bytes, epoch {self._epoch}, "
            f"{kind})"
        )


def _checked(
    page_size: SupportsIndex, offset: SupportsIndex, epoch: SupportsIndex
) -> tuple[int, int, int]:
    size, start = as_int("page_size", page_size), as_int("offset", offset)
    check_range("page_size", size, 1, MAX_PAGE_SIZE)
    check_range("offset", start, 0)
    return size, start, check_epoch(epoch)

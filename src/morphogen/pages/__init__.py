"""The page matrix: pages of one size, in memory or mapped from a file."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from typing import Any, BinaryIO, SupportsIndex

import numpy as np
import numpy.typing as npt

from morphogen.checks import as_int, check_range
from morphogen.pages.changes import (
    MAX_EPOCH as MAX_EPOCH,
    check_array as check_array,
    check_changes as check_changes,
    check_epoch as check_epoch,
)
from morphogen.pages.mapped_file import MappedFile, open_file
from morphogen.pages.shape import (
    MAX_PAGE_SIZE as MAX_PAGE_SIZE,
    TableShape as TableShape,
    check_part,
)

_COPIED_BYTES = 1 << 20  # of earlier changes at a time, if a page is not longer


class PageMatrix:
    """A matrix of pages over an existing array, without a copy.

    It has all pages of a table, unless `open` or `slice` made it: then it may have some that follow
    each other, and be one of many such slices.

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

    __slots__ = ("_body", "_changed", "_file", "_first", "_num_pages", "_table", "_tail")

    _body: npt.NDArray[np.uint8]
    _changed: npt.NDArray[np.int64]  # pages of the body that are others than the file's
    _file: MappedFile | None
    _first: int
    _num_pages: int
    _table: TableShape
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
        table = TableShape(array.shape[0], array.shape[1], check_epoch(epoch))
        self._set(table, 0, array, None, None)

    def _set(
        self,
        table: TableShape,
        first: int,
        body: npt.NDArray[np.uint8],
        tail: npt.NDArray[np.uint8] | None,
        file: MappedFile | None,
        changed: npt.NDArray[np.int64] | None = None,
    ) -> PageMatrix:
        self._table = table
        self._first = first
        self._body = body.view(np.ndarray)
        self._body.flags.writeable = False
        self._tail = tail
        self._file = file
        self._changed = np.empty(0, dtype=np.int64) if changed is None else changed
        self._num_pages = body.shape[0] + (tail is not None)
        return self

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        page_size: int = 4096,
        epoch: int = 0,
        *,
        offset: int = 0,
        first: SupportsIndex = 0,
        count: SupportsIndex | None = None,
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
        first : int, optional
            The table's first page to map, a multiple of ``morphogen.dpf.PAGES_PER_LEAF``, 512.
        count : int, optional
            The pages to map; by default all that follow. No others are mapped.

        Returns
        -------
        PageMatrix
            Over the mapped file, or a slice of it.

        Raises
        ------
        OSError
            If the file cannot be opened or mapped.
        TypeError
            If page_size, epoch, offset, first or count is no int.
        ValueError
            If it has no byte after offset, is a pipe, a device or the like, offset is negative,
            page_size is not in 1..2**40, epoch is out of range, first is no multiple of 512, or the
            table has no such pages.

        Notes
        -----
        A file that somebody truncates while it is mapped makes the operating system end the process
        with SIGBUS at the next access; no library can turn that into an exception. The file may be
        larger than memory.
        """
        size, start, version = _checked(page_size, offset, epoch)

        def refuse(found: str) -> ValueError:
            return ValueError(f"a table needs a file to map: {found}")

        with open_file(path, refuse) as file:
            return cls._map(file, size, version, start, first=first, count=count)

    @classmethod
    def _map(
        cls,
        file: BinaryIO,
        page_size: int,
        epoch: int,
        offset: int,
        num_pages: int | None = None,
        first: SupportsIndex = 0,
        count: SupportsIndex | None = None,
    ) -> PageMatrix:
        """Map an open file, whose header the caller may have read, as a page matrix.

        More may follow ``num_pages`` pages, which the caller knows to be there.
        """
        size, start, version = _checked(page_size, offset, epoch)
        mapped = MappedFile(file, start)
        pages = -(-mapped.size // size) if num_pages is None else num_pages
        table = TableShape(pages, size, version)
        begin, held = check_part(pages, first, count)
        mapped = mapped.part(begin * size, (begin + held) * size)
        flat = mapped.map()
        whole, rest = divmod(len(flat), size)
        tail = None
        if rest:
            tail = np.zeros(size, dtype=np.uint8)
            tail[:rest] = flat[whole * size :]
            tail.flags.writeable = False
        body = flat[: whole * size].reshape(whole, size)
        return cls.__new__(cls)._set(table, begin, body, tail, mapped)

    def slice(self, first: SupportsIndex, count: SupportsIndex | None = None) -> PageMatrix:
        """Take some of the pages that follow each other, without a copy.

        Parameters
        ----------
        first : int
            The first of them, as an index of this matrix; a multiple of
            ``morphogen.dpf.PAGES_PER_LEAF``, 512.
        count : int, optional
            How many; by default all that follow.

        Returns
        -------
        PageMatrix
            Of the same table and epoch. An engine over it takes keys of the whole table, and
            answers the XOR of those of these pages that a key selects. So the answers over slices
            that cover a table add up to the answer over the table.

        Raises
        ------
        OSError
            If this process may not have another file open.
        TypeError, ValueError
            If a number is no int or out of range, or first is no multiple of 512.

        Examples
        --------
        >>> import numpy as np
        >>> import morphogen as mg
        >>> pages = mg.PageMatrix(np.zeros((1000, 64), dtype=np.uint8))
        >>> pages.slice(512)
        PageMatrix(488 pages of 64 bytes, 512 to 999 of 1000, epoch 0, in memory)
        """
        begin, held = check_part(self._num_pages, first, count)
        stop = begin + held
        tail, file = self._tail if stop > len(self._body) else None, self._file
        if file is not None:
            file = file.part(begin * self.page_size, stop * self.page_size)
        changed = self._changed[(self._changed >= begin) & (self._changed < stop)] - begin
        return PageMatrix.__new__(PageMatrix)._set(
            self._table, self._first + begin, self._body[begin:stop], tail, file, changed
        )

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
            The pages that change, ascending, each once. There may be none. Those of a slice are
            counted from its own first page, as everywhere in a matrix.
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
        changed = check_changes(indices, pages, self._num_pages, self.page_size)
        table = TableShape(self._table.num_pages, self.page_size, check_epoch(epoch))
        tail = self._tail
        if tail is not None and len(changed) and changed[-1] == len(self._body):
            tail = pages[-1].copy()
            tail.flags.writeable = False
            changed, pages = changed[:-1], pages[:-1]
        if self._file is None:
            body = self._body.copy()
            body[changed] = pages
            return PageMatrix.__new__(PageMatrix)._set(table, self._first, body, tail, None)

        writeable, frozen = self._file.map_privately(self._body.shape)
        kept = np.setdiff1d(self._changed, changed, assume_unique=True)
        parts = 1 + len(kept) * self.page_size // _COPIED_BYTES
        for some in np.array_split(kept, min(parts, len(kept) or 1)):
            writeable[some] = self._body[some]
        writeable[changed] = pages
        return PageMatrix.__new__(PageMatrix)._set(
            table, self._first, frozen, tail, self._file, np.union1d(kept, changed)
        )

    @property
    def table(self) -> TableShape:
        """The whole table, of which these may be some pages."""
        return self._table

    @property
    def first(self) -> int:
        """The number in the table of the first of these pages: a multiple of 512."""
        return self._first

    @property
    def num_pages(self) -> int:
        """The number of these pages, with a padded last one."""
        return self._num_pages

    @property
    def page_size(self) -> int:
        """Bytes a page."""
        return self._table.page_size

    @property
    def epoch(self) -> int:
        """Version of the pages."""
        return self._table.epoch

    @property
    def nbytes(self) -> int:
        """Bytes of these pages, with the padding of the last."""
        return self._num_pages * self.page_size

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
        which = ""
        if self._num_pages != self._table.num_pages:
            last = self._first + self._num_pages - 1
            which = f"{self._first} to {last} of {self._table.num_pages}, "
        return (
            f"PageMatrix({self._num_pages} pages of {self.page_size} bytes, {which}"
            f"epoch {self.epoch}, {kind})"
        )


def check_pages(pages: object) -> PageMatrix:
    """Refuse something other than pages.

    Parameters
    ----------
    pages : PageMatrix

    Returns
    -------
    PageMatrix
        The same.

    Raises
    ------
    TypeError
        If it is no PageMatrix.
    """
    if not isinstance(pages, PageMatrix):
        raise TypeError(f"pages must be a PageMatrix, not {type(pages).__name__}")
    return pages


def _checked(
    page_size: SupportsIndex, offset: SupportsIndex, epoch: SupportsIndex
) -> tuple[int, int, int]:
    size, start = as_int("page_size", page_size), as_int("offset", offset)
    check_range("page_size", size, 1, MAX_PAGE_SIZE)
    check_range("offset", start, 0)
    return size, start, check_epoch(epoch)

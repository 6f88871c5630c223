"""The shape and version of a table, whoever holds its pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsIndex

import morphogen.dpf as dpf
from morphogen.checks import as_int, check_range
from morphogen.pages.changes import check_epoch

MAX_PAGE_SIZE = 2**40


@dataclass(frozen=True, slots=True)
class TableShape:
    """How many pages a table has, how large they are, and which version of them this is.

    Parameters
    ----------
    num_pages : int
        Pages in the table, 1 to 2**40, with a padded last one.
    page_size : int
        Bytes a page, 1 to 2**40.
    epoch : int, optional
        Version of the pages, 0 to 2**63 - 1.

    Raises
    ------
    TypeError, ValueError
        If a number is no int, or out of range.

    Examples
    --------
    >>> import morphogen as mg
    >>> mg.TableShape(1000, 64).nbytes
    64000
    """

    num_pages: int
    page_size: int
    epoch: int = 0

    def __post_init__(self) -> None:
        pages, size = as_int("num_pages", self.num_pages), as_int("page_size", self.page_size)
        check_range("num_pages", pages, 1, dpf.MAX_PAGES)
        check_range("page_size", size, 1, MAX_PAGE_SIZE)
        # Plain ints, whatever kind was given.
        object.__setattr__(self, "num_pages", pages)
        object.__setattr__(self, "page_size", size)
        object.__setattr__(self, "epoch", check_epoch(self.epoch))

    @property
    def nbytes(self) -> int:
        """Bytes of all pages, with the padding of the last."""
        return self.num_pages * self.page_size


def check_part(
    num_pages: int, first: SupportsIndex, count: SupportsIndex | None
) -> tuple[int, int]:
    """Refuse a part of a table that no engine answers from.

    Parameters
    ----------
    num_pages : int
        Pages of what is cut.
    first : int
        The part's first page.
    count : int or None
        Pages of the part; None for all that follow.

    Returns
    -------
    tuple of (int, int)
        Both as plain ints.

    Raises
    ------
    TypeError, ValueError
        If a number is no int or out of range, or first is no multiple of the 512 pages of a leaf of
        a key's tree: each leaf is expanded as a whole.
    """
    begin = as_int("first", first)
    check_range("first", begin, 0, num_pages - 1)
    if begin % dpf.PAGES_PER_LEAF:
        raise ValueError(f"first must be a multiple of {dpf.PAGES_PER_LEAF}, not {begin}")
    if count is None:
        return begin, num_pages - begin
    held = as_int("count", count)
    check_range(f"count of pages from {begin} on", held, 1, num_pages - begin)
    return begin, held

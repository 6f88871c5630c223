"""Ranges of pages that several shards answer for, and the XOR of their parts.

This knows of no network and of no engine. A part that is left out, or added twice, makes a wrong
page that nobody can tell from a right one: so each range has one slot, and a sum with an open slot
is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from morphogen.checks import as_int, check_range
from morphogen.dpf import MAX_PAGES, PAGES_PER_LEAF


@dataclass(frozen=True, slots=True, order=True)
class ShardRange:
    """The pages of a table that one shard answers for.

    Parameters
    ----------
    first : int
        The first of them: a multiple of the 512 pages of a leaf of a key's tree.
    count : int
        How many there are, 1 or more.

    Raises
    ------
    TypeError, ValueError
        If a number is no int, or out of range.

    Examples
    --------
    >>> import morphogen.sharding as sharding
    >>> sharding.ShardRange(512, 488).stop
    1000
    """

    first: int
    count: int

    def __post_init__(self) -> None:
        first, count = as_int("first", self.first), as_int("count", self.count)
        check_range("first", first, 0, MAX_PAGES - 1)
        if first % PAGES_PER_LEAF:
            raise ValueError(f"first must be a multiple of {PAGES_PER_LEAF}, not {first}")
        check_range(f"count of pages from {first} on", count, 1, MAX_PAGES - first)
        # Plain ints, whatever kind was given.
        object.__setattr__(self, "first", first)
        object.__setattr__(self, "count", count)

    @property
    def stop(self) -> int:
        """The page after the last."""
        return self.first + self.count

    def __str__(self) -> str:
        return f"pages {self.first} to {self.stop - 1}"


def plan_shards(
    num_pages: SupportsIndex,
    shards: SupportsIndex,
    *,
    weights: Sequence[SupportsIndex] | None = None,
) -> tuple[ShardRange, ...]:
    """Cut a table into ranges, one for each shard.

    Parameters
    ----------
    num_pages : int
        Pages in the table, 1 to 2**40.
    shards : int
        Ranges, 1 to the table's leaves of 512 pages.
    weights : sequence of int, optional
        For each shard what it can take, such as the bytes of its memory, 1 or more. By default all
        can take the same.

    Returns
    -------
    tuple of ShardRange
        In order. Together they are all pages, each once. They are as large as their weights say, to
        a leaf or two; without weights their leaves differ by one at most.

    Raises
    ------
    TypeError, ValueError
        If a number is no int or out of range, such as more shards than leaves, or there are not as
        many weights as shards.

    Examples
    --------
    >>> import morphogen.sharding as sharding
    >>> sharding.plan_shards(2000, 2)
    (ShardRange(first=0, count=1024), ShardRange(first=1024, count=976))
    """
    pages, parts = as_int("num_pages", num_pages), as_int("shards", shards)
    check_range("num_pages", pages, 1, MAX_PAGES)
    leaves = -(-pages // PAGES_PER_LEAF)
    leaves_text = f"{leaves} {'leaf' if leaves == 1 else 'leaves'} of {PAGES_PER_LEAF}"
    check_range(f"shards of a table of {pages} pages, {leaves_text},", parts, 1, leaves)
    shares = [1] * parts if weights is None else [as_int("a weight", one) for one in weights]
    if len(shares) != parts:
        raise ValueError(f"weights must be as many as shards, {parts}, not {len(shares)}")
    for share in shares:
        check_range("a weight", share, 1)
    total = sum(shares)
    starts = [0]  # in leaves
    for at, before in enumerate(accumulate(shares[:-1]), start=1):
        fair = (leaves * before + total // 2) // total
        # None is empty, nor are those that follow.
        starts.append(min(max(fair, starts[-1] + 1), leaves - (parts - at)))
    bounds = [*(PAGES_PER_LEAF * start for start in starts), pages]
    return tuple(ShardRange(first, stop - first) for first, stop in pairwise(bounds))


def check_cover(ranges: Sequence[ShardRange], cover: ShardRange) -> tuple[ShardRange, ...]:
    """Refuse ranges that leave out a page, or have one twice.

    Parameters
    ----------
    ranges : sequence of ShardRange
        In order.
    cover : ShardRange
        The pages that they must have.

    Returns
    -------
    tuple of ShardRange
        The same.

    Raises
    ------
    ValueError
        If they are not exactly these pages, each once, in order.
    """
    at = cover.first
    for number, one in enumerate(ranges):
        if one.first > at:
            raise ValueError(
                f"no shard has pages {at} to {one.first - 1}: shard {number} begins at page "
                f"{one.first}"
            )
        if one.first < at:
            raise ValueError(
                f"shard {number} must begin at page {at}, where the shards before it end, not at "
                f"page {one.first}"
            )
        at = one.stop
    if at < cover.stop:
        raise ValueError(
            f"no shard has pages {at} to {cover.stop - 1}: the shards end at page {at}"
        )
    if at > cover.stop:
        raise ValueError(
            f"the shards must end at page {cover.stop}, as the table does, not at {at}"
        )
    return tuple(ranges)


class Coverage:
    """The parts of a pass: one slot for each range, which takes one part and no more.

    Parts are added up as they come, but for the last, which `fold` adds.

    Parameters
    ----------
    ranges : sequence of ShardRange
        `check_cover` has seen them.

    Notes
    -----
    Who adds from several threads holds a lock.

    Examples
    --------
    >>> import numpy as np
    >>> import morphogen.sharding as sharding
    >>> coverage = sharding.Coverage(sharding.plan_shards(2000, 2))
    >>> coverage.add(1, np.array([5], np.uint8)), coverage.add(1, np.array([5], np.uint8))
    (True, False)
    >>> coverage.missing
    (ShardRange(first=0, count=1024),)
    >>> coverage.add(0, np.array([6], np.uint8)), coverage.complete
    (True, True)
    >>> out = np.empty(1, np.uint8)
    >>> sharding.fold(coverage, out)
    >>> int(out[0])
    3
    """

    __slots__ = ("_filled", "_last", "_left", "_own", "_ranges", "_sum")

    def __init__(self, ranges: Sequence[ShardRange]) -> None:
        self._ranges = ranges
        self._filled = bytearray(len(ranges))
        self._left = len(ranges)
        self._last: npt.NDArray[np.uint8] | None = None
        self._sum: npt.NDArray[np.uint8] | None = None  # of all but the last
        self._own = False  # whether the sum is an array of our own, and not a part

    def add(self, index: int, part: npt.NDArray[np.uint8]) -> bool:
        """Take the part of a range, unless its slot has one.

        Parameters
        ----------
        index : int
            The range's.
        part : numpy.ndarray
            uint8, of the same shape as all. It is not copied: it must stay as it is.

        Returns
        -------
        bool
            Whether it was taken: False for a double.

        Raises
        ------
        ValueError
            If the part is of another shape than those before.
        """
        last = self._last
        if last is not None and part.shape != last.shape:  # numpy would repeat a smaller one
            raise ValueError(f"a part must have shape {last.shape}, not {part.shape}")
        if self._filled[index]:
            return False
        # The count comes last: after an interrupt in the middle, the sum is never complete.
        self._filled[index] = True
        self._last = part
        if last is not None:
            self._merge(last)
        self._left -= 1
        return True

    def _merge(self, part: npt.NDArray[np.uint8]) -> None:
        if self._sum is None:
            self._sum = part
        elif self._own:
            np.bitwise_xor(self._sum, part, out=self._sum)
        else:
            self._sum = np.bitwise_xor(self._sum, part)
            self._own = True

    def has(self, index: int) -> bool:
        """Whether the slot of a range has its part.

        Parameters
        ----------
        index : int
            The range's.

        Returns
        -------
        bool
            False for an open slot.
        """
        return bool(self._filled[index])

    @property
    def complete(self) -> bool:
        """Whether every slot has its part."""
        return not self._left

    @property
    def missing(self) -> tuple[ShardRange, ...]:
        """The ranges whose slot is open, in order."""
        return tuple(
            one for one, filled in zip(self._ranges, self._filled, strict=True) if not filled
        )


def fold(parts: Coverage, out: npt.NDArray[np.uint8]) -> None:
    """Write the XOR of one part of every range.

    Parameters
    ----------
    parts : Coverage
        It must be complete.
    out : numpy.ndarray
        uint8, of the shape of a part: the array to write to.

    Raises
    ------
    ValueError
        If a part is missing, or out has another shape.
    """
    last, total = parts._last, parts._sum
    if not parts.complete or last is None:
        first, *others = parts.missing
        more = f" and {len(others)} more" if others else ""
        raise ValueError(f"a sum needs a part of every range, and {first}{more} has none")
    if last.shape != out.shape:
        raise ValueError(f"out must have the shape of the parts, {last.shape}, not {out.shape}")
    if total is None:
        np.copyto(out, last)
    else:
        np.bitwise_xor(total, last, out=out)

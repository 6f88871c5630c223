"""The arrays into which batches are answered: a caller's, or new ones."""

from __future__ import annotations

import math
import weakref

import numpy as np
import numpy.typing as npt

from morphogen.pages import PageMatrix, check_array

# Smaller answers are left to the allocator, which keeps their memory by itself.
LEAST_BYTES = 8 << 20
# Kept in all: for pages of 4 MiB the answers to 96, 24 and 6 keys, one of each.
MOST_BYTES = 512 << 20
_LINE = 64  # bytes of a cache line


def check_out(
    out: npt.NDArray[np.uint8], shape: tuple[int, int, int], pages: PageMatrix | None
) -> npt.NDArray[np.uint8]:
    """Refuse an array into which a batch cannot be answered.

    Parameters
    ----------
    out : numpy.ndarray
        What a caller gave.
    shape : tuple of int
        That of the answers.
    pages : PageMatrix or None
        The pages that are read meanwhile.

    Returns
    -------
    numpy.ndarray
        The same.

    Raises
    ------
    TypeError, ValueError
        If it has the wrong type or shape, is strided or read-only, or shares the pages' memory.
    """
    check_array("out", out, shape)
    if not out.flags.c_contiguous:
        raise ValueError(f"out must be C-contiguous, not strided by {out.strides}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, not read-only")
    for part in () if pages is None else (pages.body, pages.tail):
        if part is not None and np.may_share_memory(out, part):
            raise ValueError("out must not lie in the memory of the pages")
    return out


class AnswerMemory:
    """Makes arrays for answers, and keeps the memory of large ones for the next.

    The system clears new memory, which takes longer than to write a large answer. So the memory of
    an answer is kept once neither the answer nor a part of it is referred to. The next answer takes
    the smallest block that it fits into, and at least half of it. Where more than `most` bytes
    would be kept, the blocks that have waited longest are freed.

    It may be used by many threads, and after a fork: each process has its copy of the memory. An
    answer may also end within a call, in a collection of garbage, where a lock could deadlock. So
    there is none: each step on the dictionary is one of CPython's that nothing comes between, and
    who takes a block out of it has it.

    Parameters
    ----------
    most : int, optional
        Bytes of memory that are kept in all, and of an answer whose memory is kept.
    """

    __slots__ = ("_kept", "_most")

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._kept: dict[int, npt.NDArray[np.uint8]] = {}  # by id, the first kept first

    def take(self, shape: tuple[int, int, int], pages: PageMatrix | None) -> npt.NDArray[np.uint8]:
        """Return an array with any contents, which no other array that is in use overlaps.

        Parameters
        ----------
        shape : tuple of int
            That of answers of `LEAST_BYTES` or more.
        pages : PageMatrix or None
            The pages that are read meanwhile. The array lies in cache lines as they do, so that
            their sums can be written by whole lines.

        Returns
        -------
        numpy.ndarray
            uint8 of this shape.

        Raises
        ------
        MemoryError
            If there is no memory.
        """
        needed = math.prod(shape) + _LINE
        if needed > self._most:
            return np.empty(shape, dtype=np.uint8)
        block = self._take_kept(needed)
        if block is None:
            self._free_beyond(self._most - needed)  # before more is asked for
            block = np.empty(needed, dtype=np.uint8)
        start = 0 if pages is None else (_address(pages.body) - _address(block)) % _LINE
        # Views refer to the array that lies on a buffer, as no array is beneath that.
        array = np.frombuffer(block.data, np.uint8, math.prod(shape), start)
        weakref.finalize(array, self._keep, block).atexit = False
        return array.reshape(shape)

    def close(self) -> None:
        """Keep nothing any more, nor the memory of answers that are still in use."""
        self._most = 0
        self._free_beyond(0)

    def _take_kept(self, needed: int) -> npt.NDArray[np.uint8] | None:
        # Of those of one size the last used, so that what is not needed gets old.
        blocks = [one for one in self._blocks()[::-1] if needed <= one.size <= 2 * needed]
        for block in sorted(blocks, key=len):
            if self._kept.pop(id(block), None) is not None:  # else another call has it
                return block
        return None

    def _keep(self, block: npt.NDArray[np.uint8]) -> None:
        self._kept[id(block)] = block
        self._free_beyond(self._most)  # read after that, so that what comes as it closes goes too

    def _free_beyond(self, most: int) -> None:
        blocks = self._blocks()
        total = sum(block.size for block in blocks)
        for block in blocks:
            if total <= most:
                break
            self._kept.pop(id(block), None)
            total -= block.size

    def _blocks(self) -> list[npt.NDArray[np.uint8]]:
        # Of values: a list of items makes tuples, and so may collect garbage as it goes.
        return list(self._kept.values())


def _address(array: npt.NDArray[np.uint8]) -> int:
    return int(array.__array_interface__["data"][0])

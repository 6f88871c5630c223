"""The arrays into which batches are answered: a caller's, or new ones."""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
import numpy.typing as npt

from morphogen.pages import PageMatrix, check_array

# Smaller answers are left to the allocator, which keeps their memory by itself.
LEAST_BYTES = 8 << 20
# Of an answer whose memory is kept: 96 keys and pages of 4 MiB need three quarters of it.
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
    """Makes arrays for answers, and keeps the memory of a large one for the next.

    The system clears new memory, which takes longer than to write a large answer. The memory of one
    answer is kept at most, of `MOST_BYTES` at most, once neither the answer nor a part of it is
    referred to. An answer that needs more, or less than half of it, has it freed.

    It may be used by many threads, and after a fork: it has no lock, and each process its copy of
    the memory.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: deque[npt.NDArray[np.uint8]] = deque(maxlen=1)

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
        if needed > MOST_BYTES:
            return np.empty(shape, dtype=np.uint8)
        try:
            block = self._kept.pop()  # one step, so that no two calls get the same
        except IndexError:
            block = None
        if block is None or not needed <= block.size <= 2 * needed:
            del block  # before more is asked for
            block = np.empty(needed, dtype=np.uint8)
        start = 0 if pages is None else (_address(pages.body) - _address(block)) % _LINE
        # Views refer to the array that lies on a buffer, as no array is beneath that.
        array = np.frombuffer(block.data, np.uint8, math.prod(shape), start)
        weakref.finalize(array, self._keep, block).atexit = False
        return array.reshape(shape)

    def close(self) -> None:
        """Keep nothing any more, nor the memory of answers that are still in use."""
        self._kept = deque(maxlen=0)

    def _keep(self, block: npt.NDArray[np.uint8]) -> None:
        self._kept.append(block)


def _address(array: npt.NDArray[np.uint8]) -> int:
    return int(array.__array_interface__["data"][0])

"""A file that is mapped, and mapped again for itself by who changes some of it."""

from __future__ import annotations

import math
import mmap
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from morphogen.checks import names_file

# Without it the system refuses to map a file larger than memory, as if all of it would be changed.
# Python has the name from 3.13 on.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
_SPECIAL = (
    ("pipe", stat.S_ISFIFO),
    ("socket", stat.S_ISSOCK),
    ("character device", stat.S_ISCHR),
    ("block device", stat.S_ISBLK),
)


class MappedFile:
    """An open file of pages, whose name may be another file's by now.

    Parameters
    ----------
    file : binary file
        It may be closed afterwards.
    start : int
        Bytes of the file before the first page.

    Raises
    ------
    OSError
        If this process may not have another file open.
    ValueError
        If it has no byte after start.
    """

    def __init__(self, file: BinaryIO, start: int) -> None:
        self._name, self._start = file.name, start
        self._stop = self._length = os.fstat(file.fileno()).st_size
        if self._length <= start:
            after = f" after offset {start}" if start else ""
            raise ValueError(
                f"a table needs at least one byte{after}: {os.fspath(file.name)} has {self._length}"
            )
        self._descriptor = os.dup(file.fileno())

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    @property
    def size(self) -> int:
        """Bytes that are mapped."""
        return self._stop - self._start

    def part(self, first: int, stop: int) -> MappedFile:
        """A part of the same file, which is mapped without the rest.

        Parameters
        ----------
        first, stop : int
            Where it begins and ends, in bytes after `start`. What the file does not have is left
            out.

        Returns
        -------
        MappedFile

        Raises
        ------
        OSError
            If this process may not have another file open.
        """
        part = MappedFile.__new__(MappedFile)
        part._name, part._length = self._name, self._length
        part._start, part._stop = self._start + first, min(self._start + stop, self._stop)
        part._descriptor = os.dup(self._descriptor)
        return part

    def map(self) -> npt.NDArray[np.uint8]:
        """Map the file.

        Returns
        -------
        numpy.ndarray
            uint8: the bytes from `start` on, read-only.

        Raises
        ------
        OSError
            If it cannot be mapped. It names the file.
        """
        offset, length, before = self._span()
        with names_file(self._name):
            mapping = mmap.mmap(self._descriptor, length, access=mmap.ACCESS_READ, offset=offset)
        return np.frombuffer(mapping, np.uint8, offset=before)

    def map_privately(
        self, shape: tuple[int, ...]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Map the file once more. What is written there is in memory, and never in the file.

        Parameters
        ----------
        shape : tuple of int
            Of pages, from `start` on.

        Returns
        -------
        writeable, frozen : numpy.ndarray
            uint8 of that shape, twice the same memory; through the second it cannot be written.

        Raises
        ------
        OSError
            As for `map`.
        ValueError
            If the file was truncated since.
        """
        length = os.fstat(self._descriptor).st_size
        if length < self._length:
            raise ValueError(
                f"{os.fspath(self._name)} was truncated while it was mapped: it has {length} bytes "
                f"instead of {self._length}"
            )
        offset, length, before = self._span()
        with names_file(self._name):
            mapping = mmap.mmap(
                self._descriptor,
                length,
                flags=mmap.MAP_PRIVATE | _NO_RESERVE,
                prot=mmap.PROT_READ | mmap.PROT_WRITE,
                offset=offset,
            )
        # numpy asks a view what it may, and the mapping itself would say that it can be written.
        frozen = np.frombuffer(memoryview(mapping).toreadonly(), np.uint8, offset=before)
        writeable = np.frombuffer(mapping, np.uint8, offset=before)
        size = math.prod(shape)
        return writeable[:size].reshape(shape), frozen[:size].reshape(shape)

    def _span(self) -> tuple[int, int, int]:
        """Where a mapping begins in the file, its bytes, and those of them before `start`."""
        before = self._start % mmap.ALLOCATIONGRANULARITY  # a mapping begins at its multiples
        offset = self._start - before
        return offset, self._stop - offset, before


def beginning_of(path: str | os.PathLike[str], size: int) -> bytes:
    """Read the first bytes of a file, by which its kind is told.

    Parameters
    ----------
    path : path-like
        It must be there.
    size : int
        How many bytes.

    Returns
    -------
    bytes
        Fewer where the file has no more; none of a folder, a pipe and the like.

    Raises
    ------
    OSError
        If it is not there or cannot be read.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):
        return b""
    with names_file(path), Path(path).open("rb") as file:
        return file.read(size)


def open_file(path: str | os.PathLike[str], refuse: Callable[[str], Exception]) -> BinaryIO:
    """Open a file to read it, but no pipe, which would wait for a writer, nor a device.

    Parameters
    ----------
    path : path-like
        The file.
    refuse : callable
        Makes the error of another kind of path, from words such as "fruit is a pipe".

    Returns
    -------
    binary file

    Raises
    ------
    Exception
        What ``refuse`` made.
    OSError
        If it is not there or cannot be opened.
    """
    mode = Path(path).stat().st_mode
    kind = next((name for name, is_kind in _SPECIAL if is_kind(mode)), "")
    if kind:
        raise refuse(f"{os.fspath(path)} is a {kind}")
    return Path(path).open("rb")

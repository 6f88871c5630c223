"""Compressed files, read without unpacking them anywhere."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Any

from morphogen.checks import missing_extra

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
# A frame that readers skip: the tools that split files into frames write one of these sixteen.
_SKIPPED = tuple(bytes([0x50 + low, 0x2A, 0x4D, 0x18]) for low in range(16))


class Stream:
    """The bytes of a file, decompressed where it begins as a compressed one does.

    Parameters
    ----------
    path : pathlib.Path
        The file's name, for messages.
    file : binary file
        Open at its beginning.
    head : bytes
        Its first bytes.
    """

    def __init__(self, path: Path, file: IO[bytes], head: bytes) -> None:
        self._path = path
        self.kind: str = ""
        self._peeked = b""
        self._stream: Any = file
        if head.startswith(GZIP):
            self.kind = "gzip"
            self._stream = gzip.GzipFile(fileobj=file, mode="rb")
        elif head.startswith((ZSTD, *_SKIPPED)):
            self.kind = "Zstandard"
            self._stream = _zstandard(path, file)

    def read(self, size: int) -> bytes:
        """Read some bytes, however many a compressed file holds.

        Parameters
        ----------
        size : int
            The most that is wanted.

        Returns
        -------
        bytes
            Nothing at the end.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is compressed and was cut short or damaged, or something else follows.
        """
        if self._peeked:
            peeked, self._peeked = self._peeked[:size], self._peeked[size:]
            return peeked
        try:
            read: bytes = self._stream.read(size)
        except EOFError:
            raise ValueError(f"{self._path}: the {self.kind} file was cut short") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise self._damaged(error) from None
        except OSError as error:
            if not self.kind or error.errno is not None:
                raise
            if "Truncated" in str(error):
                raise ValueError(f"{self._path}: the {self.kind} file was cut short") from None
            raise self._damaged(error) from None
        return read

    def peek(self, size: int) -> bytes:
        """Look at the first bytes, before any is read.

        Parameters
        ----------
        size : int
            The most that is wanted.

        Returns
        -------
        bytes
            Which `read` will give, too.

        Raises
        ------
        OSError, ValueError
            As from `read`.
        """
        self._peeked = self.read(size)
        return self._peeked

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(
            f"{self._path}: the {self.kind} file is damaged, or something follows it: {error}"
        )


def _zstandard(path: Path, file: IO[bytes]) -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise missing_extra("pyarrow", "arrow", f"{path}: Zstandard") from None
    # It refuses frames whose window is above 128 MiB, so that a small file takes no large memory.
    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")


def beginning(file: IO[bytes], size: int) -> tuple[bytes, IO[bytes]]:
    """Look at the first bytes of a file, which may be a pipe.

    Parameters
    ----------
    file : binary file
        Open at its beginning.
    size : int
        How many bytes.

    Returns
    -------
    head : bytes
        Fewer where the file has no more.
    file : binary file
        All of it, from its beginning.
    """
    head = file.read(size)
    if file.seekable():
        file.seek(0)
        return head, file
    return head, io.BufferedReader(_Resumed(head, file))


class _Resumed(io.RawIOBase):
    """A pipe of which the beginning was read already."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._head = head
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._file.read(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)

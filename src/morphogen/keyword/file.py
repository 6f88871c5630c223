"""The keyword table's file: a header that describes and seals the pages, then the pages.

Section 12.4 of docs/protocol.md defines the header.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from morphogen.checks import names_file
from morphogen.errors import TableFileError
from morphogen.keyword.atomic_file import replace_file
from morphogen.keyword.layout import Bytes, TableLayout
from morphogen.pages import PageMatrix, special_kind
from morphogen.progress import Progress

VERSION = 1
MAGIC = b"MGKWT\r\n\x1a"  # a transfer that changes ends of lines spoils it
HEADER_BYTES = 4096
_ALIKE = 5  # bytes of the magic: once in 300 million files of random bytes
_FIELDS = struct.Struct("<8sIIQQQQQ16s32s")
_SEAL_BYTES = 32
_BLOCK = 1 << 22  # bytes hashed and written between two calls of progress


@dataclass(frozen=True, slots=True)
class TableHeader:
    """The header of a table file.

    Parameters
    ----------
    layout : TableLayout
        The places of the keys.
    digest : bytes
        SHA-256 of all pages, 32 bytes.
    """

    layout: TableLayout
    digest: bytes


def write_table(
    path: str | os.PathLike[str],
    array: Bytes,
    layout: TableLayout,
    *,
    progress: Progress | None = None,
) -> TableHeader:
    """Write a table's file, whole or not at all.

    A reader of ``path`` finds the old file or the new table, which has the permissions of any new
    file.

    Parameters
    ----------
    path : path-like
        A file that is there is replaced. A link is followed.
    array : numpy.ndarray
        uint8 of shape (num_pages, page_size), C-contiguous.
    layout : TableLayout
        That of the array.
    progress : callable, optional
        Called with the bytes written and those in all.

    Returns
    -------
    TableHeader
        The header that was written.

    Raises
    ------
    OSError
        If the file cannot be written. The file that was there before is still there.
    TypeError
        If array is not an array of uint8.
    ValueError
        If the array is not the layout's, or path is something other than a file.
    """
    pages = _checked(array, layout)
    with replace_file(path) as file:
        # If writing ends here for good, this is no table, and no file of plain pages either.
        file.write(MAGIC.ljust(HEADER_BYTES, b"\0"))
        header = TableHeader(layout, _digest(pages, progress, file))
        file.seek(0)
        file.write(_pack(header))
    return header


def send_table(
    stream: BinaryIO,
    array: Bytes,
    layout: TableLayout,
    *,
    progress: Progress | None = None,
) -> TableHeader:
    """Write a table's file to a stream, such as a pipe.

    Parameters
    ----------
    stream : binary file
        It need not be seekable.
    array : numpy.ndarray
        As for `write_table`.
    layout : TableLayout
        That of the array.
    progress : callable, optional
        Called with the bytes hashed and those in all.

    Returns
    -------
    TableHeader
        The header that was written.

    Raises
    ------
    OSError
        If the stream cannot be written.
    TypeError, ValueError
        As `write_table` does.
    """
    pages = _checked(array, layout)
    header = TableHeader(layout, _digest(pages, progress))
    stream.write(_pack(header))
    stream.write(pages.body.reshape(-1).data)
    stream.flush()
    return header


def open_table(
    path: str | os.PathLike[str],
    epoch: int = 0,
    *,
    verify: bool = True,
    progress: Progress | None = None,
) -> tuple[PageMatrix, TableLayout]:
    """Map a table's file, without reading it into memory.

    Parameters
    ----------
    path : path-like
        The file, as `write_table` makes it.
    epoch : int, optional
        Version of the table, 0 to 2**63 - 1.
    verify : bool, optional
        Whether to read all pages and compare them with the header's SHA-256. The header and the
        file's length are always checked.
    progress : callable, optional
        Called with the bytes verified and those in all.

    Returns
    -------
    pages : PageMatrix
        Over the mapped file, without its header.
    layout : TableLayout
        The places of the keys.

    Raises
    ------
    OSError
        If the file cannot be opened or mapped.
    TypeError, ValueError
        If epoch is no int, or out of range.
    TableFileError
        If it is no table, or was truncated, altered, or made for another version of the format.
    """
    with _open_file(path) as file:
        header = _read(file, path)
        layout = header.layout
        # This very file, although another may have taken its place since.
        pages = PageMatrix._map(file, layout.page_size, epoch, HEADER_BYTES)
    if verify and _digest(pages, progress) != header.digest:
        raise _altered(path, "its pages do not have the SHA-256 of its header")
    return pages, layout


def read_header(path: str | os.PathLike[str]) -> TableHeader:
    """Read the header of a table file, without its pages.

    Parameters
    ----------
    path : path-like
        The file, as `write_table` makes it.

    Returns
    -------
    TableHeader
        Its layout and the digest of its pages.

    Raises
    ------
    OSError
        If the file cannot be opened.
    TableFileError
        If it is no table, its header was altered, or its length is not what the header says.
    """
    with _open_file(path) as file:
        return _read(file, path)


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a keyword table does, or nearly so: it may be damaged.

    Parameters
    ----------
    path : path-like
        A file that may be a keyword table.

    Returns
    -------
    bool
        False for a folder, a pipe and the like.

    Raises
    ------
    OSError
        If it is not there or cannot be read.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):
        return False
    with names_file(path), Path(path).open("rb") as file:
        head = file.read(len(MAGIC))
    # A magic that lost a few bytes or its ends of lines: a table that `open_table` refuses must not
    # pass for a file of plain pages.
    alike = sum(one == other for one, other in zip(head, MAGIC, strict=False))
    return alike >= _ALIKE


def _checked(array: Bytes, layout: TableLayout) -> PageMatrix:
    pages = PageMatrix(array)  # an array of uint8, C-contiguous
    if array.shape != (layout.num_pages, layout.page_size):
        raise ValueError(
            f"array must have the layout's shape {(layout.num_pages, layout.page_size)}, not "
            f"{array.shape}"
        )
    return pages


def _pack(header: TableHeader) -> bytes:
    layout = header.layout
    fields = _FIELDS.pack(
        MAGIC,
        VERSION,
        HEADER_BYTES,
        layout.num_pages,
        layout.page_size,
        layout.slots_per_page,
        layout.value_size,
        layout.entries,
        layout.seed,
        header.digest,
    )
    sealed = fields.ljust(HEADER_BYTES - _SEAL_BYTES, b"\0")
    return sealed + sha256(sealed).digest()


def _open_file(path: str | os.PathLike[str]) -> BinaryIO:
    # A pipe would wait for a writer, and a device has no end.
    kind = special_kind(path)
    if kind:
        raise TableFileError(f"{os.fspath(path)} is a {kind}, not a keyword table")
    return Path(path).open("rb")


def _read(file: BinaryIO, path: str | os.PathLike[str]) -> TableHeader:
    with names_file(path):
        head = file.read(HEADER_BYTES)
    if head[: len(MAGIC)] != MAGIC:
        raise TableFileError(f"{os.fspath(path)} is not a keyword table: it begins otherwise")
    if len(head) < HEADER_BYTES:
        raise TableFileError(
            f"{os.fspath(path)} is truncated: a keyword table has a header of {HEADER_BYTES} "
            f"bytes, this file has {len(head)} in all"
        )
    if not any(head[len(MAGIC) :]):
        raise TableFileError(f"{os.fspath(path)} was not written to its end")
    sealed, seal = head[:-_SEAL_BYTES], head[-_SEAL_BYTES:]
    if sha256(sealed).digest() != seal:
        raise _altered(path, "its header does not have the SHA-256 that it says")
    _, version, header_bytes, pages, page_size, slots, value_size, entries, seed, digest = (
        _FIELDS.unpack_from(sealed)
    )
    # From here on nothing was altered by accident, but the writer may be another one.
    if (version, header_bytes) != (VERSION, HEADER_BYTES):
        raise TableFileError(
            f"{os.fspath(path)} has version {version} of the format and a header of "
            f"{header_bytes} bytes; this release reads version {VERSION} and {HEADER_BYTES}"
        )
    if any(sealed[_FIELDS.size :]):
        raise TableFileError(f"{os.fspath(path)} has a header whose unused bytes are not zero")
    try:
        layout = TableLayout(pages, page_size, slots, value_size, seed, entries, version=VERSION)
    except ValueError as error:
        raise TableFileError(f"{os.fspath(path)} has an impossible header: {error}") from None
    length = os.fstat(file.fileno()).st_size
    expected = HEADER_BYTES + pages * page_size
    if length != expected:
        what = "truncated" if length < expected else "too long"
        raise TableFileError(f"{os.fspath(path)} is {what}: {length} bytes instead of {expected}")
    return TableHeader(layout, digest)


def _altered(path: str | os.PathLike[str], why: str) -> TableFileError:
    return TableFileError(f"{os.fspath(path)} was altered: {why}")


def _digest(pages: PageMatrix, progress: Progress | None, file: BinaryIO | None = None) -> bytes:
    """The SHA-256 of all pages, which are written to file on the way."""
    flat = pages.body.reshape(-1).data
    hashed = sha256()
    for start in range(0, len(flat), _BLOCK):
        if progress is not None:
            progress(start, len(flat))
        block = flat[start : start + _BLOCK]
        hashed.update(block)
        if file is not None:
            file.write(block)
    if progress is not None:
        progress(len(flat), len(flat))
    return hashed.digest()

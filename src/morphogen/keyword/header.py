"""The header of a table file: what it says of the pages behind it, and by which hashes.

Section 12.4 of docs/protocol.md defines every byte.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from morphogen.authentication.hashing import HASH_BYTES
from morphogen.authentication.shape import Shape
from morphogen.errors import MorphogenError, TableFileError
from morphogen.keyword.file_header import HEADER_BYTES as HEADER_BYTES, FileKind
from morphogen.keyword.layout import SEED_BYTES, TableLayout
from morphogen.pages.mapped_file import beginning_of

MAGIC = b"MGKWT\r\n\x1a"  # a transfer that changes ends of lines spoils it
_ALIKE = 5  # bytes of the magic: once in 300 million files of random bytes
_FIELDS = struct.Struct("<QQQQQ16s32s")
_ADDED = struct.Struct("<QQ32s")  # by version 2: proof levels, fragments, root
_KIND = FileKind(
    "keyword table", MAGIC, {1: _FIELDS.size, 2: _FIELDS.size + _ADDED.size}, TableFileError
)


@dataclass(frozen=True, slots=True)
class TableHeader:
    """The header of a table file.

    Parameters
    ----------
    layout : TableLayout or None
        The places of the keys; None for pages without keys.
    num_pages : int
        Pages in the file.
    page_size : int
        Bytes a page.
    proof_levels : int
        Siblings in each page.
    digest : bytes
        SHA-256 of all pages, 32 bytes.
    root : bytes or None
        32 bytes that stand for the whole table; None in version 1.
    version : int
        1 or 2, of the format.
    """

    layout: TableLayout | None
    num_pages: int
    page_size: int
    proof_levels: int
    digest: bytes
    root: bytes | None
    version: int

    @property
    def cap_nodes(self) -> int:
        """Nodes of the cap behind the pages, 32 bytes each; 0 in version 1."""
        if self.root is None:
            return 0
        return Shape(self.num_pages, self.page_size, self.proof_levels).cap_nodes

    @property
    def cap_offset(self) -> int:
        """Bytes of the file before its cap."""
        return HEADER_BYTES + self.num_pages * self.page_size

    @property
    def file_size(self) -> int:
        """Bytes of the file: header, pages and cap."""
        return self.cap_offset + HASH_BYTES * self.cap_nodes

    @property
    def authenticated_layout(self) -> bytes:
        """What the root vouches for beside pages and their shape: empty for pages without keys."""
        return b"" if self.layout is None else self.layout.authenticated_bytes()


def header_of(
    layout: TableLayout | None, shape: Shape, digest: bytes, root: bytes | None
) -> TableHeader:
    """Describe pages in a header.

    Parameters
    ----------
    layout : TableLayout or None
        The places of the keys, if the pages have some.
    shape : Shape
        That of the pages.
    digest : bytes
        SHA-256 of all pages.
    root : bytes or None
        None for version 1.

    Returns
    -------
    TableHeader
    """
    return TableHeader(
        layout,
        shape.num_pages,
        shape.page_size,
        shape.proof_levels,
        digest,
        root,
        1 if root is None else 2,
    )


def pack_header(header: TableHeader) -> bytes:
    """Write a header, with its own SHA-256: 4096 bytes."""
    layout = header.layout
    keys = (0, 0, 0, bytes(SEED_BYTES))
    if layout is not None:
        keys = (layout.slots_per_page, layout.value_size, layout.entries, layout.seed)
    fields = _FIELDS.pack(header.num_pages, header.page_size, *keys, header.digest)
    if header.root is not None:
        fragments = 0 if layout is None else layout.fragments
        fields += _ADDED.pack(header.proof_levels, fragments, header.root)
    return _KIND.pack(header.version, fields)


def parse_header(head: bytes, length: int, path: str | os.PathLike[str]) -> TableHeader:
    """Read a header, and compare the file's length with what it says.

    Parameters
    ----------
    head : bytes
        The first 4096 bytes of the file, or as many as it has.
    length : int
        Bytes of the file.
    path : path-like
        Of the file, for messages.

    Returns
    -------
    TableHeader

    Raises
    ------
    TableFileError
        If it is no table, its header was altered, or its length is another.
    """
    version, fields = _KIND.unpack(head, path)
    try:
        header = _interpret(fields, version)
    except ValueError as error:
        raise TableFileError(f"{os.fspath(path)} has an impossible header: {error}") from None
    _KIND.check_size(length, header.file_size, path)
    return header


def _interpret(fields: bytes, version: int) -> TableHeader:
    num_pages, page_size, slots, value_size, entries, seed, digest = _FIELDS.unpack_from(fields)
    proof_levels, fragments, root = 0, 1, None
    if version > 1:
        proof_levels, fragments, root = _ADDED.unpack_from(fields, _FIELDS.size)
    layout = None
    if version == 1 or any((slots, value_size, entries, fragments, *seed)):
        layout = TableLayout(
            num_pages,
            page_size,
            slots,
            value_size,
            seed,
            entries,
            fragments,
            proof_levels,
            version,
        )
    return header_of(layout, Shape(num_pages, page_size, proof_levels), digest, root)


def altered(path: str | os.PathLike[str], why: str) -> MorphogenError:
    """The error of a file that is not as it was written."""
    return _KIND.altered(path, why)


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a table's file does, or nearly so: it may be damaged.

    Parameters
    ----------
    path : path-like
        A file that may be a keyword table, or sealed pages.

    Returns
    -------
    bool
        False for a folder, a pipe and the like.

    Raises
    ------
    OSError
        If it is not there or cannot be read.
    """
    head = beginning_of(path, len(MAGIC))
    # A magic that lost a few bytes or its ends of lines: a table that `open_table` refuses must not
    # pass for a file of plain pages.
    alike = sum(one == other for one, other in zip(head, MAGIC, strict=False))
    return alike >= _ALIKE

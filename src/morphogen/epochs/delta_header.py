"""The header of a delta file: what it says of the table before and after.

Section 15 of docs/protocol.md defines every byte.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from morphogen.authentication.hashing import HASH_BYTES
from morphogen.authentication.shape import Shape
from morphogen.checks import check_range
from morphogen.errors import DeltaError, MorphogenError
from morphogen.keyword.file_header import HEADER_BYTES as HEADER_BYTES, FileKind
from morphogen.keyword.layout import TableLayout
from morphogen.pages import MAX_EPOCH

MAGIC = b"MGKDL\r\n\x1a"  # a transfer that changes ends of lines spoils it
INDEX = np.dtype("<u8")  # the number of a page
_VERSION = 1
_BLOCK = 4096  # the numbers of pages are filled up to a multiple of it
_CHECKED = 1 << 20  # numbers of pages that are compared at a time
_FIELDS = struct.Struct("<6Q32s32s48s32s")
_KEYS = struct.Struct("<3Q16sQ")  # the 48 bytes: slots, value size, entries, seed, fragments
_KIND = FileKind("delta", MAGIC, {_VERSION: _FIELDS.size}, DeltaError)


@dataclass(frozen=True, slots=True)
class DeltaHeader:
    """What the header of a delta file says.

    Parameters
    ----------
    from_epoch, to_epoch : int
        Versions of the table before and after, the second above the first.
    num_pages, page_size, proof_levels : int
        The shape of both tables.
    count : int
        Pages whose contents change.
    root_before, root_after : bytes
        32 bytes that stand for the whole table before and after.
    layout : TableLayout or None
        The places of the keys in the table after; None for pages without keys.
    digest : bytes
        SHA-256 of all that follows the header, 32 bytes.
    """

    from_epoch: int
    to_epoch: int
    num_pages: int
    page_size: int
    proof_levels: int
    count: int
    root_before: bytes
    root_after: bytes
    layout: TableLayout | None
    digest: bytes

    @property
    def content_size(self) -> int:
        """Bytes of a page without its siblings."""
        return self.page_size - HASH_BYTES * self.proof_levels

    @property
    def contents_offset(self) -> int:
        """Bytes of the file before the contents."""
        return HEADER_BYTES + -(-INDEX.itemsize * self.count // _BLOCK) * _BLOCK

    @property
    def file_size(self) -> int:
        """Bytes of the file."""
        return self.contents_offset + self.count * self.content_size

    @property
    def authenticated_layout(self) -> bytes:
        """What the root after vouches for beside pages and their shape."""
        return b"" if self.layout is None else self.layout.authenticated_bytes()


def check_epochs(from_epoch: int, to_epoch: int) -> None:
    """Refuse epochs of which the second does not follow the first.

    Raises
    ------
    ValueError
        If it does not, or one is out of range.
    """
    check_range("from_epoch", from_epoch, 0, MAX_EPOCH)
    check_range("to_epoch", to_epoch, 0, MAX_EPOCH)
    if to_epoch <= from_epoch:
        raise ValueError(f"to_epoch must be above from_epoch, {from_epoch}, not {to_epoch}")


def check_header(header: DeltaHeader) -> None:
    """Refuse a header whose fields do not go together."""
    check_epochs(header.from_epoch, header.to_epoch)
    Shape(header.num_pages, header.page_size, header.proof_levels)
    check_range("count", header.count, 0, header.num_pages)
    for name in ("root_before", "root_after"):
        root = getattr(header, name)
        if not isinstance(root, bytes):
            raise TypeError(f"{name} must be bytes, not {type(root).__name__}")
        if len(root) != HASH_BYTES:
            raise ValueError(f"{name} must have {HASH_BYTES} bytes, not {len(root)}")
    layout = header.layout
    if layout is not None:
        for name in ("num_pages", "page_size", "proof_levels"):
            if getattr(layout, name) != getattr(header, name):
                raise ValueError(
                    f"layout must have {name} {getattr(header, name)}, not {getattr(layout, name)}"
                )
        layout.authenticated_bytes()  # which version 1 does not have


def check_indices(indices: npt.NDArray[np.integer[Any]], header: DeltaHeader) -> None:
    """Refuse numbers of pages that are not ascending, or not those of the header's table."""
    wanted = "indices must be a numpy.ndarray of whole numbers"
    if not isinstance(indices, np.ndarray):
        raise TypeError(f"{wanted}, not a {type(indices).__name__}")
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{wanted}, not of {indices.dtype}")
    if indices.ndim != 1:
        raise ValueError(f"indices must have 1 dimension, not {indices.ndim}")
    for start in range(0, len(indices), _CHECKED):
        part = indices[max(0, start - 1) : start + _CHECKED]
        wrong = np.flatnonzero(part[1:] <= part[:-1])
        if wrong.size:
            before, after = part[wrong[0]], part[wrong[0] + 1]
            raise ValueError(f"indices must be ascending, not {before}, then {after}")
    for index in (indices[0], indices[-1]) if len(indices) else ():
        check_range("an index", int(index), 0, header.num_pages - 1)


def pack_header(header: DeltaHeader) -> bytes:
    """Write a header, with its own SHA-256: 4096 bytes."""
    fields = _FIELDS.pack(
        header.from_epoch,
        header.to_epoch,
        header.num_pages,
        header.page_size,
        header.proof_levels,
        header.count,
        header.root_before,
        header.root_after,
        header.authenticated_layout,
        header.digest,
    )
    return _KIND.pack(_VERSION, fields)


def parse_header(head: bytes, length: int, path: str | os.PathLike[str]) -> DeltaHeader:
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
    DeltaHeader

    Raises
    ------
    DeltaError
        If it is no delta, its header was altered, or its length is another.
    """
    _, fields = _KIND.unpack(head, path)
    try:
        header = _interpret(*_FIELDS.unpack(fields))
    except ValueError as error:
        raise DeltaError(f"{os.fspath(path)} has an impossible header: {error}") from None
    _KIND.check_size(length, header.file_size, path)
    return header


def _interpret(
    from_epoch: int,
    to_epoch: int,
    num_pages: int,
    page_size: int,
    proof_levels: int,
    count: int,
    root_before: bytes,
    root_after: bytes,
    keys: bytes,
    digest: bytes,
) -> DeltaHeader:
    layout = None
    if any(keys):
        slots, value_size, entries, seed, fragments = _KEYS.unpack(keys)
        layout = TableLayout(
            num_pages, page_size, slots, value_size, seed, entries, fragments, proof_levels
        )
    header = DeltaHeader(
        from_epoch,
        to_epoch,
        num_pages,
        page_size,
        proof_levels,
        count,
        root_before,
        root_after,
        layout,
        digest,
    )
    check_header(header)
    return header


def altered(path: str | os.PathLike[str], why: str) -> MorphogenError:
    """The error of a file that is not as it was written."""
    return _KIND.altered(path, why)

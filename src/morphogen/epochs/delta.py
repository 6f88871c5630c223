"""Delta files: the contents that change from one epoch of a table to the next.

Behind a header come the numbers of the pages and their new contents, without the siblings, which
whoever applies it recomputes. Section 15 of docs/protocol.md defines every byte.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, BinaryIO, SupportsIndex

import numpy as np
import numpy.typing as npt

from morphogen.authentication.hashing import HASH_BYTES, Bytes
from morphogen.authentication.shape import Shape
from morphogen.checks import names_file
from morphogen.epochs.delta_header import (
    HEADER_BYTES,
    INDEX,
    MAGIC,
    DeltaHeader as DeltaHeader,
    altered,
    check_header,
    check_indices,
    pack_header,
    parse_header,
)
from morphogen.errors import DeltaError
from morphogen.keyword.atomic_file import replace_file
from morphogen.keyword.layout import TableLayout
from morphogen.pages import check_array, check_epoch
from morphogen.pages.mapped_file import MappedFile, beginning_of, open_file
from morphogen.progress import Progress

_HASHED = 1 << 22  # bytes hashed between two calls of progress


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Delta:
    """A delta file that is mapped, and was checked.

    Parameters
    ----------
    header : DeltaHeader
        All that the header says.
    indices : numpy.ndarray
        int64 (count,): the pages whose contents change, ascending.
    contents : numpy.ndarray
        uint8 (count, content_size): their new contents, read-only.
    name : str
        The file's, for messages.
    """

    header: DeltaHeader
    indices: npt.NDArray[np.int64]
    contents: Bytes
    name: str


def write_delta(
    path: str | os.PathLike[str],
    *,
    from_epoch: SupportsIndex,
    to_epoch: SupportsIndex,
    num_pages: SupportsIndex,
    page_size: SupportsIndex,
    proof_levels: SupportsIndex,
    root_before: bytes,
    root_after: bytes,
    layout: TableLayout | None,
    indices: npt.NDArray[np.integer[Any]],
    contents: Bytes | Iterable[Bytes],
    progress: Progress | None = None,
) -> DeltaHeader:
    """Write a delta file, whole or not at all.

    Whether the contents lead from the one root to the other is not computed.

    Parameters
    ----------
    path : path-like
        A file that is there is replaced. A link is followed.
    from_epoch, to_epoch : int
        As `DeltaHeader` has them, like all to the layout.
    num_pages, page_size, proof_levels : int
        The shape.
    root_before, root_after : bytes
        The roots.
    layout : TableLayout or None
        Of the table after.
    indices : numpy.ndarray
        Whole numbers (count,): the pages whose contents change, ascending, each once.
    contents : numpy.ndarray or iterable of them
        uint8 (count, page_size - 32 * proof_levels), in one array or in several, one after the
        other.
    progress : callable, optional
        Called with the bytes written and those in all.

    Returns
    -------
    DeltaHeader
        The header that was written.

    Raises
    ------
    OSError
        If the file cannot be written. The file that was there before is still there.
    TypeError, ValueError
        If an argument has the wrong type, is out of range, or has another shape, or path is
        something other than a file.
    """
    shape = Shape(num_pages, page_size, proof_levels)
    header = DeltaHeader(
        check_epoch(from_epoch),
        check_epoch(to_epoch),
        shape.num_pages,
        shape.page_size,
        shape.proof_levels,
        len(indices),
        root_before,
        root_after,
        layout,
        bytes(HASH_BYTES),
    )
    check_header(header)
    check_indices(indices, header)
    parts = [contents] if isinstance(contents, np.ndarray) else contents
    hashed, written = sha256(), header.contents_offset
    with replace_file(path) as file:

        def put(block: bytes | memoryview) -> None:
            hashed.update(block)
            file.write(block)

        file.write(MAGIC.ljust(HEADER_BYTES, b"\0"))
        for start in range(0, len(indices), _HASHED):
            put(indices[start : start + _HASHED].astype(INDEX).tobytes())
        put(bytes(header.contents_offset - file.tell()))
        for part in parts:
            check_array("contents", part, (len(part), header.content_size))
            put(np.ascontiguousarray(part).reshape(-1).data)
            written += part.size
            if progress is not None:
                progress(min(written, header.file_size), header.file_size)
        if written != header.file_size:
            raise ValueError(
                f"contents must be {header.count}, one for each of the indices, not "
                f"{(written - header.contents_offset) // header.content_size}"
            )
        header = replace(header, digest=hashed.digest())
        file.seek(0)
        file.write(pack_header(header))
    return header


def read_delta_header(path: str | os.PathLike[str]) -> DeltaHeader:
    """Read the header of a delta file, without what follows it.

    Parameters
    ----------
    path : path-like
        The file, as `write_delta` makes it.

    Returns
    -------
    DeltaHeader
        What it says.

    Raises
    ------
    OSError
        If the file cannot be opened.
    DeltaError
        If it is no delta, its header was altered, or its length is not what the header says.
    """
    with open_file(path, _not_one) as file:
        return _read(file, path)


def open_delta(path: str | os.PathLike[str], progress: Progress | None = None) -> Delta:
    """Map a delta file, and check all of it.

    Parameters
    ----------
    path : path-like
        The file, as `write_delta` makes it.
    progress : callable, optional
        Called with the bytes checked and those in all.

    Returns
    -------
    Delta
        Its header, and what follows that.

    Raises
    ------
    OSError
        If the file cannot be opened or mapped.
    DeltaError
        If it is no delta, or was truncated or altered.
    """
    with open_file(path, _not_one) as file:
        header = _read(file, path)
        flat = MappedFile(file, 0).map()
    name = os.fspath(path)
    if len(flat) != header.file_size:
        raise DeltaError(f"{name} was changed while it was read")
    hashed = sha256()
    for start in range(HEADER_BYTES, len(flat), _HASHED):
        if progress is not None:
            progress(start, len(flat))
        hashed.update(flat[start : start + _HASHED].data)
    if progress is not None:
        progress(len(flat), len(flat))
    if hashed.digest() != header.digest:
        raise altered(name, "what follows its header does not have the SHA-256 that this says")
    # From here on nothing was altered by accident, but the writer may be another one.
    end = HEADER_BYTES + INDEX.itemsize * header.count
    indices = flat[HEADER_BYTES:end].view(INDEX)
    try:
        check_indices(indices, header)
    except ValueError as error:
        raise DeltaError(f"{name} is no possible delta: {error}") from None
    if flat[end : header.contents_offset].any():
        raise DeltaError(f"{name} has bytes before its contents that are not zero")
    contents = flat[header.contents_offset :].reshape(header.count, header.content_size)
    return Delta(header, indices.view(np.int64), contents, name)


def is_delta(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a delta does.

    Parameters
    ----------
    path : path-like
        A file that may be a delta.

    Returns
    -------
    bool
        False for a folder, a pipe and the like.

    Raises
    ------
    OSError
        If it is not there or cannot be read.
    """
    return beginning_of(path, len(MAGIC)) == MAGIC


def _not_one(found: str) -> DeltaError:
    return DeltaError(f"{found}, not a delta")


def _read(file: BinaryIO, path: str | os.PathLike[str]) -> DeltaHeader:
    with names_file(path):
        head = file.read(HEADER_BYTES)
    return parse_header(head, os.fstat(file.fileno()).st_size, path)

"""The table's file: a header that describes and seals the pages, the pages, and their cap.

Section 12.4 of docs/protocol.md defines it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO

import numpy as np

from morphogen.authentication.hashing import HASH_BYTES
from morphogen.authentication.shape import Shape
from morphogen.authentication.tree import ChunkedTree, Tree, tree_of_pages
from morphogen.checks import names_file
from morphogen.errors import IntegrityError, TableFileError
from morphogen.keyword.atomic_file import replace_file
from morphogen.keyword.header import (
    HEADER_BYTES as HEADER_BYTES,
    MAGIC as MAGIC,
    TableHeader as TableHeader,
    altered,
    header_of,
    is_table as is_table,
    pack_header,
    parse_header,
)
from morphogen.keyword.layout import Bytes, TableLayout
from morphogen.pages import PageMatrix
from morphogen.pages.mapped_file import open_file
from morphogen.progress import Progress, by_the_hundredth

_BLOCK = 1 << 22  # bytes hashed and written between two calls of progress


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OpenedTable:
    """A table whose file is mapped.

    Parameters
    ----------
    pages : PageMatrix
        Over the mapped file, without its header and cap.
    layout : TableLayout or None
        The places of the keys; None for pages without keys.
    header : TableHeader
        All that the header says.
    tree : Tree or None
        The tree that was recomputed from the pages; None if the pages were not verified, and in
        version 1.
    """

    pages: PageMatrix
    layout: TableLayout | None
    header: TableHeader
    tree: Tree | None


def write_table(
    path: str | os.PathLike[str],
    array: Bytes,
    layout: TableLayout,
    *,
    progress: Progress | None = None,
) -> TableHeader:
    """Write a table's file, whole or not at all, in the version of its layout.

    A reader of ``path`` finds the old file or the new table, which has the permissions of any new
    file.

    Parameters
    ----------
    path : path-like
        A file that is there is replaced. A link is followed.
    array : numpy.ndarray
        uint8 of shape (num_pages, page_size), C-contiguous. In version 2 with their siblings.
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
    IntegrityError
        If a page has another sibling than the contents give.
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
        header, cap = _describe(pages, layout, progress, file)
        file.write(cap)
        file.seek(0)
        file.write(pack_header(header))
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
    IntegrityError
        As `write_table` does; nothing is written.
    OSError
        If the stream cannot be written.
    TypeError, ValueError
        As `write_table` does.
    """
    pages = _checked(array, layout)
    header, cap = _describe(pages, layout, progress)
    stream.write(pack_header(header))
    stream.write(pages.body.reshape(-1).data)
    stream.write(cap)
    stream.flush()
    return header


def open_table(
    path: str | os.PathLike[str],
    epoch: int = 0,
    *,
    verify: bool = True,
    progress: Progress | None = None,
) -> OpenedTable:
    """Map a table's file, without reading it into memory.

    Parameters
    ----------
    path : path-like
        The file, as `write_table` and `morphogen.keyword.sealing.seal_file` make it.
    epoch : int, optional
        Version of the table, 0 to 2**63 - 1.
    verify : bool, optional
        Whether to read all pages, and to compare their tree with the header's root and with the
        cap, in version 1 their SHA-256 with the header's. The header and the file's length are
        always checked.
    progress : callable, optional
        Called with the bytes verified and those in all.

    Returns
    -------
    OpenedTable
        The pages, over the mapped file, and what the file says of them.

    Raises
    ------
    OSError
        If the file cannot be opened or mapped.
    TypeError, ValueError
        If epoch is no int, or out of range.
    TableFileError
        If it is no table, or was truncated, altered, or made for another version of the format.
    """
    with open_file(path, _not_one) as file:
        header = _read(file, path)
        # This very file, although another may have taken its place since.
        pages = PageMatrix._map(file, header.page_size, epoch, HEADER_BYTES, header.num_pages)
        cap = _read_cap(file, header, path) if verify and header.root is not None else None
    tree = None
    if cap is not None:
        tree = verified_tree(pages, header, cap, path, progress)
    elif verify and _digest(pages, progress) != header.digest:
        raise altered(path, "its pages do not have the SHA-256 of its header")
    return OpenedTable(pages, header.layout, header, tree)


def read_header(path: str | os.PathLike[str]) -> TableHeader:
    """Read the header of a table file, without its pages.

    Parameters
    ----------
    path : path-like
        The file, as `write_table` makes it.

    Returns
    -------
    TableHeader
        Its layout, the digest of its pages and their root.

    Raises
    ------
    OSError
        If the file cannot be opened.
    TableFileError
        If it is no table, its header was altered, or its length is not what the header says.
    """
    with open_file(path, _not_one) as file:
        return _read(file, path)


def read_cap(path: str | os.PathLike[str]) -> Bytes:
    """Read the cap of a table file of version 2, without its pages.

    Parameters
    ----------
    path : path-like
        The file, as `write_table` makes it.

    Returns
    -------
    numpy.ndarray
        uint8 (nodes, 32), of which the header's root is the root.

    Raises
    ------
    OSError
        If the file cannot be opened.
    TableFileError
        If it is no table or one of version 1, or its cap or header was altered.
    """
    with open_file(path, _not_one) as file:
        header = _read(file, path)
        if header.root is None:
            raise TableFileError(f"{os.fspath(path)} is a table of version 1, which has no cap")
        cap = _read_cap(file, header, path)
    shape = Shape(header.num_pages, header.page_size, header.proof_levels)
    if shape.root(cap, header.authenticated_layout) != header.root:
        raise altered(path, "its cap does not have the root of its header")
    return cap


def check_digest(opened: OpenedTable, progress: Progress | None = None) -> bool:
    """Whether an opened table's pages have the SHA-256 of its header.

    Who verified a table of version 2 knows that they are its own; this tells whether the header
    says so to those who compare the SHA-256 alone.

    Parameters
    ----------
    opened : OpenedTable
        From `open_table`.
    progress : callable, optional
        Called with the bytes hashed and those in all.

    Returns
    -------
    bool
        False for a header that states the SHA-256 of other pages.
    """
    return _digest(opened.pages, progress) == opened.header.digest


def _checked(array: Bytes, layout: TableLayout) -> PageMatrix:
    pages = PageMatrix(array)  # an array of uint8, C-contiguous
    if array.shape != (layout.num_pages, layout.page_size):
        raise ValueError(
            f"array must have the layout's shape {(layout.num_pages, layout.page_size)}, not "
            f"{array.shape}"
        )
    return pages


def _describe(
    pages: PageMatrix,
    layout: TableLayout,
    progress: Progress | None,
    file: BinaryIO | None = None,
) -> tuple[TableHeader, bytes]:
    """The header and the cap of pages, which are written to file on the way."""
    shape = Shape(layout.num_pages, layout.page_size, layout.proof_levels)
    if layout.version == 1:
        return header_of(layout, shape, _digest(pages, progress, file), None), b""
    tree = ChunkedTree(shape)
    tell = by_the_hundredth(progress) if progress is not None else None
    hashed = sha256()
    for start in range(0, pages.num_pages, tree.chunk_pages):
        if tell is not None:
            tell(start * pages.page_size, pages.nbytes)
        chunk = pages.body[start : start + tree.chunk_pages]
        tree.verify(chunk)
        flat = chunk.reshape(-1).data
        hashed.update(flat)
        if file is not None:
            file.write(flat)
    if tell is not None:
        tell(pages.nbytes, pages.nbytes)
    cap = tree.cap()
    root = shape.root(cap, layout.authenticated_bytes())
    return header_of(layout, shape, hashed.digest(), root), cap.tobytes()


def _not_one(found: str) -> TableFileError:
    return TableFileError(f"{found}, not a keyword table")


def _read(file: BinaryIO, path: str | os.PathLike[str]) -> TableHeader:
    with names_file(path):
        head = file.read(HEADER_BYTES)
    return parse_header(head, os.fstat(file.fileno()).st_size, path)


def _read_cap(file: BinaryIO, header: TableHeader, path: str | os.PathLike[str]) -> Bytes:
    with names_file(path):
        file.seek(header.cap_offset)
        raw = file.read(HASH_BYTES * header.cap_nodes)
    if len(raw) != HASH_BYTES * header.cap_nodes:
        raise TableFileError(f"{os.fspath(path)} was truncated while it was read")
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, HASH_BYTES)


def verified_tree(
    pages: PageMatrix,
    header: TableHeader,
    cap: Bytes,
    path: str | os.PathLike[str],
    progress: Progress | None,
) -> Tree:
    """Recompute the tree of a table's pages, and compare it with what its file says.

    Parameters
    ----------
    pages : PageMatrix
        All pages of a table of version 2.
    header : TableHeader
        The file's.
    cap : numpy.ndarray
        uint8 (nodes, 32), as `read_cap` gives it.
    path : path-like
        Of the file, for messages.
    progress : callable or None
        Called with the bytes verified and those in all.

    Returns
    -------
    Tree
        The cap and the root.

    Raises
    ------
    TableFileError
        If a sibling, the root or the cap is not that of the pages.
    """
    try:
        tree = tree_of_pages(pages, header.proof_levels, header.authenticated_layout, progress)
    except IntegrityError:
        raise altered(path, "its pages do not have the siblings of their contents") from None
    if tree.root != header.root:
        raise altered(path, "its pages do not have the root of its header")
    if not np.array_equal(tree.cap, cap):
        raise altered(path, "its cap is not that of its pages")
    return tree


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

"""A table's file whose pages are made while it is written, a chunk at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import sha256

import numpy as np

from morphogen.authentication.shape import Shape
from morphogen.authentication.tree import ChunkedTree
from morphogen.keyword.atomic_file import replace_file
from morphogen.keyword.header import HEADER_BYTES, MAGIC, TableHeader, header_of, pack_header
from morphogen.keyword.layout import Bytes, TableLayout
from morphogen.progress import Progress


def write_pages(
    path: str | os.PathLike[str],
    shape: Shape,
    layout: TableLayout | None,
    fill: Callable[[Bytes, int], None],
    progress: Progress,
    check: Callable[[TableHeader], object] = lambda header: None,
) -> TableHeader:
    """Write a table's file of version 2, whole or not at all, and hold only some of its pages.

    Parameters
    ----------
    path : path-like
        A file that is there is replaced. A link is followed.
    shape : Shape
        That of the pages.
    layout : TableLayout or None
        The places of the keys, if the pages have some.
    fill : callable
        Fills consecutive pages, an array of uint8 (pages, page_size), of which the first has the
        index that is given too. It need not write the siblings.
    progress : callable
        Called with the bytes written and those in all.
    check : callable, optional
        Called with the header when all else is written. What it raises leaves no file.

    Returns
    -------
    TableHeader
        The header that was written.

    Raises
    ------
    OSError
        If the file cannot be written. The file that was there before is still there.
    ValueError
        If path is something other than a file.
    """
    nbytes = shape.num_pages * shape.page_size
    with replace_file(path) as file:
        # If writing ends here for good, this is no table, and no file of plain pages either.
        file.write(MAGIC.ljust(HEADER_BYTES, b"\0"))
        tree, uppers = ChunkedTree(shape), None
        if tree.has_uppers:
            # Pages end with siblings that are known only when all contents are.
            for chunk, _ in _chunks(tree, shape, fill):
                tree.add(chunk[:, : shape.content_size])
            tree, uppers = ChunkedTree(shape), tree.upper_siblings()
        hashed = sha256()
        for number, (chunk, start) in enumerate(_chunks(tree, shape, fill)):
            progress(start * shape.page_size, nbytes)
            tree.fill(chunk, None if uppers is None else uppers[number])
            flat = chunk.reshape(-1).data
            hashed.update(flat)
            file.write(flat)
        progress(nbytes, nbytes)
        cap = tree.cap()
        root = shape.root(cap, b"" if layout is None else layout.authenticated_bytes())
        file.write(cap.data)
        header = header_of(layout, shape, hashed.digest(), root)
        check(header)
        file.seek(0)
        file.write(pack_header(header))
    return header


def _chunks(
    tree: ChunkedTree, shape: Shape, fill: Callable[[Bytes, int], None]
) -> Iterator[tuple[Bytes, int]]:
    """Each chunk of filled pages, in one buffer for all, with the index of its first page."""
    count = min(tree.chunk_pages, shape.num_pages)
    buffer = np.empty((count, shape.page_size), dtype=np.uint8)
    for start in range(0, shape.num_pages, count):
        chunk = buffer[: min(count, shape.num_pages - start)]
        fill(chunk, start)
        yield chunk, start

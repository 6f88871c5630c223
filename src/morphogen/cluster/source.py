"""The file that a shard maps its pages of: what it says of the table, and proof of a range."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from morphogen.authentication.shape import Shape
from morphogen.authentication.tree import cap_of_slice
from morphogen.errors import IntegrityError
from morphogen.keyword.file import TableHeader, is_table, open_table
from morphogen.keyword.header import altered
from morphogen.pages import PageMatrix, TableShape

_BLOCK = 1 << 24


@dataclass(frozen=True, slots=True)
class Source:
    """A file of pages, sealed pages or a keyword table, as a shard on any host finds it.

    Parameters
    ----------
    path : str
        The file. Every host of the cluster has it there.
    page_size : int or None
        Bytes a page of a file of pages, by default 4096; None for a table, which says it itself.
    epoch : int
        Version of the pages.
    """

    path: str
    page_size: int | None
    epoch: int

    def open(self) -> OpenedSource:
        """Map the file.

        Returns
        -------
        OpenedSource
            Of which nothing but a header was read.

        Raises
        ------
        OSError
            If the file cannot be opened or mapped.
        TableFileError
            If it begins as a table and is no whole one.
        ValueError
            If a page size is given for a table that says another.
        """
        if not is_table(self.path):
            size = 4096 if self.page_size is None else self.page_size
            return OpenedSource(self, PageMatrix.open(self.path, size, self.epoch), None)
        opened = open_table(self.path, self.epoch, verify=False)
        size = opened.header.page_size
        if self.page_size not in (None, size):
            raise ValueError(
                f"page_size must be {size}, which {self.path} says, not {self.page_size}"
            )
        return OpenedSource(self, opened.pages, opened.header)


@dataclass(frozen=True, slots=True, eq=False)
class OpenedSource:
    """A source that is mapped.

    Attributes
    ----------
    source : Source
    pages : PageMatrix
        All pages. Those that nobody reads are not in memory.
    header : TableHeader or None
        Of a table's file.
    """

    source: Source
    pages: PageMatrix
    header: TableHeader | None

    @property
    def table(self) -> TableShape:
        """The table's shape."""
        return self.pages.table

    @property
    def root(self) -> bytes | None:
        """The root of authenticated pages, as the file says it."""
        return None if self.header is None else self.header.root

    @property
    def pages_per_node(self) -> int:
        """Pages that only one shard can prove: those below a node of the cap."""
        return 1 if self.header is None else 1 << self.header.proof_levels

    def prove(self, pages: PageMatrix) -> Proof:
        """Read the pages of a range, and make what proves them to others.

        Parameters
        ----------
        pages : PageMatrix
            Some of the pages: whole nodes of the cap.

        Returns
        -------
        Proof
            Of these very pages, whatever the file says.

        Raises
        ------
        TableFileError
            If a page of an authenticated table has other siblings than its range gives.
        """
        header = self.header
        if header is None or header.root is None:
            digest = sha256()
            for block in blocks_of(pages):
                digest.update(block)
            return Proof(digest.digest(), None)
        shape = Shape(header.num_pages, header.page_size, header.proof_levels)
        try:
            cap = cap_of_slice(pages, shape)
        except IntegrityError:
            raise altered(
                self.source.path, "its pages do not have the siblings of their contents"
            ) from None
        return Proof(sha256(cap.data).digest(), cap)


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What a shard's pages hash to.

    Attributes
    ----------
    digest : bytes
        SHA-256 of the nodes, or of the pages of a table that is not authenticated: 32 bytes.
    cap : numpy.ndarray or None
        uint8 (nodes, 32): the nodes of an authenticated table's cap above the pages.
    """

    digest: bytes
    cap: npt.NDArray[np.uint8] | None


def blocks_of(pages: PageMatrix) -> Iterator[memoryview]:
    """The bytes of pages, some at a time.

    Parameters
    ----------
    pages : PageMatrix
        The pages.

    Yields
    ------
    memoryview
    """
    body = pages.body.reshape(-1)
    for start in range(0, body.size, _BLOCK):
        yield body[start : start + _BLOCK].data
    if pages.tail is not None:
        yield pages.tail.data


def source_of(path: str | os.PathLike[str], page_size: int | None, epoch: int) -> Source:
    """Name a file so that a process with another working directory finds it.

    Parameters
    ----------
    path : path-like
        The file.
    page_size : int or None
        As `Source` takes it.
    epoch : int
        As `Source` takes it.

    Returns
    -------
    Source
    """
    return Source(str(Path(path).absolute()), page_size, epoch)

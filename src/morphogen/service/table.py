"""What a server serves: a file's pages, read and checked, and what it says of them."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import morphogen.wire as wire
from morphogen.authentication import Tree, num_cap_nodes
from morphogen.checks import check_range
from morphogen.engine.base import Engine
from morphogen.keyword.file import is_table, open_table, read_cap, verified_tree
from morphogen.keyword.header import TableHeader, altered
from morphogen.keyword.layout import TableLayout
from morphogen.pages import PageMatrix
from morphogen.planner import MAX_KEYS_PER_QUERY
from morphogen.progress import Progress

PAGE_SIZE = 4096  # of a file of pages, unless told otherwise
_DIGEST_STEP = 1 << 24


def digest_pages(pages: PageMatrix, progress: Progress | None = None) -> str:
    """SHA-256 of all pages, one after the other.

    Parameters
    ----------
    pages : PageMatrix
        The page matrix.
    progress : callable, optional
        Called with the bytes done and those in all.

    Returns
    -------
    str
        Hexadecimal.
    """
    digest = hashlib.sha256()
    body = pages.body.reshape(-1)
    for start in range(0, body.size, _DIGEST_STEP):
        digest.update(body[start : start + _DIGEST_STEP].data)
        if progress is not None:
            progress(start, pages.nbytes)
    if pages.tail is not None:
        digest.update(pages.tail.data)
    return digest.hexdigest()


class PagesFile:
    """A file of pages, sealed pages or a keyword table: mapped, and not read yet.

    Parameters
    ----------
    path : path-like
        The file. A table's own is recognised by its first bytes.
    page_size : int or None
        Bytes a page of a file of pages, by default 4096; None for a table.
    keys_per_query : int
        1 to 3.
    epoch : int
        Version of the pages.

    Attributes
    ----------
    path : path-like
    page_size : int or None
        As it was given.
    pages : PageMatrix
    layout : TableLayout or None
        Of a keyword table.
    root : bytes or None
        Of authenticated pages, as the file says it.

    Raises
    ------
    OSError
        If the file cannot be opened or mapped.
    TableFileError
        If it begins as a table and is no whole one.
    ValueError
        If an option does not fit it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        page_size: int | None,
        keys_per_query: int,
        epoch: int,
    ) -> None:
        self.path: str | os.PathLike[str] = path
        self.page_size: int | None = page_size
        self._header: TableHeader | None = None
        self.layout: TableLayout | None = None
        self.root: bytes | None = None
        if not is_table(path):
            size = PAGE_SIZE if page_size is None else page_size
            self.pages: PageMatrix = PageMatrix.open(path, size, epoch)
            return
        opened = open_table(path, epoch, verify=False)
        self.pages, self.layout, self._header = opened.pages, opened.layout, opened.header
        self.root = opened.header.root
        if page_size is not None:
            kind = "a file of sealed pages" if self.layout is None else "a keyword table"
            raise ValueError(
                f"{os.fspath(path)} is {kind}, which says its page size itself: give none, not "
                f"{page_size}"
            )
        check_keys_per_query(keys_per_query, keyword_table=self.layout is not None)

    def read(self, progress: Progress | None = None) -> tuple[str | None, Tree | None]:
        """Read all pages, and compare them with what the file says of them.

        Parameters
        ----------
        progress : callable, optional
            Called with the bytes done and those in all.

        Returns
        -------
        digest : str or None
            `digest_pages` of pages that are not authenticated.
        tree : Tree or None
            Of authenticated pages, recomputed from them.

        Raises
        ------
        OSError
            If the file cannot be read.
        TableFileError
            If pages, their siblings, the cap or the root are not those that belong together. An
            honest server of such pages would let clients tell a server that lies which of them are
            read.
        """
        header = self._header
        if header is None or header.root is None:
            digest = digest_pages(self.pages, progress)
            if header is not None and digest != header.digest.hex():
                raise altered(self.path, "its pages do not have their SHA-256")
            return digest, None
        cap = read_cap(self.path)
        return None, verified_tree(self.pages, header, cap, self.path, progress)

    def stated_tree(self) -> Tree:
        """The tree of authenticated pages as the file states it: no page is read.

        Returns
        -------
        Tree
            Its cap, which leads to the root. The pages may be others.

        Raises
        ------
        OSError
            If the file cannot be read.
        TableFileError
            If the cap is not that of the root.
        """
        assert self.root is not None
        return Tree(read_cap(self.path), self.root)


def check_keys_per_query(keys_per_query: int, *, keyword_table: bool) -> None:
    """Refuse a number of keys that queries cannot have.

    Raises
    ------
    ValueError
        If it is out of range, or a keyword table is to have other than 3.
    """
    check_range("keys_per_query", keys_per_query, 1, MAX_KEYS_PER_QUERY)
    if keyword_table and keys_per_query != MAX_KEYS_PER_QUERY:
        raise ValueError(
            f"keys_per_query must be {MAX_KEYS_PER_QUERY} for a keyword table, not {keys_per_query}"
        )


def describe_table(
    engine: Engine,
    party: int,
    *,
    keys_per_query: int = 3,
    digest: str | None = None,
    layout: dict[str, Any] | None = None,
    tree: Tree | None = None,
) -> wire.TableInfo:
    """Describe an engine's pages for ``GET /epoch``.

    Parameters
    ----------
    engine : Engine
        The engine that answers.
    party : int
        0 or 1: the keys of this party are answered.
    keys_per_query : int, optional
        1 to 3.
    digest : str, optional
        `digest_pages` of the pages; by default it is computed. Not for authenticated pages.
    layout : dict, optional
        Of a keyword table.
    tree : Tree, optional
        Of authenticated pages: what `morphogen.authentication.tree_of_pages` makes of these very
        pages. A server of other pages would tell a server that lies about the indices.

    Returns
    -------
    TableInfo
        For `create_app`.

    Raises
    ------
    ValueError
        If party or keys_per_query is out of range, a keyword table is to have other than 3, there
        are both a digest and a tree, or the tree is of another number of pages.
    """
    if party not in (0, 1):
        raise ValueError(f"party must be 0 or 1, not {party}")
    check_keys_per_query(keys_per_query, keyword_table=layout is not None)
    root = proof_levels = None
    if tree is not None:
        if digest is not None:
            raise ValueError(
                "the digest of authenticated pages is the root of their tree: give one"
            )
        proof_levels = _proof_levels(engine.table.num_pages, len(tree.cap))
        digest = root = tree.root.hex()
    return wire.TableInfo(
        party=party,
        epoch_id=engine.table.epoch,
        num_pages=engine.table.num_pages,
        page_size=engine.table.page_size,
        keys_per_query=keys_per_query,
        format_version=wire.FORMAT_VERSION,
        digest=digest_pages(engine.pages) if digest is None else digest,
        device=engine.device,
        table=layout,
        root=root,
        proof_levels=proof_levels,
    )


def _proof_levels(num_pages: int, nodes: int) -> int:
    """The level of a tree that has so many nodes: each has fewer than the one below it."""
    for levels in range((num_pages - 1).bit_length() + 1):
        if num_cap_nodes(num_pages, levels) == nodes:
            return levels
    raise ValueError(f"a tree over {num_pages} pages has no level of {nodes} nodes")

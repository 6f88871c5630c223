"""What both servers agreed on before a key is sent, and the check of the pages against it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from functools import cached_property

from morphogen.authentication.hashing import HASH_BYTES, lead_to_cap
from morphogen.client.queue import Bytes, Infos, Rows
from morphogen.client.rules import lookup_layout
from morphogen.client.session import Session
from morphogen.errors import IntegrityError, TableMismatchError
from morphogen.keyword import TableLayout
from morphogen.wire import TableInfo

_PAGES_A_STEP = 128  # hashed in a millisecond or so; then other tasks have their turn


@dataclass(frozen=True, slots=True)
class Demands:
    """What a user demands of a table.

    Attributes
    ----------
    root : bytes or None
        The only root that it may have.
    verify : bool or None
        Whether it must have a root; None to check the pages of a table that has one.
    """

    root: bytes | None
    verify: bool | None

    @classmethod
    def of(cls, root: bytes | str | None, verify: bool | None) -> Demands:
        """Check what a user gave.

        Raises
        ------
        TypeError, ValueError
            If it is no root, verify is no bool, or they contradict each other.
        """
        if verify is not None and not isinstance(verify, bool):
            raise TypeError(f"verify must be a bool or None, not {type(verify).__name__}")
        if isinstance(root, str):
            if not re.fullmatch(f"[0-9a-fA-F]{{{2 * HASH_BYTES}}}", root):
                raise ValueError(f"root must be {2 * HASH_BYTES} hexadecimal digits")
            root = bytes.fromhex(root)
        elif root is not None and not isinstance(root, bytes):
            raise TypeError(f"root must be bytes or a str, not {type(root).__name__}")
        if root is not None and len(root) != HASH_BYTES:
            raise ValueError(f"root must have {HASH_BYTES} bytes, not {len(root)}")
        if root is not None and verify is False:
            raise ValueError("verify=False checks no page: leave it out, or the root")
        return cls(root, verify)

    def check(self, info: TableInfo) -> bool:
        """Tell whether the pages of a table are to be checked.

        Raises
        ------
        TableMismatchError
            If it has no root, or another than the user demands.
        """
        if info.root is None:
            if self.verify or self.root is not None:
                raise TableMismatchError(
                    f"the servers' table of epoch {info.epoch_id} has no root: nothing would show "
                    "that its pages are right"
                )
            return False
        if self.root is not None and self.root.hex() != info.root:
            raise TableMismatchError(
                f"the servers' table of epoch {info.epoch_id} has another root than the one that "
                "was asked for"
            )
        return self.verify is not False


class Agreement:
    """The table that both servers have.

    Parameters
    ----------
    infos : tuple of (TableInfo, TableInfo)
        Its descriptions, in the order of the URLs.
    cap : numpy.ndarray or None
        uint8 (nodes, 32), which was hashed to the root; None if the pages are not checked.
    """

    def __init__(self, infos: Infos, cap: Bytes | None) -> None:
        self.infos = infos
        self._cap = cap

    @property
    def info(self) -> TableInfo:
        """The description that the first URL's server gave."""
        return self.infos[0]

    @property
    def root(self) -> bytes | None:
        """The root that every page is checked against."""
        return None if self._cap is None else bytes.fromhex(self.info.root or "")

    @cached_property
    def layout(self) -> TableLayout:
        """The layout of a keyword table.

        Raises
        ------
        TableMismatchError
            If it is none that keys can be looked up in.
        """
        return lookup_layout(self.info)

    async def read(self, session: Session, rows: Rows, together: int = 1) -> Bytes:
        """Read the pages of queries, and check all of them once all have come.

        Parameters
        ----------
        session : Session
        rows : list of list of int
            The pages of each query.
        together : int, optional
            Queries, one after the other, that one message has to have.

        Returns
        -------
        numpy.ndarray
            uint8 of shape (rows, keys_per_query, page_size).

        Raises
        ------
        IntegrityError
            If a page is wrong, whichever it is.
        """
        pages = await session.read(self.infos, rows, together)
        if self._cap is not None:
            asked = [index for row in rows for index in row]
            await self._check(pages.reshape(-1).data, asked, self._cap.reshape(-1).data)
        return pages

    async def _check(self, pages: memoryview, asked: list[int], cap: memoryview) -> None:
        """Check every page against the index that was asked for, never one that an answer has.

        All of them, candidates that do not matter and those that fill a query up, and to the end:
        a server that lies knows by what its lie changed each page, and so whether this fails. It
        must not learn which of the pages were of use.
        """
        size = self.info.page_size
        content_size = size - HASH_BYTES * (self.info.proof_levels or 0)
        right = True
        for start in range(0, len(asked), _PAGES_A_STEP):
            if start:
                await asyncio.sleep(0)
            step = asked[start : start + _PAGES_A_STEP]
            right &= lead_to_cap(pages[start * size :], size, step, cap, content_size)
        if not right:
            raise IntegrityError(
                "a page is not that of the table's root: a server or the way to it altered an "
                "answer. Which page is not said, and nothing is read again"
            )

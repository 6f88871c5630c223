"""What both servers agreed on before a key is sent, and the check of the pages against it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import cached_property

from morphogen.authentication.hashing import HASH_BYTES, lead_to_cap
from morphogen.client.addresses import ServerAddress
from morphogen.client.cap import Caps
from morphogen.client.demands import Demands
from morphogen.client.epochs import agree
from morphogen.client.queue import Bytes, Infos, Rows
from morphogen.client.rules import lookup_layout
from morphogen.client.session import Session
from morphogen.epochs.manifest import Manifest
from morphogen.errors import (
    DeadlineError,
    EpochMismatchError,
    IntegrityError,
    ServerError,
    TableMismatchError,
)
from morphogen.keyword import TableLayout
from morphogen.wire import TableInfo

_log = logging.getLogger(__name__)
_PAGES_A_STEP = 128  # hashed in a millisecond or so; then other tasks have their turn


class Agreement:
    """The table that both servers have.

    Parameters
    ----------
    infos : tuple of (TableInfo, TableInfo)
        Its descriptions, in the order of the URLs.
    cap : numpy.ndarray or None
        uint8 (nodes, 32), which was hashed to the root; None if the pages are not checked.
    manifest : Manifest, optional
        By which its owner vouches for the root.
    """

    def __init__(self, infos: Infos, cap: Bytes | None, manifest: Manifest | None = None) -> None:
        self.infos = infos
        self.manifest = manifest
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


class Agreements:
    """What both servers agree on, asked for when it is needed, and kept from loop to loop.

    Parameters
    ----------
    addresses : sequence of ServerAddress
        The servers.
    demands : Demands
        What the user demands of their table.
    caps : Caps
        Where its caps come from.

    Attributes
    ----------
    last : Agreement or None
        What they agreed on when they were last asked.
    """

    def __init__(self, addresses: Sequence[ServerAddress], demands: Demands, caps: Caps) -> None:
        self.last: Agreement | None = None
        self._addresses = addresses
        self._demands = demands
        self._caps = caps
        self._refused = False  # what the servers said last: nothing is read before they say else
        self._passed_over = ""  # what was said of the last epoch that was

    async def get(self, session: Session, stale: Agreement | None) -> Agreement:
        """What the servers agree on; asked anew if what is known turned out stale.

        If an answer told of a later epoch they are asked, too, once a second at most. Who asks
        waits, and other tasks go on with what is known. So does this one if nothing comes of it:
        nobody has to ask because one server says so.

        Parameters
        ----------
        session : Session
        stale : Agreement or None
            What a read found to be over.

        Raises
        ------
        EpochMismatchError, TableMismatchError, ServerError, DeadlineError
            If they do not agree, or not on what the user demands, or cannot be asked.
        """
        last = self._usable(stale)
        if last is None or (session.has_news(last.info.epoch_id) and not session.asking.locked()):
            async with session.asking:
                last = self._usable(stale)  # another task may have asked meanwhile
                if last is None or session.has_news(last.info.epoch_id):
                    try:
                        last = await self._ask(session, last)
                    except (EpochMismatchError, ServerError, DeadlineError):
                        if last is None:
                            raise
        return last

    def _usable(self, stale: Agreement | None) -> Agreement | None:
        """What is known, if it still counts."""
        last, owner = self.last, self._demands.owner
        if last is stale or last is None or self._refused:
            return None
        return None if owner is not None and owner.has_expired(last.manifest) else last

    async def _ask(self, session: Session, last: Agreement | None) -> Agreement:
        """Ask both servers. What still counts stays the same object if they say the same."""
        known = None if self.last is None else self.last.info
        offers = await session.ask()
        try:
            infos, passed_over = agree(offers, self._addresses, known, self._demands.root)
            if passed_over not in ("", self._passed_over):
                _log.warning("%s. Epoch %s is read", passed_over, infos[0].epoch_id)
            self._passed_over = passed_over
            if last is not None and infos == last.infos:
                return last
            checked = self._demands.check(infos[0])
            owner = self._demands.owner
            manifest = None if owner is None else owner.accept(infos)
            cap = await self._caps.get(infos[0], session.ask_cap) if checked else None
        except TableMismatchError:
            self._refused = True
            raise
        self._refused = False
        self.last = Agreement(infos, cap, manifest)
        return self.last

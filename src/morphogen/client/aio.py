"""The client of programs with an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import NoReturn, Self, SupportsIndex, TypeVar

import morphogen.client.rules as rules
from morphogen.checks import OwnerProcess, check_range, check_seconds
from morphogen.client.addresses import two_servers
from morphogen.client.credentials import Authorities, Certificates, Headers, make_credentials
from morphogen.client.queue import Bytes, Infos
from morphogen.client.session import Session
from morphogen.client.transport import Link
from morphogen.errors import EpochMismatchError, MorphogenError
from morphogen.keyword import TableLayout
from morphogen.wire import TableInfo

T = TypeVar("T")


class AsyncClient:
    """A client of two servers, for programs with an event loop.

    Parameters
    ----------
    urls : sequence of str
        The two servers, ``https://host[:port][/path]``, in any order.
    timeout : float, optional
        Seconds for one message to one server: all attempts, the waits between, down to the last
        byte of the answer.
    retries : int, optional
        The number of times that the same bytes are sent to the same server again after a lost
        connection, or when it is busy. The default bridges a restart of the server.
    backoff : float, optional
        Seconds before the first retry, on average; twice as many before each next, 1 at most.
    ca_file : path-like or sequence of (path-like or None), optional
        Certificates of the authorities to trust, PEM, instead of the usual ones: of both servers,
        or a file for each, in the order of the URLs.
    headers : sequence of (mapping or None), optional
        For each server its own HTTP headers, in the order of the URLs, such as the token that the
        proxy before it asks for: ``[{"Authorization": "Bearer ..."}, None]``.
    certificates : sequence of (path-like, tuple or None), optional
        For each server the client's certificate: a PEM file that holds it and its private key, or
        a tuple of two files.
    insecure : bool, optional
        Allow ``http`` to other machines than this. An observer of the network then sees both keys,
        and with them which page is read.

    Raises
    ------
    TypeError, ValueError
        If the URLs are not those of two servers to which keys may be sent, or a number is out of
        range.
    OSError
        If a file cannot be read.
    EpochMismatchError, TableMismatchError, ServerError, DeadlineError
        If it connects at once, as from `AsyncClient.connect`.

    Notes
    -----
    The requests that the servers see do not depend on which pages or keys are asked for. They do
    depend on how many, and when: see docs/protocol.md. Tasks share messages of up to 32 queries:
    what is asked while two messages are under way goes into the next.

    A client may be used in one event loop after the other, and makes its connections anew in each.
    It cannot be used in two that run at once.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout: float = 10.0,
        retries: int = rules.RETRIES,
        backoff: float = 0.1,
        ca_file: Authorities = None,
        headers: Headers = None,
        certificates: Certificates = None,
        insecure: bool = False,
    ) -> None:
        self._addresses = two_servers(urls, insecure=insecure)
        check_seconds("timeout", timeout, above_zero=True)
        check_range("retries", retries, 0)
        check_seconds("backoff", backoff)
        self._timeout = timeout
        self._policy = rules.RetryPolicy(retries, backoff)
        self._credentials = make_credentials(self._addresses, headers, certificates, ca_file)
        self._owner = OwnerProcess("client", "make a client in each process", MorphogenError)
        self._session: Session | None = None
        self._shutdown: AsyncGenerator[None] | None = None
        self._infos: Infos | None = None
        self._layout: tuple[TableInfo, TableLayout] | None = None
        self._closed = False

    @property
    def info(self) -> TableInfo:
        """The description of the pages that the first URL's server gave when it was last asked.

        Raises
        ------
        MorphogenError
            If the servers were not asked yet.
        """
        if self._infos is None:
            raise MorphogenError("the servers have not been asked yet: connect first")
        return self._infos[0]

    async def connect(self) -> TableInfo:
        """Ask both servers what pages they have, once, and check that they agree.

        Returns
        -------
        TableInfo
            The answer of the first URL's server.

        Raises
        ------
        EpochMismatchError
            If their epochs differ each time that they are asked.
        TableMismatchError
            If the servers have different pages under one epoch.
        ServerError, DeadlineError
            If a server fails, or does not answer in time.
        MorphogenError
            If the client is closed.
        """
        return (await self._until_agreed(self._no_reads))[0][0]

    async def get(self, indices: Iterable[SupportsIndex]) -> Bytes:
        """Read pages, all of one epoch.

        Parameters
        ----------
        indices : iterable of int
            The pages, each 0 <= index < num_pages. They may repeat.

        Returns
        -------
        numpy.ndarray
            uint8 of shape (indices, page_size), in their order.

        Raises
        ------
        TypeError, ValueError
            If an index is no int or out of range. No page was asked for then, unless the pages were
            replaced by fewer meanwhile.
        EpochMismatchError, TableMismatchError, ServerError, DeadlineError
            As from `AsyncClient.connect`.
        MorphogenError
            If the client is closed, or belongs to the parent of this process.
        """
        wanted = rules.page_indices(indices)
        info = await self.connect()
        rules.check_indices(wanted, info.num_pages)
        infos, pages = await self._until_agreed(
            lambda session, infos: session.read(infos, rules.page_rows(wanted, infos[0]))
        )
        # Again: the pages may have been replaced by fewer. The reads were made all the same, so
        # that the servers do not see which index that concerned.
        rules.check_indices(wanted, infos[0].num_pages)
        return pages.reshape(-1, infos[0].page_size)[: len(wanted)]

    async def lookup(self, key: bytes) -> bytes | None:
        """Look one key up: always one query of three keys, whether or not the key exists.

        Parameters
        ----------
        key : bytes
            The key, as the table's builder gave it.

        Returns
        -------
        bytes or None
            Its value; None if the table has no such key.

        Raises
        ------
        TypeError
            If key is not bytes.
        TableMismatchError
            If the servers' table is not a keyword table, or they disagree about it.
        EpochMismatchError, ServerError, DeadlineError, MorphogenError
            As from `get`.
        """
        (value,) = await self.lookup_many([key])
        return value

    async def lookup_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """Look keys up, all in one epoch: one query of three keys for each.

        Parameters
        ----------
        keys : iterable of bytes
            The keys. They may repeat.

        Returns
        -------
        list of (bytes or None)
            The values in the order of the keys; None for a key that the table does not have.

        Raises
        ------
        TypeError, TableMismatchError, EpochMismatchError
            As from `lookup`.
        ServerError, DeadlineError, MorphogenError
            As from `lookup`.
        """
        wanted = rules.lookup_keys(keys)
        self._layout_of(self._infos[0] if self._infos else await self.connect())
        infos, pages = await self._until_agreed(
            lambda session, infos: session.read(
                infos, rules.lookup_rows(wanted, self._layout_of(infos[0]))
            )
        )
        # The contents of the pages are looked at only now, when all has been sent.
        layout = self._layout_of(infos[0])
        return [layout.find(key, found) for key, found in zip(wanted, pages, strict=True)]

    async def close(self) -> None:
        """Close the connections. May be called again."""
        if not self._owner.is_current():
            return  # they are the parent's
        self._closed = True
        session, shutdown = self._session, self._shutdown
        self._session = self._shutdown = None
        if session is not None and session.loop is not asyncio.get_running_loop():
            session.abandon()
        elif session is not None and shutdown is not None:
            await session.close()
            await shutdown.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __reduce__(self) -> NoReturn:
        # A copy would share the connections, and go on when the client is closed.
        raise TypeError("a client cannot be copied or pickled: make one where it is used")

    def __repr__(self) -> str:
        one, other = (address.url for address in self._addresses)
        return f"{type(self).__name__}([{one!r}, {other!r}])"

    def _layout_of(self, info: TableInfo) -> TableLayout:
        """The layout of a keyword table, read once for each epoch."""
        if self._layout is None or self._layout[0] is not info:
            self._layout = (info, rules.table_layout(info))
        return self._layout[1]

    async def _no_reads(self, session: Session, infos: Infos) -> None:
        pass

    async def _here(self) -> Session:
        """What the client has in the event loop that runs: made anew for each.

        A loop that has ended took the connections with it.
        """
        self._owner.check()
        if self._closed:
            raise MorphogenError("this client is closed")
        session = self._session
        if session is None or session.loop is not asyncio.get_running_loop():
            if session is not None and session.loop.is_running():
                raise MorphogenError(
                    "this client is in use in another event loop, which still runs: make a client "
                    "for each, or share a morphogen.Client between threads"
                )
            if session is not None:
                session.abandon()
            one, other = (
                Link(address, credentials, self._policy, self._timeout)
                for address, credentials in zip(self._addresses, self._credentials, strict=True)
            )
            session = self._session = Session((one, other))
            self._shutdown = session.until_shutdown()
            await anext(self._shutdown)
        return session

    async def _until_agreed(
        self, work: Callable[[Session, Infos], Awaitable[T]]
    ) -> tuple[Infos, T]:
        """Do work over one epoch, from its beginning for each new one, a few times at most."""
        session = await self._here()
        stale: Infos | None = None
        reason: EpochMismatchError | None = None
        for attempt in range(rules.EPOCH_TRIES):
            if attempt:
                await asyncio.sleep(self._policy.wait(attempt - 1))
            try:
                infos = stale = await self._agreed(session, stale)
                return infos, await work(session, infos)
            except EpochMismatchError as error:
                reason = error
        raise EpochMismatchError(
            f"no epoch that both servers have, asked {rules.EPOCH_TRIES} times: {reason}"
        )

    async def _agreed(self, session: Session, stale: Infos | None) -> Infos:
        """The descriptions of both servers; asked anew if the known ones turned out stale."""
        infos = self._infos
        if infos is None or infos is stale:
            async with session.asking:
                if self._infos is None or self._infos is stale:
                    known = None if self._infos is None else self._infos[0]
                    self._infos = rules.agree(await session.ask(), self._addresses, known)
                infos = self._infos
        return infos

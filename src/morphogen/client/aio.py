"""The client of programs with an event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import NoReturn, Self, SupportsIndex, TypeVar

import morphogen.client.rules as rules
from morphogen.checks import OwnerProcess, as_int, check_range, check_seconds
from morphogen.client.addresses import two_servers
from morphogen.client.agreement import Agreement, Agreements
from morphogen.client.cap import Caps
from morphogen.client.credentials import Authorities, Certificates, Headers, make_credentials
from morphogen.client.demands import Demands
from morphogen.client.queue import Bytes
from morphogen.client.session import Session
from morphogen.client.transport import Link
from morphogen.errors import EpochMismatchError, MorphogenError
from morphogen.keyword.layout import CANDIDATES
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
    root : bytes or str, optional
        The only root that the table may have, 32 bytes or 64 hexadecimal digits, from somebody
        whom you trust. An epoch that has it is read for as long as both servers offer it. Another
        is refused.
    verify : bool, optional
        True to refuse a table whose pages are not authenticated; False to check no page. By
        default the pages of a table that has a root are checked.
    owner : bytes or str, optional
        The public key of the table's owner, 32 bytes or 64 hexadecimal digits (extra ``sign``). An
        epoch is then read only if one of the servers has the owner's manifest of its root, which
        has not expired, and is about the same table as the first, and not older than the last.
    cache_dir : path-like, optional
        A folder for caps, so that another process need not take them from a server again. They
        are checked when they are read. Files there may be deleted at any time.

    Raises
    ------
    TypeError, ValueError
        If the URLs are not those of two servers to which keys may be sent, or a number is out of
        range.
    OSError
        If a file cannot be read.
    ModuleNotFoundError
        If there is an owner, and the extra ``sign`` is missing.
    EpochMismatchError, TableMismatchError, ServerError, DeadlineError
        If it connects at once, as from `AsyncClient.connect`.

    Notes
    -----
    The requests that the servers see do not depend on which pages or keys are asked for. They do
    depend on how many, and when: see docs/protocol.md. Tasks share messages of up to 32 queries:
    what is asked while two messages are under way goes into the next.

    Each call reads the highest epoch that both servers offer, and none below that of the last. If
    an answer tells of a later one, the servers are asked about it before the next read, once a
    second at most.

    A client may be used in one event loop after the other, and makes its connections anew in each.
    It cannot be used in two that run at once.

    Pages of an authenticated table are checked, all of a call, when all have come. For that its
    cap, 16 MiB at most as tables are built, is taken from the first server once for each root. It
    has a second more than the timeout for each 256 KiB.
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
        root: bytes | str | None = None,
        verify: bool | None = None,
        owner: bytes | str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._addresses = two_servers(urls, insecure=insecure)
        check_seconds("timeout", timeout, above_zero=True)
        check_range("retries", as_int("retries", retries), 0)
        check_seconds("backoff", backoff)
        demands = Demands.of(root, verify, owner)
        self._timeout = timeout
        self._policy = rules.RetryPolicy(retries, backoff)
        self._credentials = make_credentials(self._addresses, headers, certificates, ca_file)
        self._process = OwnerProcess("client", "make a client in each process", MorphogenError)
        self._session: Session | None = None
        self._shutdown: AsyncGenerator[None] | None = None
        self._agreements = Agreements(self._addresses, demands, Caps(cache_dir))
        self._closed = False

    @property
    def info(self) -> TableInfo:
        """The description of the epoch that is read, as the first URL's server gave it.

        Raises
        ------
        MorphogenError
            If the servers were not asked yet.
        """
        return self._agreed.info

    @property
    def authenticated(self) -> bool:
        """Whether each page is checked against the root of the table, as it was when last asked.

        Then a page is right, and a key that is not found is not in the table, even if one of the
        servers lies. ``verify=True`` makes sure of it for the next table, too.

        Raises
        ------
        MorphogenError
            If the servers were not asked yet.
        """
        return self.root is not None

    @property
    def root(self) -> bytes | None:
        """The root that each page is checked against, 32 bytes; None if none is checked.

        Raises
        ------
        MorphogenError
            If the servers were not asked yet.
        """
        return self._agreed.root

    async def connect(self) -> TableInfo:
        """Ask both servers what pages they have, once, and check that they agree.

        The cap of an authenticated table is taken and checked, too.

        Returns
        -------
        TableInfo
            As from `info`.

        Raises
        ------
        EpochMismatchError
            If they offer no epoch in common each time that they are asked, or none but below one
            that was read.
        TableMismatchError
            If the servers have different pages under one epoch, or not the root or the owner that
            is demanded.
        ServerError, DeadlineError
            If a server fails, or does not answer in time.
        MorphogenError
            If the client is closed.
        """
        return (await self._until_agreed(self._no_reads))[0].info

    async def get(self, indices: Iterable[SupportsIndex]) -> Bytes:
        """Read pages, all of one epoch.

        Parameters
        ----------
        indices : iterable of int
            The pages, each 0 <= index < num_pages. They may repeat.

        Returns
        -------
        numpy.ndarray
            uint8 of shape (indices, page_size), in their order. The last ``32 * proof_levels``
            bytes of an authenticated page are its proof.

        Raises
        ------
        TypeError, ValueError
            If an index is no int or out of range. No page was asked for then, unless the pages were
            replaced by fewer meanwhile.
        IntegrityError
            If a page is not that of the table's root. It does not say which.
        EpochMismatchError, TableMismatchError, ServerError, DeadlineError
            As from `AsyncClient.connect`.
        MorphogenError
            If the client is closed, or belongs to the parent of this process.
        """
        wanted = rules.page_indices(indices)
        info = await self.connect()
        rules.check_indices(wanted, info.num_pages)
        agreed, pages = await self._until_agreed(
            lambda session, agreed: agreed.read(session, rules.page_rows(wanted, agreed.info))
        )
        # Again: the pages may have been replaced by fewer. The reads were made all the same, so
        # that the servers do not see which index that concerned.
        rules.check_indices(wanted, agreed.info.num_pages)
        return pages.reshape(-1, agreed.info.page_size)[: len(wanted)]

    async def lookup(self, key: bytes) -> bytes | None:
        """Look one key up: always the same queries in one message, whether or not the key exists.

        Parameters
        ----------
        key : bytes
            The key, as the table's builder gave it.

        Returns
        -------
        bytes or None
            Its value; None if the table has no such key, which is proven if the client is
            `authenticated`.

        Raises
        ------
        TypeError
            If key is not bytes.
        TableMismatchError
            If the servers' table is not a keyword table, or they disagree about it.
        IntegrityError, EpochMismatchError, ServerError, DeadlineError, MorphogenError
            As from `get`.
        """
        (value,) = await self.lookup_many([key])
        return value

    async def lookup_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """Look keys up, all in one epoch: for each a query of three keys for each fragment.

        Parameters
        ----------
        keys : iterable of bytes
            The keys. They may repeat.

        Returns
        -------
        list of (bytes or None)
            The values in the order of the keys; None for a key that the table does not have, as
            from `lookup`.

        Raises
        ------
        TypeError, TableMismatchError, EpochMismatchError
            As from `lookup`.
        IntegrityError, ServerError, DeadlineError, MorphogenError
            As from `lookup`.
        """
        wanted = rules.lookup_keys(keys)
        if self._agreements.last is None:
            await self.connect()
        _ = self._agreed.layout  # refused before any work, if it is none
        agreed, pages = await self._until_agreed(
            lambda session, agreed: agreed.read(
                session, rules.lookup_rows(wanted, agreed.layout), agreed.layout.fragments
            )
        )
        # The contents of the pages are looked at only now, when all has been sent.
        layout = agreed.layout
        groups = pages.reshape(len(wanted), CANDIDATES * layout.fragments, layout.page_size)
        return [layout.find(key, found) for key, found in zip(wanted, groups, strict=True)]

    async def close(self) -> None:
        """Close the connections. May be called again."""
        if not self._process.is_current():
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

    @property
    def _agreed(self) -> Agreement:
        if self._agreements.last is None:
            raise MorphogenError("the servers have not been asked yet: connect first")
        return self._agreements.last

    async def _no_reads(self, session: Session, agreed: Agreement) -> None:
        pass

    async def _here(self) -> Session:
        """What the client has in the event loop that runs: made anew for each.

        A loop that has ended took the connections with it.
        """
        self._process.check()
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
        self, work: Callable[[Session, Agreement], Awaitable[T]]
    ) -> tuple[Agreement, T]:
        """Do work over one epoch, from its beginning for each new one, a few times at most."""
        session = await self._here()
        stale: Agreement | None = None
        reason: EpochMismatchError | None = None
        for attempt in range(rules.EPOCH_TRIES):
            if attempt:
                await asyncio.sleep(self._policy.wait(attempt - 1))
            try:
                agreed = stale = await self._agreements.get(session, stale)
                return agreed, await work(session, agreed)
            except EpochMismatchError as error:
                reason = error
        raise EpochMismatchError(
            f"no epoch that both servers have, asked {rules.EPOCH_TRIES} times: {reason}"
        )

"""The client of programs with an event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Self, SupportsIndex, TypeVar

import numpy as np
import numpy.typing as npt

import morphogen.client.rules as rules
import morphogen.wire as wire
from morphogen.checks import check_range, check_seconds
from morphogen.client.addresses import two_servers
from morphogen.client.transport import Link, tls_context
from morphogen.errors import EpochMismatchError, MorphogenError, ServerError, WireError
from morphogen.keyword import TableLayout
from morphogen.query import Answer, Query, make_queries, reconstruct
from morphogen.wire import TableInfo

T = TypeVar("T")
Bytes = npt.NDArray[np.uint8]
Infos = tuple[TableInfo, TableInfo]


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
        connection, or when it is busy.
    backoff : float, optional
        Seconds before the first retry, on average; twice as many before each next.
    ca_file : path-like, optional
        Certificates of the authorities to trust, PEM, instead of the usual ones.
    insecure : bool, optional
        Allow ``http`` to other machines than this. An observer of the network then sees both keys,
        and with them which page is read.

    Raises
    ------
    TypeError, ValueError
        If the URLs are not those of two servers to which keys may be sent, or a number is out of
        range.
    OSError
        If ca_file cannot be read.
    EpochMismatchError, TableMismatchError, ServerError, DeadlineError
        If it connects at once, as from `AsyncClient.connect`.

    Notes
    -----
    The requests that the servers see do not depend on which pages or keys are asked for. They do
    depend on how many, and when: see docs/protocol.md.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout: float = 10.0,
        retries: int = 3,
        backoff: float = 0.1,
        ca_file: str | os.PathLike[str] | None = None,
        insecure: bool = False,
    ) -> None:
        self._addresses = two_servers(urls, insecure=insecure)
        check_seconds("timeout", timeout, above_zero=True)
        check_range("retries", retries, 0)
        check_seconds("backoff", backoff)
        self._policy = rules.RetryPolicy(retries, backoff)
        https = any(address.url.startswith("https") for address in self._addresses)
        context = tls_context(ca_file) if https else None
        one, other = (Link(at, context, self._policy, timeout) for at in self._addresses)
        self._links = (one, other)
        self._infos: Infos | None = None
        self._layout: tuple[TableInfo, TableLayout] | None = None
        self._asking = asyncio.Lock()
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
            lambda infos: self._read(infos, rules.page_rows(wanted, infos[0]))
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
        self._layout_of(await self.connect())
        infos, pages = await self._until_agreed(
            lambda infos: self._read(infos, rules.lookup_rows(wanted, self._layout_of(infos[0])))
        )
        # The contents of the pages are looked at only now, when all has been sent.
        layout = self._layout_of(infos[0])
        return [layout.find(key, found) for key, found in zip(wanted, pages, strict=True)]

    async def close(self) -> None:
        """Close the connections. May be called again."""
        self._closed = True
        for link in self._links:
            await link.close()

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

    def __repr__(self) -> str:
        one, other = (address.url for address in self._addresses)
        return f"{type(self).__name__}([{one!r}, {other!r}])"

    def _layout_of(self, info: TableInfo) -> TableLayout:
        """The layout of a keyword table, read once for each epoch."""
        if self._layout is None or self._layout[0] is not info:
            self._layout = (info, rules.table_layout(info))
        return self._layout[1]

    async def _no_reads(self, infos: Infos) -> None:
        pass

    async def _until_agreed(self, work: Callable[[Infos], Awaitable[T]]) -> tuple[Infos, T]:
        """Do work over one epoch, from its beginning for each new one, a few times at most."""
        if self._closed:
            raise MorphogenError("this client is closed")
        stale: Infos | None = None
        reason: EpochMismatchError | None = None
        for attempt in range(rules.EPOCH_TRIES):
            if attempt:
                await asyncio.sleep(self._policy.wait(attempt - 1))
            try:
                infos = await self._agreed(stale)
                stale = infos
                return infos, await work(infos)
            except EpochMismatchError as error:
                reason = error
        raise EpochMismatchError(
            f"no epoch that both servers have, asked {rules.EPOCH_TRIES} times: {reason}"
        )

    async def _agreed(self, stale: Infos | None) -> Infos:
        """The descriptions of both servers; asked anew if the known ones turned out stale."""
        async with self._asking:
            if self._infos is None or self._infos is stale:
                one, other = await _both(self._ask(link) for link in self._links)
                known = None if self._infos is None else self._infos[0]
                self._infos = rules.agree((one, other), self._addresses, known)
            return self._infos

    async def _ask(self, link: Link) -> TableInfo:
        body = await link.exchange(wire.EPOCH_PATH, None, wire.JSON, rules.MAX_EPOCH_BYTES)
        try:
            info = wire.decode_info(body)
        except (WireError, RecursionError):
            raise ServerError(f"{link.url}: malformed answer about its table") from None
        return rules.check_info(info, link.url)

    async def _read(self, infos: Infos, rows: list[list[int]]) -> Bytes:
        """Send all batches, in order: uint8 of shape (rows, keys_per_query, page_size)."""
        shape = (len(rows), infos[0].keys_per_query, infos[0].page_size)
        pages = np.empty(shape, dtype=np.uint8)
        for start in range(0, len(rows), wire.MAX_QUERIES):
            batch = rows[start : start + wire.MAX_QUERIES]
            halves = make_queries(batch, infos[0].num_pages)
            # By the party of each server: the order of the URLs says nothing.
            answers = await _both(
                self._send(link, info, halves[info.party])
                for link, info in zip(self._links, infos, strict=True)
            )
            reconstruct(*answers, out=pages[start : start + len(batch)])
        return pages

    async def _send(self, link: Link, info: TableInfo, queries: list[Query]) -> Answer:
        body = wire.encode_request(
            queries, epoch_id=info.epoch_id, num_pages=info.num_pages, content_type=wire.MSGPACK
        )
        limit = rules.answer_bytes(info, len(queries))
        answer = await link.exchange(wire.QUERY_PATH, body, wire.MSGPACK, limit)
        return rules.decode_answer(answer, info, len(queries), link.url)


async def _both(legs: Iterable[Awaitable[T]]) -> tuple[T, T]:
    """Run both servers' legs at once, each to its end, whatever becomes of the other."""
    results = await asyncio.gather(*legs, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    answers = [result for result in results if not isinstance(result, BaseException)]
    # A new epoch is a reason to ask again, but not where something worse happened.
    for failure in sorted(failures, key=lambda error: isinstance(error, EpochMismatchError)):
        raise failure
    one, other = answers
    return one, other

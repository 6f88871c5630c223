"""All that a client has in one event loop: connections, and the queries that wait for messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import TypeVar, cast

import morphogen.client.rules as rules
import morphogen.wire as wire
from morphogen.client.epochs import Offers, check_offers
from morphogen.client.queue import Bytes, Infos, MessageQueue, Rows
from morphogen.client.transport import Link
from morphogen.errors import EpochMismatchError, ServerError, WireError
from morphogen.query import Answer, Query, queries_of_rows, reconstruct
from morphogen.wire import TableInfo

T = TypeVar("T")


class Session:
    """Messages to both servers, from the event loop that runs when it is made.

    Parameters
    ----------
    links : tuple of (Link, Link)
        The ways to the servers, used by nobody else.

    Attributes
    ----------
    loop : asyncio.AbstractEventLoop
    asking : asyncio.Lock
        For the caller: held while the servers are asked about their table.
    """

    def __init__(self, links: tuple[Link, Link]) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.asking: asyncio.Lock = asyncio.Lock()
        self._links = links
        self._queue = MessageQueue(self._send_batch)
        self._ask_from = 0.0

    def has_news(self, epoch: int) -> bool:
        """Whether a server told of a later epoch, and the servers may be asked about it by now.

        Whatever a server says in each answer, they are asked once a second at most.
        """
        heard = max(link.newest for link in self._links)
        return heard > epoch and self.loop.time() >= self._ask_from

    async def ask(self) -> tuple[Offers, Offers]:
        """Ask both servers what pages they have. Whether they agree is left to the caller.

        What they told of later epochs before is over.
        """
        self._ask_from = self.loop.time() + rules.SECONDS_BETWEEN_NEWS
        for link in self._links:
            link.newest = 0
        return await _both(lambda at: self._ask(self._links[at]))

    async def ask_cap(self, epoch: int, size: int) -> tuple[bytes | bytearray, str]:
        """Ask the first server for the cap of its table, of so many bytes exactly.

        Returns
        -------
        body : bytes or bytearray
            Of that size. What it says is left to the caller.
        url : str
            Of the server.
        """
        link = self._links[0]
        body = await link.exchange(
            wire.cap_path(epoch),
            b"",
            wire.OCTETS,
            size,
            more_seconds=size / rules.CAP_BYTES_A_SECOND,
            missing=f"it has no cap of epoch {epoch}",
        )
        if len(body) != size:
            raise ServerError(f"{link.url}: the cap must have {size} bytes, not {len(body)}")
        return body, link.url

    async def read(self, infos: Infos, rows: Rows, together: int = 1) -> Bytes:
        """Read the pages of queries: uint8 of shape (rows, keys_per_query, page_size)."""
        return await self._queue.read(infos, rows, together)

    async def close(self) -> None:
        """End the connections, and all that waits for them."""
        under_way = self._queue.close()
        for link in self._links:
            link.close()
        await asyncio.gather(*under_way, return_exceptions=True)
        await asyncio.sleep(0)  # the loop closes the sockets

    def abandon(self) -> None:
        """End the connections from without, whether or not their loop will ever run again."""
        with suppress(RuntimeError):  # it is closed
            if self.loop.is_running():
                self.loop.call_soon_threadsafe(self._end)
            else:
                self._end()

    async def until_shutdown(self) -> AsyncGenerator[None]:
        """Yield once. What follows, asyncio runs when the loop is shut down: the connections end.

        The sockets of a loop are of no use to another, and nobody else would close them.
        """
        try:
            yield
        finally:
            self._end()

    def _end(self) -> None:
        self._queue.close()
        for link in self._links:
            link.close()

    async def _ask(self, link: Link) -> Offers:
        body = await link.exchange(wire.EPOCH_PATH, b"", wire.JSON, rules.MAX_EPOCH_BYTES)
        try:
            info = wire.decode_info(body)
        except (WireError, RecursionError):
            raise ServerError(f"{link.url}: malformed answer about its table") from None
        return check_offers(info, link.url)

    async def _send_batch(self, infos: Infos, rows: Rows, out: Bytes) -> None:
        halves = queries_of_rows(rows, infos[0].num_pages)
        # By the party of each server: the order of the URLs says nothing.
        answers = await _both(
            lambda at: self._send(self._links[at], infos[at], halves[infos[at].party])
        )
        reconstruct(*answers, out=out)

    async def _send(self, link: Link, info: TableInfo, queries: list[Query]) -> Answer:
        body = wire.encode_request(
            queries, epoch_id=info.epoch_id, num_pages=info.num_pages, content_type=wire.MSGPACK
        )
        limit = rules.answer_bytes(info, len(queries))
        answer = await link.exchange(wire.QUERY_PATH, body, wire.MSGPACK, limit)
        return rules.decode_answer(answer, info, len(queries), link.url)


async def _both(leg: Callable[[int], Awaitable[T]]) -> tuple[T, T]:
    """Run both servers' legs at once, each to its end, whatever becomes of the other."""
    task = asyncio.get_running_loop().create_task(_outcome(leg, 1))
    try:
        one = await _outcome(leg, 0)
        other = await task
    finally:
        task.cancel()
    # A new epoch is a reason to ask again, but not where something worse happened.
    failures = [outcome for outcome in (one, other) if isinstance(outcome, Exception)]
    for failure in sorted(failures, key=lambda error: isinstance(error, EpochMismatchError)):
        raise failure
    return cast(T, one), cast(T, other)


async def _outcome(leg: Callable[[int], Awaitable[T]], which: int) -> T | Exception:
    try:
        return await leg(which)
    except Exception as failure:
        return failure

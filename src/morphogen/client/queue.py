"""The queries that wait for a message: those of all calls share the next, in order of arrival.

There is no timer. A lone query leaves at once, and while messages are under way arrivals wait; the
next message takes as many of them as it may have. What a message has depends on nothing but how
many queries were asked, and when.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np
import numpy.typing as npt

import morphogen.wire as wire
from morphogen.errors import MorphogenError
from morphogen.wire import TableInfo

MESSAGES = 2  # under way at a time, to each server: one is answered while the next is read
_CLOSED = "this client was closed meanwhile"

Bytes = npt.NDArray[np.uint8]
Infos = tuple[TableInfo, TableInfo]
Rows = list[list[int]]
Send = Callable[[Infos, Rows, Bytes], Awaitable[None]]


class _Reading:
    """The queries of one call.

    Attributes
    ----------
    infos : tuple of (TableInfo, TableInfo)
        The table that they are for.
    rows : list of list of int
        The pages of each query.
    pages : numpy.ndarray
        uint8 of shape (rows, keys per query, page_size), filled as answers come.
    together : int
        Queries, one after the other, that one message has to have.
    sent, missing : int
        Queries that were given to a message, and those whose pages have not come.
    ended : asyncio.Future
        Without a result: what was read is not for asyncio's logs.
    """

    __slots__ = ("ended", "infos", "missing", "pages", "rows", "sent", "together")

    def __init__(self, infos: Infos, rows: Rows, together: int) -> None:
        self.infos = infos
        self.rows = rows
        self.together = together
        shape = (len(rows), infos[0].keys_per_query, infos[0].page_size)
        self.pages: Bytes = np.empty(shape, dtype=np.uint8)
        self.sent: int = 0
        self.missing: int = len(rows)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Message:
    """Queries that are sent together.

    Attributes
    ----------
    parts : list of (_Reading, slice)
        Whose they are, in their order.
    pages : numpy.ndarray
        Their pages: those of the reading itself, if it is one only.
    """

    __slots__ = ("pages", "parts", "task")

    def __init__(self, parts: list[tuple[_Reading, slice]]) -> None:
        self.parts = parts
        reading, part = parts[0]
        self.pages: Bytes = reading.pages[part]
        if len(parts) > 1:
            queries = sum(part.stop - part.start for _, part in parts)
            self.pages = np.empty((queries, *self.pages.shape[1:]), dtype=np.uint8)
        self.task: asyncio.Task[None] | None = None

    @property
    def infos(self) -> Infos:
        return self.parts[0][0].infos

    @property
    def rows(self) -> Rows:
        return [row for reading, part in self.parts for row in reading.rows[part]]

    def deliver(self) -> None:
        at = 0
        for reading, part in self.parts:
            count = part.stop - part.start
            if len(self.parts) > 1:
                reading.pages[part] = self.pages[at : at + count]
            at += count
            reading.missing -= count
            if not reading.missing and not reading.ended.done():
                reading.ended.set_result(None)

    def fail(self, error: Exception) -> None:
        for reading, _ in self.parts:
            if not reading.ended.done():
                reading.ended.set_exception(copy.copy(error))  # each is raised in its own call

    def is_abandoned(self) -> bool:
        return all(reading.ended.cancelled() for reading, _ in self.parts)


class MessageQueue:
    """The queries that wait for a message, and the messages under way. For one event loop.

    Parameters
    ----------
    send : callable
        Sends queries for a table to both servers, and writes their pages into an array.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: deque[_Reading] = deque()
        self._under_way: set[_Message] = set()
        self._scheduled = False
        self._closed = False

    async def read(self, infos: Infos, rows: Rows, together: int = 1) -> Bytes:
        """Read the pages of queries, which may share messages with those of other calls.

        Parameters
        ----------
        infos : tuple of (TableInfo, TableInfo)
            The table that they are for. A message has queries of one table only.
        rows : list of list of int
            The pages of each query.
        together : int, optional
            Queries, one after the other, that one message has to have: `wire.MAX_QUERIES` at most,
            and a divisor of the number of rows.

        Returns
        -------
        numpy.ndarray
            uint8 of shape (rows, keys per query, page_size).

        Raises
        ------
        MorphogenError
            If the queue is closed, or what a message of theirs failed with.
        """
        if self._closed:
            raise MorphogenError("this client is closed")
        reading = _Reading(infos, rows, together)
        if not rows:
            return reading.pages
        self._waiting.append(reading)
        self._schedule()
        try:
            await reading.ended
        except asyncio.CancelledError:
            # Nobody waits for a message all of whose callers went away.
            for message in self._under_way:
                if message.task and message.is_abandoned():
                    message.task.cancel()
            raise
        return reading.pages

    def close(self) -> list[asyncio.Task[None]]:
        """Fail all that waits, and break off what is under way: those tasks are returned."""
        self._closed = True
        error = MorphogenError(_CLOSED)
        for reading in self._waiting:
            if not reading.ended.done():
                reading.ended.set_exception(copy.copy(error))
        self._waiting.clear()
        for message in self._under_way:
            message.fail(error)
        tasks = [message.task for message in self._under_way if message.task]
        for task in tasks:
            task.cancel()
        return tasks

    def _schedule(self) -> None:
        """Start messages once the tasks that can run now have asked, too."""
        if not self._scheduled and not self._closed:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        while len(self._under_way) < MESSAGES and (parts := self._next_parts()):
            message = _Message(parts)
            self._under_way.add(message)
            message.task = asyncio.get_running_loop().create_task(self._exchange(message))
            message.task.add_done_callback(partial(self._end, message))

    def _next_parts(self) -> list[tuple[_Reading, slice]]:
        """Take the queries of the next message out of the queue."""
        parts: list[tuple[_Reading, slice]] = []
        room = wire.MAX_QUERIES
        while self._waiting and room:
            reading = self._waiting[0]
            if parts and reading.infos is not parts[0][0].infos:
                break
            whole = room - room % reading.together
            if not whole:  # they begin the next
                break
            self._waiting.popleft()
            if reading.ended.done():  # cancelled, or another message of it failed
                continue
            part = slice(reading.sent, min(reading.sent + whole, len(reading.rows)))
            parts.append((reading, part))
            room -= part.stop - part.start
            reading.sent = part.stop
            if reading.sent < len(reading.rows):
                self._waiting.append(reading)  # behind the others: a long one must not hold them up
        return parts

    async def _exchange(self, message: _Message) -> None:
        try:
            await self._send(message.infos, message.rows, message.pages)
        except Exception as error:
            message.fail(error)
        else:
            message.deliver()

    def _end(self, message: _Message, task: asyncio.Task[None]) -> None:
        # Not by the task itself: one that is cancelled before its first step takes none.
        self._under_way.discard(message)
        if task.cancelled():
            message.fail(MorphogenError(_CLOSED))
        if self._waiting:
            self._schedule()

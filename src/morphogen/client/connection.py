"""One connection to a server: HTTP/1.1 by h11, on a transport of asyncio.

A library above h11 would follow redirects, keep cookies and take proxies from the environment:
each of them could carry keys to where they must not go. It would also take most of a lookup's time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast

import h11

MAX_PROBLEM_BYTES = 8192


class ConnectionLostError(Exception):
    """A connection ended before the whole answer had come. Its cause is the reason, if known."""


@dataclass(frozen=True, slots=True, repr=False)
class HttpAnswer:
    """A server's answer to one request.

    Attributes
    ----------
    status : int
    headers : dict of str to str
        By their names in lower case.
    body : bytes-like or None
        None if it has more bytes than it may have.
    """

    status: int
    headers: dict[str, str]
    body: bytes | bytearray | None


class Connection(asyncio.Protocol):
    """One connection, for one request after the other."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._transport: asyncio.Transport | None = None
        self._ended: asyncio.Future[None] | None = None  # of the answer, or of the connection
        self._answer: HttpAnswer | None = None
        self._response: h11.Response | None = None
        self._body = bytearray()
        self._limit = 0

    @property
    def usable(self) -> bool:
        """Whether it takes another request."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: h11.Request, body: bytes, limit: int) -> HttpAnswer:
        """Send a request and wait for the whole answer. If that is cancelled, the connection ends.

        Parameters
        ----------
        request : h11.Request
            Its content-length is that of the body.
        body : bytes
            May be empty.
        limit : int
            The most bytes that an answer of status 200 may have; another may have
            `MAX_PROBLEM_BYTES`.

        Returns
        -------
        HttpAnswer

        Raises
        ------
        ConnectionLostError
            If the connection ended first, or what came is not HTTP.
        """
        if self._transport is None or not self.usable:
            raise ConnectionLostError
        self._ended = asyncio.get_running_loop().create_future()
        self._answer = self._response = None
        self._body, self._limit = bytearray(), limit
        head = self._http.send(request)
        if body:
            self._http.send(h11.Data(body))
        self._http.send(h11.EndOfMessage())
        self._transport.write(head + body)
        try:
            await self._ended
        finally:
            self._ended = None
            if self._answer is None:
                self.abort()
        assert self._answer is not None
        return self._answer

    def abort(self) -> None:
        """End the connection at once: who waits for an answer is told."""
        if self._transport is not None:
            self._transport.abort()
        self._fail(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport: asyncio calls this."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Read what the server sent: asyncio calls this."""
        self._receive(data)

    def eof_received(self) -> None:
        """Learn that the server sends no more: asyncio calls this."""
        self._receive(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the connection has ended: asyncio calls this."""
        self._transport = None
        self._fail(exc)

    def _receive(self, data: bytes) -> None:
        if self._ended is None or self._ended.done():
            self.abort()  # nobody has asked for anything
            return
        try:
            self._http.receive_data(data)
            while self._answer is None:
                event = self._http.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                self._take(event)
        except h11.RemoteProtocolError as error:
            self._fail(error)

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > self._limit:
                self._end(None)
        elif isinstance(event, h11.Response):
            self._response = event
            if event.status_code != 200:
                self._limit = MAX_PROBLEM_BYTES
        elif isinstance(event, h11.EndOfMessage):
            self._end(self._body)
        elif isinstance(event, h11.ConnectionClosed):
            self._fail(None)
        # Else it is an interim response, 1xx, which says nothing.

    def _end(self, body: bytearray | None) -> None:
        assert self._response is not None
        assert self._ended is not None
        assert self._transport is not None
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self._response.headers
        }
        self._answer = HttpAnswer(self._response.status_code, headers, body)
        self._body = bytearray()
        done = (h11.DONE, h11.DONE)
        if (self._http.our_state, self._http.their_state) == done and not self._http.trailing_data[
            0
        ]:
            self._http.start_next_cycle()
        else:
            self._transport.abort()
        self._ended.set_result(None)

    def _fail(self, reason: Exception | None) -> None:
        if self._ended is not None and not self._ended.done():
            error = ConnectionLostError()
            error.__cause__ = reason
            self._ended.set_exception(error)

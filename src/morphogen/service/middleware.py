"""The middleware: a log line and a count for each request, and an end to its body.

The log has a request's path if it is one of ours, its status, sizes and times, and nothing of its
body.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Set as AbstractSet
from contextlib import suppress
from time import perf_counter
from urllib.parse import quote

from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, ReceiveMessage, Scope, Send

from morphogen.service.logs import log

GONE = 499  # for the log and the metrics: the client went away before there was an answer

# A client whose request is refused before its end may go on sending for so long.
DRAIN_SECONDS = 2.0
_QUERIES = "morphogen_queries"
# The form of a request to a proxy, which a server takes as well.
_ABSOLUTE = re.compile(r"https?://[^/]*/?", re.IGNORECASE)
# Any other may be of any length, and hold anything.
_METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
)


def count_queries(scope: Scope, count: int) -> None:
    """Note how many queries a request has, for its log line."""
    scope[_QUERIES] = count  # type: ignore[literal-required]


def outermost(
    app: ASGIApp,
    requests: Counter[tuple[str, str]],
    paths: AbstractSet[str],
    *,
    drain_bytes: Callable[[], int],
    drain_seconds: float,
) -> ASGIApp:
    """Surround an application.

    Parameters
    ----------
    app : ASGI application
    requests : collections.Counter
        Of requests, by path and status.
    paths : set of str
        The application's own, with parameters in braces. Any other may hold anything, and would be
        a metric of its own.
    drain_bytes : callable
        Returns the most bytes that are read of a body that is refused before its end.
    drain_seconds : float
        The longest time that they are read.

    Returns
    -------
    ASGI application
    """
    templates = [(_matcher(path), path) for path in sorted(paths) if "{" in path]

    def known(path: str) -> str:
        if path in paths:
            return path
        return next((name for matches, name in templates if matches(path)), "other")

    async def surrounded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        started = perf_counter()
        method, scope = scope["method"], _plain(scope)
        body = _Body(scope, receive)
        status, size = 0, 0

        async def watch(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = GONE if body.gone else message["status"]
                if body.unread and not await body.drain(drain_bytes(), drain_seconds):
                    # A server would read a body without end to its end: hang up instead.
                    headers = [*message["headers"], (b"connection", b"close")]
                    message = {**message, "headers": headers}
            elif message["type"] == "http.response.body":
                if method == "HEAD":
                    message = {**message, "body": b""}
                size += len(message.get("body", b""))
            await send(message)

        try:
            await app(scope, body.receive, watch)
        finally:
            path = known(scope["path"])
            requests[path, str(status)] += 1
            log(
                "request",
                method=method if method in _METHODS else "other",
                path=path,
                status=status,
                queries=scope.get(_QUERIES, 0),
                bytes=size,
                milliseconds=round(1e3 * (perf_counter() - started), 3),
            )

    return surrounded


def _matcher(template: str) -> Callable[[str], object]:
    """What tells whether a path has the form of a template."""
    parts = (re.escape(part) for part in re.split(r"\{[^}]*\}", template))
    return re.compile("[^/]+".join(parts)).fullmatch


def _plain(scope: HTTPScope) -> HTTPScope:
    """A request as the application knows it: GET instead of HEAD, a path instead of a URL."""
    if scope["method"] == "HEAD":
        scope = {**scope, "method": HttpMethod.GET}
    if authority := _ABSOLUTE.match(scope["path"]):
        path = "/" + scope["path"][authority.end() :]
        scope = {**scope, "path": path, "raw_path": quote(path).encode()}
    return scope


class _Body:
    """A request's body as it is received.

    Attributes
    ----------
    unread : bool
        Whether some of it may still come.
    gone : bool
        Whether the client went away before its end.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = dict(scope["headers"])
        self.unread = (
            b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
        )
        # A client that sent Expect: 100-continue is not invited to send its body.
        self._waits = headers.get(b"expect", b"").lower() == b"100-continue"
        self.gone = False
        self._receive = receive

    async def receive(self) -> ReceiveMessage:
        self._waits = False
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone, self.unread = self.unread, False
        elif message["type"] == "http.request" and not message["more_body"]:
            self.unread = False
        return message

    async def drain(self, limit: int, seconds: float) -> bool:
        """Read on for a while: a client that still sends when it is cut off gets no answer.

        Returns whether that was all of it.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.unread and limit > 0 and not self._waits:
                    message = await self.receive()
                    if message["type"] == "http.request":
                        limit -= len(message["body"])
        return not self.unread

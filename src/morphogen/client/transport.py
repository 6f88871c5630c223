"""The exchange of messages with one server: one deadline, bounded retries, bounded answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import ssl
from typing import Any

import h11

import morphogen.wire as wire
from morphogen.client.addresses import ServerAddress
from morphogen.client.connection import Connection, ConnectionLostError, HttpAnswer
from morphogen.client.credentials import Credentials
from morphogen.client.rules import RetryPolicy, refusal
from morphogen.errors import DeadlineError, EpochMismatchError, MorphogenError, ServerError

# A router on the way may forget a connection that is silent for longer, and tell nobody.
_IDLE_SECONDS = 5.0
_NEXT_ADDRESS_SECONDS = 0.25  # until a host's next address is tried, too (RFC 8305)
_MAX_REQUESTS = 128  # that are kept to be sent again
_CERTIFICATE_REFUSED = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)


class _PassingError(Exception):
    """An attempt failed in a way that another may not.

    Parameters
    ----------
    error : ServerError
        For the caller, if there is no other attempt.
    retry_after : str or None
        What the server says of when to come again.
    """

    def __init__(self, error: Exception, retry_after: str | None = None) -> None:
        super().__init__()
        self.error = error
        self.retry_after = retry_after


class Link:
    """The way to one server, for one event loop.

    Parameters
    ----------
    address : ServerAddress
        The server; nothing is ever sent elsewhere.
    credentials : Credentials
        What it is shown, and how it is trusted.
    policy : RetryPolicy
        When to try again.
    timeout : float
        Seconds for one message: all attempts, the waits between, down to the answer's last byte.

    Attributes
    ----------
    url : str
        Of the server.
    newest : int
        The highest epoch that the server named beside its answers; whoever asks it may set 0.
    """

    def __init__(
        self,
        address: ServerAddress,
        credentials: Credentials,
        policy: RetryPolicy,
        timeout: float,
    ) -> None:
        self.url: str = address.url
        self.newest: int = 0
        self._address = address
        self._credentials = credentials
        self._policy = policy
        self._timeout = timeout
        self._idle: list[tuple[Connection, float]] = []  # the one last used comes last
        self._busy: set[Connection] = set()
        self._requests: dict[tuple[str, int], h11.Request] = {}
        self._closed = False

    def close(self) -> None:
        """End the connections. Messages under way fail, and are not tried again."""
        self._closed = True
        for connection in (*self._busy, *(connection for connection, _ in self._idle)):
            connection.abort()
        self._idle.clear()

    async def exchange(
        self,
        path: str,
        body: bytes,
        content_type: str,
        limit: int,
        *,
        more_seconds: float = 0.0,
        missing: str = "",
    ) -> bytes | bytearray:
        """Send one message until it is answered, always with the same bytes.

        Parameters
        ----------
        path : str
            After the server's base URL.
        body : bytes
            The body to POST; empty to GET.
        content_type : str
            Of the body and of the answer.
        limit : int
            The most bytes that the answer may have.
        more_seconds : float, optional
            For an answer so long that the usual time may not do.
        missing : str, optional
            What status 404 means, if it means that the server's pages have another epoch.

        Returns
        -------
        bytes or bytearray
            The answer's body, of which there is no copy.

        Raises
        ------
        DeadlineError
            If the time ran out.
        EpochMismatchError
            If the server says that its pages have another epoch: 409, or 404 with `missing`.
        ServerError
            If the server cannot be reached or its answer is no answer.
        MorphogenError
            If the link is closed.
        """
        request = self._request(path, body, content_type)
        loop = asyncio.get_running_loop()
        seconds = self._timeout + more_seconds
        deadline = loop.time() + seconds
        try:
            async with asyncio.timeout_at(deadline) as scope:
                for attempt in itertools.count(1):
                    try:
                        answer = await self._attempt(request, body, limit, attempt)
                        return self._check(answer, content_type, limit, missing)
                    except _PassingError as passing:
                        error, after = passing.error, passing.retry_after
                    if attempt > self._policy.retries:
                        raise error
                    wait = self._policy.wait(attempt - 1, after)
                    if loop.time() + wait > deadline:
                        raise error
                    await asyncio.sleep(wait)
        except TimeoutError:
            if not scope.expired():
                raise
        raise DeadlineError(f"{self.url}: no whole answer within {seconds:g} s")

    def _request(self, path: str, body: bytes, content_type: str) -> h11.Request:
        """The head of a message: it depends on nothing but the path and the body's length."""
        request = self._requests.get((path, len(body)))
        if request is None:
            headers = [
                ("host", self._address.authority),
                ("accept", content_type),
                ("accept-encoding", "identity"),
            ]
            if body:
                headers += [("content-type", content_type), ("content-length", str(len(body)))]
            request = h11.Request(
                method="POST" if body else "GET",
                target=self._address.path + path,
                headers=[*headers, *self._credentials.headers],
            )
            if len(self._requests) >= _MAX_REQUESTS:
                self._requests.clear()
            self._requests[path, len(body)] = request
        return request

    async def _attempt(
        self, request: h11.Request, body: bytes, limit: int, attempt: int
    ) -> HttpAnswer:
        what = "cannot connect"
        try:
            connection = await self._connection()
            what = "connection lost"
            try:
                return await connection.exchange(request, body, limit)
            finally:
                self._busy.discard(connection)
                if connection.usable:
                    self._idle.append((connection, asyncio.get_running_loop().time()))
        except (OSError, ConnectionLostError) as lost:
            self._check_open()
            # Not its text, which may quote what the server sent.
            if fault := _tls_fault(lost):
                raise ServerError(f"{self.url}: {fault}") from None
            times = f"{attempt} times in a row"
            raise _PassingError(ServerError(f"{self.url}: {what}, {times}")) from None

    async def _connection(self) -> Connection:
        """A connection that nobody uses."""
        loop = asyncio.get_running_loop()
        while self._idle:
            connection, since = self._idle.pop()
            if connection.usable and loop.time() - since < _IDLE_SECONDS:
                break
            connection.abort()
        else:
            self._check_open()
            tls = self._credentials.context
            # asyncio tries several addresses at once, and may drop a socket if it is cancelled.
            # uvloop tries one after the other.
            options: dict[str, Any] = {}
            if self._address.is_name and isinstance(loop, asyncio.BaseEventLoop):
                options["happy_eyeballs_delay"] = _NEXT_ADDRESS_SECONDS
            _, connection = await loop.create_connection(
                Connection,
                self._address.host,
                self._address.port,
                ssl=tls,
                server_hostname=None if tls is None else self._address.host,
                **options,
            )
        self._busy.add(connection)
        if self._closed:
            connection.abort()
        self._check_open()
        return connection

    def _check_open(self) -> None:
        if self._closed:
            raise MorphogenError("this client is closed")

    def _check(
        self, answer: HttpAnswer, content_type: str, limit: int, missing: str
    ) -> bytes | bytearray:
        if answer.status == 404 and missing:
            raise EpochMismatchError(f"{self.url}: 404 Not Found: {missing}")
        if answer.status != 200:
            error = refusal(answer.status, _problem_field(answer.body), self.url)
            if self._policy.again(answer.status):
                raise _PassingError(error, answer.headers.get("retry-after"))
            raise error
        said = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if said != content_type:
            raise ServerError(f"{self.url}: the answer's content type must be {content_type}")
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise ServerError(f"{self.url}: the answer must not be compressed")
        if answer.body is None:
            raise ServerError(f"{self.url}: the answer has more than the {limit} bytes allowed")
        named = answer.headers.get(wire.EPOCH_HEADER.lower(), "")
        if re.fullmatch("[0-9]{1,19}", named):
            self.newest = max(self.newest, int(named))
        return answer.body


def _problem_field(body: bytes | bytearray | None) -> Any:
    """The field that a problem document names, if it is one."""
    try:
        problem = json.loads(body or b"")
    except (ValueError, RecursionError):
        return None
    return problem.get("field") if isinstance(problem, dict) else None


def _tls_fault(error: BaseException | None) -> str:
    """The fault of TLS between client and server, if that is why it cannot be reached."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return "its certificate is not to be trusted"
        if isinstance(error, ssl.SSLError):
            if error.reason == "WRONG_VERSION_NUMBER":
                return "it does not speak TLS on this port"
            if error.reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED":
                return "it asks for a client's certificate"
            if error.reason == "SSLV3_ALERT_HANDSHAKE_FAILURE":
                return "it refuses TLS: it may ask for a client's certificate"
            if error.reason in _CERTIFICATE_REFUSED:
                return "it does not take the client's certificate"
        error = error.__cause__ or error.__context__
    return ""

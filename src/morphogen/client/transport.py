"""The exchange of messages with one server: one deadline, bounded retries, bounded answers.

The transport of httpx is used below its client, which would follow redirects, keep cookies and
take proxies from the environment: each of them could carry keys to where they must not go.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import ssl
from pathlib import Path
from typing import Any, TypeVar

import httpx

from morphogen.client.addresses import ServerAddress
from morphogen.client.rules import RetryPolicy, refusal
from morphogen.errors import DeadlineError, MorphogenError, ServerError

_MAX_PROBLEM_BYTES = 8192
T = TypeVar("T")


def tls_context(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext:
    """The rules by which a server's certificate is trusted.

    Parameters
    ----------
    ca_file : path-like or None
        Certificates of authorities, PEM; None for the usual ones.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, or is no certificate. The error names the file.
    """
    if ca_file is None:
        context = httpx.create_ssl_context(trust_env=False)
    else:
        Path(ca_file).open("rb").close()  # an error of ssl would not name the file
        try:
            context = ssl.create_default_context(cafile=os.fspath(ca_file))
        except ssl.SSLError:
            raise ValueError(f"{os.fspath(ca_file)} is no certificate in PEM") from None
    # The environment could ask for the secrets of both connections to be logged in one file.
    context.keylog_filename = None  # type: ignore[assignment]
    return context


class Link:
    """The way to one server.

    Parameters
    ----------
    address : ServerAddress
        The server; nothing is ever sent elsewhere.
    context : ssl.SSLContext or None
        For https.
    policy : RetryPolicy
        When to try again.
    timeout : float
        Seconds for one message: all attempts, the waits between, down to the answer's last byte.
    """

    def __init__(
        self,
        address: ServerAddress,
        context: ssl.SSLContext | None,
        policy: RetryPolicy,
        timeout: float,
    ) -> None:
        self.url: str = address.url
        self._transport = httpx.AsyncHTTPTransport(
            verify=False if context is None else context, trust_env=False
        )
        self._policy = policy
        self._timeout = timeout
        self._closed = False

    async def close(self) -> None:
        """Close the connections. Messages under way fail, and are not tried again."""
        self._closed = True
        await self._transport.aclose()

    async def exchange(self, path: str, body: bytes | None, content_type: str, limit: int) -> bytes:
        """Send one message until it is answered, always with the same bytes.

        Parameters
        ----------
        path : str
            After the server's base URL.
        body : bytes or None
            The body to POST; None to GET.
        content_type : str
            Of the body and of the answer.
        limit : int
            The most bytes that the answer may have.

        Returns
        -------
        bytes
            The answer's body.

        Raises
        ------
        DeadlineError
            If the time ran out.
        EpochMismatchError
            If the server says that its pages have another epoch (409).
        ServerError
            If the server cannot be reached or its answer is no answer.
        """
        method = "GET" if body is None else "POST"
        headers = {"accept": content_type, "accept-encoding": "identity"}
        if body is not None:
            headers["content-type"] = content_type
        try:
            async with asyncio.timeout(self._timeout) as scope:
                for attempt in itertools.count():
                    request = httpx.Request(method, self.url + path, headers=headers, content=body)
                    wait, error, answer = await self._attempt(request, attempt, content_type, limit)
                    if error is None:
                        return answer
                    when = scope.when()
                    left = 0.0 if when is None else when - asyncio.get_running_loop().time()
                    if wait is None or wait > left:
                        raise error
                    await asyncio.sleep(wait)
        except TimeoutError as late:
            if isinstance(late, MorphogenError):
                raise
            raise DeadlineError(f"{self.url}: no whole answer within {self._timeout:g} s") from None
        raise AssertionError("unreachable")

    async def _attempt(
        self, request: httpx.Request, attempt: int, content_type: str, limit: int
    ) -> tuple[float | None, Exception | None, bytes]:
        """Seconds to wait before another attempt, or None; the fault; the answer."""
        if self._closed:  # the transport of httpx would open a connection again
            raise MorphogenError("this client is closed")
        try:
            response = await self._transport.handle_async_request(request)
            try:
                status = response.status_code
                if status == 200:
                    return None, None, await self._read(response, content_type, limit)
                error = refusal(status, await _problem_field(response), self.url)
                again = self._policy.again(status, attempt)
                after = response.headers.get("retry-after")
                return self._policy.wait(attempt, after) if again else None, error, b""
            finally:
                await response.aclose()
        except httpx.TransportError as lost:
            # Not its text, which may quote what the server sent.
            if fault := _tls_fault(lost):
                return None, ServerError(f"{self.url}: {fault}"), b""
            what = "cannot connect" if isinstance(lost, httpx.ConnectError) else "connection lost"
            error = ServerError(f"{self.url}: {what}, {attempt + 1} times in a row")
            more = attempt < self._policy.retries
            return self._policy.wait(attempt) if more else None, error, b""

    async def _read(self, response: httpx.Response, content_type: str, limit: int) -> bytes:
        said = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if said != content_type:
            raise ServerError(f"{self.url}: the answer's content type must be {content_type}")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise ServerError(f"{self.url}: the answer must not be compressed")
        chunks, size = [], 0
        async for chunk in response.aiter_raw():
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise ServerError(f"{self.url}: the answer has more than the {limit} bytes allowed")
        return b"".join(chunks)


async def _problem_field(response: httpx.Response) -> Any:
    """The field that a problem document names, if it is one."""
    text = bytearray()
    async for chunk in response.aiter_raw():
        text += chunk
        if len(text) > _MAX_PROBLEM_BYTES:
            return None
    try:
        problem = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return problem.get("field") if isinstance(problem, dict) else None


def _tls_fault(error: BaseException | None) -> str:
    """The fault of a server's TLS, if that is why it cannot be reached."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return "its certificate is not to be trusted"
        if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
            return "it does not speak TLS on this port"
        error = error.__cause__ or error.__context__
    return ""

"""A connection takes HTTP in every form that a server may send it, and nothing else."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import h11
import pytest

from fake_server import PATIENCE
from morphogen.client.connection import (
    MAX_PROBLEM_BYTES,
    Connection,
    ConnectionLostError,
    HttpAnswer,
)

REQUEST = h11.Request(
    method="POST", target="/", headers=[("host", "one.example"), ("content-length", "4")]
)
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@contextmanager
def server(*replies: bytes) -> Iterator[int]:
    """Answer requests over one connection with these bytes, then close it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            connection.settimeout(PATIENCE)
            with connection, suppress(OSError):
                for reply in replies:
                    received = b""
                    while not received.endswith(b"\r\n\r\nbody"):
                        more = connection.recv(4096)
                        if not more:
                            return
                        received += more
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(PATIENCE)


def exchange(replies: Sequence[bytes], limit: int = 100) -> tuple[list[HttpAnswer], bool]:
    """Send as many requests as there are replies; say whether the connection was usable then."""

    async def ask(port: int) -> tuple[list[HttpAnswer], bool]:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
        async with asyncio.timeout(PATIENCE):
            answers = [await connection.exchange(REQUEST, b"body", limit) for _ in replies]
        usable = connection.usable
        connection.abort()
        return answers, usable

    with server(*replies) as port:
        return asyncio.run(ask(port))


@pytest.mark.parametrize(
    ("reply", "usable"),
    [
        (PLAIN, True),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + PLAIN, True),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            True,
        ),
        (PLAIN.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), False),
        (PLAIN.replace(b"1.1", b"1.0"), False),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", False),  # to the end of the connection
        (PLAIN + b"HTTP/1.1 200 OK\r\n", False),  # nobody asked for more
    ],
)
def test_an_answer_is_read(reply: bytes, usable: bool) -> None:
    (answer,), was_usable = exchange([reply])
    assert (answer.status, answer.body, was_usable) == (200, b"hello", usable)


def test_a_connection_takes_one_request_after_the_other() -> None:
    answers, _ = exchange([PLAIN] * 3)
    assert [answer.body for answer in answers] == [b"hello"] * 3


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200",
        PLAIN[:-1],
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ],
)
def test_what_is_no_whole_answer_is_a_lost_connection(reply: bytes) -> None:
    with pytest.raises(ConnectionLostError):
        exchange([reply])


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_that_is_too_long_is_not_kept(status: int) -> None:
    limit = 100 if status == 200 else MAX_PROBLEM_BYTES
    for size in (limit, limit + 1):
        head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, size)
        (answer,), usable = exchange([head + bytes(size)], limit=100)
        fits = size == limit
        assert (answer.body == bytes(size) if fits else answer.body is None, usable) == (True, fits)


def test_a_connection_on_which_the_server_speaks_first_is_not_used() -> None:
    async def listen(port: int) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
        async with asyncio.timeout(PATIENCE):
            while connection.usable:
                await asyncio.sleep(0)
        with pytest.raises(ConnectionLostError):
            await connection.exchange(REQUEST, b"body", 100)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(PLAIN)
                connection.recv(1)  # until the client ends it

        greeting = threading.Thread(target=greet)
        greeting.start()
        asyncio.run(listen(listener.getsockname()[1]))
        greeting.join(PATIENCE)


def test_a_request_that_is_cancelled_ends_the_connection() -> None:
    async def ask(port: int) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
        asking = asyncio.create_task(connection.exchange(REQUEST, b"body", 100))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not connection.usable

    with server(b"HTTP/1.1 200 OK\r\n") as port:
        asyncio.run(ask(port))

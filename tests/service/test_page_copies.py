"""A page is copied four times at most between an engine's output and what `Client.get` returns.

A chunk of several queries is taken apart, an answer is encoded, its pieces are joined as they are
received, and its pages are decoded. The sum of both servers' answers is written where the caller
gets it.
"""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import h11
import numpy as np
import pytest

import morphogen as mg
import morphogen.client.session as session
import morphogen.wire as wire
from morphogen.client.connection import Connection
from morphogen.wire import MSGPACK
from naive import Bytes, random_pages
from served_table import PAGE_SIZE, PAGES, LiveApp

LARGE = 1 << 20
INFO = wire.TableInfo(
    party=0,
    epoch_id=1,
    num_pages=PAGES,
    page_size=LARGE,
    keys_per_query=3,
    format_version=1,
    digest="",
    device="cpu",
)
ANSWER = wire.BatchResponse(1, PAGES, "", random_pages(3, LARGE).reshape(1, 3, LARGE))
BODY = wire.encode_response(ANSWER, MSGPACK)


@contextmanager
def copies_once() -> Iterator[None]:
    """Work that at no time takes the memory of two answers of three large pages."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 2 * ANSWER.pages.nbytes
    finally:
        tracemalloc.stop()


def test_encoding_copies_once() -> None:
    with copies_once():
        assert wire.encode_response(ANSWER, MSGPACK)


def test_decoding_copies_once() -> None:
    with copies_once():
        assert wire.decode_response(BODY, MSGPACK, INFO, 1).num_pages == PAGES


def test_receiving_copies_once() -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {MSGPACK}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    pieces = [BODY[start : start + 65536] for start in range(0, len(BODY), 65536)]

    class Server(asyncio.Transport):
        """Answers without a socket."""

        def write(self, data: Any) -> None:
            asyncio.get_running_loop().call_soon(self.answer)

        def is_closing(self) -> bool:
            return False

        def answer(self) -> None:
            for piece in (head.encode(), *pieces):
                connection.data_received(piece)

    connection = Connection()
    request = h11.Request(method="GET", target="/", headers=[("host", "one.example")])

    async def receive() -> None:
        connection.connection_made(Server())
        with copies_once():
            got = await connection.exchange(request, b"", 2 * len(BODY))
        assert got.body == BODY

    asyncio.run(receive())


def test_between_these_steps_pages_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    table = random_pages(PAGES, PAGE_SIZE)
    outputs: list[Bytes] = []
    encoded: list[Bytes] = []
    sums: list[Bytes] = []
    encode, reconstruct = wire.encode_response, mg.reconstruct

    def seen_encode(response: Any, *args: Any, **options: Any) -> bytes:
        encoded.extend(response.pages)
        return encode(response, *args, **options)

    def seen_reconstruct(*answers: mg.Answer, **options: Any) -> Bytes:
        sums.append(reconstruct(*answers, **options))
        return sums[-1]

    monkeypatch.setattr(wire, "encode_response", seen_encode)
    monkeypatch.setattr(session, "reconstruct", seen_reconstruct)
    with LiveApp(table) as zero, LiveApp(table, party=1) as one:
        for app in (zero, one):
            inner = app.engine.inner

            def seen_answer(
                *args: Any, answer: Callable[..., mg.Answer] = inner.answer, **options: Any
            ) -> mg.Answer:
                made = answer(*args, **options)
                outputs.append(made.pages)
                return made

            monkeypatch.setattr(inner, "answer", seen_answer)
        with mg.Client([zero.url, one.url]) as client:
            pages = client.get([3, 5, 7])
    np.testing.assert_array_equal(pages, table[[3, 5, 7]])
    assert len(outputs) == len(encoded) == 2
    for row in encoded:
        assert sum(np.shares_memory(row, output) for output in outputs) == 1
    assert len(sums) == 1
    assert np.shares_memory(pages, sums[0])

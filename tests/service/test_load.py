"""The service under load, and with a client or an engine that fails."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np

import morphogen as mg
import morphogen.wire as wire
from morphogen.service import describe_table
from morphogen.wire import MSGPACK, QUERY_PATH
from naive import Bytes, naive_answers
from served_table import (
    SECONDS,
    LiveApp,
    ask,
    http,
    live,
    problem,
    some_queries,
    table,
)

__all__ = ["http", "live", "table"]


def test_more_than_may_wait_is_told_to_come_back(live: LiveApp, http: httpx.Client) -> None:
    live.engine.held.clear()
    body = wire.encode_request(some_queries(1))
    with ThreadPoolExecutor(2) as pool, httpx.Client(trust_env=False, timeout=SECONDS) as other:
        first = pool.submit(ask, other, live.url, body, MSGPACK)
        assert live.engine.begun.acquire(timeout=SECONDS)
        response = ask(http, live.url, wire.encode_request(some_queries(5)), MSGPACK)
        assert "5 more cannot" in problem(response, 429)["detail"]
        assert int(response.headers["Retry-After"]) >= 1
        live.engine.held.set()
        assert first.result(SECONDS).status_code == 200


def test_who_waits_for_too_long_is_told_so(table: Bytes, http: httpx.Client) -> None:
    body = wire.encode_request(some_queries(1))
    with LiveApp(table, max_wait=0.01) as live:
        live.engine.held.clear()
        (first,) = live.batcher.submit_many(some_queries(1))
        assert live.engine.begun.acquire(timeout=SECONDS)
        response = ask(http, live.url, body, MSGPACK)
        assert "waited" in problem(response, 503)["detail"]
        assert int(response.headers["Retry-After"]) >= 1
        live.engine.held.set()
        assert first.result(SECONDS).pages.any()


def test_requests_share_chunks(live: LiveApp, table: Bytes) -> None:
    live.engine.held.clear()
    callers = 4

    def one(seed: int) -> None:
        queries = some_queries(1, seed=seed)
        with httpx.Client(trust_env=False, timeout=SECONDS) as http:
            response = ask(http, live.url, wire.encode_request(queries), MSGPACK)
        info = describe_table(live.engine, 0)
        got = wire.decode_response(response.content, MSGPACK, info, 1)
        np.testing.assert_array_equal(got.pages, naive_answers(table, queries))

    with ThreadPoolExecutor(callers) as pool:
        first = pool.submit(one, 0)
        assert live.engine.begun.acquire(timeout=SECONDS)
        others = [pool.submit(one, seed) for seed in range(1, callers)]
        while live.batcher.statistics().queued < callers - 1:
            threading.Event().wait(0.001)
        live.engine.held.set()
        for done in (first, *others):
            done.result(SECONDS)
    assert live.engine.chunks == [1, 2, 1]


def test_a_client_that_goes_away_harms_nobody(live: LiveApp, http: httpx.Client) -> None:
    live.engine.held.clear()
    body = wire.encode_request(some_queries(1))
    head = (
        f"POST {QUERY_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {MSGPACK}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    address = live.listener.getsockname()
    with socket.create_connection(address, SECONDS) as gone:
        gone.sendall(head.encode() + body)
        assert live.engine.begun.acquire(timeout=SECONDS)
    with socket.create_connection(address, SECONDS) as gone:
        gone.sendall(head.encode() + body[:10])
    live.engine.held.set()
    assert ask(http, live.url, body, MSGPACK).status_code == 200


def test_an_engine_that_fails_is_a_problem_that_says_no_more(
    live: LiveApp, http: httpx.Client
) -> None:
    body = wire.encode_request(some_queries(1))
    live.engine.error = mg.DeviceError("secret detail")
    assert "secret" not in str(problem(ask(http, live.url, body, MSGPACK), 503))
    live.engine.error = RuntimeError("secret detail")
    assert "secret" not in str(problem(ask(http, live.url, body, MSGPACK), 500))
    live.engine.error = None
    assert ask(http, live.url, body, MSGPACK).status_code == 200

"""One client of a server does not starve the others: each address has a share of the queue."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import morphogen.wire as wire
from morphogen.service.clients import Proxies, client_network, client_of
from morphogen.service.limits import Limits
from morphogen.service.run import ServerConfig
from morphogen.wire import MSGPACK
from naive import random_pages
from served_table import PAGE_SIZE, PAGES, SECONDS, LiveApp, ask, problem, some_queries

LONE, GREEDY = "127.0.0.1", "127.0.0.2"


def body(queries: int) -> bytes:
    return wire.encode_request(some_queries(queries))


@contextmanager
def http_from(address: str) -> Iterator[httpx.Client]:
    """A client of HTTP with an address; all of 127.0.0.0/8 is this machine."""
    transport = httpx.HTTPTransport(local_address=address, retries=0)
    with httpx.Client(transport=transport, trust_env=False, timeout=SECONDS) as client:
        yield client


@contextmanager
def held(**options: object) -> Iterator[LiveApp]:
    """A server whose engine is held within a chunk."""
    with LiveApp(random_pages(PAGES, PAGE_SIZE), **options) as app:  # type: ignore[arg-type]
        app.engine.held.clear()
        app.batcher.submit_many(some_queries(1), client="first")
        assert app.engine.begun.acquire(timeout=SECONDS)
        yield app


def wait_for_queue(app: LiveApp, length: int) -> None:
    while app.batcher.statistics().queued != length:
        threading.Event().wait(0.001)


def test_a_client_whose_share_is_full_is_refused_and_no_other() -> None:
    with (
        held(max_queued=64, max_queued_per_client=32) as app,
        http_from(GREEDY) as greedy,
        http_from(GREEDY) as more,
        http_from(LONE) as lone,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(ask, greedy, app.url, body(32), MSGPACK)
        wait_for_queue(app, 32)
        refused = ask(more, app.url, body(1), MSGPACK)
        assert "32 queries of this client wait" in problem(refused, 429)["detail"]
        assert refused.headers["Retry-After"] == "1"
        (query,) = some_queries(1)
        other = pool.submit(ask, lone, app.url, wire.encode_request([query]), MSGPACK)
        wait_for_queue(app, 33)
        app.engine.held.set()
        assert first.result(SECONDS).status_code == 200
        assert other.result(SECONDS).status_code == 200
        # It was in the first chunk after the one that was held.
        assert query.keys in [asked.keys for asked in app.engine.calls[1][0]]


def test_a_queue_full_of_others_still_has_room_for_one() -> None:
    with (
        held(max_queued=32) as app,
        http_from(GREEDY) as greedy,
        http_from(LONE) as lone,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(ask, greedy, app.url, body(32), MSGPACK)
        wait_for_queue(app, 32)
        other = pool.submit(ask, lone, app.url, body(1), MSGPACK)
        while app.batcher.statistics().refused != 1:
            threading.Event().wait(0.001)
        app.engine.held.set()
        assert other.result(SECONDS).status_code == 200
        refused = first.result(SECONDS)
        problem(refused, 429)
        assert refused.headers["Retry-After"] == "1"


def test_a_client_over_its_share_is_refused_before_its_body_is_read() -> None:
    with (
        held(max_queued=64, max_queued_per_client=32) as app,
        http_from(GREEDY) as greedy,
        http_from(GREEDY) as more,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(ask, greedy, app.url, body(32), MSGPACK)
        wait_for_queue(app, 32)
        # Neither is a request, which is not found out of the one that says how long it is.
        problem(ask(more, app.url, b"\xff", MSGPACK), 429)
        assert ask(more, app.url, iter([b"\xff"]), MSGPACK).status_code == 400
        problem(ask(more, app.url, iter([body(1)]), MSGPACK), 429)
        app.engine.held.set()
        assert first.result(SECONDS).status_code == 200
        assert ask(more, app.url, body(1), MSGPACK).status_code == 200


@pytest.mark.slow
def test_two_hundred_greedy_connections_leave_room_for_one() -> None:
    with (
        held(max_queued=1024, max_queued_per_client=256) as app,
        http_from(LONE) as lone,
        ThreadPoolExecutor(201) as pool,
    ):
        headers = {"Content-Type": MSGPACK}

        def greedy() -> int:
            with http_from(GREEDY) as client:
                answer = client.post(app.url + wire.QUERY_PATH, content=body(32), headers=headers)
                return answer.status_code

        crowd = [pool.submit(greedy) for _ in range(200)]
        while app.metrics.requests[wire.QUERY_PATH, "429"] < 192:
            threading.Event().wait(0.001)
        assert app.batcher.statistics().queued == 256
        other = pool.submit(ask, lone, app.url, body(1), MSGPACK)
        wait_for_queue(app, 257)
        app.engine.held.set()
        assert other.result(SECONDS).status_code == 200
        statuses = sorted(done.result(SECONDS) for done in crowd)
        assert statuses == [200] * 8 + [429] * 192


@pytest.mark.parametrize("trusted", [(), ("127.0.0.2",)])
def test_the_forwarded_address_counts_only_behind_a_trusted_proxy(
    trusted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # which uvicorn would heed
    limits = Limits(trusted_proxies=trusted)
    with (
        held(max_queued=64, max_queued_per_client=32, limits=limits) as app,
        http_from(GREEDY) as proxy,
        http_from(GREEDY) as more,
        ThreadPoolExecutor(2) as pool,
    ):
        proxy.headers["X-Forwarded-For"] = "192.0.2.1"
        # What the client wrote itself comes before what the proxy added.
        more.headers["X-Forwarded-For"] = "192.0.2.1, 192.0.2.2"
        first = pool.submit(ask, proxy, app.url, body(32), MSGPACK)
        wait_for_queue(app, 32)
        other = pool.submit(ask, more, app.url, body(1), MSGPACK)
        if trusted:
            wait_for_queue(app, 33)
        else:
            problem(other.result(SECONDS), 429)
        app.engine.held.set()
        assert first.result(SECONDS).status_code == 200
        assert other.result(SECONDS).status_code == (200 if trusted else 429)


@pytest.mark.parametrize("trusted", [(), (GREEDY,), (LONE,)])
@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded"])
def test_forwarding_headers_of_a_proxy_that_is_not_trusted_are_told_once(
    name: str, trusted: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "morphogen.service")
    limits = Limits(trusted_proxies=trusted)
    with LiveApp(random_pages(PAGES, PAGE_SIZE), limits=limits) as app, http_from(GREEDY) as proxy:
        assert proxy.get(f"{app.url}/health").status_code == 200
        assert not caplog.records
        for _ in range(2):
            header = {name: "192.0.2.1"}
            assert proxy.get(f"{app.url}/health", headers=header).status_code == 200
    told = [record.__dict__["fields"]["message"] for record in caplog.records]
    assert len(told) == (trusted != (GREEDY,))
    assert "192.0.2" not in str(told)


def test_a_trusted_proxy_may_have_more_connections_than_a_client() -> None:
    limits = Limits(connections=8, per_address=1, trusted_proxies=("127.0.0.0/31",))
    with LiveApp(random_pages(PAGES, PAGE_SIZE), limits=limits) as app, http_from(LONE) as http:
        # Both have an answer, so that neither could be spared for the other.
        with http_from(LONE) as another:
            for client in (http, another, http, another):
                assert client.get(f"{app.url}/health").status_code == 200
        assert app.connections.cut_off.total() == 0


def test_an_address_is_found_in_whatever_form_it_has() -> None:
    assert client_network("192.0.2.1") == client_network("::ffff:192.0.2.1") == "192.0.2.1"
    for client, found in (
        (("2001:db8::1", 0), "2001:db8::/64"),
        (("192.0.2.1", 4711), "192.0.2.1"),
        (("no address", 0), "unknown"),
        (None, "unknown"),
    ):
        assert client_of({"type": "http", "client": client}) == found  # type: ignore[arg-type]
    proxies = Proxies(["10.0.0.0/8", "2001:db8::1"])
    hosts = ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "2001:db8::2", "11.0.0.1")
    assert [host in proxies for host in hosts] == [True, True, True, False, False]


@pytest.mark.parametrize("proxy", ["*", "proxy.example", "10.0.0.1/8", ""])
def test_what_is_no_address_of_a_proxy_is_refused(proxy: str) -> None:
    with pytest.raises(
        ValueError, match=r"^a trusted proxy must be an address or a network, .*not"
    ):
        Limits(trusted_proxies=(proxy,))


def test_the_share_of_an_address_is_a_quarter_of_the_queue_unless_told() -> None:
    def share(**options: int) -> int:
        return ServerConfig(path=Path("pages"), party=0, **options).share  # type: ignore[arg-type]

    assert share() == 256
    assert share(max_queued=100) == 32
    assert share(max_queued=100, max_queued_per_client=99) == 99
    for wrong in (31, 101):
        with pytest.raises(ValueError, match=r"^max_queued_per_client must be in 32..100, not"):
            share(max_queued=100, max_queued_per_client=wrong)

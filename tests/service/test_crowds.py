"""Crowds of idle and slow clients do not keep a busy one from its answers."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import morphogen.wire as wire
from crowd import (
    Crowd,
    LoggedServer,
    ask_health,
    connect,
    get,
    many_open_files,
    read_answer,
    read_to_end,
    send_slowly,
)
from morphogen.authentication import Seal
from morphogen.service.cap import PIECE_BYTES
from morphogen.service.clients import client_network
from morphogen.service.connections import Phase
from morphogen.service.limits import Limits
from morphogen.wire import MSGPACK, QUERY_PATH
from naive import random_pages
from served_table import EPOCH, PAGE_SIZE, PAGES, LiveApp, ask, http, some_queries

__all__ = ["http"]

OTHER, THIRD = "127.0.0.2", "127.0.0.3"
pytestmark = pytest.mark.slow  # processes of their own, or crowds of connections

OK = b"HTTP/1.1 200 "
HALF_A_HEAD = b"GET /health HTTP/1.1\r\nHost: "
GET_CAP = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % wire.cap_path(EPOCH).encode()
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def post(body: bytes, size: int | None = None) -> bytes:
    length = len(body) if size is None else size
    head = f"POST {QUERY_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {MSGPACK}\r\n"
    return f"{head}Content-Length: {length}\r\n\r\n".encode() + body


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pages.bin"
    path.write_bytes(bytes(10_000))
    return path


@pytest.fixture
def limited() -> Iterator[Callable[..., LiveApp]]:
    """Makes a server whose limits are these."""
    servers: list[LiveApp] = []

    def make(page_size: int = PAGE_SIZE, **limits: object) -> LiveApp:
        pages = random_pages(PAGES, page_size)
        servers.append(LiveApp(pages, limits=Limits(**limits)))  # type: ignore[arg-type]
        return servers[-1]

    yield make
    for server in servers:
        server.__exit__()


# Open files


@pytest.mark.parametrize("sent", [b"", HALF_A_HEAD], ids=["silent", "half"])
def test_more_idle_connections_than_open_files_keep_nobody_from_an_answer(
    file: Path, sent: bytes
) -> None:
    with many_open_files(), LoggedServer(file, ulimit="-n 1024") as server:
        started = server.events[0]
        assert started["open_files"] == 1024
        assert 512 < started["max_connections"] < 1024
        with (
            Crowd(server.address, 550, sent),
            Crowd(server.address, 550, sent, OTHER),
        ):
            for source in ("", OTHER, THIRD):
                assert get(server.address, source=source).startswith(OK)
        assert server.stop() == 0
        assert {event["event"] for event in server.events} == {
            *("started", "request", "cut_off", "stopped")
        }


def test_a_soft_limit_of_open_files_is_raised(file: Path) -> None:
    with LoggedServer(file, ulimit="-S -n 256") as server:
        started = server.events[0]
        assert started["max_connections"] == 2048
        assert started["max_connections_per_address"] == 512
        assert started["open_files"] > 2048


def test_a_limit_of_open_files_that_leaves_no_room_is_refused(file: Path) -> None:
    with LoggedServer(file, ulimit="-n 64") as server:
        assert server.process.wait(30) == 2
        assert "a process may open 64 files here" in server.lines[-1]


# Room


def test_one_address_has_its_share_and_no_more(limited: Callable[..., LiveApp]) -> None:
    app = limited(connections=40, per_address=10)
    with connect(app.address) as busy:
        assert ask_health(busy)
        with Crowd(app.address, 30, source=OTHER) as crowd:
            for cut in crowd.sockets[:20]:
                assert read_to_end(cut) == b""
            assert get(app.address, source=OTHER).startswith(OK)
            assert ask_health(busy)


def test_who_has_finished_a_request_keeps_a_place_before_those_who_have_not(
    limited: Callable[..., LiveApp],
) -> None:
    app = limited(connections=20, per_address=20)
    with connect(app.address) as busy:
        for _ in range(5):
            assert ask_health(busy)
            with Crowd(app.address, 30, HALF_A_HEAD):
                assert ask_health(busy)


def test_a_busy_client_has_its_answers_amid_a_crowd_that_comes_again(
    limited: Callable[..., LiveApp], http: httpx.Client
) -> None:
    app = limited(connections=40, per_address=20)
    body = wire.encode_request(some_queries(4))
    alone = ask(http, app.url, body, MSGPACK).content
    for sent in (b"", HALF_A_HEAD, post(b"x", 1000), post(body)):
        with Crowd(app.address, 60, sent, OTHER):
            for _ in range(5):
                assert ask(http, app.url, body, MSGPACK).content == alone


def test_a_request_under_way_is_never_cut_off_for_another(limited: Callable[..., LiveApp]) -> None:
    app = limited(connections=4, per_address=4)
    body = wire.encode_request(some_queries(1))
    app.engine.held.clear()
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(
                httpx.post,
                app.url + QUERY_PATH,
                content=body,
                timeout=30,
                headers={"Content-Type": MSGPACK},
                trust_env=False,
            )
            for _ in range(4)
        ]
        while (now := app.batcher.statistics()).queued + now.running < 4:
            threading.Event().wait(0.001)
        refused = get(app.address)
        app.engine.held.set()
        assert [answer.result(30).status_code for answer in asked] == [200] * 4
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert app.connections.cut_off == {"refused": 1}


def test_addresses_of_one_client_are_one() -> None:
    assert client_network("192.0.2.1") == client_network("::ffff:192.0.2.1") == "192.0.2.1"
    assert client_network("2001:db8::1") == client_network("2001:db8::ffff:2%eth0")
    assert client_network("2001:db8::1") != client_network("2001:db8:0:1::1")


# Time


@pytest.mark.parametrize("sent", [b"", HALF_A_HEAD], ids=["silent", "half"])
def test_a_head_that_does_not_end_is_cut_off(limited: Callable[..., LiveApp], sent: bytes) -> None:
    app = limited(head_seconds=0.1)
    with connect(app.address, sent) as silent:
        assert read_to_end(silent) == b""
    with connect(app.address, HALF_A_HEAD) as slow:
        send_slowly(slow)
    with connect(app.address) as again:
        assert ask_health(again)
        send_slowly(again, HALF_A_HEAD[:1])
    assert app.connections.cut_off["head"] >= 3


def test_a_body_that_does_not_end_is_cut_off(limited: Callable[..., LiveApp]) -> None:
    app = limited(body_seconds=0.1)
    with connect(app.address, post(b"", 1000)) as silent:
        assert read_to_end(silent) == b""
    with connect(app.address, post(b"x", 1000)) as slow:
        send_slowly(slow)
    assert app.connections.cut_off == {"body": 2}


def test_a_connection_without_requests_is_ended(limited: Callable[..., LiveApp]) -> None:
    app = limited(idle_seconds=0.1)
    with connect(app.address, HEALTH) as idle:
        assert read_to_end(idle).startswith(OK)
    assert not app.connections.cut_off


def test_an_answer_that_is_not_read_is_cut_off(limited: Callable[..., LiveApp]) -> None:
    app = limited(page_size=100_000, answer_seconds=0.1)
    body = post(wire.encode_request(some_queries(32)))
    with connect(app.address, body) as silent:
        while not app.connections.cut_off:
            threading.Event().wait(0.001)
        assert len(read_to_end(silent)) < 32 * 3 * 100_000


# Memory


def test_answers_that_nobody_reads_have_a_bound(limited: Callable[..., LiveApp]) -> None:
    size = 32 * 3 * 50_000
    app = limited(page_size=50_000, unread_bytes=2 * size, per_address=100)
    body = post(wire.encode_request(some_queries(32)))
    with (
        connect(app.address, body) as reads_later,
        Crowd(app.address, 10, body, OTHER) as crowd,
    ):
        while sum(app.connections.cut_off.values()) < 3:
            threading.Event().wait(0.001)
        assert set(app.connections.cut_off) == {"unread"}
        unread = sum(one.unread_bytes() for one in list(app.connections._open))
        assert unread <= 2 * size
        reads_later.sendall(HEALTH)
        # One client's unread answer is not the first to go.
        got = bytearray()
        while OK not in got[1000:]:
            got += reads_later.recv(1 << 20)
        assert len(got) > size
        for one in crowd.sockets:
            one.close()
    assert get(app.address).startswith(OK)


def test_who_asks_on_without_reading_has_one_answer_in_memory(
    limited: Callable[..., LiveApp],
) -> None:
    app = limited(page_size=50_000)
    body = post(wire.encode_request(some_queries(32)))
    with connect(app.address, body * 4) as asks:
        while app.batcher.statistics().answered < 32:
            threading.Event().wait(0.001)
        for _ in range(20):
            assert get(app.address).startswith(OK)
        assert app.batcher.statistics().answered == 32
        received = 0
        while received < 4 * 32 * 3 * 50_000:
            received += len(asks.recv(1 << 20))
    assert app.batcher.statistics().answered == 128


# Caps


@pytest.fixture(scope="module")
def large() -> Seal:
    """Returns pages of a byte with a cap of 16 MiB, which no test checks."""
    cap = random_pages(1 << 19, 32)
    return Seal(random_pages(len(cap), 1), cap, bytes(32))


@contextmanager
def capped(large: Seal, **limits: object) -> Iterator[LiveApp]:
    with LiveApp(large.pages, seal=large, limits=Limits(**limits)) as app:  # type: ignore[arg-type]
        yield app


def phases(app: LiveApp) -> Counter[Phase]:
    return Counter(one.phase for one in list(app.connections._open))


def test_slow_readers_of_a_cap_share_one_buffer(large: Seal) -> None:
    with capped(large) as app, Crowd(app.address, 40, GET_CAP) as crowd:
        while phases(app) != {Phase.ANSWER: 40}:
            threading.Event().wait(0.001)
        assert get(app.address).startswith(OK)
        unread = sum(one.unread_bytes() for one in list(app.connections._open))
        assert 0 < unread <= 40 * PIECE_BYTES
        for one in crowd.sockets[::13]:
            assert read_answer(one) == large.cap.tobytes()
        assert not app.connections.cut_off


def test_parts_of_caps_that_nobody_reads_have_a_bound(large: Seal) -> None:
    with (
        capped(large, unread_bytes=4 * PIECE_BYTES, per_address=100) as app,
        Crowd(app.address, 12, GET_CAP, OTHER),
    ):
        while sum(app.connections.cut_off.values()) < 3:
            threading.Event().wait(0.001)
        assert set(app.connections.cut_off) == {"unread"}
        with connect(app.address, GET_CAP) as reads:
            assert read_answer(reads) == large.cap.tobytes()


def test_each_part_of_a_cap_has_its_time(large: Seal) -> None:
    with capped(large) as app, connect(app.address, GET_CAP) as reads:
        # Else the system might hold the whole cap for a client that reads nothing.
        reads.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE_BYTES)
        began = set[float]()
        while len(began) < 3:
            assert get(app.address).startswith(OK)  # what was read is seen by then
            open_now = list(app.connections._open)
            began |= {one.since for one in open_now if one.phase is Phase.ANSWER}
            assert reads.recv(PIECE_BYTES // 4)


def test_a_part_of_a_cap_that_is_not_read_is_cut_off(large: Seal) -> None:
    with capped(large, answer_seconds=0.1) as app, connect(app.address, GET_CAP) as silent:
        while not app.connections.cut_off:
            threading.Event().wait(0.001)
        assert app.connections.cut_off == {"answer": 1}
        assert len(read_to_end(silent)) < large.cap.nbytes


def test_who_sends_on_gains_no_time_to_read_a_cap(large: Seal) -> None:
    with capped(large) as app, connect(app.address, GET_CAP) as silent:
        while phases(app) != {Phase.ANSWER: 1}:
            threading.Event().wait(0.001)
        (asked,) = list(app.connections._open)
        since = asked.since
        silent.sendall(HEALTH)
        for _ in range(2):  # what came before is seen by then
            assert get(app.address).startswith(OK)
        assert (asked.phase, asked.since) == (Phase.ANSWER, since)


# The end


def test_a_client_that_sends_no_more_gets_its_answers(limited: Callable[..., LiveApp]) -> None:
    app = limited()
    app.engine.held.clear()
    whole = post(wire.encode_request(some_queries(2)))
    with connect(app.address, whole + HEALTH) as half:
        half.shutdown(1)
        assert app.engine.begun.acquire(timeout=30)
        app.engine.held.set()
        answers = read_to_end(half)
    assert answers.count(OK) == 2
    assert answers.endswith(b'{"live":true,"ready":true}')


@pytest.mark.parametrize("sent", [post(b"x", 1000), HALF_A_HEAD, b""], ids=["body", "head", "none"])
def test_a_server_ends_though_a_client_does_not(file: Path, sent: bytes) -> None:
    with LoggedServer(file, ("--body-timeout", "1000", "--head-timeout", "1000")) as server:
        with connect(server.address, sent), connect(server.address) as other:
            assert ask_health(other)
            server.process.terminate()
            # Clients have 2 of the 30 seconds that requests have which were accepted.
            assert server.process.wait(20) == 0
        assert server.stop() == 0
        assert server.events[-1]["event"] == "stopped"

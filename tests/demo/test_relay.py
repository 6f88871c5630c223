"""The demo's relay: what it counts, and how it lies."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from morphogen.demo.relay import Relay, WrongByte

BODY = bytes(range(256)) * 1000


class Handler(BaseHTTPRequestHandler):
    """Answers each request with the same body, over a connection that stays."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def relay() -> Iterator[Relay]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with Relay(f"http://127.0.0.1:{server.server_address[1]}") as relay:
            yield relay
        server.shutdown()
        thread.join()


@pytest.fixture
def connection(relay: Relay) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(relay.url.removeprefix("http://"))
    yield connection
    connection.close()


def ask(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/")
    return connection.getresponse().read()


def test_a_connection_for_which_there_is_no_thread_is_ended(
    relay: Relay, connection: http.client.HTTPConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            Relay(relay.url)
        with pytest.raises(ConnectionError):
            ask(connection)
    connection.close()
    assert ask(connection) == BODY


def test_a_relay_passes_all_on_and_counts_it(
    relay: Relay, connection: http.client.HTTPConnection
) -> None:
    assert (relay.sent, relay.received) == (0, 0)
    assert ask(connection) == BODY
    sent, received = relay.sent, relay.received
    assert 20 < sent < 200
    assert len(BODY) + 20 < received < len(BODY) + 300
    assert ask(connection) == BODY
    assert relay.sent == 2 * sent
    assert relay.received == 2 * received  # heads of one length: only the date is in them


def test_a_relay_that_lies_turns_one_bit_of_each_answer(
    relay: Relay, connection: http.client.HTTPConnection
) -> None:
    assert ask(connection) == BODY
    relay.lies = True
    for _ in range(2):
        answer = ask(connection)
        wrong = [
            at for at, (one, other) in enumerate(zip(answer, BODY, strict=True)) if one != other
        ]
        assert wrong == [48]
        assert answer[48] ^ BODY[48] == 1
    relay.lies = False
    assert ask(connection) == BODY


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 30, 64, 500])
def test_the_wrong_byte_is_found_in_whatever_pieces_an_answer_comes(size: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\n"
    answer = head + b"\r\n\r\n" * 40
    finder = WrongByte()
    for _ in range(2):
        finder.begin()
        places = [(at, finder.find(answer[at : at + size])) for at in range(0, len(answer), size)]
        assert [at + place for at, place in places if place >= 0] == [len(head) + 48]


def test_a_relay_that_is_closed_leaves_no_thread_and_no_port(relay: Relay) -> None:
    with Relay(relay.url) as second:
        connections = [
            http.client.HTTPConnection(second.url.removeprefix("http://")) for _ in range(3)
        ]
        for connection in connections:
            assert ask(connection) == BODY
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(second.url.removeprefix("http://")).connect()
    assert not any(thread.is_alive() for thread in second._threads)
    for connection in connections:
        connection.close()

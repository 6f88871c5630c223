"""Frames stay whole, whatever becomes of either end."""

from __future__ import annotations

import signal
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from connections import certificates, closing, pair, tls
from morphogen.cluster.connection import Connection

__all__ = ["closing", "tls"]

MORE_THAN_FITS = bytes(64 << 20)  # into the buffers of both ends


@pytest.fixture
def ends(tls: dict[str, str], closing: ExitStack) -> Iterator[tuple[Connection, Connection]]:
    router, shard = pair(tls)
    yield router, shard
    router.release()
    shard.release()


def test_a_send_fails_when_the_other_end_takes_nothing(ends: tuple[Connection, Connection]) -> None:
    with pytest.raises(TimeoutError, match=r"nothing came or went for 0\.01 s"):
        ends[0].send(1, b"", MORE_THAN_FITS, patience=0.01)


def test_no_frame_follows_one_that_was_cut(ends: tuple[Connection, Connection]) -> None:
    with pytest.raises(TimeoutError):
        ends[0].send(1, b"", MORE_THAN_FITS, patience=0.01)
    with pytest.raises(ConnectionAbortedError, match="the frame before was cut"):
        ends[0].send(2, b"", b"keys", patience=0.01)


def test_no_frame_follows_one_whose_sender_was_interrupted(
    ends: tuple[Connection, Connection],
) -> None:
    router, shard = ends
    sender = threading.get_ident()

    def interrupt() -> None:
        shard._receive(24)
        signal.pthread_kill(sender, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        router.send(1, b"", MORE_THAN_FITS)
    thread.join()
    with pytest.raises(ConnectionAbortedError, match="the frame before was cut"):
        router.send(2, b"", b"keys", patience=0.01)


def test_no_frame_is_taken_from_the_middle_of_another(ends: tuple[Connection, Connection]) -> None:
    router, shard = ends
    router._send(struct.pack("<QQQ", 1, 0, 1 << 62), 1.0)
    router.send(2, b"", b"keys")
    with pytest.raises((MemoryError, ValueError)):  # there is no such memory
        shard.receive()
    with pytest.raises(ConnectionAbortedError):
        shard.receive()


class Watched:
    """In the place of a lock: notes whether a connection's socket is open when it is held."""

    def __init__(self, connection: Connection, seen: list[bool]) -> None:
        self._connection, self._seen = connection, seen

    def __enter__(self) -> None:
        self._seen.append(self._connection._socket.fileno() >= 0)

    def __exit__(self, *unused: object) -> None:
        self._seen.append(self._connection._socket.fileno() >= 0)


@pytest.mark.parametrize("lock", ["_sending", "_turn"])
def test_the_socket_is_closed_while_no_thread_uses_it(
    ends: tuple[Connection, Connection], lock: str
) -> None:
    """Its number may be another connection's at once, which would get the keys that are sent."""
    seen: list[bool] = []
    setattr(ends[0], lock, Watched(ends[0], seen))
    ends[0].release()
    assert seen[-2:] == [True, False]


def test_an_authority_below_another_may_be_the_one_that_is_trusted(tmp_path: Path) -> None:
    """As with Ray, which takes the same files: gRPC asks for no chain to a root."""
    environment = certificates(tmp_path, trustme.CA().create_child_ca())
    router, shard = pair(environment)
    router.send(1, b"", b"keys")
    assert shard.receive()[2].tobytes() == b"keys"
    router.release()
    shard.release()

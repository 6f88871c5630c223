"""A relay between a client and a server that counts bytes, and that can be made to lie."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_PIECE = 1 << 16
_END_OF_HEAD = b"\r\n\r\n"
_WRONG_BYTE = 48  # of an answer's body: in its first page


class Relay:
    """Passes connections on to a server on this machine, from a port of its own.

    Parameters
    ----------
    url : str
        Of the server, over http.

    Attributes
    ----------
    url : str
        Of the relay: what a client takes for the server.
    sent, received : int
        Bytes that went to the server and that came from it so far, heads included.
    lies : bool
        Whether one bit of each answer's body is turned.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "", parts.port or 80)
        self.sent: int = 0
        self.received: int = 0
        self.lies: bool = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url: str = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        try:
            self._start(self._accept)
        except RuntimeError:
            self._listener.close()
            raise

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError:  # the system starts no more
            self._threads.remove(thread)
            raise

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                for side in (client, server):
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._sockets += [client, server]
                fresh = threading.Event()  # the next bytes from the server begin an answer
                try:
                    self._start(self._ask, client, server, fresh)
                    self._start(self._answer, server, client, fresh)
                except RuntimeError:  # this connection ends, and its client is told
                    for side in (client, server):
                        _end(side)

    def _ask(self, client: socket.socket, server: socket.socket, fresh: threading.Event) -> None:
        with suppress(OSError):
            while piece := client.recv(_PIECE):
                fresh.set()
                with self._lock:
                    self.sent += len(piece)
                server.sendall(piece)
        _end(server)

    def _answer(self, server: socket.socket, client: socket.socket, fresh: threading.Event) -> None:
        finder = WrongByte()
        with suppress(OSError):
            while piece := bytearray(server.recv(_PIECE)):
                with self._lock:
                    self.received += len(piece)
                if fresh.is_set():
                    fresh.clear()
                    finder.begin()
                at = finder.find(piece)
                if self.lies and at >= 0:
                    piece[at] ^= 1
                client.sendall(piece)
        _end(client)

    def close(self) -> None:
        """Close all connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes its thread
        self._threads[0].join()
        for side in self._sockets:
            _end(side)
        for thread in self._threads[1:]:
            thread.join()
        for side in (self._listener, *self._sockets):
            side.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class WrongByte:
    """Finds the byte of each answer that a lie alters, in whatever pieces the answer comes."""

    def __init__(self) -> None:
        self._head: bytes | None = None  # the end of what came of a head that is not complete
        self._left = -1  # bytes until that byte

    def begin(self) -> None:
        """Take the next piece for the beginning of an answer."""
        self._head = b""

    def find(self, piece: bytes | bytearray) -> int:
        """Take the next piece.

        Parameters
        ----------
        piece : bytes-like

        Returns
        -------
        int
            The byte's index in it; -1 if it is not there.
        """
        if self._head is not None:
            came = self._head + piece
            end = came.find(_END_OF_HEAD)
            if end < 0:
                self._head = came[1 - len(_END_OF_HEAD) :]
                return -1
            self._left = end + len(_END_OF_HEAD) - len(self._head) + _WRONG_BYTE
            self._head = None
        at, self._left = self._left, self._left - len(piece)
        return at if 0 <= at < len(piece) else -1


def _end(side: socket.socket) -> None:
    with suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)

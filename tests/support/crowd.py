"""Crowds of clients that harm a server, and a server's whole log."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

SECONDS = 30  # only a failed test waits this long
Address = tuple[str, int]


@contextmanager
def many_open_files() -> Iterator[None]:
    """Let this process open as many files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Connections of one address, each of which has sent the same bytes and reads nothing."""

    def __init__(self, address: Address, size: int, sent: bytes = b"", source: str = "") -> None:
        self._stack = ExitStack()
        self.sockets: list[socket.socket] = []
        for _ in range(size):
            self.sockets.append(self._stack.enter_context(connect(address, sent, source)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def connect(address: Address, sent: bytes = b"", source: str = "") -> socket.socket:
    """A connection on which these bytes were sent; all of 127.0.0.0/8 is this machine."""
    connection = socket.create_connection(address, SECONDS, (source, 0) if source else None)
    with suppress(ConnectionError):  # it may be cut off already
        connection.sendall(sent)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    """What a server sends until it hangs up."""
    received = bytearray()
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionError:
        pass
    return bytes(received)


def read_answer(connection: socket.socket) -> bytes:
    """The body of one answer that tells its length."""
    with connection.makefile("rb") as file:
        length = 0
        while (line := file.readline()).strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return file.read(length)


def send_slowly(connection: socket.socket, piece: bytes = b"x") -> None:
    """Send a piece again and again, until the server hangs up."""
    connection.settimeout(0.005)
    while True:
        try:
            connection.sendall(piece)
            if connection.recv(1) == b"":
                return
        except TimeoutError:
            continue
        except ConnectionError:
            return


def get(address: Address, path: str = "/health", *, method: str = "GET", source: str = "") -> bytes:
    """The whole answer to one request."""
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with connect(address, request.encode(), source) as connection:
        return read_to_end(connection)


def ask_health(connection: socket.socket) -> bool:
    """Ask on a connection that stays open whether the server is well."""
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    while not received.endswith(b"}"):
        received += (piece := connection.recv(1000))
        assert piece, received
    return received.startswith(b"HTTP/1.1 200 ")


class LoggedServer:
    """``morphogen serve`` with a limit of open files, and with its whole log."""

    def __init__(
        self,
        file: Path,
        options: Sequence[str] = (),
        *,
        ulimit: str = "",
        environment: dict[str, str] | None = None,
    ) -> None:
        command = [sys.executable, "-m", "morphogen", "serve", str(file), "--party", "0"]
        command += ["--port", "0", "--device", "cpu", *options]
        if ulimit:
            command = ["sh", "-c", f'ulimit {ulimit}; exec "$@"', "sh", *command]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment, stdin=subprocess.DEVNULL
        )
        self.lines: list[str] = []
        self._started = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._started.wait(SECONDS)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            self._started.set()
        self._started.set()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log. Every line must be JSON."""
        return [json.loads(line) for line in self.lines]

    @property
    def address(self) -> Address:
        host, _, port = self.events[0]["url"].rpartition("/")[2].rpartition(":")
        return host, int(port)

    def stop(self) -> int:
        """Ask it to stop; the exit code."""
        self.process.terminate()
        code = self.process.wait(SECONDS)
        self._reader.join()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

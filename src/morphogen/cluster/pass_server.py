"""A shard's end of the way between it and the router: passes come, and their parts go back."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections import deque
from contextlib import suppress

from morphogen.cluster.channel import Address
from morphogen.cluster.connection import Connection
from morphogen.cluster.host_shard import HostShard
from morphogen.cluster.packing import pack_life, pack_outcome, unpack_pass
from morphogen.cluster.tls import tls_of_ray
from morphogen.engine.shards.transport import Part

_SECRET_BYTES = 32
_PATIENCE_SECONDS = 10.0  # for a step of who has not proved yet that it has the secret
_STRANGERS = 32  # connections that have not: more are closed at once
_AT_A_TIME = 4  # passes of a connection: a GPU has one in each lane, and a small epoch goes on

Frame = tuple[int, memoryview, memoryview]


class PassServer:
    """Answers passes over connections to those that have a secret.

    Parameters
    ----------
    shard : HostShard
        Answers.
    host : str
        The address to listen on.

    Raises
    ------
    OSError, ValueError
        If it cannot listen there, or Ray's certificates cannot be read.
    """

    def __init__(self, shard: HostShard, host: str) -> None:
        self._shard = shard
        self._tls = tls_of_ray(of_shard=True)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family)
        port = self._socket.getsockname()[1]
        self.address: Address = Address(host, port, secrets.token_bytes(_SECRET_BYTES))
        self._strangers = threading.BoundedSemaphore(_STRANGERS)
        self._connections: set[Connection] = set()
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._accept, name="morphogen-accept", daemon=True).start()

    def close(self) -> None:
        """End all connections, and take no more. May be called again."""
        with self._lock:
            self._closed = True
            connections = tuple(self._connections)
        with suppress(OSError):  # it was closed before
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        for connection in connections:
            connection.close()

    def _accept(self) -> None:
        with self._socket:
            while not self._closed:
                try:
                    accepted, _ = self._socket.accept()
                except OSError:
                    if self._closed:
                        return
                    threading.Event().wait(0.1)  # such as no descriptor left: others may close
                    continue
                if not self._strangers.acquire(blocking=False):
                    accepted.close()
                    continue
                greeting = threading.Thread(
                    target=self._greet, args=(accepted,), name="morphogen-greet", daemon=True
                )
                try:
                    greeting.start()
                except RuntimeError:  # no thread left: others may end
                    self._strangers.release()
                    accepted.close()

    def _greet(self, accepted: socket.socket) -> None:
        try:
            connection = Connection.of(accepted, self.address.secret, self._tls, _PATIENCE_SECONDS)
        except (OSError, ValueError):
            return
        finally:
            self._strangers.release()
        with self._lock:
            if self._closed:
                connection.close()
            self._connections.add(connection)
        passes = _Passes(connection)
        threads: list[threading.Thread] = []
        try:
            for _ in range(_AT_A_TIME):
                thread = threading.Thread(
                    target=self._serve,
                    args=(connection, passes),
                    name="morphogen-pass",
                    daemon=True,
                )
                thread.start()
                threads.append(thread)
        except RuntimeError:  # no thread left: the router is to find another process
            connection.close()
        self._serve(connection, passes)
        for thread in threads:
            thread.join()
        with self._lock:
            self._connections.discard(connection)
        connection.release()

    def _serve(self, connection: Connection, passes: _Passes) -> None:
        try:
            number, head, keys = passes.first()
            while True:
                connection.send(number, *pack_outcome(self._answer(head, keys)))
                number, head, keys = passes.next()
        except (OSError, MemoryError):
            pass  # the router is to find another process
        finally:
            connection.close()

    def _answer(self, head: memoryview, keys: memoryview) -> Part | Exception:
        try:
            return self._shard.answer(*unpack_pass(head, keys))
        except Exception as error:
            return error


class _Passes:
    """The passes of a connection. It is read at all times, or its router would wait to send.

    Who has read a pass answers it, and lets another thread read: none hands one over. Only when
    enough threads answer, the reader keeps what comes for the one that ends first. Signs of life it
    gives itself.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reading = threading.Lock()
        self._waiting: deque[Frame] = deque()
        self._answering = 0
        self._lock = threading.Lock()

    def first(self) -> Frame:
        """A thread's first pass, or the next after some time without one."""
        with self._reading:
            while True:
                number, head, _ = frame = self._connection.receive()
                if not head:
                    self._connection.send(number, *pack_life(os.getpid()))
                    continue
                with self._lock:
                    if self._answering < _AT_A_TIME:
                        self._answering += 1
                        return frame
                    self._waiting.append(frame)

    def next(self) -> Frame:
        """The next pass of a thread that has answered one."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._answering -= 1
        return self.first()

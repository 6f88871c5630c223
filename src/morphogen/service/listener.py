"""A listener: it accepts connections while there is room, and takes them through TLS."""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from morphogen.service.clients import Proxies, client_network
from morphogen.service.connections import Connection, Connections
from morphogen.service.limits import Limits

# Connections that the system keeps until they are accepted, which is soon: there is no need for
# many, and a crowd before the others in this queue would hold them up.
BACKLOG = 256

_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_SECONDS = 0.05
_AT_ONCE = 16
_UNSENT_BYTES = 1 << 18
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
    b"Connection: close\r\n\r\n"
)


def bind(host: str, port: int) -> socket.socket:
    """Take a port. It refuses connections until `listen`.

    Parameters
    ----------
    host : str
        An address or a name of this machine.
    port : int
        0 for any that is free.

    Returns
    -------
    socket.socket

    Raises
    ------
    OSError
        If the address is in use or not this machine's.
    """
    # The protocol is named because asyncio switches Nagle's algorithm off only where it is: head
    # and body of a small answer would be 40 ms apart.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # The rest of an answer waits in this process, which counts it, not in the system.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listener


def listen(listener: socket.socket) -> None:
    """Let clients connect to a port that was taken.

    Parameters
    ----------
    listener : socket.socket
        From `bind`.

    Raises
    ------
    OSError
        If another process took the port in the same moment.
    """
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from None


class Listener:
    """Accepts connections.

    Where asyncio accepts them, those that have not finished their TLS are known to nobody, and a
    process that can open no more files fills its log.

    Parameters
    ----------
    listening : socket.socket
        One that listens.
    limits : Limits
        Of its connections, with `unread_bytes` settled.
    context : ssl.SSLContext or None
        For TLS.
    make_protocol : callable
        Makes the protocol of one connection.

    Attributes
    ----------
    connections : Connections
    """

    def __init__(
        self,
        listening: socket.socket,
        limits: Limits,
        context: ssl.SSLContext | None,
        make_protocol: Callable[[Connections, Connection], asyncio.Protocol],
    ) -> None:
        self._socket = listening
        self._limits = limits
        self._proxies = Proxies(limits.trusted_proxies)
        self._context = context
        self._make_protocol = make_protocol
        self.connections: Connections = Connections(limits)
        self._accepting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Accept from now on."""
        self._socket.setblocking(False)
        self._accepting = asyncio.create_task(self._accept())
        self._tasks.add(asyncio.create_task(self._sweep()))

    async def stop(self) -> None:
        """Accept no more, and give the clients that are there less time."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
        self._socket.close()
        self.connections.stop()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        for number in itertools.count():
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # a crowd that keeps coming must not hold up the others
            try:
                accepted, peer = await loop.sock_accept(self._socket)
            except OSError as error:
                if error.errno in _OUT_OF_FILES:
                    self.connections.make_room()
                    await asyncio.sleep(_PAUSE_SECONDS)
                continue  # else the client has gone
            connection = self.connections.admit(
                client_network(peer[0]), proxy=peer[0] in self._proxies
            )
            if connection is None:
                self._refuse(accepted)
                continue
            task = asyncio.create_task(self._connect(accepted, connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _refuse(self, accepted: socket.socket) -> None:
        with accepted, suppress(OSError):
            if self._context is None:
                accepted.send(_FULL)

    async def _connect(self, accepted: socket.socket, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        protocol = self._make_protocol(self.connections, connection)
        try:
            if self._context is None:
                await loop.connect_accepted_socket(lambda: protocol, accepted)
                return
            # Nothing may be awaited between these two, or bytes of the client would be lost.
            carrier, _ = await loop.connect_accepted_socket(asyncio.Protocol, accepted)
            connection.carried_by(carrier)
            secure = await loop.start_tls(
                carrier,
                protocol,
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._limits.head_seconds,
                ssl_shutdown_timeout=self._limits.answer_seconds,  # an answer may be unread
            )
        except BaseException as error:
            self.connections.remove(connection)
            if not isinstance(error, OSError):  # else the client has gone, or does not speak TLS
                raise
            return
        if secure is None:  # it was cut off amid TLS
            self.connections.remove(connection)
        else:
            protocol.connection_made(secure)

    async def _sweep(self) -> None:
        limits = self._limits
        shortest = min(limits.head_seconds, limits.body_seconds, limits.answer_seconds)
        while True:
            await asyncio.sleep(min(1.0, shortest / 4))
            self.connections.sweep()

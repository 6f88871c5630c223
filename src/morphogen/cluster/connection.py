"""A connection between the router and a shard's process: frames over a socket, plain or TLS.

Each end first proves to the other that it has a secret, which is never sent: by HMAC-SHA256 of what
both have just drawn, and of the shard's certificate, so that nobody between them passes proofs on.
Frames are a number, the lengths of a head and a body, and these.
"""

from __future__ import annotations

import hmac
import secrets
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from morphogen.cluster.tls import Tls

_PREFIX = struct.Struct("<QQQ")  # number of the call, bytes of the head, bytes of the body
_NONCE_BYTES, _PROOF_BYTES = 32, 32
_KEYS_BYTES = 1 << 20  # those of some passes fit: a router does not wait for a stopped process
_COPIED_BYTES = 1 << 20  # of a body that is copied, so that a frame is one call and one packet

Bytes = bytes | bytearray | memoryview


class Connection:
    """Frames over a socket. One thread may send while another receives.

    Parameters
    ----------
    connected : socket.socket
        It becomes the connection's, which closes it.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)
        self._socket = connected
        self._turn = threading.Lock()  # OpenSSL's object is for one thread at a time
        self._sending = threading.Lock()  # a frame stays whole
        self._cut = False  # a frame is sent, or was in part
        self._closed = False

    @classmethod
    def to(
        cls, host: str, port: int, secret: bytes, tls: Tls | None, patience: float
    ) -> Connection:
        """Connect to a shard's process, as the router.

        Parameters
        ----------
        host, port : str, int
            Where it listens.
        secret : bytes
            What it told.
        tls : Tls or None
            By `tls_of_ray`.
        patience : float
            Seconds to wait for each step.

        Returns
        -------
        Connection
            Each end knows of the other that it has the secret.

        Raises
        ------
        OSError
            If it cannot be reached, or does not have the secret.
        """
        plain = socket.create_connection((host, port), timeout=patience)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KEYS_BYTES)
        return cls._greet(plain, tls, lambda one: one._as_router(secret, patience))

    @classmethod
    def of(
        cls, accepted: socket.socket, secret: bytes, tls: Tls | None, patience: float
    ) -> Connection:
        """Take a connection, as a shard's process.

        Parameters
        ----------
        accepted : socket.socket
            By a listening one. It becomes the connection's, or is closed.
        secret : bytes
            What the other end must have.
        tls : Tls or None
            By `tls_of_ray`.
        patience : float
            Seconds to wait for each step.

        Returns
        -------
        Connection
            Each end knows of the other that it has the secret.

        Raises
        ------
        OSError
            If it has not.
        """
        accepted.settimeout(patience)
        certificate = b"" if tls is None else tls.certificate
        return cls._greet(accepted, tls, lambda one: one._as_shard(secret, certificate, patience))

    def send(self, number: int, head: bytes, body: Bytes, patience: float | None = None) -> None:
        """Send a frame.

        Parameters
        ----------
        number : int
            Of the call, below 2**64.
        head, body : bytes-like
            Its bytes.
        patience : float, optional
            Seconds after which this fails if the other end takes nothing. By default never.

        Raises
        ------
        OSError
            If the connection has ended. It is of no use after any error.
        """
        prefix = _PREFIX.pack(number, len(head), len(body))
        with self._sending:
            if self._cut:
                raise ConnectionAbortedError("the frame before was cut")
            # It stays so after any error, and Ctrl-C: what follows would be taken for this frame's
            # rest, and the keys in it for a head, which is unpickled.
            self._cut = True
            if len(body) <= _COPIED_BYTES:
                self._send(b"".join((prefix, head, body)), patience)
            else:
                self._send(prefix + head, patience)
                self._send(body, patience)
            self._cut = False

    def receive(self) -> tuple[int, memoryview, memoryview]:
        """Wait for a frame. One thread at a time may.

        Returns
        -------
        number : int
        head, body : memoryview
            Its bytes, in memory of their own.

        Raises
        ------
        OSError
            If the connection has ended. It is of no use after any error.
        """
        try:
            number, head, body = _PREFIX.unpack(self._receive(_PREFIX.size))
            return number, self._receive(head), self._receive(body)
        except BaseException:  # such as of memory: the next would begin within this frame
            self.close()
            raise

    def close(self) -> None:
        """End it, also for threads that wait. May be called again, from any thread."""
        self._closed = True
        with suppress(OSError), self._turn:  # the other end was first
            # Not the method of ssl's class, after which others would read what is encrypted.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def release(self) -> None:
        """Close the socket, once no thread sends. None may receive any more."""
        self.close()
        # Else what is sent might go to another connection, which has the number of the socket next.
        with self._sending, self._turn:
            self._socket.close()

    @classmethod
    def _greet(
        cls, plain: socket.socket, tls: Tls | None, prove: Callable[[Connection], None]
    ) -> Connection:
        connected = plain
        try:
            if tls is not None:
                connected = tls.context.wrap_socket(plain, server_side=tls.of_shard)
            connection = cls(connected)
            prove(connection)
        except BaseException:
            connected.close()
            raise
        return connection

    def _as_router(self, secret: bytes, patience: float) -> None:
        mine = secrets.token_bytes(_NONCE_BYTES)
        theirs = bytes(self._receive(_NONCE_BYTES, patience))
        connected = self._socket
        given = connected.getpeercert(True) if isinstance(connected, ssl.SSLSocket) else b""
        certificate = given or b""
        self._send(mine + _proof(secret, b"router", theirs, mine, certificate), patience)
        expected = _proof(secret, b"shard", theirs, mine, certificate)
        self._check(expected, self._receive(_PROOF_BYTES, patience))

    def _as_shard(self, secret: bytes, certificate: bytes, patience: float) -> None:
        mine = secrets.token_bytes(_NONCE_BYTES)
        self._send(mine, patience)
        theirs = bytes(self._receive(_NONCE_BYTES, patience))
        expected = _proof(secret, b"router", mine, theirs, certificate)
        self._check(expected, self._receive(_PROOF_BYTES, patience))
        self._send(_proof(secret, b"shard", mine, theirs, certificate), patience)

    def _check(self, expected: bytes, given: memoryview) -> None:
        if not hmac.compare_digest(expected, given):
            raise ConnectionRefusedError("the other end does not have this cluster's secret")

    def _send(self, data: Bytes, patience: float | None) -> None:
        left = memoryview(data).cast("B")
        while left:
            sent = self._try(self._socket.send, left, select.POLLOUT, patience)
            left = left[sent:]

    def _receive(self, size: int, patience: float | None = None) -> memoryview:
        data = np.empty(size, np.uint8).data
        left = data
        while left:
            got = self._try(self._socket.recv_into, left, select.POLLIN, patience)
            if not got:
                raise ConnectionResetError("the connection has ended")
            left = left[got:]
        return data

    def _try(
        self, use: Callable[[memoryview], int], data: memoryview, event: int, patience: float | None
    ) -> int:
        """Use the socket, and wait until it can be used."""
        while True:
            if self._closed:
                raise ConnectionAbortedError("the connection was closed")
            try:
                with self._turn:
                    return use(data)
            except ssl.SSLWantReadError:
                event = select.POLLIN
            except ssl.SSLWantWriteError:
                event = select.POLLOUT
            except BlockingIOError:
                pass
            poll = select.poll()
            poll.register(self._socket, event)
            if not poll.poll(None if patience is None else 1e3 * patience):
                raise TimeoutError(f"nothing came or went for {patience:g} s")


def _proof(
    secret: bytes, who: bytes, of_shard: bytes, of_router: bytes, certificate: bytes
) -> bytes:
    # Who proves is part of it, else each could send back the other's proof.
    return hmac.digest(secret, who + of_shard + of_router + certificate, "sha256")

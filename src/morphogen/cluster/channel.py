"""The router's end of the way to a shard's process: passes go there, and their parts come back.

Ray starts the process, and has it open epochs. Passes take a connection of their own: after a scan
nothing of Ray is in a processor's caches, and its way there and back takes 3 ms then. So do signs
of life, which show that passes can.
"""

from __future__ import annotations

import itertools
import logging
import threading
from dataclasses import dataclass, field

from morphogen.cluster.connection import Connection
from morphogen.cluster.packing import PING, Packed, pack_pass, unpack_outcome
from morphogen.cluster.process import ProcessGoneError, Tell
from morphogen.cluster.tls import tls_of_ray
from morphogen.engine.shards.transport import Pass
from morphogen.errors import ShardUnavailableError
from morphogen.sharding import ShardRange

_log = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
_SEND_SECONDS = 1.0  # that a process may take nothing of a pass's keys: it is stopped then


@dataclass(frozen=True, slots=True)
class Address:
    """Where a shard's process takes passes.

    Attributes
    ----------
    host, port : str, int
        Where it listens.
    secret : bytes
        What a router must have, and the process itself.
    """

    host: str
    port: int
    secret: bytes = field(repr=False)


class Channel:
    """The router's end. Passes that come before it is connected wait for that.

    Parameters
    ----------
    name : str
        Of the process, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._numbers = itertools.count()
        self._waiting: dict[int, Tell] = {}
        self._early: list[tuple[int, Packed]] = []
        self._connection: Connection | None = None
        self._ended: str | None = None  # why
        self._lock = threading.Lock()

    def connect(self, address: Address) -> None:
        """Connect, and tell of what comes, in a thread of its own.

        Parameters
        ----------
        address : Address
            From the process.
        """
        name = f"morphogen-channel-{address.port}"
        try:
            threading.Thread(target=self._run, args=(address,), name=name, daemon=True).start()
        except RuntimeError as error:
            self.close(f"no thread can take its answers: {error}")

    def call(self, job: Pass, held: ShardRange, tell: Tell) -> None:
        """Have a pass answered. This does not wait for the answer.

        Parameters
        ----------
        job : Pass
            The pass.
        held : ShardRange
            The pages that must answer.
        tell : callable
            Called once with the part, or with what went wrong: `ProcessGoneError` if the connection
            ends before that.
        """
        self._ask(pack_pass(job, held), tell)

    def ping(self, tell: Tell) -> None:
        """Ask for a sign of life. It waits for no pass.

        Parameters
        ----------
        tell : callable
            Called once with the number of the process, or with `ProcessGoneError`.
        """
        self._ask(PING, tell)

    def close(self, why: str = "it was ended") -> None:
        """End the connection, and tell all that wait. May be called again.

        Parameters
        ----------
        why : str, optional
            For the message.
        """
        with self._lock:
            if self._ended is not None:
                return
            self._ended = why
            waiting, self._waiting, self._early = self._waiting, {}, []
            connection = self._connection
        if connection is not None:
            connection.close()
        for tell in waiting.values():
            self._tell(tell, self._gone(why))

    def _ask(self, packed: Packed, tell: Tell) -> None:
        number = next(self._numbers)
        with self._lock:
            ended, connection = self._ended, self._connection
            if ended is None:
                self._waiting[number] = tell
                if connection is None:
                    self._early.append((number, packed))
        if ended is not None:
            self._tell(tell, self._gone(ended))
        elif connection is not None:
            self._send(connection, number, packed)

    def _send(self, connection: Connection, number: int, packed: Packed) -> None:
        try:
            connection.send(number, *packed, patience=_SEND_SECONDS)
        except BaseException as error:
            self.close(str(error))  # Ctrl-C may have cut the frame, too
            if not isinstance(error, OSError):
                raise

    def _run(self, address: Address) -> None:
        try:
            connection = Connection.to(
                address.host,
                address.port,
                address.secret,
                tls_of_ray(of_shard=False),
                _CONNECT_SECONDS,
            )
        except Exception as error:
            self.close(f"it cannot be reached at {address.host}:{address.port}: {error}")
            return
        with self._lock:
            self._connection = connection
            early, self._early = self._early, []
            if self._ended is not None:
                connection.close()
        try:
            for number, packed in early:
                self._send(connection, number, packed)
            while True:
                self._take(*connection.receive())
        except Exception as error:
            self.close(str(error))
        finally:
            connection.release()

    def _take(self, number: int, head: memoryview, pages: memoryview) -> None:
        with self._lock:
            tell = self._waiting.pop(number, None)
        if tell is None:
            return
        try:
            outcome = unpack_outcome(head, pages)
        except Exception as error:  # such as of a class of a library that only the shard's host has
            outcome = ShardUnavailableError(
                f"{self._name} told what cannot be read here: {type(error).__name__}: {error}"
            )
        self._tell(tell, outcome)

    def _tell(self, tell: Tell, outcome: object) -> None:
        try:
            tell(outcome)
        except Exception as error:  # it is the caller's, and others wait
            _log.error("%s told who waited, who failed: %s", self._name, error)

    def _gone(self, why: str) -> ProcessGoneError:
        # Another for each: what is raised keeps the frames that it went through, with their keys.
        return ProcessGoneError(f"{self._name} is gone: {why}")

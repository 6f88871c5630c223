"""The open connections of a server: which may come, and which have to go.

A connection that waits for its client may be cut off: by its deadline, for another one when there
are too many, or for the memory of answers that are not read. One whose request is complete is
never cut off before its answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum, auto
from time import monotonic

from morphogen.service.limits import Limits
from morphogen.service.logs import log

# Once the server stops, clients have so many seconds to send a whole body and to read an answer.
STOP_BODY_SECONDS = 2.0
STOP_ANSWER_SECONDS = 10.0
# A client of TLS confirms the end within so many seconds.
_CLOSING_SECONDS = 2.0


class Phase(Enum):
    """What a connection waits for."""

    HEAD = auto()
    """The client, to finish the head of a request: its first, or one that has begun."""
    IDLE = auto()
    """The client, to begin another request."""
    BODY = auto()
    """The client, to finish the body."""
    SERVER = auto()
    """The server's answer."""
    ANSWER = auto()
    """The client, to read the answer."""
    CLOSING = auto()
    """The client, to confirm the end."""


# Which goes first when there are too many: those whose clients have done least so far.
_ORDER = {Phase.CLOSING: 0, Phase.HEAD: 1, Phase.IDLE: 1, Phase.BODY: 2, Phase.ANSWER: 3}


class Connection:
    """One connection, from its acceptance on.

    Parameters
    ----------
    address : str
        From `client_network`.

    Attributes
    ----------
    phase : Phase
    since : float
        When the phase began.
    answered : bool
        Whether any request was answered.
    when_read : callable
        Called when the client has read its answer.
    """

    __slots__ = ("_cut", "_transports", "address", "answered", "phase", "since", "when_read")

    def __init__(self, address: str) -> None:
        self.address: str = address
        self.phase: Phase = Phase.HEAD
        self.since: float = monotonic()
        self.answered: bool = False
        self.when_read: Callable[[], None] = lambda: None
        self._transports: list[asyncio.WriteTransport] = []
        self._cut = False

    def carried_by(self, transport: asyncio.WriteTransport) -> None:
        """Note a transport: under TLS there are two, the socket's first."""
        self._transports.append(transport)
        if self._cut:
            transport.abort()

    def enter(self, phase: Phase) -> None:
        """Note what the connection waits for now."""
        if phase is not self.phase:
            self.phase = phase
            self.since = monotonic()

    def unread_bytes(self) -> int:
        """The bytes of answers that wait in this process for the client to read."""
        return sum(transport.get_write_buffer_size() for transport in self._transports)

    def is_closing(self) -> bool:
        """Whether it ends, for whatever reason, once the client has read its answer."""
        return any(transport.is_closing() for transport in self._transports)

    def cut(self) -> None:
        """Hang up at once, whatever was not sent."""
        self._cut = True
        for transport in self._transports:
            transport.abort()


class Connections:
    """All connections of a listener, within its limits.

    Parameters
    ----------
    limits : Limits
        With `unread_bytes` settled.

    Attributes
    ----------
    cut_off : collections.Counter
        Connections that were cut off or refused, by the reason.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._seconds = {
            Phase.HEAD: limits.head_seconds,
            Phase.BODY: limits.body_seconds,
            Phase.ANSWER: limits.answer_seconds,
            Phase.CLOSING: _CLOSING_SECONDS,
        }
        self._open: dict[Connection, None] = {}  # in the order of their acceptance
        self._of: dict[str, dict[Connection, None]] = {}  # by address, in the same order
        self._unread: dict[Connection, None] = {}
        self._stopped: float | None = None
        self.cut_off: Counter[str] = Counter()
        self._logged: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, address: str, *, proxy: bool = False) -> Connection | None:
        """Take a connection in, if need be in the place of another.

        Parameters
        ----------
        address : str
            From `client_network`.
        proxy : bool, optional
            Whether it is a proxy's, whose connections are of many clients.

        Returns
        -------
        Connection or None
            None if all others wait for the server.
        """
        own = self._of.get(address, {})
        full = len(self._open) >= self._limits.connections
        if len(own) >= self._limits.most_of_an_address and not proxy:
            found = self._replace(own, "address")
        else:
            found = not full or self._replace(self._open, "room")
        if not found:
            self.cut_off["refused"] += 1
            return None
        connection = Connection(address)
        self._open[connection] = None
        self._of.setdefault(address, {})[connection] = None
        return connection

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended. May be called again."""
        if connection in self._open:
            del self._open[connection]
            self._unread.pop(connection, None)
            own = self._of[connection.address]
            del own[connection]
            if not own:
                del self._of[connection.address]

    def make_room(self) -> None:
        """Cut one off, since the process can open no more files."""
        self._replace(self._open, "room")

    def note_answer(self, connection: Connection) -> None:
        """Count an answer that was just written, as far as it is not read, and keep to the bound.

        The address with the most unread bytes loses first, and of it the oldest answer: who reads
        keeps an answer however many others do not.
        """
        if connection not in self._open or not connection.unread_bytes():
            return
        self._unread[connection] = None
        sizes = {one: one.unread_bytes() for one in self._unread}
        self._unread = {one: None for one, size in sizes.items() if size}
        excess = sum(sizes.values()) - (self._limits.unread_bytes or 0)
        while excess > 0 and self._unread:
            of: Counter[str] = Counter()
            for one in self._unread:
                of[one.address] += sizes[one]
            ((heaviest, _),) = of.most_common(1)
            oldest = min(
                (one for one in self._unread if one.address == heaviest), key=lambda one: one.since
            )
            excess -= sizes[oldest]
            self._cut(oldest, "unread")

    def sweep(self) -> None:
        """Cut off all whose time is up, and log how many were cut off since the last sweep."""
        now = monotonic()
        for connection in list(self._open):
            if not connection.unread_bytes():
                self._unread.pop(connection, None)
                if connection.is_closing():
                    connection.enter(Phase.CLOSING)
                elif connection.phase is Phase.ANSWER:
                    connection.when_read()
            if now >= self._deadline(connection):
                self._cut(connection, connection.phase.name.lower())
        if self.cut_off != self._logged:
            log(
                "cut_off",
                logging.WARNING,
                open=len(self._open),
                **(self.cut_off - self._logged),
            )
            self._logged = self.cut_off.copy()

    def stop(self) -> None:
        """Give clients less time from now on: the server stops."""
        self._stopped = monotonic()

    def _deadline(self, connection: Connection) -> float:
        seconds = self._seconds.get(connection.phase)
        if seconds is None:
            return float("inf")
        deadline = connection.since + seconds
        if self._stopped is not None:
            answer = connection.phase is Phase.ANSWER
            grace = STOP_ANSWER_SECONDS if answer else STOP_BODY_SECONDS
            deadline = min(deadline, max(self._stopped, connection.since) + grace)
        return deadline

    def _replace(self, among: Iterable[Connection], reason: str) -> bool:
        """Cut off the one that can best be spared, if any waits for its client."""
        spared: Connection | None = None
        least: tuple[int, float] | None = None
        for connection in among:
            order = _ORDER.get(connection.phase)
            if order is None:
                continue
            if connection.phase is Phase.HEAD and not connection.answered:
                spared = connection  # of those without any request, the first is the oldest
                break
            if least is None or (order, connection.since) < least:
                spared, least = connection, (order, connection.since)
        if spared is None:
            return False
        self._cut(spared, reason)
        return True

    def _cut(self, connection: Connection, reason: str) -> None:
        self.cut_off[reason] += 1
        self.remove(connection)
        connection.cut()

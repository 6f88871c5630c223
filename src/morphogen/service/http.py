"""HTTP of one connection: uvicorn's, which tells what it waits for and lets no answers pile up."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from morphogen.service.connections import Connection, Connections, Phase


class Protocol(H11Protocol):
    """One connection.

    Parameters
    ----------
    connections : Connections
        All of the listener.
    connection : Connection
        This one, among them.
    **options
        Of uvicorn's protocol.
    """

    def __init__(self, connections: Connections, connection: Connection, **options: Any) -> None:
        super().__init__(**options)
        self._connections = connections
        self._connection = connection
        connection.when_read = self._go_on_once_read
        self._unread = False  # the client has not read its answer
        self._part_unread = False  # nor the part of it that was written, and more will come
        self._half_closed = False
        self._early = b""  # came with the end of TLS's handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        carrier = cast("asyncio.Transport", transport)
        self._connection.carried_by(carrier)
        super().connection_made(carrier)
        if self.scheme == "http":
            # Have `resume_writing` called when nothing is unread. TLS does not know that.
            carrier.set_write_buffer_limits(high=0)
        if self._early:
            self.data_received(self._early)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._connections.remove(self._connection)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of requests."""
        if self.flow is None:
            self._early += data
            return
        self._go_on_once_read()
        super().data_received(data)
        self._note_phase()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio has bool or None
        """Take the end of requests: a client that sends no more may still read its answer."""
        cycle = self.cycle
        if self.scheme == "https" or cycle is None or cycle.response_complete or cycle.more_body:
            return False
        self._half_closed = True
        return True

    def pause_writing(self) -> None:
        """Write no more until the client has read."""
        super().pause_writing()
        # Not now, amid a write: most answers are whole right after it.
        self.loop.call_soon(self._note_part)

    def resume_writing(self) -> None:
        """Go on once the client has read everything."""
        super().resume_writing()
        self._go_on_once_read()
        if self._part_unread:
            self._part_unread = False
            self._note_phase()

    def _note_part(self) -> None:
        """Let the client read a part of an answer, of which each has its time."""
        cycle = self.cycle
        if (
            self.flow.write_paused
            and cycle is not None
            and cycle.response_started
            and not cycle.response_complete
        ):
            self._part_unread = True
            self._connection.enter(Phase.ANSWER)
            self._connections.note_answer(self._connection)

    def on_response_complete(self) -> None:
        """Let the client read its answer before its next request is begun.

        Else a client that sends request after request and reads nothing would have an answer more
        in memory than is counted.
        """
        self._connection.answered = True
        self._connection.enter(Phase.ANSWER)
        self._unread = True
        self._connections.note_answer(self._connection)
        self._go_on_once_read()

    def _go_on_once_read(self) -> None:
        if self._unread and not self._connection.unread_bytes():
            self._unread = False
            super().on_response_complete()
            if self._half_closed and self.cycle.response_complete:
                self.transport.close()
            self._note_phase()

    def _note_phase(self) -> None:
        if self._unread or self._part_unread:
            return
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            phase = Phase.BODY
        elif state is not h11.IDLE:
            phase = Phase.SERVER
        elif self._connection.answered and not self.conn.trailing_data[0]:
            phase = Phase.IDLE
        else:
            phase = Phase.HEAD
        self._connection.enter(phase)

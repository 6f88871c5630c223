"""uvicorn's server, with listeners that keep to limits."""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import partial
from typing import Protocol as Form

import uvicorn
from litestar.types import ASGIApp

from morphogen.service.connections import Connection, Connections
from morphogen.service.http import Protocol
from morphogen.service.limits import Limits
from morphogen.service.listener import Listener

GRACE_SECONDS = 30  # for requests that were accepted, once the server stops
MAX_HEAD_BYTES = 16384
# What goes on for longer beside the server, once that has ended, ends with the process.
_BESIDE_SECONDS = 10.0


class Companion(Form):
    """What runs in the server's loop as long as it serves."""

    async def run(self) -> None:
        """Run until `stop` is called."""

    def stop(self) -> None:
        """Let `run` return soon."""


class Server(uvicorn.Server):
    """uvicorn's server, with listeners that keep to limits.

    Parameters
    ----------
    app : ASGI application
    limits : Limits
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        super().__init__(_configure(app, limits))
        self._listeners: list[Listener] = []
        self._companions: list[Companion] = []
        self._tasks: list[asyncio.Task[None]] = []

    def add(
        self,
        port: socket.socket,
        limits: Limits,
        context: ssl.SSLContext | None,
        app: ASGIApp | None = None,
    ) -> Connections:
        """Serve on a port.

        Parameters
        ----------
        port : socket.socket
            It listens.
        limits : Limits
            Of the port's connections, with `unread_bytes` settled.
        context : ssl.SSLContext or None
            For TLS.
        app : ASGI application, optional
            Another than the server's own.

        Returns
        -------
        Connections
            The port's.
        """
        config = self.config if app is None else _configure(app, limits)
        listener = Listener(port, limits, context, partial(self._make_protocol, config))
        self._listeners.append(listener)
        return listener.connections

    def accompany(self, companion: Companion) -> None:
        """Run something in the server's loop, from when it listens until it stops."""
        self._companions.append(companion)

    def _make_protocol(
        self, config: uvicorn.Config, connections: Connections, connection: Connection
    ) -> Protocol:
        return Protocol(
            connections,
            connection,
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then accept."""
        await super().startup(sockets=[])
        for listener in self._listeners:
            listener.start()
        self._tasks = [asyncio.create_task(companion.run()) for companion in self._companions]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, then let what is under way end."""
        for companion in self._companions:
            companion.stop()
        await asyncio.gather(*(listener.stop() for listener in self._listeners))
        await super().shutdown(sockets=[])
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_BESIDE_SECONDS)


def _configure(app: ASGIApp, limits: Limits) -> uvicorn.Config:
    # Each of these is said, so that neither the environment nor what else is installed decides.
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=Protocol,
        ws="none",
        lifespan="on",
        interface="asgi3",
        workers=1,
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=limits.idle_seconds,  # type: ignore[arg-type]
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )

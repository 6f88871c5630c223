"""When tables are reloaded: at SIGHUP, when their paths change, and when an epoch's time comes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from morphogen.service.succession import Succession
from morphogen.service.worker import StoppedError, Worker

_LONGEST_WAIT = 60.0  # for a time of day: somebody may set the clock


class Reloader:
    """Has tables take up what their paths offer, one at a time.

    Parameters
    ----------
    tables : sequence of Succession
        All that the server serves.
    worker : Worker
        Theirs.
    watch : float, optional
        Seconds between two looks at the paths; by default there are none.
    """

    def __init__(
        self, tables: Sequence[Succession], worker: Worker, watch: float | None = None
    ) -> None:
        self._tables = tables
        self._worker = worker
        self._watch = watch
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._asked = 0  # requests so far: a signal may come amid any step

    def request(self) -> None:
        """Have all tables reloaded: also from a signal's handler, and before `run`.

        Requests that come while one waits are one with it; once the server stops they are nothing.
        """
        self._asked += 1
        self._rouse()

    def stop(self) -> None:
        """Break off what is being loaded, and let `run` return."""
        self._worker.stop()
        self._rouse()

    def _rouse(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended, and so has `run`
                self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Reload, until `stop` is called."""
        self._loop = asyncio.get_running_loop()
        heard = 0
        with suppress(StoppedError):
            for table in self._tables:
                await table.begin()
            while not self._worker.stopped:
                if heard == self._asked:
                    await self._wait()
                self._wake.clear()
                asked, heard = heard != self._asked, self._asked
                for table in self._tables:
                    if asked or (self._watch is not None and await table.has_changed()):
                        await table.take_up(asked=asked)
                    await table.activate()

    async def _wait(self) -> None:
        """Wait until there is something to do."""
        waits = [] if self._watch is None else [self._watch]
        for table in self._tables:
            if (left := table.seconds_left()) is not None:
                waits.append(min(left, _LONGEST_WAIT))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), min(waits, default=None))

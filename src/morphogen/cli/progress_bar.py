"""The progress bar of the commands."""

from __future__ import annotations

import sys
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

SILENT_SECONDS = 2.0


class ProgressBar:
    """A bar on a terminal, drawn once a command has run for a while."""

    def __init__(self) -> None:
        self._started = monotonic()
        self._progress: Progress | None = None
        self._gone = False

    def update(self, done: int, total: int, stage: str) -> None:
        """Draw how far a stage has come: a `morphogen.progress.StagedProgress`."""
        if self._gone:
            return
        try:
            self._draw(done, total, stage)
        except OSError:  # the terminal has gone, the work goes on
            self._progress, self._gone = None, True

    def _draw(self, done: int, total: int, stage: str) -> None:
        if self._progress is None:
            if not sys.stderr.isatty() or monotonic() - self._started < SILENT_SECONDS:
                return
            from rich.console import Console
            from rich.progress import Progress

            # auto_refresh would draw from a thread of its own while something is being timed.
            self._progress = Progress(
                console=Console(stderr=True), transient=True, auto_refresh=False
            )
            self._progress.start()
            self._progress.add_task(stage)
        task = self._progress.task_ids[0]
        self._progress.update(task, description=stage, total=total, completed=done, refresh=True)

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._progress is not None:
            with suppress(OSError):
                self._progress.stop()

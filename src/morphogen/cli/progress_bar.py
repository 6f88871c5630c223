"""The progress bar of the commands."""

from __future__ import annotations

import sys
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

SILENT_SECONDS = 2.0
_REDRAW_SECONDS = 0.1


class ProgressBar:
    """A bar on a terminal, drawn once a command has run for a while: a stage, and the time left."""

    def __init__(self) -> None:
        self._started = monotonic()
        self._progress: Progress | None = None
        self._gone = False
        self._drawn = (-inf, "")  # when, and of which stage

    def update(self, done: int, total: int, stage: str) -> None:
        """Draw how far a stage has come: a `morphogen.progress.StagedProgress`."""
        now = monotonic()
        then, drawn = self._drawn
        if self._gone or (stage == drawn and done < total and now - then < _REDRAW_SECONDS):
            return
        try:
            self._draw(done, total, stage)
        except OSError:  # the terminal has gone, the work goes on
            self._progress, self._gone = None, True
        else:
            self._drawn = now, stage

    def _draw(self, done: int, total: int, stage: str) -> None:
        if self._progress is None:
            if not sys.stderr.isatty() or monotonic() - self._started < SILENT_SECONDS:
                return
            self._progress = _start()
            self._progress.add_task(stage)
        task = self._progress.task_ids[0]
        if stage != self._drawn[1]:
            # A stage is as long as its own speed says.
            self._progress.reset(task, description=stage, total=total, completed=done)
        self._progress.update(task, description=stage, total=total, completed=done, refresh=True)

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._progress is not None:
            with suppress(OSError):
                self._progress.stop()


def _start() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
        # It would draw from a thread of its own while something is being timed.
        auto_refresh=False,
    )
    progress.start()
    return progress

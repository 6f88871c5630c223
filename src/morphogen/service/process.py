"""Servers as processes of their own on loopback: for the demo, for trying things out, for tests."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from morphogen.errors import ServerError

_STOP_SECONDS = 30.0
_TAIL_LINES = 20


class ServerProcess:
    """A ``morphogen serve`` process on a free port of loopback, ready when this returns.

    Parameters
    ----------
    path : pathlib.Path or None
        A file of pages, or a keyword table; a link to one, or a folder of epochs. None where the
        options name tables.
    party : int
        0 or 1.
    options : sequence of str, optional
        More options for the command. A log level is of no effect.

    Attributes
    ----------
    url : str
    metrics_url : str
        Of its metrics, on a port of their own.
    log : list of str
        The last lines of its log so far.

    Raises
    ------
    ServerError
        If it ends before it is ready; the message has the end of its log.
    """

    def __init__(self, path: Path | None, party: int, options: Sequence[str] = ()) -> None:
        self.log: list[str] = []
        self.url: str = ""
        self.metrics_url: str = ""
        self._ready = threading.Event()
        command = [sys.executable, "-m", "morphogen", "serve", "--party", str(party)]
        command += [] if path is None else [str(path)]
        # The last: its address is in a line of the level info.
        level = ("--log-level", "info")
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [*command, "--port", "0", "--metrics-port", "0", *options, *level],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
        )
        # Its log is read to the end: a full pipe would stop it.
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        try:
            self._reader.start()
            self._ready.wait()
        except BaseException:
            self.stop()  # nobody else can: there is no object yet
            raise
        if not self.url:
            self.stop()
            raise ServerError(
                f"the server of party {party} ended with {self.process.returncode}: "
                + " ".join(self.log)
            )

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        # An interrupt while this thread starts lets `stop` take it for none, and close the pipe.
        with suppress(ValueError):
            for line in self.process.stderr:
                self._read_line(line)
        self._ready.set()

    def _read_line(self, line: str) -> None:
        self.log = [*self.log[1 - _TAIL_LINES :], line.strip()]
        if self.url:
            return
        with suppress(ValueError, KeyError, TypeError):
            event = json.loads(line)
            self.url, self.metrics_url = event["url"], event["metrics_url"]
            self._ready.set()

    def reload(self) -> None:
        """Ask it to take up new epochs, by SIGHUP. Its log tells what comes of it."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        """Ask it to stop. It answers the queries that it has accepted.

        Returns
        -------
        int
            Its exit code; negative where it had to be killed.
        """
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
        code = self.process.wait()
        if self._reader.is_alive():
            self._reader.join()
        if self.process.stderr is not None:
            self.process.stderr.close()
        return code

    def chunk_sizes(self) -> dict[int, int]:
        """Count the chunks that its engine has run, by their size, from its metrics.

        Returns
        -------
        dict of int to int
            The number of chunks by their number of queries.
        """
        from urllib.request import ProxyHandler, build_opener

        from prometheus_client.parser import text_string_to_metric_families

        with build_opener(ProxyHandler({})).open(self.metrics_url) as answer:
            text = answer.read().decode()
        upto = {
            float(sample.labels["le"]): int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "morphogen_chunk_size_bucket"
        }
        sizes, below = {}, 0
        for size, count in sorted(upto.items()):
            if count > below:
                sizes[int(size)] = count - below
            below = count
        return sizes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

"""Commands that a signal ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PATIENCE = 60  # seconds until a test that waits for an end gives up
WORDS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "ended by SIGTERM",
    signal.SIGHUP: "ended by SIGHUP",
}


def end_command(
    script: str,
    command: list[str],
    number: signal.Signals,
    folder: Path,
    *,
    before: Callable[[], object] = lambda: None,
) -> None:
    """Run a command, send it a signal at its first line, and check that it ends as it should."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()  # the script's own
            before()
            process.send_signal(number)
            output, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()  # else this test would wait for one that goes on
    assert (process.returncode, output) == (128 + number, "")
    assert errors == f"morphogen: {WORDS[number]}\n"

"""A server as a process of its own never outlives what began it."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from morphogen.service.process import ServerProcess


def test_a_start_that_is_interrupted_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []

    class Recorded(subprocess.Popen[str]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    (tmp_path / "pages").write_bytes(bytes(1000))
    monkeypatch.setattr(subprocess, "Popen", Recorded)
    monkeypatch.setattr(threading.Event, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ServerProcess(tmp_path / "pages", 0)
    assert started[0].returncode is not None


def test_the_reader_of_a_log_ends_where_an_interrupt_closed_it(tmp_path: Path) -> None:
    """`stop` takes a thread for none while it starts, and closes the pipe under it."""
    server = ServerProcess.__new__(ServerProcess)
    with (tmp_path / "log").open("w+") as log:
        pass
    server.process = SimpleNamespace(stderr=log)  # type: ignore[assignment]
    server._ready = threading.Event()
    server._read_log()
    assert server._ready.is_set()


def test_a_server_that_logs_little_still_tells_its_address(tmp_path: Path) -> None:
    (tmp_path / "pages").write_bytes(bytes(1000))
    with ServerProcess(tmp_path / "pages", 0, ["--log-level", "error"]) as server:
        assert server.url.startswith("http://127.0.0.1:")

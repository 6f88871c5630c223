"""Runs the code blocks of a page as its reader does: see documents.py for what it follows."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from documents import GPU, NUMBERS, SLOW, Block, DocumentError, mismatch

SECONDS = 300  # for a block

_PORT = re.compile(r"(127\.0\.0\.1:|localhost:|\.example:|--port |--bind 127\.0\.0\.1 )(\d{4,5})\b")
# The block of a page that a line of standard input names, with its own lines in tracebacks.
_PYTHON = """
import contextlib, pathlib, sys
namespace = {"__name__": "__main__"}
for line in sys.stdin:
    page, number, script, output = eval(line)
    text = "\\n" * number + pathlib.Path(script).read_text(encoding="utf-8")
    with open(output, "w", encoding="utf-8") as file:
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            try:
                exec(compile(text, page, "exec"), namespace)
            except BaseException:
                import traceback
                traceback.print_exc()
                sys.exit(1)
    print("done", flush=True)
"""


class Ports:
    """Free ports of this machine, one for each that a page names."""

    def __init__(self) -> None:
        self._free: dict[str, str] = {}

    def replace(self, text: str) -> str:
        return _PORT.sub(lambda found: found[1] + self[found[2]], text)

    def __getitem__(self, named: str) -> str:
        if named not in self._free:
            with ExitStack() as stack:
                # All are held at once, so that none comes twice.
                holders = [stack.enter_context(socket.socket()) for _ in range(8)]
                for holder in holders:
                    holder.bind(("127.0.0.1", 0))
                fresh = {str(holder.getsockname()[1]) for holder in holders}
            self._free[named] = min(fresh - set(self._free.values()))
        return self._free[named]


class Session:
    """A shell or a Python that blocks share, and whatever they start in it."""

    def __init__(self, language: str, folder: Path, environment: dict[str, str]) -> None:
        self._language = language
        command = ["bash", "-euo", "pipefail"]
        if language == "python":
            command = [sys.executable, "-W", "error", "-c", _PYTHON]
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def run(self, block: Block, text: str, script: Path) -> str:
        """Run a block's text; what it printed.

        Raises
        ------
        DocumentError
            If it fails, or does not end.
        """
        output = script.with_suffix(".out")
        script.write_text(text, encoding="utf-8")
        if self._language == "python":
            line = repr((block.page, block.line, str(script), str(output)))
        else:
            line = f". '{script}' >'{output}' 2>&1 </dev/null; echo done"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        in_time = select.select([self._process.stdout], [], [], SECONDS)[0]
        done = bool(in_time) and self._process.stdout.readline() == "done\n"
        printed = output.read_text(encoding="utf-8") if output.exists() else ""
        if not done:
            fault = "failed" if in_time else f"did not end in {SECONDS} s"
            raise DocumentError(f"{block.where}: this block {fault}\n{text}\n{printed}")
        return printed

    def close(self) -> list[str]:
        """End it; the command lines of processes that its blocks left running, now killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        left = list(_session_members(self._process.pid))
        for pid, _ in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        return [command for _, command in left]


def _session_members(session: int) -> Iterator[tuple[int, str]]:
    """Processes of a session, but for those that have ended: their ids and command lines."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # After the name, which may hold anything: state, parent, group, session.
            state, _, _, sid = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(sid) == session and state != "Z":
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                yield int(folder.name), command


class Reader:
    """Runs the blocks of one page.

    Parameters
    ----------
    folder : pathlib.Path
        Empty; the blocks run in a folder in it.
    standin : dict of str to str
        The environment in which the stand-in is the CUDA driver; empty where none is needed.
    """

    def __init__(self, folder: Path, standin: dict[str, str]) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        # Where a reader has made the environment that these tests run in.
        (self.folder / ".venv").symlink_to(sys.prefix)
        self.ports = Ports()
        self._scripts = folder
        self._sessions: dict[tuple[str, bool], Session] = {}
        self._plain = plain_environment()
        self._standin = {**self._plain, **standin}
        self._standin.pop("CUDA_VISIBLE_DEVICES")

    def run(self, block: Block) -> str:
        """Run a block; what it printed."""
        key = (block.language, block.marker == GPU)
        if key not in self._sessions:
            environment = self._standin if key[1] else self._plain
            self._sessions[key] = Session(block.language, self.folder, environment)
        script = self._scripts / f"{block.line}.{block.language}"
        return self._sessions[key].run(block, self.ports.replace(block.text), script)

    def read(self, blocks: Sequence[Block], slow: bool) -> None:
        """Run a page's blocks and compare what they print.

        Raises
        ------
        DocumentError
            If a block fails, or prints something else than the page shows.
        """
        output: str | None = None
        for block in blocks:
            if block.is_run:
                skipped = block.marker == SLOW and not slow
                output = None if skipped else self.run(block)
            elif output is not None and (not block.kind or block.marker == NUMBERS):
                shown = replace(block, text=self.ports.replace(block.text))
                if difference := mismatch(shown, output):
                    raise DocumentError(f"{block.where}: {difference}")

    def close(self) -> None:
        """End all.

        Raises
        ------
        DocumentError
            If a block left a process running.
        """
        left = [command for session in self._sessions.values() for command in session.close()]
        self._sessions.clear()
        if left:
            raise DocumentError("left running: " + "; ".join(left))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: object, *_: object) -> None:
        try:
            self.close()
        except DocumentError:
            if exc_type is None:
                raise


def plain_environment() -> dict[str, str]:
    """An environment whose commands are this Python's, with no GPU and no settings of output."""
    dropped = ("FORCE_COLOR", "COLUMNS", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV", "ENV")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    path = f"{Path(sys.executable).parent}:{kept.get('PATH', os.defpath)}"
    return {**kept, "PATH": path, "CUDA_VISIBLE_DEVICES": ""}

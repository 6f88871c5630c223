"""The code blocks of README and docs: found by Sybil, run as a reader of the page runs them.

A page's ``sh`` blocks run in one ``bash -euo pipefail``, its ``python`` blocks in one Python with
warnings as errors, both in one empty folder and in the order of the page. A ``text`` block shows
the output of the block above it; white space is not compared, and ``...`` stands for any text.
Ports that a page names are replaced by free ports of this machine.

A comment on the line before a block changes that:

``<!-- runs: stand-in GPU -->``
    The block runs in another Python or shell, whose CUDA driver is the tests' stand-in.
``<!-- runs: FILE, ... -->``
    These files of the repository run the block. A test must name the page; any other file must
    have the program and the options of each command.
``<!-- text: numbers differ -->``
    Numbers, times and digests of the output below are not compared.
``<!-- text: REASON -->``
    The ``text`` block shows no output, or an output that differs at each run.

A block of another language, without such a comment, is an error.
"""

from __future__ import annotations

import doctest
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sybil import Document, Example, Region
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

ROOT = Path(__file__).resolve().parents[2]
GPU, NUMBERS = "stand-in GPU", "numbers differ"
SECONDS = 300  # the most for one block
TOOLS = ("curl", "taskset")  # blocks use them, and a machine may lack them

_MARKER = re.compile(r"<!-- (runs|text): (.+) -->")
_NUMBER = re.compile(r"[0-9a-f]{16,}|\d[\d,.:TZ-]*")
_PORT = re.compile(
    r"(127\.0\.0\.1:|localhost:|--(?:metrics-)?port |--bind 127\.0\.0\.1 )(\d{4,5})\b"
)
_COMPARED = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS

# Both programs read the paths of blocks, run each with its output in a file, and print "done".
_BASH = 'while read -r block; do . "$block" > "$block.out" 2>&1 < /dev/null; echo done; done'
_PYTHON = """
import contextlib, sys, traceback
namespace = {"__name__": "__main__"}
for block in map(str.strip, sys.stdin):
    with open(block) as source, open(block + ".out", "w") as out:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                exec(compile(source.read(), block, "exec"), namespace)
            except BaseException:
                traceback.print_exc()
                sys.exit(1)
    print("done", flush=True)
"""
SESSIONS = {
    "sh": ["bash", "-euo", "pipefail", "-c", _BASH],
    "python": [sys.executable, "-W", "error", "-c", _PYTHON],
}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code; a comment above it reads "kind: marker"."""

    language: str
    text: str
    kind: str = ""
    marker: str = ""

    @property
    def files(self) -> list[str]:
        """Return the files that run the block."""
        return self.marker.split(", ") if self.kind == "runs" and self.marker != GPU else []

    @property
    def commands(self) -> list[str]:
        """Return the command lines of the block; continued lines are one."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("#")]


def pages() -> list[str]:
    """Return all pages that people write and read, by their paths in the repository."""
    patterns = ("*.md", "docs/**/*.md", "asv_bench/*.md", "tests/**/*.md")
    found = [path for pattern in patterns for path in ROOT.glob(pattern)]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def parse_blocks(document: Document) -> Iterable[Region]:
    """Parse a page for Sybil: all fences but the directives of MyST that show no code."""
    for region in FencedCodeBlockLexer(r".*")(document):
        language = region.lexemes["language"].strip()
        if not re.match(r"\{(?!code)", language):
            line = document.text[: region.start].removesuffix("\n").rpartition("\n")[2]
            comment = found.groups() if (found := _MARKER.fullmatch(line)) else ()
            block = Block(language, str(region.lexemes["source"]), *comment)
            yield Region(region.start, region.end, block, evaluate)


def page_blocks(page: str) -> list[Block]:
    """Return the blocks of a page."""
    return [example.parsed for example in Document.parse(str(ROOT / page), parse_blocks)]


class Ports(dict[str, str]):
    """Free ports of this machine, one for each port that a page names."""

    def __missing__(self, named: str) -> str:
        port = named
        while port in {named, *self.values()}:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = str(free.getsockname()[1])
        self[named] = port
        return port

    def replace(self, text: str) -> str:
        return _PORT.sub(lambda found: found[1] + self[found[2]], text)


class Session:
    """A shell or a Python in which blocks of a page run one after the other."""

    def __init__(self, language: str, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            SESSIONS[language],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def run(self, block: Path) -> tuple[bool, str]:
        """Run a block; return whether it ran to its end, and its output."""
        self._stdin.write(f"{block}\n")
        self._stdin.flush()
        in_time = select.select([self._stdout], [], [], SECONDS)[0]
        done = bool(in_time) and self._stdout.readline() == "done\n"
        return done, Path(f"{block}.out").read_text(encoding="utf-8")

    def close(self) -> None:
        """End the session and all processes that its blocks left running."""
        with suppress(BrokenPipeError):
            self._stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stdout.close()


@dataclass
class Reader:
    """A reader of one page: an empty folder, sessions, ports, and the output of the last block.

    ``standin`` gives the environment in which the stand-in is the CUDA driver.
    """

    folder: Path
    standin: Callable[[], dict[str, str]] = dict
    ports: Ports = field(default_factory=Ports)
    output: str | None = None
    _sessions: dict[tuple[str, bool], Session] = field(default_factory=dict)

    def read(self, path: Path) -> None:
        """Run a page's blocks; raise SybilFailure at the first that differs from the page."""
        document = Document.parse(str(path), parse_blocks)
        document.namespace["reader"] = self
        (self.folder / "work").mkdir()
        # The virtual environment of these tests takes the place of the reader's.
        (self.folder / "work" / ".venv").symlink_to(sys.prefix)
        try:
            for example in document:
                example.evaluate()
        finally:
            for session in self._sessions.values():
                session.close()

    def run(self, block: Block, line: int) -> tuple[bool, str]:
        key = (block.language, block.marker == GPU)
        if key not in self._sessions:
            environment = plain_environment()
            if block.marker == GPU:
                environment |= self.standin()
                del environment["CUDA_VISIBLE_DEVICES"]
            self._sessions[key] = Session(block.language, self.folder / "work", environment)
        # Empty lines before the block make errors name the line of the page.
        script = self.folder / f"{line}.{block.language}"
        script.write_text("\n" * line + self.ports.replace(block.text), encoding="utf-8")
        return self._sessions[key].run(script)


def evaluate(example: Example) -> str | None:
    """Run a block for Sybil; return the fault, if there is one."""
    block: Block = example.parsed
    reader: Reader = example.namespace["reader"]
    output, reader.output = reader.output, None
    if block.files:
        return missing_commands(block, Path(example.path).name)
    if block.language == "text":
        if block.kind == "text" and block.marker != NUMBERS:
            return None
        if output is None:
            return "this is no output of a block that runs: say why, <!-- text: REASON -->"
        return difference(reader.ports.replace(block.text), output, block.marker == NUMBERS)
    if block.language not in SESSIONS:
        return f"{block.language!r} is not run: name the file that does, <!-- runs: FILE -->"
    for tool in TOOLS:
        if block.language == "sh" and tool in block.text and shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    done, reader.output = reader.run(block, example.line)
    return None if done else f"this block fails or takes {SECONDS} s:\n{reader.output}"


def missing_commands(block: Block, page: str) -> str | None:
    """Name the command lines of a block that none of its files run."""
    if absent := [name for name in block.files if not (ROOT / name).is_file()]:
        return f"there is no file {', '.join(absent)}"
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in block.files}
    if any(Path(name).match("test_*.py") and page in text for name, text in texts.items()):
        return None  # the test takes the block from the page
    missing = []
    for command in block.commands:
        words = shlex.split(command, comments=True)
        if words[0] in ("python", "python3") and not words[1].startswith("-"):
            words = words[1:]
        essence = [Path(words[0]).name, *(word for word in words if word.startswith("--"))]
        patterns = [re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])") for word in essence]
        if not any(all(found.search(text) for found in patterns) for text in texts.values()):
            missing.append(command)
    return f"not in {block.marker}: {'; '.join(missing)}" if missing else None


def difference(shown: str, printed: str, but_for_numbers: bool = False) -> str | None:
    """Tell how the output that a page shows differs from the output of the block."""
    texts = (shown, printed)
    if but_for_numbers:
        texts = (_NUMBER.sub("0", shown), _NUMBER.sub("0", printed))
    if doctest.OutputChecker().check_output(*texts, _COMPARED):
        return None
    return f"the page shows\n{shown}\nand the block prints\n{printed}"


def plain_environment() -> dict[str, str]:
    """Return an environment with this Python's commands, no GPU and no settings of output."""
    dropped = ("FORCE_COLOR", "COLUMNS", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV", "ENV")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    path = f"{Path(sys.executable).parent}:{kept.get('PATH', os.defpath)}"
    return {**kept, "PATH": path, "CUDA_VISIBLE_DEVICES": ""}

"""Keyword tables: lookups over HTTP on loopback, and the build of a large table."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.rounds import Seconds
from morphogen.client import AsyncClient
from morphogen.keyword import build
from morphogen.keyword.file import write_table
from morphogen.service.process import ServerProcess
from rows import Row

VALUE = b"v" * 64
ENTRIES = 10_000
LONE, TASKS, EACH = 100, 64, 10  # lone lookups of a round; tasks, and lookups of each
LOOKUP_SECONDS = 1e-3  # of the client's processor time
LOOKUPS_PER_SECOND = 2000
BUILD_ROWS = 5_000_000
BUILD_SECONDS = 10.0
BUILD_MEMORY = 3.0  # times the table's bytes
# The build runs in a process of its own, to measure its memory alone.
BUILD = """
import re, sys, time
from pathlib import Path
from morphogen.keyword import build
status = Path("/proc/self/status")
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1]) << 10
start, before = time.perf_counter(), peak()
pages, layout = build(((b"%d" % row, b"v" * 64) for row in range(int(sys.argv[1]))))
print(time.perf_counter() - start, peak() - before, pages.nbytes)
"""


def key(number: int) -> bytes:
    return b"key %d" % (number % ENTRIES)


async def look_up(urls: list[str], rounds: int) -> tuple[Seconds, Seconds]:
    """Return the processor seconds of the client for a lookup, and lookups a second, by round."""
    seconds, rates = np.empty(rounds), np.empty(rounds)

    async def several(first: int, count: int) -> None:
        for number in range(first, first + count):
            if await client.lookup(key(number)) != VALUE:
                sys.exit(f"the lookup of {key(number)!r} gave another value")

    async with AsyncClient(urls) as client:
        await several(0, LONE)
        for at in range(rounds):
            used = time.process_time()
            await several(at, LONE)
            seconds[at] = (time.process_time() - used) / LONE
            started = time.perf_counter()
            await asyncio.gather(*(several(at + task, EACH) for task in range(TASKS)))
            rates[at] = TASKS * EACH / (time.perf_counter() - started)
    return seconds, rates


def lookup_rows(rounds: int) -> Iterator[Row]:
    """Measure one client, whose two servers are processes on this machine."""
    section = f"Lookups over HTTP on loopback, {ENTRIES:,} entries"
    pages, layout = build((key(number), VALUE) for number in range(ENTRIES))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder, "table")
        write_table(path, pages, layout)
        servers = [stack.enter_context(ServerProcess(path, party)) for party in (0, 1)]
        seconds, rates = asyncio.run(look_up([server.url for server in servers], rounds))
    yield Row.of(section, "the client's processor, a lookup", seconds, "s", LOOKUP_SECONDS)
    yield Row.of(section, f"lookups of {TASKS} tasks", rates, "/s", LOOKUPS_PER_SECOND, True)


def build_rows(entries: int) -> Iterator[Row]:
    """Measure one build of a keyword table with values of 64 bytes."""
    section = f"Building a keyword table of {entries:,} rows"
    command = [sys.executable, "-c", BUILD, str(entries)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, memory, table = map(float, printed.split())
    limit = BUILD_SECONDS if entries == BUILD_ROWS else None
    yield Row(section, "time", seconds, "s", limit)
    limit = BUILD_MEMORY if entries >= BUILD_ROWS else None
    yield Row(section, "memory, against the table's bytes", memory / table, "x", limit)

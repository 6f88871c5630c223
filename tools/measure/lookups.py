"""Keyword tables: lookups over HTTP on loopback."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
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
LONE, FEW = 200, 4  # lookups of a round, one after the other; of a turn
TASKS, EACH = 64, 10  # tasks, and lookups of each
LOOKUP_SECONDS = 1e-3  # of the client's processor time
CHECK_SECONDS = 50e-6  # of it, for the pages of an authenticated table
LOOKUPS_PER_SECOND = 2000


def key(number: int) -> bytes:
    return b"key %d" % (number % ENTRIES)


@dataclass
class Lookups:
    """What lookups cost, by round.

    Attributes
    ----------
    checked, unchecked : numpy.ndarray
        Seconds of the client's processor for a lookup, with and without the check of its pages.
    rates : numpy.ndarray
        Lookups a second of many tasks.
    """

    checked: Seconds
    unchecked: Seconds
    rates: Seconds


async def look_up(urls: list[str], rounds: int) -> Lookups:
    """Look keys up by turns with a client that checks pages and one that does not."""
    rates = np.empty(rounds)

    async def several(client: AsyncClient, first: int, count: int) -> None:
        for number in range(first, first + count):
            if await client.lookup(key(number)) != VALUE:
                sys.exit(f"the lookup of {key(number)!r} gave another value")

    async with AsyncClient(urls, verify=True) as client, AsyncClient(urls, verify=False) as plain:
        seconds = {reader: np.empty(rounds) for reader in (client, plain)}
        for reader in seconds:
            await several(reader, 0, LONE)
        for at in range(rounds):
            # A few at a time: a client's time drifts by more than what the check takes.
            used = dict.fromkeys(seconds, 0.0)
            for turn in range(LONE // FEW):
                for reader in (client, plain) if turn % 2 else (plain, client):
                    started = time.process_time()
                    await several(reader, at + turn * FEW, FEW)
                    used[reader] += time.process_time() - started
            for reader in seconds:
                seconds[reader][at] = used[reader] / LONE
            started = time.perf_counter()
            await asyncio.gather(*(several(client, at + task, EACH) for task in range(TASKS)))
            rates[at] = TASKS * EACH / (time.perf_counter() - started)
    return Lookups(seconds[client], seconds[plain], rates)


def lookup_rows(rounds: int) -> Iterator[Row]:
    """Measure one client, whose two servers are processes on this machine."""
    section = f"Lookups over HTTP on loopback, {ENTRIES:,} entries"
    pages, layout = build((key(number), VALUE) for number in range(ENTRIES))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder, "table")
        write_table(path, pages, layout)
        servers = [stack.enter_context(ServerProcess(path, party)) for party in (0, 1)]
        found = asyncio.run(look_up([server.url for server in servers], rounds))
    yield Row.of(section, "the client's processor, a lookup", found.checked, "s", LOOKUP_SECONDS)
    check = found.checked - found.unchecked
    yield Row.of(section, "of it, the check of its pages", check, "s", CHECK_SECONDS)
    yield Row.of(section, "against one without the check", found.checked / found.unchecked)
    yield Row.of(section, f"lookups of {TASKS} tasks", found.rates, "/s", LOOKUPS_PER_SECOND, True)

"""Look keys up on two servers while crowds keep them busy and they restart; check every answer.

    python tools/measure/crowds.py                60 seconds
    python tools/measure/crowds.py --seconds 5    the same, in short
    python tools/measure/crowds.py --addresses 200     greedy connections of as many addresses

Servers, client and crowds share this machine. First the client is alone. Then there are connections
that send nothing; that send their requests byte by byte; that do not read their answers. Then the
client has 64 tasks. Then it is alone beside connections that send batches of 32 queries as fast as
these are answered, or refused. All of it runs twice, at first for a short time, to warm up. At last
each server restarts.

The exit code is 1 if an answer was wrong, to the crowd too, or if a lookup failed. In a run of 30
seconds or more it is also 1 if a process grew by 5% or more after the warm-up, or if a lone lookup
took more than 3 times as long beside the greedy crowd as alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from array import array
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from rich.console import Console
from rich.table import Table

import morphogen as mg
import morphogen.keyword as keyword
from crowd_process import CROWDS, Crowd, beside, make_crowds
from load_test import MAX_GROWTH, SETTLED_SECONDS, resident
from morphogen.keyword.file import write_table
from morphogen.service.process import ServerProcess

VALUE_BYTES = 200
TASKS, MANY_TASKS = 8, 64
MAX_RATIO = 3.0
OPTIONS = ("--device", "cpu", "--threads", "1")  # the servers share this machine with all others
PHASES = ("alone", *CROWDS, f"{MANY_TASKS} tasks", "greedy crowd")
WARM_UP = 0.2  # of the time
RESTART_SECONDS = 1.0  # that a server runs before and after its restart, at least


def value_of(number: int) -> bytes:
    return (b"%d " % number * VALUE_BYTES)[:VALUE_BYTES]


def key_of(number: int) -> bytes:
    return b"key %d" % number


@dataclass
class Row:
    """A phase: the client's lookups, and what became of the crowd's requests.

    Attributes
    ----------
    lost : dict of str to int
        Lookups that failed, by the kind of their error.
    crowd : dict of str to int
        The crowd's requests: right, wrong, refused, failed; and its connections.
    processor_ms : float
        Of this process, for a lookup.
    """

    phase: str
    seconds: float = 0.0
    lookups: int = 0
    wrong: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    lookups_per_second: float = 0.0
    processor_ms: float = 0.0
    crowd: dict[str, int] = field(default_factory=dict)

    @property
    def bad(self) -> bool:
        return bool(self.wrong or self.lost or self.crowd.get("wrong") or not self.lookups)


# The client


class Lookups:
    """Lookups of one client by some tasks, until they are told to stop."""

    def __init__(self, client: mg.AsyncClient, entries: int, row: Row) -> None:
        self.client, self.entries, self.row = client, entries, row
        self.latencies = array("d")
        self.lost: Counter[str] = Counter()
        self.number = 0
        self.stopped = False

    async def one_after_the_other(self) -> None:
        while not self.stopped:
            self.number += 1
            # Every eighth key is not there.
            number = self.number * 7919 % self.entries + self.entries * (self.number % 8 == 0)
            started = perf_counter()
            try:
                value = await self.client.lookup(key_of(number))
            except mg.MorphogenError as error:
                self.lost[type(error).__name__] += 1
                continue
            self.latencies.append(perf_counter() - started)
            self.row.wrong += value != (value_of(number) if number < self.entries else None)

    async def during(self, tasks: int, wait: Coroutine[Any, Any, object]) -> None:
        """Look up while something else is waited for, and fill the row in."""
        started, used = perf_counter(), process_time()
        running = [asyncio.create_task(self.one_after_the_other()) for _ in range(tasks)]
        try:
            await wait
        finally:
            self.stopped = True
            await asyncio.gather(*running)
        row, row.lost = self.row, dict(self.lost)
        row.seconds, row.lookups = perf_counter() - started, len(self.latencies)
        if row.lookups:
            row.p50_ms, row.p99_ms = 1e3 * np.percentile(self.latencies, (50, 99))
            row.lookups_per_second = row.lookups / row.seconds
            row.processor_ms = 1e3 * (process_time() - used) / row.lookups


# The run


@dataclass
class Run:
    """Two servers over one table, and a client."""

    path: Path
    entries: int
    servers: list[ServerProcess]
    crowds: dict[str, Crowd]
    client: mg.AsyncClient

    async def phase(self, name: str, seconds: float) -> Row:
        row = Row(name)
        tasks = {"alone": 1, "greedy crowd": 1, f"{MANY_TASKS} tasks": MANY_TASKS}.get(name, TASKS)
        lookups = Lookups(self.client, self.entries, row)
        async with beside(self.crowds.get(name), row.crowd):
            await lookups.during(tasks, asyncio.sleep(seconds))
        return row

    async def restart(self, party: int) -> Row:
        row = Row(f"restart {party}")
        lookups = Lookups(self.client, self.entries, row)

        async def restart() -> None:
            await asyncio.sleep(RESTART_SECONDS)
            port = urlsplit(self.servers[party].url).port
            await asyncio.to_thread(self.servers[party].stop)
            options = (*OPTIONS, "--port", str(port))
            self.servers[party] = await asyncio.to_thread(ServerProcess, self.path, party, options)
            await asyncio.sleep(RESTART_SECONDS)

        await lookups.during(TASKS, restart())
        return row

    def memory(self) -> dict[str, int]:
        processes = [*(server.process.pid for server in self.servers), os.getpid()]
        return dict(zip(("server 0", "server 1", "client"), map(resident, processes), strict=True))

    async def all(self, seconds: float) -> tuple[list[Row], dict[str, float]]:
        for name in PHASES:
            await self.phase(name, seconds * WARM_UP / len(PHASES))
        before = self.memory()
        rows = [await self.phase(name, seconds * (1 - WARM_UP) / len(PHASES)) for name in PHASES]
        growth = {name: after / before[name] for name, after in self.memory().items()}
        return [*rows, *[await self.restart(party) for party in (0, 1)]], growth


@contextmanager
def two_servers(path: Path) -> Iterator[list[ServerProcess]]:
    """Run both servers; whoever uses the list may replace one."""
    servers: list[ServerProcess] = []
    try:
        for party in (0, 1):
            servers.append(ServerProcess(path, party, OPTIONS))
        yield servers
    finally:
        for server in servers:
            server.stop()


async def measure(
    args: argparse.Namespace, path: Path, pages: Any, servers: list[ServerProcess]
) -> tuple[list[Row], dict[str, float]]:
    urls = [server.url for server in servers]
    async with mg.AsyncClient(urls) as client:
        crowds = make_crowds(
            pages,
            urls,
            client.info.digest,
            idle=args.idle,
            greedy=args.greedy,
            addresses=args.addresses,
        )
        return await Run(path, args.entries, servers, crowds, client).all(args.seconds)


def judge(rows: Sequence[Row], growth: dict[str, float], seconds: float) -> list[str]:
    """Name everything that is not as it should be."""
    faults = [f"{row.phase}: wrong or lost answers" for row in rows if row.bad]
    if seconds >= SETTLED_SECONDS:
        faults += [f"memory of {name}: {by:.3f}x" for name, by in growth.items() if by > MAX_GROWTH]
        p50 = {row.phase: row.p50_ms for row in rows}
        if (ratio := p50["greedy crowd"] / p50["alone"]) > MAX_RATIO:
            faults.append(f"a lone lookup beside the greedy crowd: {ratio:.2f}x")
    return faults


def show(rows: Sequence[Row], growth: dict[str, float], faults: Sequence[str]) -> None:
    table = Table()
    headings = ("phase", "lookups", "/ s", "p50 ms", "p99 ms", "CPU ms", "wrong", "lost", "crowd")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("phase", "crowd") else "right")
    for row in rows:
        figures = (row.lookups_per_second, row.p50_ms, row.p99_ms, row.processor_ms)
        table.add_row(
            row.phase,
            str(row.lookups),
            *(f"{value:,.1f}" if value >= 10 else f"{value:.2f}" for value in figures),
            str(row.wrong),
            ", ".join(f"{count} {kind}" for kind, count in row.lost.items()) or "0",
            ", ".join(f"{count} {kind}" for kind, count in sorted(row.crowd.items())),
        )
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    console.print("Memory: " + ", ".join(f"{name} {by:.3f}x" for name, by in growth.items()))
    console.print("\n".join(faults) or "All as it should be.")


def main() -> int:
    """Run all phases, and tell by the exit code whether all was right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="without the restarts")
    parser.add_argument("--entries", type=int, default=200_000, help="of the table")
    parser.add_argument("--idle", type=int, default=2200, help="idle, slow or deaf connections")
    parser.add_argument("--greedy", type=int, default=200, help="greedy connections")
    parser.add_argument("--addresses", type=int, default=1, help="that the greedy ones come from")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    items = ((key_of(number), value_of(number)) for number in range(args.entries))
    pages, layout = keyword.build(items)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder, "crowd.table")
        write_table(path, pages, layout)
        servers = stack.enter_context(two_servers(path))
        rows, growth = asyncio.run(measure(args, path, pages, servers))
    faults = judge(rows, growth, args.seconds)
    if args.json:
        figures = {"rows": [asdict(row) for row in rows], "memory": growth, "faults": faults}
        print(json.dumps(figures, indent=2))
    else:
        show(rows, growth, faults)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())

"""Look keys up while the table changes every 2 seconds, at one server after the other; check all.

    python tools/measure/switches.py                 60 seconds, 64 clients
    python tools/measure/switches.py --seconds 6 --clients 8     the same, in short

Two servers, each over a folder of epochs of its own, and clients in a few processes share this
machine. Every 2 seconds both servers get the next epoch, the file of a table or a delta, with its
owner's manifest, and a SIGHUP: now the one and now the other is first, and the second follows up to
a second later. In the middle one server is killed, and started again. Before, epochs follow each
other faster, to warm up.

It prints JSON. The exit code is 1 if a value was not that of the epoch that answered, if a client
went back to an earlier epoch or did not reach the last one, if a lookup failed, or if a server
refused an epoch. In a run of 30 seconds or more it is also 1 if the memory of a process that nobody
killed grew by 5% or more after the warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import numpy as np
from rich.console import Console
from rich.progress import Progress

from load_test import MAX_GROWTH, SETTLED_SECONDS, resident
from morphogen.cli.signals import cleaning_up
from morphogen.epochs.manifest import make_private_key, public_key
from morphogen.service.process import ServerProcess
from switch_readers import FIRST, Epochs, Figures, ReaderProcess

INTERVAL = 2.0  # seconds from epoch to epoch
STAGGER = 1.0  # seconds, at most, until the second server follows
LAST_SECONDS = 3.0  # for all clients to reach the last epoch
SAMPLE_SECONDS = 0.5
WARM_INTERVAL = 0.25
WARM_UP = 1 / 6  # of the time: the memory of a server settles over some 40 epochs
OPTIONS = ("--device", "cpu", "--threads", "1")  # the servers share this machine with all others


class Operator:
    """One of the two servers, with its folder of epochs."""

    def __init__(self, party: int, folder: Path, epochs: Epochs, owner: bytes) -> None:
        self.party = party
        self._folder = folder
        self._epochs = epochs
        self._options = (*OPTIONS, "--owner", owner.hex())
        folder.mkdir()
        epochs.put(FIRST, folder)
        self.server: ServerProcess = ServerProcess(folder, party, self._options)
        self.url: str = self.server.url
        self.restart_seconds = 0.0

    def publish(self, epoch: int) -> None:
        """Put the next epoch into the folder, and tell the server."""
        self._epochs.put(epoch, self._folder)
        self.server.reload()

    def restart(self) -> None:
        """Kill the server, as if its machine had failed, and start it again on the same port."""
        started = time.perf_counter()
        self.server.process.kill()
        self.server.stop()
        options = (*self._options, "--port", str(urlsplit(self.url).port))
        self.server = ServerProcess(self._folder, self.party, options)
        self.server.reload()  # for what came while it started
        self.restart_seconds = time.perf_counter() - started

    def stop(self) -> None:
        """Stop the server."""
        self.server.stop()

    def refused(self) -> int:
        """Count the epochs that the server refused since it started."""
        with build_opener(ProxyHandler({})).open(self.server.metrics_url) as answer:
            text = answer.read().decode()
        name = 'morphogen_reloads_total{outcome="refused"}'
        (line,) = (line for line in text.splitlines() if line.startswith(name))
        return int(float(line.rpartition(" ")[2]))


@dataclass
class Memory:
    """The memory of processes through a run, in bytes, by what they are."""

    samples: dict[tuple[str, int], list[int]] = field(default_factory=dict)

    def sample(self, processes: Sequence[tuple[str, int]]) -> None:
        """Take one sample of each."""
        for process in processes:
            with suppress(OSError, ValueError):  # it may be ending
                self.samples.setdefault(process, []).append(resident(process[1]))

    def growth(self) -> dict[str, float]:
        """The last third of the time by the first, of each process that nobody killed."""
        longest = max(map(len, self.samples.values()), default=0)
        third = -(-longest // 3)
        return {
            name: median(sizes[-third:]) / median(sizes[:third])
            for (name, _), sizes in self.samples.items()
            if len(sizes) > longest - 3
        }


@dataclass
class Run:
    """All that takes part in a run."""

    operators: list[Operator]
    readers: list[ReaderProcess]
    memory: Memory = field(default_factory=Memory)

    def processes(self) -> list[tuple[str, int]]:
        servers = [(f"server {one.party}", one.server.process.pid) for one in self.operators]
        clients = [
            (f"clients {number}", reader.process.pid or 0)
            for number, reader in enumerate(self.readers)
        ]
        return [*servers, *clients]

    async def sample(self) -> None:
        while True:
            self.memory.sample(self.processes())
            await asyncio.sleep(SAMPLE_SECONDS)

    async def all(self, epochs: Sequence[int], warm: int, progress: Progress) -> None:
        """Publish all epochs: some to warm up, then one every `INTERVAL` seconds.

        In the middle of these, a server is killed.
        """
        for epoch in epochs[:warm]:
            for operator in self.operators:
                operator.publish(epoch)
            await asyncio.sleep(WARM_INTERVAL)
        epochs = epochs[warm:]
        sampling = asyncio.create_task(self.sample())
        task = progress.add_task("switching", total=len(epochs))
        restart: asyncio.Future[None] | None = None
        start = time.monotonic()
        for number, epoch in enumerate(epochs):
            await asyncio.sleep(start + number * INTERVAL - time.monotonic())
            one, other = self.operators if epoch % 2 else self.operators[::-1]
            one.publish(epoch)
            if number == len(epochs) // 2:
                restart = asyncio.ensure_future(asyncio.to_thread(self.operators[1].restart))
            await asyncio.sleep(random.uniform(0, STAGGER))
            other.publish(epoch)
            progress.advance(task)
        if restart is not None:
            await restart
        await asyncio.sleep(LAST_SECONDS)
        sampling.cancel()


def warm_epochs(seconds: float) -> int:
    return int(seconds * WARM_UP / WARM_INTERVAL)


def read_all(
    args: argparse.Namespace, epochs: Epochs, numbers: Sequence[int], private_key: bytes
) -> tuple[Figures, Run, list[int]]:
    """Run servers and clients, and return what the clients read, and what servers refused."""
    owner, figures = public_key(private_key), Figures()
    bars = Progress(transient=True, console=Console(stderr=True), disable=not sys.stderr.isatty())
    with bars as progress, ExitStack() as stack:
        for number in progress.track(numbers, description="building"):
            epochs.make(number)
        operators = []
        for party in (0, 1):
            operators.append(Operator(party, epochs.folder / f"{party}", epochs, owner))
            stack.callback(operators[-1].stop)
        urls = [operator.url for operator in operators]
        readers = []
        for first in range(args.processes):
            seeds = range(first, args.clients, args.processes)
            readers.append(ReaderProcess(urls, args.entries, owner, seeds))
            stack.callback(readers[-1].process.kill)
        for reader in readers:
            reader.wait_until_connected()
        run = Run(operators, readers)
        asyncio.run(run.all(numbers[1:], warm_epochs(args.seconds), progress))
        for reader in readers:
            reader.stop()
        for reader in readers:
            figures.add(reader.figures())
        return figures, run, [operator.refused() for operator in operators]


def judge(
    figures: Figures, last: int, refused: Sequence[int], growth: dict[str, float], seconds: float
) -> list[str]:
    """Name everything that is not as it should be."""
    faults = [
        f"{count} {what}"
        for count, what in (
            (figures.wrong, "wrong values"),
            (figures.backwards, "lookups in an earlier epoch than before"),
            (sum(figures.failed.values()), "lookups that failed"),
            (sum(epoch != last for epoch in figures.last), "clients that missed the last epoch"),
            (sum(refused), "epochs that a server refused"),
        )
        if count
    ]
    if seconds >= SETTLED_SECONDS:
        faults += [
            f"memory of {name}: {by:.3f}x" for name, by in growth.items() if by >= MAX_GROWTH
        ]
    return faults


def main() -> int:
    """Run, and tell by the exit code whether all was right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--entries", type=int, default=5_000, help="of the table")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--processes", type=int, default=4, help="that the clients are in")
    args = parser.parse_args()
    private_key = make_private_key()
    switches = warm_epochs(args.seconds) + max(1, int(args.seconds / INTERVAL))
    numbers = range(FIRST, FIRST + 1 + switches)
    with cleaning_up(), tempfile.TemporaryDirectory() as folder:
        epochs = Epochs(Path(folder), args.entries, private_key)
        read, run, refused = read_all(args, epochs, numbers, private_key)
    growth = run.memory.growth()
    p50, p99, longest = 1e3 * np.percentile(read.seconds or [0.0], (50, 99, 100))
    figures = {
        "lookups": read.lookups,
        "lookups per second": read.lookups / (args.seconds * (1 + WARM_UP) + LAST_SECONDS),
        "p50 ms": float(p50),
        "p99 ms": float(p99),
        "longest ms": float(longest),
        "wrong": read.wrong,
        "failed": dict(read.failed),
        "epochs": len(read.epochs),
        "switches of clients": read.switches,
        "restart s": run.operators[1].restart_seconds,
        "memory": growth,
        "faults": judge(read, numbers[-1], refused, growth, args.seconds),
    }
    print(json.dumps(figures, indent=2))
    return int(bool(figures["faults"]))


if __name__ == "__main__":
    sys.exit(main())

"""A table that changes from epoch to epoch, and clients in processes of their own that check it."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter

import morphogen as mg
from morphogen.epochs.diff import diff_tables
from morphogen.epochs.manifest import Manifest, sign_manifest
from morphogen.keyword import TableBuilder
from morphogen.keyword.file import read_header

FIRST = 3  # epoch
WHOLE = 3  # every so many epochs all values change; in between, those of one entry in PARTS
PARTS = 100
VALUE_BYTES = 60
TIMEOUT, RETRIES = 30.0, 100  # a busy machine may take longer for a restart than usual retries do
SEED = bytes(range(16))  # the same in all epochs, so that a delta is small
TABLE_ID = b"tools/switches.."


def key_of(number: int) -> bytes:
    return b"key %d" % number


def value_of(number: int, epoch: int) -> bytes:
    """The value of an entry in an epoch: it names the epoch in which it last changed."""
    changed = epoch
    while changed % WHOLE and number % PARTS != changed % PARTS:
        changed -= 1
    return (b"%d in epoch %d " % (number, changed) * VALUE_BYTES)[:VALUE_BYTES]


class Epochs:
    """The files of all epochs: a table every `WHOLE`, deltas in between, and the owner's manifests.

    Parameters
    ----------
    folder : pathlib.Path
        Where they are made.
    entries : int
        Of the table.
    private_key : bytes
        The owner's.
    """

    def __init__(self, folder: Path, entries: int, private_key: bytes) -> None:
        self.folder = folder
        self.entries = entries
        self._private_key = private_key
        self._last: Manifest | None = None

    def make(self, epoch: int) -> None:
        """Make the files of the next epoch, the first of which is `FIRST`."""
        builder = TableBuilder(page_size=4096, seed=SEED, proof_levels=4)
        numbers = range(self.entries)
        builder.add_many(
            [key_of(number) for number in numbers], [value_of(number, epoch) for number in numbers]
        )
        path = self.folder / f"made-{epoch}.table"
        builder.write(path)
        if epoch % WHOLE:
            base = self.folder / f"made-{epoch - 1}.table"
            diff_tables(base, path, self.folder / f"table-{epoch}.delta", epoch - 1, epoch)
        else:
            (self.folder / f"table-{epoch}.table").hardlink_to(path)
        root = read_header(path).root
        assert root is not None
        self._last = sign_manifest(
            self._private_key,
            table_id=TABLE_ID,
            epoch=epoch,
            root=root,
            previous=None if self._last is None else self._last.digest,
        )
        (self.folder / f"table-{epoch}.manifest").write_bytes(self._last.pack())

    def put(self, epoch: int, folder: Path) -> None:
        """Put an epoch's files into the folder of a server, the manifest first."""
        kind = "delta" if epoch % WHOLE else "table"
        for name in (f"table-{epoch}.manifest", f"table-{epoch}.{kind}"):
            (folder / name).hardlink_to(self.folder / name)


@dataclass
class Figures:
    """What clients read.

    Attributes
    ----------
    lookups, wrong, backwards : int
        All; those with another value than that of the epoch that answered; and those of an earlier
        epoch than the one before, by the same client.
    failed : collections.Counter
        By the kind of the error.
    epochs : collections.Counter
        Lookups by their epoch.
    switches : int
        From epoch to epoch, of all clients.
    seconds : array
        Of each lookup.
    last : list of int
        The epoch of each client in the end.
    """

    lookups: int = 0
    wrong: int = 0
    backwards: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    epochs: Counter[int] = field(default_factory=Counter)
    switches: int = 0
    seconds: array[float] = field(default_factory=lambda: array("d"))
    last: list[int] = field(default_factory=list)

    def add(self, other: Figures) -> None:
        """Add those of other clients."""
        for name in ("lookups", "wrong", "backwards", "failed", "epochs", "switches"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.seconds.extend(other.seconds)
        self.last += other.last


class Reader:
    """A client that looks one key up after the other, and checks what it is told."""

    def __init__(self, urls: Sequence[str], entries: int, owner: bytes, seed: int) -> None:
        self.figures = Figures()
        self._client = mg.AsyncClient(urls, owner=owner, timeout=TIMEOUT, retries=RETRIES)
        self._entries = entries
        self._random = random.Random(seed)

    async def connect(self) -> None:
        """Ask the servers what they have."""
        await self._client.connect()

    async def run(self, stop: asyncio.Event) -> None:
        """Read until it is told to stop."""
        figures, before = self.figures, 0
        async with self._client as client:
            while not stop.is_set():
                # Every eighth key or so is not there.
                number = self._random.randrange(self._entries * 8 // 7)
                started = perf_counter()
                try:
                    value = await client.lookup(key_of(number))
                except mg.MorphogenError as error:
                    figures.failed[type(error).__name__] += 1
                    continue
                figures.seconds.append(perf_counter() - started)
                # Nobody else uses this client: this is the epoch of the answer.
                epoch = client.info.epoch_id
                right = value_of(number, epoch) if number < self._entries else None
                figures.lookups += 1
                figures.wrong += value != right
                figures.backwards += epoch < before
                figures.switches += 0 < before < epoch
                figures.epochs[epoch] += 1
                before = epoch
        figures.last.append(before)


def read_in_process(
    connection: Connection, urls: Sequence[str], entries: int, owner: bytes, seeds: Sequence[int]
) -> None:
    """Run a client for each seed, until the other end says so; then send what they read.

    When all are connected, it sends None.
    """

    async def read() -> Figures:
        stop, figures = asyncio.Event(), Figures()
        asyncio.get_running_loop().add_reader(connection.fileno(), stop.set)
        readers = [Reader(urls, entries, owner, seed) for seed in seeds]
        await asyncio.gather(*(reader.connect() for reader in readers))
        connection.send(None)
        await asyncio.gather(*(reader.run(stop) for reader in readers))
        for reader in readers:
            figures.add(reader.figures)
        return figures

    connection.send(asyncio.run(read()))


class ReaderProcess:
    """Some clients in a process of their own."""

    def __init__(
        self, urls: Sequence[str], entries: int, owner: bytes, seeds: Sequence[int]
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, tuple(urls), entries, owner, tuple(seeds))
        self.process = context.Process(target=read_in_process, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def wait_until_connected(self) -> None:
        """Wait until all have asked the servers what they have."""
        self._connection.recv()

    def stop(self) -> None:
        """Tell the clients to end with what they read at present."""
        self._connection.send(None)

    def figures(self) -> Figures:
        """Wait for what they read."""
        figures: Figures = self._connection.recv()
        self.process.join()
        return figures

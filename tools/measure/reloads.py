"""Reloads: the time until a server answers a delta's epoch, and the memory that it takes."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks.rounds import Seconds
from morphogen.authentication.changes import change_pages
from morphogen.epochs.delta import write_delta
from morphogen.keyword.file import open_table, read_cap
from morphogen.keyword.sealing import seal_file
from morphogen.service.process import ServerProcess
from morphogen.wire import EPOCH_PATH
from passes import MIB
from rows import Row

PAGE_SIZE = 4096
CHANGED = 1000  # one page of so many changes
RELOAD_SECONDS = 1.0
RELOAD_MEMORY = 0.1  # of the table
LEAST_MIB = 256  # of a table beside which what a request takes is little


def write_table(path: Path, mib: int, rng: np.random.Generator) -> None:
    """Write sealed pages of random bytes."""
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file:
        for _ in range(mib):
            file.write(rng.bytes(MIB))
    seal_file(raw, path, PAGE_SIZE)
    raw.unlink()


def write_deltas(table: Path, folder: Path, count: int, rng: np.random.Generator) -> list[Path]:
    """Write deltas that lead on from a table of epoch 0, each of random pages."""
    opened = open_table(table, verify=False)
    pages, cap, root = opened.pages, read_cap(table), opened.header.root
    assert root is not None
    levels = opened.header.proof_levels
    size = PAGE_SIZE - 32 * levels
    written = []
    for epoch in range(1, count + 1):
        some = rng.choice(pages.num_pages, max(1, pages.num_pages // CHANGED), replace=False)
        indices = np.sort(some)
        contents = rng.integers(0, 256, (len(indices), size), dtype=np.uint8)
        changed = change_pages(pages, cap, levels, b"", indices, contents)
        path = folder / f"{epoch}.delta"
        write_delta(
            path,
            from_epoch=epoch - 1,
            to_epoch=epoch,
            num_pages=pages.num_pages,
            page_size=PAGE_SIZE,
            proof_levels=levels,
            root_before=root,
            root_after=changed.root,
            layout=None,
            indices=indices,
            contents=contents,
        )
        pages = pages.with_changes(changed.indices, changed.pages, epoch)
        cap, root = changed.cap, changed.root
        written.append(path)
    return written


def own_memory(server: ServerProcess) -> int:
    """The bytes that a server has in memory and no file has."""
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
    found = re.search(r"RssAnon:\s*(\d+) kB", status)
    assert found is not None
    return int(found[1]) << 10


def reload(server: ServerProcess, epoch: int) -> float:
    """Seconds from SIGHUP until the server says that it answers an epoch."""
    connection = HTTPConnection(urlsplit(server.url).netloc)
    connection.connect()
    start = time.perf_counter()
    server.reload()
    while True:
        connection.request("GET", EPOCH_PATH)
        if json.loads(connection.getresponse().read())["epoch_id"] == epoch:
            break
    seconds = time.perf_counter() - start
    connection.close()
    return seconds


def reload_rows(mib: int, rounds: int) -> Iterator[Row]:
    """Measure reloads of deltas, one after the other, in one server."""
    rng = np.random.default_rng(5)
    seconds: Seconds = np.empty(rounds)
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as served:
        table = Path(served, "0.table")
        write_table(table, mib, rng)
        deltas = write_deltas(table, Path(made), rounds, rng)
        with ServerProcess(Path(served), 0, ("--device", "cpu")) as server:
            before = own_memory(server)
            added = []
            for epoch, delta in enumerate(deltas, 1):
                delta.rename(Path(served, delta.name))
                seconds[epoch - 1] = reload(server, epoch)
                added.append(own_memory(server) - before)
    section = f"A delta of 1 page in {CHANGED:,}, in a table of {mib} MiB in pages of 4 KiB"
    yield Row.of(section, "from SIGHUP to its epoch", seconds, "s", RELOAD_SECONDS)
    size = mib * MIB
    limit = RELOAD_MEMORY if mib >= LEAST_MIB else None
    yield Row(section, "memory of one, against the table", added[0] / size, "x", limit)
    yield Row(section, f"memory of {rounds}, against the table", added[-1] / size, "x")

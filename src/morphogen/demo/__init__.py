"""The demo: pages of a real file, two servers in one process, a batch fetched several ways."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from morphogen.checks import as_indices, names_file
from morphogen.engine import open_engine
from morphogen.engine.base import Engine
from morphogen.pages import PageMatrix
from morphogen.progress import Progress
from morphogen.query import Query, make_queries, reconstruct

QUERIES = 8
KEYS_PER_QUERY = 3

_MIN_ROUNDS, _MAX_ROUNDS, _SECONDS = 3, 51, 0.5
# Key format v1: the public front of a key, and its random seed.
_HEADER, _SEED = slice(0, 8), slice(32, 48)
_TEXT_WIDTH = 72


@dataclass(frozen=True, slots=True)
class FetchTime:
    """The time of a batch that is cut into chunks in one way.

    Attributes
    ----------
    name : str
    micro_batch_sizes : tuple of int
        Queries in each chunk.
    median_ms : float
        One server's time for the batch.
    speedup : float
        The single-query loop's time over this one's.
    """

    name: str
    micro_batch_sizes: tuple[int, ...]
    median_ms: float
    speedup: float


@dataclass(frozen=True, slots=True, eq=False)
class DemoResult:
    """The result of the demo.

    Attributes
    ----------
    path : pathlib.Path
    file_bytes, page_size, num_pages : int
        Sizes of the file, of a page, and of the page matrix.
    device : str
        Of both servers; if "auto" gave them different ones, of each, with a comma between.
    rows : tuple of tuple of int
        The pages that each query fetched.
    pages : numpy.ndarray
        The pages that came back: uint8 of shape (queries, keys per query, page_size).
    strategies : tuple of FetchTime
        The single-query loop first.
    differing : tuple of (str, int)
        Strategy and page of every page that was not the file's.
    rounds : int
        The number of times that each strategy was timed on each server.
    sent_per_server, received_per_server : int
        Bytes of keys to one server, and of pages from it.
    seen : tuple of (bytes, bytes)
        Header and seed of the first key that each server got.
    """

    path: Path
    file_bytes: int
    page_size: int
    num_pages: int
    device: str
    rows: tuple[tuple[int, ...], ...]
    pages: npt.NDArray[np.uint8]
    strategies: tuple[FetchTime, ...]
    differing: tuple[tuple[str, int], ...]
    rounds: int
    sent_per_server: int
    received_per_server: int
    seen: tuple[tuple[bytes, bytes], ...]

    def as_dict(self) -> dict[str, Any]:
        """All but the pages' bytes, in types that JSON has."""
        return {
            "file": str(self.path),
            "file_bytes": self.file_bytes,
            "page_size": self.page_size,
            "num_pages": self.num_pages,
            "device": self.device,
            "queries": [list(row) for row in self.rows],
            "fetched": [
                {"page": index, "sha256": hashlib.sha256(page).hexdigest()}
                for row, answered in zip(self.rows, self.pages, strict=True)
                for index, page in zip(row, answered, strict=True)
            ],
            "identical": not self.differing,
            "differing": [{"strategy": name, "page": index} for name, index in self.differing],
            "rounds": self.rounds,
            "strategies": [
                {
                    "name": strategy.name,
                    "micro_batch_sizes": list(strategy.micro_batch_sizes),
                    "median_ms_per_server": strategy.median_ms,
                    "speedup": strategy.speedup,
                }
                for strategy in self.strategies
            ],
            "bytes": {
                "sent_per_server": self.sent_per_server,
                "received_per_server": self.received_per_server,
                "sent": 2 * self.sent_per_server,
                "received": 2 * self.received_per_server,
                "whole_table": self.num_pages * self.page_size,
            },
            "seen": [
                {"server": server, "header": header.hex(), "seed": seed.hex()}
                for server, (header, seed) in enumerate(self.seen)
            ],
        }


def default_file() -> Path:
    """A file that every Python installation has: the largest module of the standard library.

    Returns
    -------
    pathlib.Path
        The interpreter itself if the library has no source files.
    """
    best, best_size = Path(sys.executable), 0
    for folder, subfolders, names in os.walk(sysconfig.get_path("stdlib")):
        subfolders[:] = [name for name in subfolders if not name.endswith("-packages")]
        for name in names:
            path = Path(folder, name)
            # is_file: a package manager may leave links that lead nowhere.
            if path.suffix == ".py" and path.is_file() and path.stat().st_size > best_size:
                best, best_size = path, path.stat().st_size
    return best


def lay_out(indices: Sequence[int] | None, num_pages: int) -> tuple[tuple[int, ...], ...]:
    """Lay pages out into queries of three keys.

    Parameters
    ----------
    indices : sequence of int or None
        The pages to fetch, in order; the last is repeated until the last query is full. None for
        eight queries spread over the file, its first and its last page among them.
    num_pages : int

    Returns
    -------
    tuple of tuple of int

    Raises
    ------
    TypeError
        If an index is no int.
    ValueError
        If there are no pages to fetch, or one is outside the file.
    """
    if indices is None:
        count = QUERIES * KEYS_PER_QUERY
        indices = [at * (num_pages - 1) // (count - 1) for at in range(count)]
    indices = as_indices("indices", indices)
    if not indices:
        raise ValueError("there must be at least one page to fetch, not 0")
    for index in indices:
        if not 0 <= index < num_pages:
            raise ValueError(f"page {index} is not in the file: its pages are 0..{num_pages - 1}")
    padded = [*indices, *[indices[-1]] * (-len(indices) % KEYS_PER_QUERY)]
    return tuple(
        tuple(padded[at : at + KEYS_PER_QUERY]) for at in range(0, len(padded), KEYS_PER_QUERY)
    )


def read_pages(path: Path, page_size: int, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.uint8]:
    """Read pages with plain file reads, to compare the private fetch with them.

    Parameters
    ----------
    path : pathlib.Path
    page_size : int
    rows : sequence of sequence of int

    Returns
    -------
    numpy.ndarray
        uint8 of shape (len(rows), len(rows[0]), page_size); a short last page ends in zeros.
    """
    pages = np.zeros((len(rows), len(rows[0]), page_size), dtype=np.uint8)
    with names_file(path), path.open("rb") as file:
        for row, out in zip(rows, pages, strict=True):
            for index, page in zip(row, out, strict=True):
                file.seek(index * page_size)
                data = file.read(page_size)
                page[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    return pages


def run_demo(
    path: str | os.PathLike[str] | None = None,
    *,
    page_size: int = 4096,
    indices: Sequence[int] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    upload: Progress | None = None,
) -> DemoResult:
    """Fetch pages of a file privately, in chunks of several widths, and compare them with the file.

    Parameters
    ----------
    path : path-like, optional
        The file; by default `default_file`.
    page_size : int, optional
    indices : sequence of int, optional
        The pages to fetch; by default 24, spread over the file.
    device : str, optional
        Of both servers, as `morphogen.open_engine` takes it. On a GPU each has a copy of the pages.
    progress : callable, optional
        Called after every fetch with the fetches done and the least number in all.
    upload : callable, optional
        Called while a server's pages go to a GPU, with the bytes sent and the bytes in all.

    Returns
    -------
    DemoResult

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is empty, does not have a page that was asked for, or there is no such device.
    DeviceError
        If the device cannot be used, or has no room.
    """
    file = default_file() if path is None else Path(path)
    with ExitStack() as stack:
        # Two servers: each has its own pages and engine, and gets its own party's keys alone.
        servers = [
            stack.enter_context(
                open_engine(PageMatrix.open(file, page_size), device, progress=upload)
            )
            for _ in range(2)
        ]
        num_pages = servers[0].pages.num_pages
        rows = lay_out(indices, num_pages)
        batches = make_queries(rows, num_pages)
        expected = read_pages(file, page_size, rows)
        own_width = servers[0].max_micro_batch
        widths = {"single-query loop": 1, "chunks of at most 2": min(2, own_width)}
        if own_width != 2:  # a GPU has no other
            widths["engine's own width"] = own_width
        times: dict[str, list[float]] = {name: [] for name in widths}
        differing: dict[tuple[str, int], None] = {}
        sizes: dict[str, tuple[int, ...]] = {}
        pages = expected
        done, rounds = 0, -1  # the first round warms up
        started = perf_counter()
        while rounds < _MIN_ROUNDS or (
            rounds < _MAX_ROUNDS and perf_counter() - started < _SECONDS
        ):
            for name, width in widths.items():
                pages, sizes[name], elapsed = _fetch(servers, batches, width)
                if rounds >= 0:
                    times[name] += elapsed
                for row, position in np.argwhere((pages != expected).any(axis=2)).tolist():
                    differing[name, rows[row][position]] = None
                done += 1
                if progress is not None:
                    progress(done, max(done, (1 + _MIN_ROUNDS) * len(widths)))
            rounds += 1
        medians = {name: 1e3 * median(samples) for name, samples in times.items()}
        single = medians["single-query loop"]
        return DemoResult(
            path=file,
            file_bytes=file.stat().st_size,
            page_size=page_size,
            num_pages=num_pages,
            device=", ".join(dict.fromkeys(server.device for server in servers)),
            rows=rows,
            pages=pages,
            strategies=tuple(
                FetchTime(name, sizes[name], medians[name], single / medians[name])
                for name in widths
            ),
            differing=tuple(differing),
            rounds=rounds,
            sent_per_server=sum(len(key) for query in batches[0] for key in query.keys),
            received_per_server=pages.nbytes,
            seen=tuple((batch[0].keys[0][_HEADER], batch[0].keys[0][_SEED]) for batch in batches),
        )


def _fetch(
    servers: Sequence[Engine], batches: Sequence[list[Query]], width: int
) -> tuple[npt.NDArray[np.uint8], tuple[int, ...], list[float]]:
    """The pages, the sizes of the chunks, and the seconds that each server took."""
    answers, elapsed = [], []
    for server, batch in zip(servers, batches, strict=True):
        start = perf_counter()
        answers.append(server.answer(batch, max_micro_batch=width))
        elapsed.append(perf_counter() - start)
    return reconstruct(*answers), answers[0].micro_batch_sizes, elapsed


def first_words(page: npt.NDArray[np.uint8]) -> str:
    """The first line of a page that has something on it, or its first bytes if it is not text.

    Parameters
    ----------
    page : numpy.ndarray

    Returns
    -------
    str
        Printable characters only.
    """
    # A page may begin and end inside a character of several bytes.
    text = page.tobytes().rstrip(b"\0").decode("utf-8", "ignore")
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if not line or not line.replace("\t", " ").isprintable():
        return page[:16].tobytes().hex(" ")
    shown = " ".join(line.split())
    return shown if len(shown) <= _TEXT_WIDTH else shown[:_TEXT_WIDTH] + "..."

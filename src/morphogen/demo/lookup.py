"""The second half of the demo: a keyword table of a CSV file, two servers, private lookups."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import morphogen.service.run  # noqa: F401 - fails here if the servers would
from morphogen.checks import names_file
from morphogen.client import Client
from morphogen.keyword import build
from morphogen.keyword.file import write_table
from morphogen.progress import Progress
from morphogen.service.process import ServerProcess

CLIENTS, LOOKUPS_EACH = 16, 25
KEYS = (
    "GREEK SMALL LETTER ALPHA",
    "BLACK CHESS QUEEN",
    "SNOWMAN",
    "MUSICAL SYMBOL G CLEF",
    "KLINGON LETTER ALPHA",  # proposed, and turned down
    "",
)
_STRIDE = 104_729  # a prime, so that lookups are spread over the file
# Tens of thousands of names that say no more than a code point does.
_COMPUTED = ("CJK ", "HANGUL SYLLABLE", "TANGUT ", "NUSHU ", "KHITAN ")


@dataclass(frozen=True, slots=True)
class Lookup:
    """One private lookup of the demo.

    Attributes
    ----------
    key : str
    value : str or None
        The value that came back; None for a miss.
    right : bool
        Whether the CSV file says the same.
    """

    key: str
    value: str | None
    right: bool


@dataclass(frozen=True, slots=True)
class LookupResult:
    """The result of the second half.

    Attributes
    ----------
    entries, num_pages, page_size, table_bytes : int
        Of the keyword table.
    load : float
        Entries for each slot.
    urls : tuple of str
        The addresses of the two servers.
    device : str
    lookups : tuple of Lookup
        The lookups that are shown.
    clients, concurrent, wrong : int
        Clients that then asked at once, their lookups, and the wrong ones among these.
    chunk_sizes : tuple of dict of int to int
        For each server, the number of chunks of each size that those clients caused.
    """

    entries: int
    num_pages: int
    page_size: int
    table_bytes: int
    load: float
    urls: tuple[str, ...]
    device: str
    lookups: tuple[Lookup, ...]
    clients: int
    concurrent: int
    wrong: int
    chunk_sizes: tuple[dict[int, int], ...]

    @property
    def ok(self) -> bool:
        """Whether every lookup gave the value in the file."""
        return not self.wrong and all(lookup.right for lookup in self.lookups)

    def as_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return {
            "entries": self.entries,
            "num_pages": self.num_pages,
            "page_size": self.page_size,
            "table_bytes": self.table_bytes,
            "load": self.load,
            "urls": list(self.urls),
            "device": self.device,
            "lookups": [
                {"key": lookup.key, "value": lookup.value, "right": lookup.right}
                for lookup in self.lookups
            ],
            "clients": self.clients,
            "concurrent": self.concurrent,
            "wrong": self.wrong,
            "chunk_sizes": [
                {str(size): count for size, count in sizes.items()} for sizes in self.chunk_sizes
            ],
        }


def write_characters(path: Path) -> int:
    """Write a CSV file of all characters that have a name of their own: Python's own data.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    int
        Rows without the heading.
    """
    rows = 0
    with names_file(path), path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "character", "category"])
        for code in range(0x110000):
            character = chr(code)
            name = unicodedata.name(character, "")
            if name and not name.startswith(_COMPUTED):
                writer.writerow([name, character, unicodedata.category(character)])
                rows += 1
    return rows


def run_lookup_demo(progress: Progress | None = None, *, device: str = "auto") -> LookupResult:
    """Build a table, start both servers, look keys up: one client, then many at once.

    Parameters
    ----------
    progress : callable, optional
        Called with the steps done and those in all.
    device : str, optional
        Of both servers, as `morphogen.open_engine` takes it.

    Returns
    -------
    LookupResult

    Raises
    ------
    ServerError
        If a server does not start or fails.
    """
    total = len(KEYS) + CLIENTS * LOOKUPS_EACH + 3
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    with TemporaryDirectory(prefix="morphogen-demo-") as folder, ExitStack() as stack:
        source, path = Path(folder, "characters.csv"), Path(folder, "characters.table")
        write_characters(source)
        with source.open(newline="", encoding="utf-8") as file:
            values = {row["name"]: row["character"] for row in csv.DictReader(file)}
        step()
        pages, layout = build((key.encode(), value.encode()) for key, value in values.items())
        write_table(path, pages, layout)
        step()
        options = ("--device", device)
        servers = [stack.enter_context(ServerProcess(path, party, options)) for party in (0, 1)]
        urls = [server.url for server in servers]
        step()
        with Client(urls) as client:
            device_used = client.info.device
            lookups = tuple(_look_up(client, key, values, step) for key in KEYS)
        alone = [server.chunk_sizes() for server in servers]
        names = list(values)

        def ask(number: int) -> int:
            at = range(number, CLIENTS * LOOKUPS_EACH, CLIENTS)
            chosen = [names[place * _STRIDE % len(names)] for place in at]
            with Client(urls) as client:
                return sum(not _look_up(client, key, values, step).right for key in chosen)

        with ThreadPoolExecutor(CLIENTS) as pool:
            wrong = sum(pool.map(ask, range(CLIENTS)))
        together = [server.chunk_sizes() for server in servers]
        return LookupResult(
            entries=layout.entries,
            num_pages=layout.num_pages,
            page_size=layout.page_size,
            table_bytes=path.stat().st_size,
            load=layout.entries / (layout.num_pages * layout.slots_per_page),
            urls=tuple(urls),
            device=device_used,
            lookups=lookups,
            clients=CLIENTS,
            concurrent=CLIENTS * LOOKUPS_EACH,
            wrong=wrong,
            chunk_sizes=tuple(
                {
                    size: n - before.get(size, 0)
                    for size, n in after.items()
                    if n > before.get(size, 0)
                }
                for before, after in zip(alone, together, strict=True)
            ),
        )


def _look_up(client: Client, key: str, values: dict[str, str], step: Callable[[], None]) -> Lookup:
    value = client.lookup(key.encode())
    step()
    text = None if value is None else value.decode()
    return Lookup(key, text, text == values.get(key))

"""Keyword tables: the time and the memory that large ones take to build and to update."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rows import Row

BUILD_ROWS = 5_000_000
BUILD_SECONDS = 10.0
BUILD_MEMORY = 3.0  # times the table's bytes
KEY_BYTES, VALUE_BYTES = 16, 64
# Each build runs in a process of its own, to measure its memory alone. Batches come as a source of
# rows gives them; the time to make them is not counted.
BUILD = """
import re, sys, time
from pathlib import Path
from morphogen.keyword import TableBuilder
rows, path, key_bytes, value_bytes = int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
status = Path("/proc/self/status")
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1]) << 10
before, seconds = peak(), 0.0
builder = TableBuilder()
for first in range(0, rows, 10_000):
    keys = [b"%0*d" % (key_bytes, row) for row in range(first, min(first + 10_000, rows))]
    values = [key.rjust(value_bytes, b"v") for key in keys]
    start = time.perf_counter()
    builder.add_many(keys, values)
    seconds += time.perf_counter() - start
start = time.perf_counter()
if path:
    layout = builder.write(path).header.layout
else:
    layout = builder.build().layout
seconds += time.perf_counter() - start
print(seconds, peak() - before, layout.num_pages * layout.page_size)
"""


def build_rows(entries: int) -> Iterator[Row]:
    """Measure builds of a keyword table, into a file and into memory."""
    section = (
        f"Building a keyword table of {entries:,} rows: keys of {KEY_BYTES} bytes, values of "
        f"{VALUE_BYTES}"
    )
    sizes = [str(KEY_BYTES), str(VALUE_BYTES)]
    with tempfile.TemporaryDirectory() as folder:
        for how, path in (("to a file", str(Path(folder, "table"))), ("in memory", "")):
            command = [sys.executable, "-c", BUILD, str(entries), path, *sizes]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            seconds, memory, table = map(float, printed.split())
            limit = BUILD_SECONDS if entries == BUILD_ROWS else None
            yield Row(section, f"time, {how}", seconds, "s", limit)
            limit = BUILD_MEMORY if entries >= BUILD_ROWS else None
            yield Row(section, f"memory, {how}, against the table", memory / table, "x", limit)


# A table is built in one process and updated in another, whose memory is the update's own. That is
# counted without the pages of the mapped file.
UPDATE = """
import re, sys, time
from pathlib import Path
import numpy as np
from morphogen.keyword import TableBuilder
from morphogen.keyword.file import open_table
from morphogen.keyword.rows import Rows
from morphogen.keyword.update import update_table
rows, path, page_size, load, new, changed, gone = int(sys.argv[1]), *sys.argv[2:]
rows, new, changed, gone = int(rows), int(new), int(changed), int(gone)
status = Path("/proc/self/status")
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1]) << 10
updating = Path(path).exists()
held = Rows() if updating else TableBuilder(
    page_size=int(page_size), value_size=100, load=float(load), seed=bytes(16)
)
before = peak()
first, last = (gone, rows + new) if updating else (0, rows)
for start in range(first, last, 10_000):
    numbers = range(start, min(start + 10_000, last))
    keys = [b"%016d" % number for number in numbers]
    # The first that stay have other values.
    late = [updating and number < gone + changed for number in numbers]
    held.add_many(keys, [key.rjust(100, b"w" if w else b"v") for key, w in zip(keys, late)])
if updating:
    old = open_table(path, verify=False)
    start = time.perf_counter()
    found = update_table(old, held)
    seconds = time.perf_counter() - start
    memory = peak() - before - old.pages.nbytes
    print(seconds, memory, old.pages.nbytes, len(found.indices), old.layout.slots_per_page)
else:
    held.write(path)
"""


def update_rows(entries: int) -> Iterator[Row]:
    """Measure updates of a keyword table: time, memory, and the pages that new rows touch."""
    for page_size, load in (("4096", 0.9), ("128", 0.85), ("128", 0.9)):
        few = max(1, entries // 1000)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "table"))
            command = [sys.executable, "-c", UPDATE, str(entries), path, page_size, str(load)]

            def run(*changes: int, command: list[str] = command) -> list[float]:
                words = [*command, *map(str, changes)]
                printed = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
                return [float(word) for word in printed.stdout.split()]

            run(0, 0, 0)
            seconds, memory, table, _, slots = run(2 * few, 2 * few, few)
            touched = run(few, 0, 0)[3]
        section = (
            f"Updating a keyword table of {entries:,} rows, {slots:.0f} slots a page, "
            f"{100 * load:.0f}% of them in use"
        )
        yield Row(section, f"time of {5 * few:,} changes, once rows are read", seconds, "s")
        yield Row(section, "memory beside the mapped table, against it", memory / table, "x")
        yield Row(
            section, f"pages that {few:,} new rows touch, against the rows", touched / few, "x"
        )

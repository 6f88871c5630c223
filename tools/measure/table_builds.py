"""Keyword tables: the time and the memory that large ones take to build."""

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

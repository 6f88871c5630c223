"""Tables written while their pages are made: the old table or the new one, whatever happens."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import morphogen as mg
from keyword_tables import numbered, opened, read
from morphogen.keyword.builder import TableBuilder

ENTRIES = 3000


def builder_of(value: bytes) -> TableBuilder:
    builder = TableBuilder(page_size=256)
    builder.add_pairs((key, value) for key, _ in numbered(ENTRIES))
    return builder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table"
    builder_of(b"old").write(path)
    return path


def value_of(path: Path) -> bytes | None:
    pages, layout = opened(path)
    assert layout.entries == ENTRIES
    found = {read(layout, pages.body, f"key {number}".encode()) for number in range(0, 3000, 100)}
    (value,) = found
    return value


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may be larger, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_old_table(table: Path, small_files: None) -> None:
    with pytest.raises(OSError, match="File too large") as caught:
        builder_of(b"new").write(table)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(table)
    assert [entry.name for entry in table.parent.iterdir()] == ["table"]
    assert value_of(table) == b"old"


def test_a_table_that_cannot_be_built_leaves_the_old_one(table: Path) -> None:
    builder = builder_of(b"new")
    builder.add(b"key 7", b"again")
    with pytest.raises(mg.TableBuildError, match="entries 8 and 3001 have the same key"):
        builder.write(table)
    assert [entry.name for entry in table.parent.iterdir()] == ["table"]
    assert value_of(table) == b"old"


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a table is written to a file"):
        builder_of(b"new").write(tmp_path)


# At each call of progress a child ends by a signal; the last child ends well.
ENDED = """
import os, signal, sys
from pathlib import Path
from morphogen.cli.signals import EndedBySignal, cleaning_up
from morphogen.keyword.builder import TableBuilder

number, path = signal.Signals[sys.argv[1]], Path(sys.argv[2])
builder = TableBuilder(page_size=256)
builder.add_many([b"key %d" % i for i in range(3000)], [b"new"] * 3000)

def write(calls):
    def end(*work):
        nonlocal calls
        calls -= 1
        if calls == 0:
            os.kill(os.getpid(), number)

    try:
        with cleaning_up():
            builder.write(path, end)
    except EndedBySignal:
        os._exit(7)
    os._exit(0)

old = path.read_bytes()
for calls in range(1, 100):
    child = os.fork()
    if child == 0:
        write(calls)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 7
    assert path.read_bytes() == old
print(calls, len(list(path.parent.iterdir())))
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_process_that_ends_at_any_time_leaves_the_old_table_or_the_new(
    table: Path, name: str
) -> None:
    command = [sys.executable, "-c", ENDED, name, str(table)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    calls, files = map(int, ended.stdout.split())
    assert calls > 5
    # A killed process cannot take its temporary file away.
    assert (files > 1) == (name == "SIGKILL")
    assert value_of(table) == b"new"
    for entry in table.parent.iterdir():
        if entry != table:
            with pytest.raises(mg.TableFileError):
                opened(entry)


LITTLE_MEMORY = """
import resource, sys
import morphogen as mg
from morphogen.keyword.builder import TableBuilder

more, path = int(sys.argv[1]), sys.argv[2]
import morphogen.keyword.file, morphogen.authentication
values = [b"%d" % number for number in range(50_000)]
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + more, size + more))
builder = TableBuilder()
try:
    for _ in range(4):
        builder.add_many([value + b"/%d" % len(builder) for value in values], values)
    builder.write(path) if more % 2 else builder.build()
except MemoryError:
    print("MemoryError")
else:
    print("built")
"""


def test_want_of_memory_is_a_memory_error(tmp_path: Path) -> None:
    outcomes = set()
    for more in (1, 2_000_000, 8_000_001, 16_000_000, 24_000_001, 32_000_000, 400_000_001):
        command = [sys.executable, "-c", LITTLE_MEMORY, str(more), str(tmp_path / "table")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        outcomes.add(ended.stdout)
    assert outcomes == {"MemoryError\n", "built\n"}


def test_tables_larger_than_any_memory_are_refused() -> None:
    builder = TableBuilder(page_size=2**40)
    builder.add(b"a", b"1")
    with pytest.raises(MemoryError):
        builder.build()
    builder = TableBuilder(load=1e-300)
    builder.add(b"a", b"1")
    with pytest.raises(mg.TableBuildError, match="choose a higher load than 1e-300"):
        builder.build()
    builder = TableBuilder(page_size=20, load=1e-11)
    builder.add(b"a", b"")
    with pytest.raises(mg.TableBuildError, match="a table is built of at most"):
        builder.build()

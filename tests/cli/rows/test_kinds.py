"""The kind of a file, and files that are compressed or come through a pipe."""

from __future__ import annotations

import gzip
import io
import os
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from file_rows import read_placed, read_rows

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

CSV = b"key,value\na,1\nb,2\n"
ITEMS = [(b"a", b"1"), (b"b", b"2")]


def zstandard(content: bytes) -> bytes:
    packed: bytes = pyarrow.Codec("zstd").compress(content, asbytes=True)
    return packed


def as_parquet(_: bytes) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.table({"key": ["a", "b"], "value": ["1", "2"]}), out)
    return out.getvalue()


def as_arrow(_: bytes) -> bytes:
    table = pyarrow.table({"key": ["a", "b"], "value": ["1", "2"]})
    out = io.BytesIO()
    with pyarrow.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def as_stream(_: bytes) -> bytes:
    table = pyarrow.table({"key": ["a", "b"], "value": ["1", "2"]})
    out = io.BytesIO()
    with pyarrow.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def as_database(_: bytes) -> bytes:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE rows(key, value)")
        database.executemany("INSERT INTO rows VALUES(?, ?)", [("a", "1"), ("b", "2")])
        database.commit()
        return database.serialize()


def as_lines(_: bytes) -> bytes:
    return b'{"key":"a","value":"1"}\n{"key":"b","value":"2"}\n'


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "csv": bytes,
    "csv.gz": gzip.compress,
    "csv.zst": zstandard,
    "jsonl": as_lines,
    "jsonl.gz": lambda _: gzip.compress(as_lines(b"")),
    "jsonl.zst": lambda _: zstandard(as_lines(b"")),
    "parquet": as_parquet,
    "feather": as_arrow,
    "arrows": as_stream,
    "sqlite": as_database,
}
each_form = pytest.mark.parametrize("ending", FORMS)


@each_form
@pytest.mark.parametrize("named", [True, False])
def test_a_kind_is_known_by_its_name_or_its_beginning(
    ending: str, named: bool, tmp_path: Path
) -> None:
    path = tmp_path / (f"rows.{ending}" if named else "rows")
    path.write_bytes(FORMS[ending](CSV))
    assert read_rows(path) == ITEMS


@each_form
def test_each_kind_comes_through_a_pipe(ending: str, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    content = FORMS[ending](CSV)

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for start in range(0, len(content), 5 if len(content) < 200 else 3000):
                file.write(content[start : start + (5 if len(content) < 200 else 3000)])

    writer = threading.Thread(target=write)
    writer.start()
    assert read_rows(path) == ITEMS
    writer.join(60)
    assert not writer.is_alive()


def test_the_format_that_is_given_counts(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(as_lines(b""))
    assert read_rows(path, format="jsonl") == ITEMS
    path = tmp_path / "rows.jsonl"
    path.write_bytes(gzip.compress(CSV))
    assert read_rows(path, format="csv") == ITEMS
    path.write_bytes(as_database(b""))
    for kind, message in (
        ("csv", "not CSV in UTF-8: it begins as an SQLite database does"),
        ("jsonl", "not JSON in UTF-8: it begins as an SQLite database does"),
        ("parquet", "not a whole Parquet file: "),
        ("arrow", "not a whole Arrow file: "),
    ):
        with pytest.raises(ValueError, match=message):
            read_rows(path, format=kind)
    path.write_bytes(CSV)
    with pytest.raises(ValueError, match="not an SQLite database: it begins otherwise"):
        read_rows(path, format="sqlite")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimiter": ";"}, "--delimiter is for csv and tsv, not parquet"),
        ({"columns": ("key", "value")}, "--columns is for csv and tsv, not parquet"),
        ({"sql_table": "rows"}, "--sql-table is for sqlite, not parquet"),
        ({"query": "SELECT 1"}, "--query is for sqlite, not parquet"),
    ],
)
def test_an_option_for_another_kind_is_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(as_parquet(b""))
    with pytest.raises(ValueError, match=message):
        read_rows(path, **options)


MANY = b"key,value\n" + b"".join(b"key %d,%d\n" % (i, i) for i in range(100_000))


@pytest.mark.parametrize(("pack", "kind"), [(gzip.compress, "gzip"), (zstandard, "Zstandard")])
def test_a_compressed_file_that_is_not_whole_is_refused(
    pack: Callable[[bytes], bytes], kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    packed = pack(MANY)
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 255
    for content, message in (
        (packed[:-1], f"the {kind} file was cut short$"),
        (packed[: len(packed) // 2], f"the {kind} file was cut short$"),
        (packed[:5], f"the {kind} file was cut short$"),
        (packed + b"secret", f"the {kind} file is damaged, or something follows it: "),
        (bytes(damaged), "row"),  # its bytes or the text that they make
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            read_rows(path)
        assert str(caught.value).startswith(f"{path}:")
        assert "secret" not in str(caught.value)
    # Files one after the other are one: so do the tools read them.
    path.write_bytes(packed + pack(b"another,1\n"))
    assert read_placed(path)[-1] == ((b"another", b"1"), f"{path}:100002")


@pytest.mark.parametrize("pack", [gzip.compress, zstandard], ids=["gzip", "Zstandard"])
def test_what_a_compressed_file_holds_is_checked_too(
    pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    for content, message in (
        (gzip.compress(CSV), "inside the .* file: it begins as a gzip file does"),
        (as_parquet(b""), "inside the .* file: it begins as a Parquet file does"),
        (CSV + b"c\n", r"rows\.csv:4: the row has 1 fields, the heading 2"),
        (CSV + b"\xfc,1\n", r"rows\.csv:4: not UTF-8 from column 1 on"),
        (b"", "the first line must name the columns, and is empty"),
    ):
        path.write_bytes(pack(content))
        with pytest.raises(ValueError, match=message):
            read_rows(path)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard], ids=["gzip", "Zstandard"])
def test_a_bomb_takes_little_memory(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(pack(CSV + bytes(100 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"rows\.csv:4: the line has 67108864 bytes or more"):
            read_rows(path)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("ending", "what"),
    [("parquet", "Parquet"), ("feather", "Arrow"), ("csv.zst", "Zstandard")],
)
def test_without_the_extra_the_error_names_it(ending: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(FORMS[ending](CSV))
    script = (
        "import sys; sys.modules['pyarrow'] = None; from morphogen.cli import main;"
        f"sys.exit(main(['table', 'build', {str(path)!r}, '--key', 'key', '-o', 'table']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    message = f"morphogen: {path}: {what} needs pyarrow: pip install 'morphogen[arrow]'\n"
    assert (done.returncode, done.stderr) == (2, message)
    assert not (tmp_path / "table").exists()

"""SQLite: what Python's sqlite3 module wrote comes back, and the database stays as it was."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from ended_command import end_command
from file_rows import read_placed, read_rows

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
fields = texts | st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e300, 1e300)


def make(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()
    return path


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A name that a URI spells otherwise. Nothing else may be made beside it."""
    path = tmp_path / "a b?%23#.db"
    yield path
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_what_was_written_comes_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.db"

    @settings(max_examples=25, deadline=None)
    @given(
        st.lists(st.tuples(texts | st.binary(max_size=5), texts, fields), min_size=1, max_size=9)
    )
    def check(rows: list[tuple[Any, ...]]) -> None:
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE rows(key, value, [%s])")
            database.executemany("INSERT INTO rows VALUES(?, ?, ?)", rows)
            database.commit()
        found = read_placed(path)
        keys = [key if isinstance(key, bytes) else key.encode() for key, *_ in rows]
        assert [item for item, _ in found] == [
            (key, row[1].encode()) for key, row in zip(keys, rows, strict=True)
        ]
        assert [place for _, place in found] == [
            f"{path} row {number}" for number in range(1, len(rows) + 1)
        ]
        whole = read_rows(path, "value", None, query="SELECT value, [%s] FROM rows")
        assert [json.loads(item) for _, item in whole] == [
            {"value": row[1], "%s": row[2]} for row in rows
        ]

    check()


def test_a_table_is_named_or_the_only_one(path: Path) -> None:
    make(path, "CREATE TABLE one(key, value)", "INSERT INTO one VALUES('a', x'ff00')")
    assert read_rows(path) == [(b"a", b"\xff\0")]
    make(
        path, 'CREATE TABLE "two ""2"""(key, value)', 'INSERT INTO "two ""2""" VALUES(\'b\', \'\')'
    )
    assert read_rows(path, sql_table='two "2"') == [(b"b", b"")]
    make(path, "CREATE VIEW three AS SELECT value AS key, key AS value FROM one")
    assert read_rows(path, sql_table="three") == [(b"\xff\0", b"a")]
    with pytest.raises(
        ValueError, match=r"give --sql-table or --query: it has 'one', 'three', 'two"
    ):
        read_rows(path)
    with pytest.raises(ValueError, match=r"there is no table 'four': it has 'one', "):
        read_rows(path, sql_table="four")
    query = "SELECT key || '!' AS key, upper('x') AS value FROM one"
    assert read_rows(path, query=query) == [(b"a!", b"X")]
    make(path, "DROP VIEW three", "DROP TABLE one", 'DROP TABLE "two ""2"""')
    with pytest.raises(ValueError, match=r"give --sql-table or --query: it has none$"):
        read_rows(path)


@pytest.mark.parametrize(
    ("rows", "value", "message"),
    [
        ("('secret', ''), (7, '')", "value",
         " row 2: column 'key' is an integer, not text or bytes (--query may CAST it AS TEXT)"),
        ("('secret', 1.5)", "value",
         " row 1: column 'value' is a number, not text or bytes (--query may CAST it AS TEXT)"),
        ("('secret', NULL)", "value",
         " row 1: column 'value' is null, not text or bytes (--query may CAST it AS TEXT)"),
        ("('secret', '')", "Value",
         ": --value: none of the 2 columns is named 'Value': they are 'key', 'value'"),
        ("('secret', x'ff')", None,
         " row 1: column 'value' has bytes that are not UTF-8, which JSON cannot hold"),
        ("('secret', 9e999)", None,
         " row 1: column 'value' has a number that JSON cannot hold: inf or nan"),
        ("('secret', CAST(x'e4' AS TEXT))", None,
         " row 1: column 'value' has bytes that are not UTF-8, which JSON cannot hold"),
    ],
    ids=range(7),
)  # fmt: skip
def test_a_field_that_no_table_can_hold_is_named(
    rows: str, value: str | None, message: str, path: Path
) -> None:
    make(path, "CREATE TABLE rows(key, value)", f"INSERT INTO rows VALUES {rows}")
    with pytest.raises(ValueError, match=r"row|column") as caught:
        read_rows(path, value=value)
    assert str(caught.value) == f"{path}{message}"


def test_an_empty_table_is_refused(path: Path) -> None:
    make(path, "CREATE TABLE rows(key, value)")
    with pytest.raises(ValueError, match=r": there is no row$"):
        read_rows(path)


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM rows",
        "INSERT INTO rows VALUES('b', '') RETURNING key, value",
        "DROP TABLE rows",
        "ATTACH 'other.db' AS other",
        "PRAGMA journal_mode = wal",
        "VACUUM INTO 'other.db'",
        "SELECT load_extension('x') AS key, '' AS value",
        "SELECT key, value FROM rows; DELETE FROM rows",
        "SELECT key, value FROM nowhere",
        "SELECT zeroblob(500000000) AS key, '' AS value",
        "SELEKT",
        "",
        "\udcff",
        "SELECT key\0 FROM rows",
    ],
)
def test_a_query_only_reads(query: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    make(path, "CREATE TABLE rows(key, value)", "INSERT INTO rows VALUES('a', '')")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"^.*$") as caught:
        read_rows(path, query=query)
    assert str(caught.value).startswith(f"{path}: ")
    assert path.read_bytes() == before


def test_a_database_with_a_log_is_read_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    make(path, "PRAGMA journal_mode = wal", "CREATE TABLE rows(key, value)",
         "INSERT INTO rows VALUES('a', '1')")  # fmt: skip
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.db"]
    assert read_rows(path) == [(b"a", b"1")]
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.db"]
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("INSERT INTO rows VALUES('b', '2')")
        writer.commit()  # it stands in the log only
        assert read_rows(path) == [(b"a", b"1"), (b"b", b"2")]
        link = tmp_path / "link"
        link.symlink_to(path)
        assert len(read_rows(link)) == 2


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    for content, message in (
        (b"", "not an SQLite database: it begins otherwise"),
        (b"key,value\na,1\n", "not an SQLite database: it begins otherwise"),
        (b"SQLite format 3\0", "SQLite: file is not a database"),
        (b"SQLite format 3\0" + bytes(5000), "SQLite: file is not a database"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"^.*$") as caught:
            read_rows(path, format="sqlite")
        assert str(caught.value) == f"{path}: {message}"


def test_a_message_of_a_hostile_file_is_one_line(path: Path) -> None:
    make(path, "CREATE TABLE rows(key, value)")
    raw = path.read_bytes().replace(
        b"CREATE TABLE rows(key, value)", b"CREATE\n\x1b[31m rows(\xff, value)"
    )
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"SQLite: ") as caught:
        read_rows(path)
    assert str(caught.value).isprintable()


ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS key FROM n"
)
# Says when the query runs.
SCRIPT = """
import sys, morphogen.cli.rows.sqlite as sqlite
from morphogen.cli import main
def read(*arguments):
    print("running", flush=True)
    return before(*arguments)
before, sqlite._read = sqlite._read, read
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_endless_query_can_be_ended(number: signal.Signals, path: Path) -> None:
    make(path, "CREATE TABLE rows(key, value)")
    command = ["table", "build", str(path), "--key", "key", "--query", ENDLESS]
    end_command(SCRIPT, [*command, "-o", os.devnull, "--force"], number, path.parent)

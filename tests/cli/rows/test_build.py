"""``morphogen table build`` of each kind of file: options, faults by place, nothing left behind."""

from __future__ import annotations

import gzip
import json
import resource
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ended_command import end_command
from morphogen.cli import main

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

Items = list[tuple[str, str]]
ITEMS = [("a", "1"), ("b", "2"), ("secret", "3"), ("d", "4"), ("secret", "5")]


def write_csv(path: Path, items: Items) -> None:
    path.write_text("key,value\n" + "".join(f"{key},{value}\n" for key, value in items))


def write_gzip(path: Path, items: Items) -> None:
    write_csv(path, items)
    path.write_bytes(gzip.compress(path.read_bytes()))


def write_json(path: Path, items: Items) -> None:
    path.write_text(
        "".join(json.dumps({"key": key, "value": value}) + "\n" for key, value in items)
    )


def write_parquet(path: Path, items: Items) -> None:
    keys, values = zip(*items, strict=True)
    parquet.write_table(pyarrow.table({"key": keys, "value": values}), str(path), row_group_size=2)


def write_database(path: Path, items: Items) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE rows(key, value)")
        database.executemany("INSERT INTO rows VALUES(?, ?)", items)
        database.commit()


Write = Callable[[Path, Items], None]
each_kind = pytest.mark.parametrize(
    ("write", "place", "other"),
    [
        (write_csv, ":6", "line 4"),
        (write_gzip, ":6", "line 4"),
        (write_json, ":5", "line 3"),
        (write_parquet, " row 5", "row 3"),
        (write_database, " row 5", "row 3"),
    ],
    ids=["CSV", "gzip", "JSON Lines", "Parquet", "SQLite"],
)


def build(path: Path, *options: str) -> int:
    command = ["table", "build", str(path), "--key", "key", "--value", "value"]
    return main([*command, "-o", str(path.parent / "table"), *options])


def values(folder: Path, capsys: pytest.CaptureFixture[str], *keys: str) -> list[str]:
    capsys.readouterr()
    assert main(["table", "get", str(folder / "table"), *keys, "--json"]) == 0
    return [row["value"] for row in json.loads(capsys.readouterr().out)["values"]]


@each_kind
def test_a_key_that_comes_again_is_named_by_both_places(
    write: Write, place: str, other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows"
    write(path, ITEMS)
    assert build(path) == 2
    message = f"morphogen: {path}{place}: the key is that of {other}\n"
    assert capsys.readouterr() == ("", message)
    assert {entry.name for entry in tmp_path.iterdir()} == {"rows"}
    for policy, value in (("first", "3"), ("last", "5")):
        assert build(path, "--duplicates", policy, "--force") == 0
        assert values(tmp_path, capsys, "a", "b", "secret", "d") == ["1", "2", value, "4"]


def test_keys_compare_by_their_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows"
    composed, decomposed = "\u00e9", "e\u0301"
    write_csv(path, [(composed, "1"), (decomposed, "2"), ("a", "3"), ("A", "4"), ("a ", "5")])
    assert build(path) == 0
    keys = [composed, decomposed, "a", "A", "a "]
    assert values(tmp_path, capsys, *keys) == ["1", "2", "3", "4", "5"]
    with closing(sqlite3.connect(tmp_path / "database")) as database:
        database.execute("CREATE TABLE rows(key, value)")
        database.executemany("INSERT INTO rows VALUES(?, ?)", [("a", "1"), (b"a", "2")])
        database.commit()
    assert build(tmp_path / "database", "--force") == 2  # text and bytes that are the same key
    assert "row 2: the key is that of row 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--columns", "key,value", "--delimiter", "::"), "--delimiter must be one character"),
        (("--columns", "key,key"), "--columns has a name twice: 'key,key'"),
        (("--sql-table", "a", "--query", "b"), "give --sql-table or --query, not both"),
        (("--sql-table", "a"), "--sql-table is for sqlite, not csv"),
        (("--duplicates", "none"), "--duplicates: invalid choice: 'none'"),
        (("--format", "xls"), "--format: invalid choice: 'xls'"),
        (("--page-size", "none"), "--page-size: must be a number of bytes"),
    ],
)
def test_wrong_options_are_refused(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "rows", ITEMS[:2])
    assert build(tmp_path / "rows", *options) == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "table").exists()


def test_a_list_of_hashes_becomes_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hashes.txt"
    path.write_text("0018A45C:10\n00D4F6E8:2\n")
    options = ["--columns", "hash,count", "--delimiter", ":", "--key", "hash", "--value", "count"]
    assert build(path, *options) == 0
    assert values(tmp_path, capsys, "00D4F6E8") == ["2"]


def test_a_tab_may_be_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows").write_text("key\tvalue\na\t1\n")
    assert build(tmp_path / "rows", "--delimiter", r"\t") == 0
    assert values(tmp_path, capsys, "a") == ["1"]


@each_kind
def test_a_full_disk_leaves_the_old_table(
    write: Write, place: str, other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows"
    write(path, ITEMS[:4])
    (tmp_path / "table").write_bytes(b"as it was")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        assert build(path, "--force") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr() == ("", f"morphogen: {tmp_path / 'table'}: File too large\n")
    assert {entry.name for entry in tmp_path.iterdir()} == {"rows", "table"}
    assert (tmp_path / "table").read_bytes() == b"as it was"


# A command that is ended after its first rows: it says so, and waits.
HELD = """
import signal, sys
from morphogen.keyword import builder
from morphogen.cli import main
def hold(self, keys, values):
    print("held", flush=True)
    while True:
        signal.pause()
builder.TableBuilder.add_many = hold
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@each_kind
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_reading_that_is_ended_leaves_nothing(
    number: signal.Signals, write: Write, place: str, other: str, tmp_path: Path
) -> None:
    write(tmp_path / "rows", ITEMS)
    end_command(HELD, ["table", "build", "rows", "--key", "key", "-o", "table"], number, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows"]

"""``morphogen table build``: from a CSV file to a keyword table."""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import morphogen as mg
import morphogen.cli.rows.lines as lines
import morphogen.cli.table as cli_table
from keyword_tables import opened, read
from morphogen.keyword.file import read_header


class Build:
    """Runs the command in a folder, and keeps its output."""

    def __init__(self, folder: Path) -> None:
        self.csv, self.table = folder / "rows.csv", folder / "table"
        self.data: dict[str, Any] = {}
        self.shown = ""
        self.progress: list[tuple[int, int, str]] = []

    def __call__(self, content: str | bytes | None, *options: str) -> Build:
        if content is not None:
            raw = content.encode() if isinstance(content, str) else content
            self.csv.write_bytes(raw)
        parser = argparse.ArgumentParser()
        parser.add_argument("--json", action="store_true")
        cli_table.add_arguments(parser)
        words = ["build", str(self.csv), "-o", str(self.table), *options]
        args = parser.parse_args(words if "--key" in options else [*words, "--key", "key"])
        assert isinstance(args.json, bool)
        assert cli_table.run(args, lambda *call: self.progress.append(call), self._emit) == 0
        return self

    def _emit(self, data: dict[str, Any], show: Callable[[Console], None]) -> None:
        self.data = data
        console = Console(file=io.StringIO(), width=100, markup=False, highlight=False)
        with console.capture() as captured:
            show(console)
        self.shown = captured.get()

    def find(self, key: str) -> str | None:
        pages, layout = opened(self.table)
        value = read(layout, pages.body, key.encode())
        return None if value is None else value.decode()


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)


# From rows to values


def test_a_column_of_values(build: Build) -> None:
    build("name,key,value\nA,a,1\nB,b,\nC,,3\n", "--value", "value")
    assert [build.find(key) for key in ("a", "b", "", "c", "A")] == ["1", "", "3", None, None]


def test_without_a_column_the_row_is_the_value(build: Build) -> None:
    build('key,größe,"a ""b"""\nk,1,\nl,"x\ny",ß\n')
    assert build.find("k") == '{"key":"k","größe":"1","a \\"b\\"":""}'
    value = build.find("l")
    assert value is not None
    assert json.loads(value) == {"key": "l", "größe": "x\ny", 'a "b"': "ß"}


def test_the_key_may_be_the_value(build: Build) -> None:
    assert build("key\na\nb\n", "--value", "key").find("b") == "b"


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("\ufeffkey,v\nä,1\n", ()),  # as spreadsheets write it
        ("key,v\r\nä,1\r\n", ()),
        ("key;v\nä;1\n", ("--delimiter", ";")),
        ("key\tv\nä\t1\n", ("--delimiter", "\t")),
        ('"key","v"\n"ä","1"', ()),
        ("\nkey,v\nä,1\n".lstrip() + "\n\n", ()),  # empty lines are no rows
        ("v,key\n1,ä\n", ("--page-size", "64")),
    ],
)
def test_kinds_of_csv(build: Build, content: str, options: tuple[str, ...]) -> None:
    assert build(content, "--value", "v", *options).find("ä") == "1"


def test_a_field_as_large_as_a_page(build: Build) -> None:
    """Python's own limit of a field is lower, and is the same afterwards."""
    value = "x" * 200_000
    build(f"key,v\na,{value}\n", "--value", "v", "--page-size", str(1 << 18))
    assert build.find("a") == value
    with pytest.raises(ValueError, match=r"rows\.csv:2: field larger than field limit \(131072\)$"):
        build(None, "--force", "--page-size", "4096")


# The output


def test_what_is_printed(build: Build) -> None:
    rows = "".join(f"key {i},{i}\n" for i in range(5000))
    build("key,v\n" + rows, "--value", "v", "--page-size", "240")
    header = read_header(build.table)
    assert header.root is not None
    assert build.data == {
        "table": str(build.table),
        "version": 2,
        "entries": 5000,
        "rows": 5000,
        "page_size_reason": None,
        "advice": None,
        "pages": 556,
        "page_size": 240,
        "slots_per_page": 10,
        "load": 5000 / 5560,
        "largest_value": 4,
        "fragments": 1,
        "proof_levels": 0,
        "cap_bytes": 32 * 556,
        "root": header.root.hex(),
        "bytes": build.table.stat().st_size,
        "seed_tries": 1,
        "sha256": header.digest.hex(),
    }
    assert json.loads(json.dumps(build.data)) == build.data
    for words in (str(build.table), "5,000", "556", "89.9%", "4 bytes", header.digest.hex()):
        assert words in build.shown
    assert all(0 <= done <= total for done, total, _ in build.progress)
    assert (build.csv.stat().st_size, build.csv.stat().st_size, "reading") in build.progress


def test_json_may_come_before_or_after(build: Build) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    cli_table.add_arguments(parser)
    words = ["build", "x.csv", "--key", "k", "-o", "t"]
    for given in (["--json", *words], [*words, "--json"]):
        assert parser.parse_args(given).json is True
    assert parser.parse_args(words).json is False


# Errors, in one line that names the line of the file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": the first line must name the columns, and is empty"),
        ("\nkey\na\n", ": the first line must name the columns, and is empty"),
        ("key,v\n", ": no row follows the heading"),
        ("key,v\n\n\n", ": no row follows the heading"),
        ("name,v\na,1\n", ":1: --key: none of the 2 columns is named 'key'"),
        ("key;v\na;1\n", ":1: --key: none of the 1 columns is named 'key' "
         "(--delimiter says what stands between columns)"),
        ("key,key\na,1\n", ":1: 2 columns have the name 'key' that --key gives"),
        ("key,v,v\na,1,2\n", ":1: two columns have one name, and a row becomes a JSON object"),
        ("key,v\na,1\nb\n", ":3: the row has 1 fields, the heading 2"),
        ("key,v\na,1,2\n", ":2: the row has 3 fields, the heading 2"),
        ('key,v\na,"1\n2\n3"\nb\n', ":5: the row has 1 fields, the heading 2"),
        ('key,v\n\n"a\n",1\nsecret,1\nb,1\n\nsecret,2\n', ":8: the key is that of line 5"),
        ('key,v\na,"1\n', ":2: unexpected end of data"),
        ('key,v\na,"1"2\n', ":2: ',' expected after '\"'"),
        (b"key,v\nZoe,\xfcber\n", ":2: not UTF-8 from column 5 on: it may be ISO 8859-1, called "
         "Latin-1 (iconv -f LATIN1 -t UTF-8 converts it)"),
        ("key,v\nä,1\n".encode() + b'"b\nc",1\n\xc3\xa4d,\x93q\x94',
         ":5: not UTF-8 from column 4 on: "
         "it may be Windows-1252 (iconv -f WINDOWS-1252 -t UTF-8 converts it)"),
        ("key,v\na,привет\n".encode("cp1251"), ":2: not UTF-8 from column 3 on: it may be an "
         "encoding such as Windows-1251, GB 18030 or Shift JIS (see iconv)"),
        ("key,v\na,表\n".encode()[:-2], ":2: not UTF-8 from column 3 on: it ends amid a character: "
         "the file was cut short or has another encoding"),
        ("key,v\n".encode("utf-16"), ": not CSV in UTF-8: it begins as text in UTF-16 does"),
        (b"\x1f\x8b\x08\0", ": the gzip file was cut short"),
        (b"PK\x03\x04", ": not CSV in UTF-8: it begins as a ZIP archive or a spreadsheet does"),
    ],
)  # fmt: skip
def test_a_wrong_file(build: Build, content: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=r"rows\.csv") as caught:
        build(content)
    assert str(caught.value) == f"{build.csv}{message}"
    assert "secret" not in str(caught.value)
    assert not build.table.exists()


def test_a_line_without_an_end_is_refused(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_MAX_LINE", 50_000)
    with pytest.raises(ValueError, match=r"rows\.csv:2: the line has 50000 bytes or more$"):
        build("key,v\n" + "a" * 50_000, "--page-size", "64")


def test_a_value_that_no_page_has_room_for_is_named(build: Build) -> None:
    with pytest.raises(mg.TableBuildError, match=r"rows\.csv:3: ") as caught:
        build("key,v\na,1\nb," + "x" * 5000 + "\n", "--page-size", "64")
    assert "xx" not in str(caught.value)


def test_a_table_that_becomes_too_large_is_named(build: Build) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    build.csv.write_text("key,v\na,1\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            build(None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(build.table)


def test_an_unknown_column_of_values(build: Build) -> None:
    with pytest.raises(ValueError, match=r":1: --value: none of the 2 columns is named 'w'$"):
        build("key,v\na,1\n", "--value", "w")


def test_a_forgotten_heading_does_not_show_keys(build: Build) -> None:
    with pytest.raises(ValueError, match="none of the 2 columns is named 'key'") as caught:
        build("secret,1\nb,2\n")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--page-size", "0"), "--page-size must be in 1"),
        (("--page-size", "-1"), "--page-size must be in 1"),
        (("--delimiter", ""), "--delimiter must be one character, not ''"),
        (("--delimiter", ",,"), "--delimiter must be one character, not ',,'"),
        (("--delimiter", '"'), "--delimiter must be no quote and no end of line, not '\"'"),
    ],
)
def test_wrong_options(build: Build, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("key,v\na,1\n", *options)


def test_a_missing_file(build: Build) -> None:
    with pytest.raises(FileNotFoundError, match=r"rows\.csv"):
        build(None)


def test_a_missing_folder_is_found_before_any_work(build: Build) -> None:
    build.table = build.table / "nowhere" / "table"
    with pytest.raises(ValueError, match=r"table: there is no folder .*nowhere$"):
        build("key,v\na,1\n")
    assert build.progress == []


def test_a_table_that_is_there_is_replaced_by_force_only(build: Build) -> None:
    build("key,v\na,1\n", "--value", "v")
    with pytest.raises(ValueError, match="table is there already: --force replaces it"):
        build("key,v\na,2\n", "--value", "v")
    assert build.find("a") == "1"
    build(None, "--value", "v", "--force")
    assert build.find("a") == "2"


def test_a_failing_build_leaves_the_old_table(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("key,v\na,1\n", "--value", "v")
    with pytest.raises(ValueError, match="the row has 1 fields"):
        build("key,v\na,2\nb\n", "--value", "v", "--force")
    monkeypatch.setattr("morphogen.keyword.placement.place", lambda *_: None)
    with pytest.raises(mg.TableBuildError, match="no table was found"):
        build("key,v\na,2\n", "--force")
    assert build.find("a") == "1"
    assert sorted(entry.name for entry in build.table.parent.iterdir()) == ["rows.csv", "table"]


def test_the_csv_file_is_not_written_over(build: Build) -> None:
    build.table = build.csv
    with pytest.raises(ValueError, match=r"rows\.csv is the file that is read"):
        build("key\na\n", "--force")
    assert build.csv.read_text() == "key\na\n"


def test_rows_from_a_pipe(build: Build) -> None:
    os.mkfifo(build.csv)
    rows = "key,v\n" + "".join(f"{i},{i}\n" for i in range(10_000))
    writer = threading.Thread(target=build.csv.write_text, args=(rows,))
    writer.start()
    try:
        assert build(None, "--value", "v").find("9999") == "9999"
    finally:
        writer.join(60)
    assert not writer.is_alive()

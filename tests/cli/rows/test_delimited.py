"""CSV and TSV: what Python's csv module wrote comes back, with the lines of the rows."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

import morphogen.cli.rows.lines as lines
from file_rows import read_placed, read_rows

# Letters that mean something to CSV, to splitters of lines, to "%" forms or to UTF-8.
LETTERS = "a ,;\t\"'\n\r%{}\\é€𝄞\x00\x0b\x0c\x1c\x85\u2028"
fields = st.text(st.sampled_from(LETTERS), max_size=6) | st.text(
    st.characters(codec="utf-8"), max_size=4
)
plain = st.text(st.sampled_from("ab %é𝄞\x0b\u2028;"), min_size=1, max_size=6)


@st.composite
def tables(draw: st.DrawFn, field: st.SearchStrategy[str]) -> list[list[str]]:
    width = draw(st.integers(1, 4))
    return draw(st.lists(st.lists(field, min_size=width, max_size=width), min_size=1, max_size=12))


def written(rows: list[list[str]], delimiter: str, end: str, quoting: Any) -> tuple[str, list[int]]:
    """The rows as CSV, and the line of each: a carriage return and a line feed end one together."""
    numbers, text = [], ""
    for row in rows:
        numbers.append(1 + lines.count_ends(text, "\r", "\n"))
        out = io.StringIO(newline="")
        # It quotes what is in its own end of lines only.
        csv.writer(out, delimiter=delimiter, lineterminator="\r\n", quoting=quoting).writerow(row)
        text += out.getvalue().removesuffix("\r\n") + end
    return text, numbers


@pytest.fixture(params=[1 << 18, 7], ids=["one block", "small blocks"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK", request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("delimiter", [",", ";", "\t", ":", "é"])
def test_what_was_written_comes_back(
    delimiter: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"

    @settings(max_examples=20, deadline=None)
    @given(
        tables(fields) | tables(plain),
        st.sampled_from(["\n", "\r\n", "\r"]),
        st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    )
    def check(rows: list[list[str]], end: str, quoting: Any) -> None:
        names = tuple(f"{at}%" for at in range(len(rows[0])))
        text, numbers = written([list(names), *rows], delimiter, end, quoting)
        path.write_bytes(text.encode())
        key, value = names[0], names[-1]
        found = read_placed(path, key, value, delimiter=delimiter)
        assert [item for item, _ in found] == [(row[0].encode(), row[-1].encode()) for row in rows]
        assert [place for _, place in found] == [f"{path}:{number}" for number in numbers[1:]]
        whole = read_rows(path, key, None, delimiter=delimiter)
        assert [json.loads(item) for _, item in whole] == [
            dict(zip(names, row, strict=True)) for row in rows
        ]
        text, numbers = written(rows, delimiter, end, quoting)
        path.write_bytes(text.encode())
        assert read_rows(path, key, value, delimiter=delimiter, columns=names) == [
            (row[0].encode(), row[-1].encode()) for row in rows
        ]

    check()


def test_a_tsv_file_is_known_by_its_name(tmp_path: Path) -> None:
    for name in ("rows.tsv", "ROWS.TAB"):
        (tmp_path / name).write_text("key\tvalue\na,b\t1\n")
        assert read_rows(tmp_path / name) == [(b"a,b", b"1")]
    (tmp_path / "rows.txt").write_text("key\tvalue\na,b\t1\n")
    assert read_rows(tmp_path / "rows.txt", format="tsv") == [(b"a,b", b"1")]
    (tmp_path / "rows.tsv").write_text("key;value\na\t;1\n")
    assert read_rows(tmp_path / "rows.tsv", delimiter=";") == [(b"a\t", b"1")]


def test_a_list_without_a_heading_has_its_columns_named(tmp_path: Path) -> None:
    path = tmp_path / "hashes.txt"
    path.write_text("0018A45C:10\n00D4F6E8:2\n")
    options = {"delimiter": ":", "columns": ("hash", "count")}
    assert read_rows(path, "hash", "count", **options) == [
        (b"0018A45C", b"10"),
        (b"00D4F6E8", b"2"),
    ]
    assert read_rows(path, "hash", None, **options)[1][1] == b'{"hash":"00D4F6E8","count":"2"}'


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("a:1\nb\n", "hash,count", ":2: the row has 1 fields, --columns 2"),
        ('a:1\n"b"\n', "hash,count", ":2: the row has 1 fields, --columns 2"),
        ("a:1\n", "hash,key", ""),
        ("", "hash,count", ": no row"),
        ("\n\n", "hash,count", ": no row"),
    ],
)
def test_rows_are_held_against_the_columns_that_were_named(
    content: str, columns: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "list"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"column|row") as caught:
        read_rows(path, "hash", "count", delimiter=":", columns=tuple(columns.split(",")))
    expected = (
        f"{path}{message}"
        if message
        else ("--columns: --value: none of the 2 columns is named 'count'")
    )
    assert str(caught.value) == expected


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("quoted", ["a", '"a"'])
def test_a_fault_is_named_by_its_line_wherever_blocks_end(quoted: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    good = f"key,value\n{quoted},1\n\nb,2\n\n"
    for bad, message in (
        ("c\n", ":6: the row has 1 fields, the heading 2"),
        ('c,"\n\n', ":7: unexpected end of data"),
        ("c,1,2", ":6: the row has 3 fields, the heading 2"),
    ):
        path.write_text(good + bad)
        with pytest.raises(ValueError, match="rows") as caught:
            read_rows(path)
        assert str(caught.value) == f"{path}{message}"
    path.write_bytes(good.encode() + b"c,1\n\xe9t\xe9,2\n")
    with pytest.raises(ValueError, match=r"rows\.csv:7: not UTF-8 from column 1 on: .*Latin-1"):
        read_rows(path)


def test_places_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("key,value\n" + "".join(f"{i},{i}\n" for i in range(50_000)))
    from morphogen.cli.rows.kinds import open_rows
    from morphogen.cli.rows.options import RowOptions

    with open_rows(path, RowOptions("key", "value"), lambda *_: None) as rows:
        for _ in rows.batches:
            pass
    assert len(rows.places._entries) == 1
    assert rows.places.of_entry(50_000) == f"{path}:50001"

"""Parquet, Arrow and Feather: what pyarrow wrote comes back."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from file_rows import read_placed, read_rows

pyarrow = pytest.importorskip("pyarrow")
feather = pytest.importorskip("pyarrow.feather")
parquet = pytest.importorskip("pyarrow.parquet")


def write_stream(table: Any, path: Path) -> None:
    with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Any, Path], object]] = {
    "parquet": lambda table, path: parquet.write_table(
        table, str(path), row_group_size=3, write_page_checksum=True
    ),
    "feather": lambda table, path: feather.write_feather(table, str(path), compression="zstd"),
    "arrow": lambda table, path: feather.write_feather(
        table, str(path), compression="uncompressed", chunksize=3
    ),
    "arrows": write_stream,
}
each_writer = pytest.mark.parametrize("ending", WRITERS)
TEXTS = [
    pyarrow.string(), pyarrow.large_string(), pyarrow.string_view(), pyarrow.binary(),
    pyarrow.large_binary(), pyarrow.binary_view(),
    pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
]  # fmt: skip

texts = st.text(st.characters(codec="utf-8"), max_size=6)


@each_writer
def test_what_was_written_comes_back(ending: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rows") / f"rows.{ending}"

    @settings(max_examples=15, deadline=None)
    @given(
        st.lists(st.tuples(texts, texts, st.none() | st.integers(-(2**63), 2**63 - 1),
                           st.lists(st.none() | texts, max_size=2), st.none() | st.booleans(),
                           st.none() | st.floats(allow_nan=False, allow_infinity=False)),
                 min_size=1, max_size=10),
        st.sampled_from(TEXTS), st.sampled_from(TEXTS),
    )  # fmt: skip
    def check(rows: list[tuple[Any, ...]], kind: Any, other: Any) -> None:
        key, value, number, nested, flag, real = map(list, zip(*rows, strict=True))
        names = ("key", "value", "number", "nested", "%s", "real")
        arrays = [
            text_array(key, kind), text_array(value, other), pyarrow.array(number, pyarrow.int64()),
            pyarrow.array(nested, pyarrow.list_(pyarrow.string())),
            pyarrow.array(flag, pyarrow.bool_()), pyarrow.array(real, pyarrow.float64()),
        ]  # fmt: skip
        WRITERS[ending](pyarrow.table(arrays, names=names), path)
        found = read_placed(path)
        assert [item for item, _ in found] == [(row[0].encode(), row[1].encode()) for row in rows]
        assert [place for _, place in found] == [
            f"{path} row {number}" for number in range(1, len(rows) + 1)
        ]
        whole = read_rows(path, value=None)
        assert [json.loads(item) for _, item in whole] == [
            dict(zip(names, row, strict=True)) for row in rows
        ]

    check()


def text_array(values: list[str], kind: Any) -> Any:
    if pyarrow.types.is_dictionary(kind):
        return pyarrow.array(values).dictionary_encode()
    binary = "binary" in str(kind)
    return pyarrow.array([value.encode() if binary else value for value in values], kind)


def build(path: Path, **columns: Any) -> Path:
    parquet.write_table(pyarrow.table(columns), str(path))
    return path


def test_bytes_stay_bytes(tmp_path: Path) -> None:
    path = build(tmp_path / "rows.parquet", key=[b"\xff\0", b""], value=[b"\x80", b"\xc3\x28"])
    assert read_rows(path) == [(b"\xff\0", b"\x80"), (b"", b"\xc3\x28")]
    fixed = pyarrow.array([b"ab", b"\0\xff"], pyarrow.binary(2))
    path = build(tmp_path / "fixed.parquet", key=fixed, value=fixed)
    assert read_rows(path) == [(b"ab", b"ab"), (b"\0\xff", b"\0\xff")]


def test_times_and_decimals_are_text_in_a_json_object(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 2, 29, 12, 34, 56, 789)
    path = build(
        tmp_path / "rows.parquet",
        key=["a"],
        at=pyarrow.array([1_709_210_096_000_000_001], pyarrow.timestamp("ns")),
        utc=pyarrow.array([moment], pyarrow.timestamp("us", "UTC")),
        day=[moment.date()],
        time=[moment.time()],
        price=[Decimal("1.50")],
        nested=[{"day": moment.date(), "prices": [Decimal("0.1"), None]}],
        none=pyarrow.nulls(1),
    )
    assert json.loads(read_rows(path, value=None)[0][1]) == {
        "key": "a",
        "at": "2024-02-29T12:34:56.000000001",
        "utc": "2024-02-29T12:34:56.000789Z",
        "day": "2024-02-29",
        "time": "12:34:56.000789",
        "price": "1.50",
        "nested": {"day": "2024-02-29", "prices": ["0.1", None]},
        "none": None,
    }


@pytest.mark.parametrize(
    ("columns", "value", "message"),
    [
        ({"key": [1], "value": ["secret"]}, "value", ": column 'key' is int64, not text or bytes"),
        ({"key": ["secret"], "value": [1.5]}, "value",
         ": column 'value' is double, not text or bytes"),
        ({"key": ["secret"], "value": [["x"]]}, "value",
         ": column 'value' is list<element: string>, not text or bytes"),
        ({"key": ["secret", None], "value": ["", ""]}, "value",
         " row 2: column 'key' is null, not text or bytes"),
        ({"key": ["secret", ""], "value": [None, ""]}, "value",
         " row 1: column 'value' is null, not text or bytes"),
        ({"Key": ["secret"], "value": [""]}, "value",
         ": --key: none of the 2 columns is named 'key': they are 'Key', 'value'"),
        ({"key": ["secret"]}, "value",
         ": --value: none of the 1 columns is named 'value': they are 'key'"),
        ({"key": ["secret"], "x": [b"\xff"]}, None,
         " row 1: column 'x' has bytes that are not UTF-8, which JSON cannot hold"),
        ({"key": ["", "secret"], "x": [0.0, float("nan")]}, None,
         " row 2: column 'x' has a number that JSON cannot hold: inf or nan"),
        ({"key": ["", "secret"], "x": [[0.0], [float("inf")]]}, None,
         " row 2: column 'x' has a number that JSON cannot hold: inf or nan"),
        ({"key": ["secret"], "x": [datetime.timedelta(1)]}, None,
         ": column 'x' is duration[us], which a JSON object cannot hold: give --value"),
        ({"key": [], "value": []}, "value", ": column 'key' is null, not text or bytes"),
        ({"key": pyarrow.array([], pyarrow.string()), "value": pyarrow.array([], pyarrow.string())},
         "value", ": there is no row"),
    ],
    ids=range(13),
)  # fmt: skip
def test_a_column_that_no_table_can_hold_is_named(
    columns: dict[str, Any], value: str | None, message: str, tmp_path: Path
) -> None:
    path = build(tmp_path / "rows.parquet", **columns)
    with pytest.raises(ValueError, match="rows") as caught:
        read_rows(path, value=value)
    assert str(caught.value) == f"{path}{message}"


def test_the_name_of_a_type_is_one_line(tmp_path: Path) -> None:
    path = build(tmp_path / "rows.parquet", key=[{"a\nb\x1b[31m": 1}], value=["secret"])
    with pytest.raises(ValueError, match=r"column 'key' is struct<a b\?\[31m: int64>, not text"):
        read_rows(path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    array = pyarrow.array(["a"])
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table([array] * 3, names=["key", "x", "x"]), str(path))
    with pytest.raises(ValueError, match="two columns have one name, and a row becomes a JSON"):
        read_rows(path, value=None)
    with pytest.raises(ValueError, match="2 columns have the name 'x' that --value gives"):
        read_rows(path, value="x")
    with pytest.raises(ValueError, match="2 columns have the name 'x' that --key gives"):
        read_rows(path, "x", "key")


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    offsets = pyarrow.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 2)))
    broken = pyarrow.Array.from_buffers(
        pyarrow.string(), 2, [None, offsets, pyarrow.py_buffer(b"a\xff")]
    )
    for ending in WRITERS:
        path = tmp_path / f"rows.{ending}"
        WRITERS[ending](pyarrow.table({"key": broken, "value": broken}), path)
        with pytest.raises(ValueError, match=r"not a whole .* file: .*UTF-?8") as caught:
            read_rows(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_a_row_of_a_later_group_is_numbered_through(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    keys = [str(number) for number in range(5000)]
    values: list[str | None] = list(keys)
    values[4321] = None
    table = pyarrow.table({"key": keys, "value": values})
    parquet.write_table(table, str(path), row_group_size=700)
    with pytest.raises(ValueError, match=r"parquet row 4322: column 'value' is null"):
        read_rows(path)
    out = io.BytesIO()
    with pyarrow.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    path.write_bytes(out.getvalue())
    with pytest.raises(ValueError, match=r"parquet row 4322: column 'value' is null"):
        read_rows(path)

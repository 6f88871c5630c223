"""JSON Lines: what Python's json module wrote comes back, whole rows to the letter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from file_rows import read_placed, read_rows

texts = st.text(st.characters(codec="utf-8"), max_size=8)
values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
rows_of_json = st.lists(
    st.fixed_dictionaries({"key": texts, "value": texts, "more": values}), min_size=1, max_size=8
)


def test_what_was_written_comes_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"

    @settings(max_examples=40, deadline=None)
    @given(
        rows_of_json,
        st.booleans(),
        st.sampled_from(["\n", "\r\n", "\n\n", " \n\t"]),
        st.sampled_from(["", "\ufeff"]),
    )
    def check(rows: list[dict[str, Any]], ascii_only: bool, end: str, mark: str) -> None:
        texts = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
        path.write_bytes((mark + end.join(texts)).encode())
        found = read_placed(path)
        assert [item for item, _ in found] == [
            (row["key"].encode(), row["value"].encode()) for row in rows
        ]
        step = end.count("\n")
        assert [place for _, place in found] == [
            f"{path}:{1 + step * at}" for at in range(len(rows))
        ]
        assert [value for _, value in read_rows(path, value=None)] == [
            text.encode() for text in texts
        ]

    check()


def test_numbers_stay_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.ndjson"
    line = '{"key": "a", "n": [1.50, 1e999, -0, ' + "7" * 5000 + "]}"
    path.write_text(line)
    assert read_rows(path, value=None) == [(b"a", line.encode())]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON from column 2 on: Expecting property name enclosed in double quotes"),
        ('{"key": "secret" 1}', "not JSON from column 18 on: Expecting ',' delimiter"),
        ('{"key": "secret"} {}', "more than one JSON value, from column 18 on"),
        ('["secret"]', "a line must be a JSON object, not an array"),
        ('"secret"', "a line must be a JSON object, not text"),
        ("null", "a line must be a JSON object, not null"),
        ('{"Key": "secret", "value": ""}', "--key: the object has no field 'key'"),
        ('{"key": "secret"}', "--value: the object has no field 'value'"),
        ('{"key": 1, "value": ""}', "field 'key' is a number, not text"),
        ('{"key": 1.5, "value": ""}', "field 'key' is a number, not text"),
        ('{"key": null, "value": ""}', "field 'key' is null, not text"),
        ('{"key": "", "value": {}}', "field 'value' is an object, not text"),
        ('{"key": "", "value": []}', "field 'value' is an array, not text"),
        ('{"key": "", "value": true}', "field 'value' is true or false, not text"),
        ('{"key": "", "key": ""}', "two fields of an object have one name"),
        ('{"key": "", "value": "", "x": {"a": 1, "a": 2}}',
         "two fields of an object have one name"),
        ('{"key": "secret", "value": NaN}', "not JSON: it has no NaN"),
        ('{"key": "secret", "value": -Infinity}', "not JSON: it has no -Infinity"),
        ('{"key": "secret\\ud800", "value": ""}', "field 'key' has half of a surrogate pair"),
        ('{"key": "secret\t"}', "not JSON from column 16 on: Invalid control character at"),
        ("[" * 100_000, "the JSON is nested too deeply"),
    ],
    ids=lambda text: text[:40].encode("unicode_escape").decode(),
)  # fmt: skip
def test_a_wrong_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"key":"a","value":"b"}}\n\n{line}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:3: ") as caught:
        read_rows(path)
    assert str(caught.value) == f"{path}:3: {message}"


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_a_row_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"no line has a JSON object$"):
        read_rows(path)


def test_a_line_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"key":"ä","value":""}\n{"key":"\N{SNOWMAN}'.encode() + b"\xff")
    with pytest.raises(ValueError, match=r":2: not UTF-8 from column 10 on"):
        read_rows(path)

"""A value that was found is printed as text, as the fields of a row, or in hexadecimal."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from morphogen.cli import main
from morphogen.cli.values import as_row, as_text, show_value
from morphogen.keyword import build
from morphogen.keyword.file import write_table

ROW = '{"name":"Zoë","n":1.50,"list":[1,null,{"a":true}],"none":null,"text":"two\\nlines"}'


def shown(value: bytes) -> str:
    console = Console(file=io.StringIO(), width=60, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(show_value(value))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"text", "text"),
        (b"", ""),
        ("Zoë\n\tand\r\nothers".encode(), "Zoë\n        and\nothers"),
        (b"\xff\x00", "ff 00"),
        (bytes(range(128, 148)), "80 81 82 83 84 85 86 87 88 89 8a 8b 8c 8d 8e 8f ..."),
        (b"\x1b[31mred", "1b 5b 33 31 6d 72 65 64"),
        (b"carriage\rreturn", "63 61 72 72 69 61 67 65 0d 72 65 74 75 72 6e"),
        (b"[bold]", "[bold]"),
        (
            ROW.encode(),
            'name  Zoë\nn     1.5\nlist  [1, null, {"a": true}]\nnone  null\n'
            "text  two\n      lines",
        ),
        (b"{}", "{}"),
        (b'{"a":1', '{"a":1'),
        (b'{"a":"\\u001b[31m","\\u009b":"\\ud800"}', "a     \\x1b[31m\n\\x9b  \\ud800"),
        (b'{"a":1,"a":2}', '{"a":1,"a":2}'),
        (b'{"a":NaN}', '{"a":NaN}'),
        (b'{"a":1e999}', '{"a":1e999}'),
    ],
)  # fmt: skip
def test_a_value_is_shown_as_what_it_is(value: bytes, expected: str) -> None:
    assert shown(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        b'{"a":' * 50_000 + b"}" * 50_000,
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"\xff":1}',
        b"{" + bytes(100) + b"}",
        b'{"a":1} {"b":2}',
        b"[1]",
    ],
    ids=range(6),
)
def test_what_readers_may_take_otherwise_is_no_row(value: bytes) -> None:
    assert as_row(value) is None
    shown(value)


def test_programs_get_the_row_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {b"row": ROW.encode(), b"text": b"a\nb", b"bytes": b"\xff"}
    write_table(tmp_path / "table", *build(values.items(), page_size=512))
    keys = [key.decode() for key in values]
    assert main(["table", "get", str(tmp_path / "table"), *keys, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["values"] == [
        {"key": "row", "found": True, "value": ROW, "hex": ROW.encode().hex(),
         "row": json.loads(ROW)},
        {"key": "text", "found": True, "value": "a\nb", "hex": "610a62"},
        {"key": "bytes", "found": True, "value": None, "hex": "ff"},
    ]  # fmt: skip
    assert main(["table", "get", str(tmp_path / "table"), *keys]) == 0
    printed = capsys.readouterr().out
    assert all(words in printed for words in ("list  [1, null", "a  ", "│ ff "))


def test_text_is_what_a_terminal_shows_as_it_is() -> None:
    assert as_text("ä\n\t".encode()) == "ä\n\t"
    assert as_text(b"\x7f") is None
    assert as_text("\u202e".encode()) is None

"""``morphogen table info | verify | get``: a table is looked into on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keyword_tables import build_version_1, numbered
from morphogen.cli import main
from morphogen.cli.output import FAILED, NOT_FOUND, OK, USAGE
from morphogen.keyword.file import read_header, write_table

ITEMS = dict(numbered(60, 9)) | {b"text": b"a value", b"\xff": b"of bytes", b"": b"of nothing"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table"
    write_table(path, *build_version_1(ITEMS.items(), page_size=100))
    return path


def altered(table: Path) -> Path:
    raw = bytearray(table.read_bytes())
    raw[-1] ^= 1
    table.write_bytes(raw)
    return table


def test_info_prints_what_the_header_says(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = read_header(table)
    assert header.layout is not None
    expected = {
        "table": str(table),
        "version": 1,
        "entries": 63,
        "pages": header.num_pages,
        "page_size": 100,
        "slots_per_page": 3,
        "load": header.layout.load,
        "largest_value": 10,
        "bytes": table.stat().st_size,
        "sha256": header.digest.hex(),
    }
    assert main(["table", "info", str(table), "--json"]) == OK
    assert json.loads(capsys.readouterr().out) == expected
    assert main(["table", "info", str(table)]) == OK
    shown = capsys.readouterr().out
    assert all(words in shown for words in (str(table), "entries", "63", header.digest.hex()))
    assert main(["table", "info", str(altered(table))]) == OK  # the pages are not read


def test_verify_reads_every_byte(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "verify", str(table)]) == OK
    assert "Verified: no byte was altered" in capsys.readouterr().out
    assert main(["table", "verify", str(table), "--json"]) == OK
    assert json.loads(capsys.readouterr().out)["verified"] is True
    altered(table)
    assert main(["table", "verify", str(table)]) == FAILED
    reason = f"{table} was altered: its pages do not have the SHA-256 of its header"
    assert capsys.readouterr() == (f"{reason}\n", "")
    assert main(["table", "verify", str(table), "--json"]) == FAILED
    assert json.loads(capsys.readouterr().out) == {
        "table": str(table),
        "verified": False,
        "reason": reason,
    }


def test_verify_of_another_file_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("no table")
    assert main(["table", "verify", str(tmp_path / "text")]) == FAILED
    assert "is not a keyword table" in capsys.readouterr().out
    assert main(["table", "verify", str(tmp_path / "none")]) == USAGE
    assert "none: No such file or directory" in capsys.readouterr().err


def test_get_finds_values_without_servers(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "get", str(table), "text", "none", "", "--json"]) == NOT_FOUND
    assert json.loads(capsys.readouterr().out) == {
        "table": str(table),
        "values": [
            {"key": "text", "found": True, "value": "a value", "hex": b"a value".hex()},
            {"key": "none", "found": False},
            {"key": "", "found": True, "value": "of nothing", "hex": b"of nothing".hex()},
        ],
    }
    assert main(["table", "get", str(table), "text"]) == OK
    assert "a value" in capsys.readouterr().out


def test_get_takes_one_of_table_and_keys_through_the_standard_input(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["table", "get", "-", "--lookup-file", "-"]) == USAGE
    message = "TABLE and --lookup-file cannot both come through the standard input"
    assert capsys.readouterr() == ("", f"morphogen: {message}\n")


def test_get_takes_keys_of_a_file_and_finds_all(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys"
    wanted = [key for key in ITEMS if key]
    path.write_bytes(b"\n".join(wanted) + b"\n")
    assert main(["table", "get", str(table), "--lookup-file", str(path), "--json"]) == OK
    found = [bytes.fromhex(row["hex"]) for row in json.loads(capsys.readouterr().out)["values"]]
    assert found == [ITEMS[key] for key in wanted]


def test_get_writes_one_value(
    table: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["table", "get", str(table), "text", "-o", str(tmp_path / "value")]) == OK
    assert (tmp_path / "value").read_bytes() == b"a value"
    capsysbinary.readouterr()
    assert main(["table", "get", str(table), "text", "-o", "-"]) == OK
    assert capsysbinary.readouterr().out == b"a value"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "table get takes keys, or --lookup-file with at least one"),
        (["a", "b", "-o", "x"], "-o writes one value: give one key, not 2"),
        (["a", "-o", "-", "--json"], "both write to the standard output"),
    ],
)
def test_get_refuses_wrong_usage(
    table: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", "get", str(table), *arguments]) == USAGE
    assert message in capsys.readouterr().err

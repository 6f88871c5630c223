"""``morphogen table seal | root``, and what the other actions say of sealed files."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from keyword_tables import plain
from morphogen.authentication import fill_siblings
from morphogen.cli import main
from morphogen.cli.output import FAILED, NOT_FOUND, OK, USAGE
from morphogen.keyword import TableLayout
from morphogen.keyword.file import open_table, read_header, write_table

RECORDED = Path(__file__).resolve().parents[1] / "vectors" / "keyword_v1.table"
ITEMS = {b"long": b"a value of thirty-one bytes. ok", b"short": b"x", b"empty": b""}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 100)
    return path


@pytest.fixture
def sealed(file: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The file's bytes as pages of 1,024 bytes with 2 siblings each."""
    path = file.with_name("sealed")
    arguments = [str(file), "-o", str(path), "--page-size", "1k", "--proof-levels", "2"]
    assert main(["table", "seal", *arguments]) == OK
    capsys.readouterr()
    return path


@pytest.fixture
def keyword_table(tmp_path: Path) -> Path:
    """A table of version 2 whose values lie in up to four fragments."""
    layout = TableLayout(9, 200, 4, 8, bytes(16), 6, fragments=4, proof_levels=2)
    pages = np.zeros((9, 200), dtype=np.uint8)
    for page, content in zip(pages, plain(layout).fill(ITEMS), strict=True):
        page[:136] = np.frombuffer(content, dtype=np.uint8)
    fill_siblings(pages, 2, layout.authenticated_bytes())
    write_table(tmp_path / "table", pages, layout)
    return tmp_path / "table"


def test_seal_prints_what_it_wrote(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file.with_name("sealed")
    assert main(["table", "seal", str(file), "-o", str(path), "--json"]) == OK
    header = read_header(path)
    assert header.root is not None
    assert json.loads(capsys.readouterr().out) == {
        "table": str(path),
        "version": 2,
        "pages": 7,
        "page_size": 4096,
        "bytes": path.stat().st_size,
        "proof_levels": 3,
        "cap_bytes": 32,
        "root": header.root.hex(),
        "sha256": header.digest.hex(),
    }
    assert main(["table", "info", str(path)]) == OK
    shown = capsys.readouterr().out
    assert all(words in shown for words in (f"Root  {header.root.hex()}", "proof levels", "4,096"))
    assert "entries" not in shown


def test_root_prints_the_root_alone(sealed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = read_header(sealed).root
    assert root is not None
    assert main(["table", "root", str(sealed)]) == OK
    assert capsys.readouterr().out == f"{root.hex()}\n"
    assert main(["table", "root", str(sealed), "--json"]) == OK
    assert json.loads(capsys.readouterr().out) == {"table": str(sealed), "root": root.hex()}
    assert main(["table", "root", str(RECORDED)]) == USAGE
    assert "is a table of version 1, which has no root" in capsys.readouterr().err


def test_a_keyword_table_of_version_1_gets_a_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new"
    assert main(["table", "seal", str(RECORDED), "-o", str(path)]) == OK
    capsys.readouterr()
    for action in ("root", "verify", "info"):
        assert main(["table", action, str(path)]) == OK
    old = open_table(RECORDED).pages.body
    assert (open_table(path).pages.body == old).all()
    assert main(["table", "seal", str(path), "-o", str(tmp_path / "again")]) == USAGE
    assert "new is sealed already" in capsys.readouterr().err


def test_verify_reads_every_byte(sealed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "verify", str(sealed)]) == OK
    assert "Verified: no byte was altered" in capsys.readouterr().out
    raw = sealed.read_bytes()
    for at, message in (
        (4096, "its pages do not have the siblings of their contents"),
        (len(raw) - 1, "its cap is not that of its pages"),
    ):
        sealed.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        assert main(["table", "verify", str(sealed)]) == FAILED
        assert capsys.readouterr() == (f"{sealed} was altered: {message}\n", "")


def test_verify_compares_the_sha_256_too(sealed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = sealed.read_bytes()
    head = raw[:72] + bytes(32) + raw[104:4064]
    sealed.write_bytes(head + sha256(head).digest() + raw[4096:])
    assert open_table(sealed).tree is not None  # the root is the pages' own
    assert main(["table", "verify", str(sealed)]) == FAILED
    assert "sealed has a header with another SHA-256 than its pages'" in capsys.readouterr().out


def test_values_in_fragments_are_found(
    keyword_table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["none", "long", "short", "--json"]
    assert main(["table", "get", str(keyword_table), *arguments]) == NOT_FOUND
    rows = json.loads(capsys.readouterr().out)["values"]
    assert [row.get("value") for row in rows] == [None, "a value of thirty-one bytes. ok", "x"]
    assert main(["table", "info", str(keyword_table)]) == OK
    shown = " ".join(capsys.readouterr().out.split())
    assert "values up to 32 bytes slots a value, at most 4 proof levels 2 cap 96 bytes" in shown


def test_pages_without_keys_have_no_values(
    sealed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", "get", str(sealed), "key"]) == USAGE
    assert "sealed has pages without keys: morphogen get reads them by number" in (
        capsys.readouterr().err
    )


def test_what_seal_refuses(
    file: Path, sealed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sealed.read_bytes()
    text = tmp_path / "damaged"
    shutil.copy(RECORDED, text)
    with text.open("r+b") as damaged:
        damaged.write(b"MGKWU")
    for arguments, message in (
        ([file, "-o", sealed], "sealed is there already: --force replaces it"),
        ([file, "-o", "-"], "table seal writes a file, not the standard output"),
        ([file, "-o", tmp_path / "none" / "x"], f"there is no folder {tmp_path / 'none'}"),
        ([tmp_path / "none", "-o", tmp_path / "x"], "none: No such file or directory"),
        ([text, "-o", tmp_path / "x"], "damaged is not a keyword table: it begins otherwise"),
        (
            [file, "-o", tmp_path / "x", "--page-size", "64", "--proof-levels", "2"],
            "proof_levels must be in 0..1 for pages of 64, not 2",
        ),
    ):
        assert main(["table", "seal", *map(str, arguments)]) == USAGE
        assert message in capsys.readouterr().err
    assert sealed.read_bytes() == before
    assert not (tmp_path / "x").exists()
    assert main(["table", "seal", str(file), "-o", str(sealed), "--force"]) == OK
    assert sealed.read_bytes() != before


def test_a_file_is_not_replaced_by_its_own_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"as it was")
    assert main(["table", "seal", str(path), "-o", str(path), "--force"]) == USAGE
    assert capsys.readouterr().err == f"morphogen: {path} is the file that is read\n"
    assert path.read_bytes() == b"as it was"

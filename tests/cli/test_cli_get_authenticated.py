"""``morphogen get`` of authenticated tables: what it demands, what it says, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import morphogen.wire as wire
from fake_server import FakeServer, keyword_table, two_servers
from morphogen.cli import main
from morphogen.cli.output import FAILED, NOT_FOUND, OK, USAGE
from morphogen.client import Client
from morphogen.epochs.manifest import sign_manifest
from sealed_tables import numbered_items, sealed_table
from server_faults import xored_pages

Pair = tuple[FakeServer, FakeServer]
TABLE = sealed_table(numbered_items())
ROOT = TABLE.seal.root.hex()


@pytest.fixture
def servers() -> Iterator[Pair]:
    with two_servers(seal=TABLE.seal, layout=TABLE.layout.as_dict()) as pair:
        yield pair


def command(servers: Pair) -> list[str]:
    return ["get", *(part for server in servers for part in ("--server", server.url))]


@pytest.mark.parametrize("options", [[], ["--verify"], ["--root", ROOT], ["--root", ROOT.upper()]])
def test_json_says_what_was_checked(
    servers: Pair, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(servers), *options, "--lookup", "key 7", "--json"]) == OK
    printed = json.loads(capsys.readouterr().out)
    assert (printed["authenticated"], printed["root"]) == (True, ROOT)
    assert printed["values"][0]["value"] == "value 7"


def test_json_says_that_nothing_was_checked(capsys: pytest.CaptureFixture[str]) -> None:
    table, layout, _ = keyword_table()
    with two_servers(table, layout=layout) as servers:
        assert main([*command(servers), "--lookup", "none", "--json"]) == NOT_FOUND
        printed = json.loads(capsys.readouterr().out)
        assert (printed["authenticated"], printed["root"]) == (False, None)
        assert main([*command(servers), "--lookup", "none"]) == NOT_FOUND
        assert "proven" not in capsys.readouterr().out


def test_a_key_that_is_not_there_is_proven_not_to_be(
    servers: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(servers), "--lookup", "none", "--lookup", "key 7"]) == NOT_FOUND
    assert "not there (proven)" in capsys.readouterr().out
    assert main([*command(servers), "--lookup", "none", "-o", "-"]) == NOT_FOUND
    assert capsys.readouterr() == ("", "morphogen: the table has no such key (proven)\n")


def test_pages_are_printed_and_written_without_their_proofs(
    servers: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = TABLE.layout.content_size
    assert main([*command(servers), "3", "0", "--json"]) == OK
    printed = json.loads(capsys.readouterr().out)
    wanted = TABLE.seal.pages[[3, 0], :content]
    assert [row["hex"] for row in printed["pages"]] == [page.tobytes().hex() for page in wanted]
    assert main([*command(servers), "3", "0", "-o", str(tmp_path / "pages")]) == OK
    assert (tmp_path / "pages").read_bytes() == wanted.tobytes()


@pytest.mark.parametrize("wanted", [["3"], ["--lookup", "key 7"], ["--lookup", "none"]])
def test_a_wrong_page_fails_a_check_and_nothing_is_written(
    servers: Pair, wanted: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = np.zeros(TABLE.layout.page_size, dtype=np.uint8)
    error[40] = 1
    servers[1].lie(xored_pages(error))
    path = tmp_path / "out"
    assert main([*command(servers), *wanted, "-o", str(path)]) == FAILED
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.startswith("morphogen: a page is not that of the table's root: ")
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--root", "00" * 32], "another root than the one that was asked for"),
        (["--root", "00"], "root must be 64 hexadecimal digits, not 2\n"),
        (["--root", ""], "root must be 64 hexadecimal digits, not 0\n"),
    ],
)
def test_another_root_is_refused_before_a_key_is_sent(
    servers: Pair, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(servers), *options, "3"]) == USAGE
    assert said in capsys.readouterr().err
    assert not servers[0].batches
    assert not servers[1].batches


def test_a_table_of_the_owner_is_read_and_one_of_nobody_refused(
    servers: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cryptography", reason="needs cryptography: pip install '.[sign]'")
    manifest = sign_manifest(bytes(32), table_id=bytes(16), epoch=7, root=TABLE.seal.root)
    options = ["--owner", manifest.owner.hex(), "--lookup", "key 7"]
    assert main([*command(servers), *options]) == USAGE
    assert "the owner does not vouch for the servers' table of epoch 7" in capsys.readouterr().err
    assert not servers[0].batches
    servers[1].said = {"manifest": manifest.pack().hex()}
    assert main([*command(servers), *options, "--json"]) == OK
    assert json.loads(capsys.readouterr().out)["values"][0]["value"] == "value 7"
    assert main([*command(servers), "--owner", "00", "--lookup", "key 7"]) == USAGE
    assert "owner must be 64 hexadecimal digits" in capsys.readouterr().err


def test_a_table_without_a_root_is_refused_if_it_must_have_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for options in (["--verify"], ["--root", ROOT]):
        with two_servers() as servers:
            assert main([*command(servers), *options, "3"]) == USAGE
            assert "has no root" in capsys.readouterr().err
            assert not servers[0].batches


def test_a_folder_keeps_the_cap_for_the_next_command(servers: Pair, tmp_path: Path) -> None:
    folder = tmp_path / "caps"
    for _ in range(3):
        assert main([*command(servers), "--cache-dir", str(folder), "3"]) == OK
    caps = [seen for seen in servers[0].seen if seen.path == wire.cap_path(7)]
    assert len(caps) == 1


def test_a_file_in_the_place_of_the_folder_is_named(
    servers: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    assert main([*command(servers), "--cache-dir", str(file), "3"]) == USAGE
    assert capsys.readouterr().err == f"morphogen: {file}: File exists\n"
    assert not servers[0].seen


def test_fewer_keys_of_more_fragments_are_looked_up_at_a_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = sealed_table({b"key %d" % i: b"v" * i for i in range(9)}, value_size=3, fragments=3)
    asked: list[int] = []
    look_up = Client.lookup_many

    def counted(client: Client, keys: list[bytes]) -> list[bytes | None]:
        asked.append(len(keys))
        return look_up(client, keys)

    monkeypatch.setattr(Client, "lookup_many", counted)
    monkeypatch.setattr("morphogen.cli.get._AT_A_TIME", 13)
    path = tmp_path / "keys"
    path.write_text("".join(f"key {i}\n" for i in range(9)))
    with two_servers(seal=table.seal, layout=table.layout.as_dict()) as servers:
        assert main([*command(servers), "--lookup-file", str(path), "--json"]) == OK
    found = json.loads(capsys.readouterr().out)["values"]
    assert [row["value"] for row in found] == ["v" * i for i in range(9)]
    assert asked == [4, 4, 1]

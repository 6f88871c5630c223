"""``morphogen get`` against two servers over sockets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_server import FakeServer, keyword_table, two_servers
from morphogen.cli import main
from morphogen.cli.output import FAILED, OK, USAGE

TABLE, LAYOUT, ITEMS = keyword_table()
LAST = len(TABLE) - 1


@pytest.fixture
def servers() -> Iterator[tuple[FakeServer, FakeServer]]:
    with two_servers(TABLE, layout=LAYOUT) as pair:
        yield pair


@pytest.fixture
def get(servers: tuple[FakeServer, FakeServer]) -> list[str]:
    """The command up to its pages or keys."""
    return ["get", *(part for server in servers for part in ("--server", server.url))]


def test_pages_are_shown(get: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*get, "3", "0"]) == OK
    shown = capsys.readouterr()
    assert TABLE[3].tobytes()[:16].hex(" ") in shown.out
    assert not shown.err


def test_pages_are_printed_as_json(get: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*get, "3", "0", "--json"]) == OK
    printed = json.loads(capsys.readouterr().out)
    assert printed["epoch_id"] == 7
    assert printed["num_pages"] == len(TABLE)
    assert [bytes.fromhex(row["hex"]) for row in printed["pages"]] == [
        TABLE[3].tobytes(),
        TABLE[0].tobytes(),
    ]


def test_pages_are_written_to_a_file(get: list[str], tmp_path: Path) -> None:
    assert main([*get, "3", "0", "-o", str(tmp_path / "pages")]) == OK
    assert (tmp_path / "pages").read_bytes() == TABLE[[3, 0]].tobytes()


def test_pages_are_written_to_the_standard_output(
    get: list[str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main([*get, "3", "-o", "-"]) == OK
    assert capfdbinary.readouterr().out == TABLE[3].tobytes()


def test_a_key_is_looked_up(get: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*get, "--lookup", "key 7"]) == OK
    assert "value 49" in capsys.readouterr().out


def test_keys_are_looked_up_as_json(get: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*get, "--lookup", "key 7", "--lookup", "none", "--json"]) == FAILED
    assert json.loads(capsys.readouterr().out)["values"] == [
        {"key": "key 7", "found": True, "value": "value 49", "hex": b"value 49".hex()},
        {"key": "none", "found": False},
    ]


def test_a_value_is_written_to_a_file(get: list[str], tmp_path: Path) -> None:
    path = tmp_path / "value"
    assert main([*get, "--lookup", "none", "-o", str(path)]) == FAILED
    assert not path.exists()
    assert main([*get, "--lookup", "key 7", "-o", str(path)]) == OK
    assert path.read_bytes() == b"value 49"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "either numbers of pages or --lookup"),
        (["1", "--lookup", "key 7"], "either numbers of pages or --lookup"),
        (["--lookup", "a", "--lookup", "b", "-o", "x"], "not 2 times"),
        (["1", "-o", "-", "--json"], "both write to the standard output"),
        ([str(LAST + 1)], f"a page's index must be in 0..{LAST}, not {LAST + 1}"),
        (["--", "-1"], f"a page's index must be in 0..{LAST}, not -1"),
        (["one"], "invalid int value"),
        (["1", "--server", "https://third.example"], "of 2 servers, not of 3"),
        (["1", "--timeout", "0"], "timeout must be above 0"),
        (["1", "-o", "no/such/folder/file"], "No such file or directory"),
    ],
)
def test_wrong_usage_is_one_clear_line(
    get: list[str], extra: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*get, *extra]) == USAGE
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_server_that_fails_is_one_clear_line(
    get: list[str], servers: tuple[FakeServer, FakeServer], capsys: pytest.CaptureFixture[str]
) -> None:
    servers[1].close()
    assert main([*get, "1", "--retries", "0"]) == USAGE
    assert capsys.readouterr().err == (
        f"morphogen: {servers[1].url}: cannot connect, 1 times in a row\n"
    )


@pytest.mark.parametrize("missing", ["httpx", "msgspec"])
def test_without_its_extra_the_command_names_it(
    missing: str,
    get: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in list(sys.modules):
        if name.startswith(("morphogen.client", "morphogen.client.aio", "morphogen.wire")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert main([*get, "1"]) == USAGE
    error = capsys.readouterr().err
    assert error == f"morphogen: get needs {missing}: pip install 'morphogen[client]'\n"

"""``morphogen get`` against two servers over sockets."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_server import FakeServer, keyword_table, two_servers
from morphogen.cli import lookup, main
from morphogen.cli.output import NOT_FOUND, OK, USAGE
from morphogen.client import Client

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
    assert main([*get, "--lookup", "key 7", "--lookup", "none", "--json"]) == NOT_FOUND
    assert json.loads(capsys.readouterr().out)["values"] == [
        {"key": "key 7", "found": True, "value": "value 49", "hex": b"value 49".hex()},
        {"key": "none", "found": False},
    ]


def test_a_value_is_written_to_a_file(
    get: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "value"
    assert main([*get, "--lookup", "key 7", "-o", str(path)]) == OK
    assert path.read_bytes() == b"value 49"
    assert f"written to {path}" in capsys.readouterr().out
    assert main([*get, "--lookup", "key 7", "-o", str(path), "--json"]) == OK
    printed = json.loads(capsys.readouterr().out)
    assert (printed["output"], printed["values"]) == (
        str(path),
        [{"key": "key 7", "found": True}],
    )


def test_of_a_key_that_is_not_there_nothing_is_written_nor_said_to_be(
    get: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "value"
    assert main([*get, "--lookup", "none", "-o", str(path)]) == NOT_FOUND
    shown = capsys.readouterr()
    assert "not there" in shown.out
    assert "written" not in shown.out
    assert main([*get, "--lookup", "none", "-o", str(path), "--json"]) == NOT_FOUND
    assert "output" not in json.loads(capsys.readouterr().out)
    assert main([*get, "--lookup", "none", "-o", "-"]) == NOT_FOUND
    assert capsys.readouterr() == ("", "morphogen: the table has no such key\n")
    assert not path.exists()


def test_a_disk_that_is_full_is_named(
    get: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "full"
    path.symlink_to("/dev/full")
    for wanted in (["3"], ["--lookup", "key 7"]):
        assert main([*get, *wanted, "-o", str(path)]) == USAGE
        assert capsys.readouterr().err == f"morphogen: {path}: No space left on device\n"


def keys_printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [row["key"] for row in json.loads(capsys.readouterr().out)["values"]]


def test_keys_come_from_a_file(
    get: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"\xef\xbb\xbfkey 1\n\nkey 2\r\nkey\xff\nkey 3")  # with a byte order mark
    assert main([*get, "--lookup-file", str(path), "--json", "--lookup", "key 0"]) == NOT_FOUND
    assert keys_printed(capsys) == ["key 0", "key 1", "key 2", "key\\udcff", "key 3"]


def test_a_key_that_is_no_text_is_shown_as_wide_as_its_column(
    get: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*get, "--lookup", os.fsdecode(b"key\xff")]) == NOT_FOUND
    lines = capsys.readouterr().out.splitlines()
    assert "key\\xff" in lines[3]
    assert len({len(line) for line in lines if line}) == 1


def test_keys_come_from_the_standard_input(
    get: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = [f"key {i}" for i in range(70)]  # more than one message takes
    text = io.BytesIO("\n".join(wanted).encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(text))
    assert main([*get, "--lookup-file", "-", "--json"]) == OK
    assert keys_printed(capsys) == wanted


@pytest.mark.parametrize("lasting", [False, True])
def test_many_keys_are_looked_up_a_part_at_a_time_in_one_epoch(
    lasting: bool,
    get: list[str],
    servers: tuple[FakeServer, FakeServer],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """A new epoch between two parts begins all again, since values of two would be mixed."""
    asked: list[int] = []
    look_up = Client.lookup_many

    def counted(client: Client, keys: list[bytes]) -> list[bytes | None]:
        asked.append(len(keys))
        if len(asked) == 2 or (lasting and len(asked) % 3 == 2):
            for server in servers:
                server.set_table(TABLE, server.epoch + 1)
        return look_up(client, keys)

    monkeypatch.setattr(Client, "lookup_many", counted)
    monkeypatch.setattr("morphogen.cli.get._AT_A_TIME", 20)
    path = tmp_path / "keys"
    path.write_text("".join(f"key {i}\n" for i in range(50)))
    code = main([*get, "--lookup-file", str(path), "--json"])
    assert set(asked) == {20, 10}
    printed = capsys.readouterr()
    if lasting:
        assert (code, asked) == (USAGE, [20, 20, 10] * 3)
        assert "the table changed during each of 3 tries" in printed.err
    else:
        assert (code, asked) == (OK, [20, 20, 10] * 2)
        values = [row["value"] for row in json.loads(printed.out)["values"]]
        assert values == [f"value {i * i}" for i in range(50)]
        assert json.loads(printed.out)["epoch_id"] == 8


def test_the_servers_come_from_the_environment(
    get: list[str],
    servers: tuple[FakeServer, FakeServer],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MORPHOGEN_SERVERS", " ".join(server.url for server in servers))
    assert main(["get", "3", "--json"]) == OK
    assert json.loads(capsys.readouterr().out)["servers"] == [server.url for server in servers]
    # The options come first.
    monkeypatch.setenv("MORPHOGEN_SERVERS", "https://one.example https://other.example")
    assert main([*get, "3"]) == OK


def test_without_servers_both_ways_to_give_them_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MORPHOGEN_SERVERS", "")
    assert main(["get", "3"]) == USAGE
    error = capsys.readouterr().err
    assert error == ("morphogen: give both servers: --server twice, or both in MORPHOGEN_SERVERS\n")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "either numbers of pages or keys"),
        (["1", "--lookup", "key 7"], "either numbers of pages or keys"),
        (["1", "--lookup-file", "x"], "either numbers of pages or keys"),
        (["--lookup", "a", "--lookup", "b", "-o", "x"], "-o writes one value: give one key, not 2"),
        (["--lookup-file", "none"], "none: No such file or directory"),
        (["--lookup-file", "/dev/null"], "/dev/null has no key"),
        (["1", "-o", "-", "--json"], "both write to the standard output"),
        ([str(LAST + 1)], f"a page's index must be in 0..{LAST}, not {LAST + 1}"),
        (["one"], "invalid int value"),
        (["1", "--server", "https://third.example"], "of 2 servers, not of 3"),
        (["1", "--timeout", "0"], "timeout must be above 0"),
    ],
)
def test_wrong_usage_is_one_clear_line(
    get: list[str], extra: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*get, *extra]) == USAGE
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("index", [-1, 2**40, 2**64])
def test_a_page_that_no_table_has_is_refused_before_a_server_is_asked(
    index: int, capsys: pytest.CaptureFixture[str]
) -> None:
    unreachable = ["--server", "https://one.invalid", "--server", "https://two.invalid"]
    assert main(["get", *unreachable, "--", "0", str(index)]) == USAGE
    error = capsys.readouterr().err
    assert error.startswith(f"morphogen: a page's index must be in 0..2**40 - 1, not {index}")


@pytest.mark.parametrize(
    ("output", "reason"),
    [("no/such/folder/file", "No such file or directory"), (".", "Is a directory")],
)
def test_an_output_that_cannot_be_is_refused_before_a_server_is_asked(
    get: list[str],
    servers: tuple[FakeServer, FakeServer],
    output: str,
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for server in servers:
        server.close()
    assert main([*get, "1", "-o", output]) == USAGE
    assert capsys.readouterr().err == f"morphogen: {output}: {reason}\n"


def test_a_file_without_end_is_read_up_to_a_bound(
    get: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*get, "1", "--header-file", "/dev/zero", "--header-file", ""]) == USAGE
    assert capsys.readouterr().err == "morphogen: /dev/zero has more than 1 MiB\n"
    monkeypatch.setattr(lookup, "MOST_OF_KEYS", 3 << 20)
    assert main([*get, "--lookup-file", "/dev/zero"]) == USAGE
    assert capsys.readouterr().err == "morphogen: /dev/zero has more than 3 MiB\n"


def test_a_server_that_fails_is_one_clear_line(
    get: list[str], servers: tuple[FakeServer, FakeServer], capsys: pytest.CaptureFixture[str]
) -> None:
    servers[1].close()
    assert main([*get, "1", "--retries", "0"]) == USAGE
    assert capsys.readouterr().err == (
        f"morphogen: {servers[1].url}: cannot connect, 1 times in a row\n"
    )


def test_each_server_is_shown_its_own_headers(
    get: list[str],
    servers: tuple[FakeServer, FakeServer],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "headers"
    path.write_text("Authorization: Bearer s3cr3t\r\n\nX-Key:other\n")
    assert main([*get, "1", "--header-file", "", "--header-file", str(path)]) == OK
    for seen in servers[0].seen:
        assert "Authorization" not in dict(seen.headers)
    for seen in servers[1].seen:
        shown = dict(seen.headers)
        assert (shown["Authorization"], shown["X-Key"]) == ("Bearer s3cr3t", "other")
    assert "s3cr3t" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Bearer s3cr3t", "headers, line 1: a header is NAME: VALUE, each name once"),
        ("\nA: 1\nA: s3cr3t", "headers, line 3: a header is NAME: VALUE, each name once"),
        ("Bearer s3cr3t: 1", "a header's name must be letters, digits and hyphens"),
        ("X-Key: s3cr3t\xe9", "the value of the header X-Key must be printable ASCII"),
        ("Host: s3cr3t", "the header Host is the message's own"),
    ],
)
def test_what_is_no_header_is_not_repeated(
    content: str,
    message: str,
    get: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "headers"
    path.write_text(content, encoding="utf-8")
    assert main([*get, "1", "--header-file", str(path), "--header-file", ""]) == USAGE
    error = capsys.readouterr().err
    assert message in error
    assert "s3cr3t" not in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--header-file", "none.txt", "--header-file", ""], "No such file or directory"),
        (["--header-file", ""], "headers must have 2 members, one for each server, not 1"),
        (["--client-cert", ""], "certificates must have 2 members, one for each server, not 1"),
        (
            ["--client-cert", "a", "--client-cert", ""],
            "a certificate is shown to a server by https",
        ),
        (["--ca-file", "a"] * 3, "ca_file must have 2 members, one for each server, not 3"),
        (["--ca-file", ""], "--ca-file must name a file, not ''"),
        (["--ca-file", ""] * 2, "--ca-file must name a file, not ''"),
    ],
)
def test_credentials_that_do_not_fit_are_one_clear_line(
    options: list[str], message: str, get: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*get, "1", *options]) == USAGE
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("missing", ["certifi", "h11", "idna", "msgspec"])
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

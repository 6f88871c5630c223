"""``-`` for a file is the standard input where it is read, or output where it is written."""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from bench_runs import SMALL, read_csv
from fake_server import two_servers
from morphogen.cli import main
from naive import random_pages

pytestmark = pytest.mark.slow  # processes of their own, or crowds of connections

BUILD = ["table", "build", "rows.csv", "--key", "key", "--value", "v"]
ROWS = b"key,v\na,1\nb,2\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pages").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "rows.csv").write_bytes(ROWS)
    yield tmp_path
    assert not (tmp_path / "-").exists()


def run(
    *arguments: str, given: bytes = b"", redirect: str = "", code: int = 0
) -> subprocess.CompletedProcess[bytes]:
    """A real command. What it is given comes through a pipe, unless it is redirected."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-m", "morphogen", *arguments],
        input=given,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done


# Input


@pytest.mark.parametrize("redirect", ["", "< pages"])
def test_pages_are_fetched_from_the_standard_input(folder: Path, redirect: str) -> None:
    content = (folder / "pages").read_bytes()
    by_name = json.loads(run("demo", "pages", "--json").stdout)
    read = json.loads(run("demo", "-", "--json", given=content, redirect=redirect).stdout)
    assert (read["file"], read["identical"]) == ("/dev/stdin", True)
    assert read["fetched"] == by_name["fetched"]


def test_pages_of_the_standard_input_are_measured(folder: Path) -> None:
    content = (folder / "pages").read_bytes()
    arguments = ("--matrix-file", "-", "--page-size", "256", "--batch-sizes", "1", "--json")
    found = json.loads(run("bench", *arguments, "--iterations", "2", given=content).stdout)
    assert (found["config"]["num_pages"], found["ok"]) == (100, True)


@pytest.fixture(scope="module")
def certificate() -> tuple[bytes, bytes]:
    """An authority's certificate; a server's key and certificate in one file."""
    authority = trustme.CA()
    return authority.cert_pem.bytes(), authority.issue_cert(
        "127.0.0.1"
    ).private_key_and_cert_chain_pem.bytes()


@pytest.mark.parametrize(
    ("options", "given"), [(("-",), "pages"), (("pages", "--tls-cert", "-", "--tls-key", "-"), "")]
)
def test_a_server_takes_its_files_from_the_standard_input(
    options: tuple[str, ...], given: str, folder: Path, certificate: tuple[bytes, bytes]
) -> None:
    content = (folder / given).read_bytes() if given else certificate[1]
    command = [sys.executable, "-m", "morphogen", "serve", *options, "--party", "0", "--port", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stderr is not None
        server.stdin.write(content)
        server.stdin.close()
        started = json.loads(server.stderr.readline())
        server.terminate()
    padded = (folder / "pages").read_bytes().ljust(-(-25600 // 4096) * 4096, b"\0")
    assert started["digest"] == hashlib.sha256(padded).hexdigest()
    assert started["url"].startswith("http:" if given else "https:")


def test_a_client_takes_an_authority_from_the_standard_input(
    certificate: tuple[bytes, bytes], folder: Path
) -> None:
    (folder / "server.pem").write_bytes(certificate[1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("server.pem")
    table = random_pages(20, 16)
    with two_servers(table, tls=context) as servers:
        urls = [part for server in servers for part in ("--server", server.url)]
        done = run("get", *urls, "--ca-file", "-", "3", "-o", "-", given=certificate[0])
    assert done.stdout == table[3].tobytes()


def test_an_empty_input_is_said_to_be_the_standard_input() -> None:
    done = run("demo", "-", code=2)
    assert done.stderr == b"morphogen: a table needs at least one byte: /dev/stdin has 0\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "-"],
        ["bench", "--matrix-file", "-"],
        ["serve", "-", "--party", "0", "--port", "0"],
        ["table", "build", "-", "--key", "key", "-o", "table"],
        ["table", "info", "-"],
    ],
)
def test_a_closed_input_is_refused(arguments: list[str]) -> None:
    done = run(*arguments, redirect="<&-", code=2)
    assert done.stderr == b"morphogen: the standard input is closed\n"


# Output


def test_a_table_goes_through_pipes(folder: Path) -> None:
    run(*BUILD, "-o", "table")
    built = (folder / "table").read_bytes()
    through = [part if part != "rows.csv" else "-" for part in BUILD]
    done = run(*through, "-o", "-", given=ROWS)
    # The hash's seed is drawn anew, and with it the digest.
    assert (len(done.stdout), done.stdout[:8], done.stderr) == (len(built), built[:8], b"")
    table = done.stdout
    assert json.loads(run("table", "info", "-", "--json", given=table).stdout)["entries"] == 2
    assert json.loads(run("table", "verify", "-", "--json", given=table).stdout)["verified"]
    assert run("table", "get", "-", "b", "-o", "-", given=table).stdout == b"2"
    assert run(*through, "-o", "-", redirect="< rows.csv > again").stdout == b""
    run("table", "verify", "again")


def test_rows_go_to_the_standard_output(folder: Path) -> None:
    done = run(*SMALL, "--batch-sizes", "1,2", "--csv", "-")
    (folder / "copy.csv").write_bytes(done.stdout)
    header, rows = read_csv(folder / "copy.csv")
    assert (header["pages"], [row["q"] for row in rows]) == ("70", ["1", "2"])


def test_a_plot_goes_to_the_standard_output() -> None:
    pytest.importorskip("matplotlib")
    done = run(*SMALL, "--batch-sizes", "1,2", "--plot", "-")
    assert done.stdout.startswith(b"<?xml")
    assert done.stdout.endswith(b"</svg>\n")


@pytest.mark.parametrize(
    ("arguments", "both"),
    [
        ([*BUILD, "-o", "-", "--json"], "-o - and --json"),
        ([*SMALL, "--csv", "-", "--json"], "--csv - and --json"),
        ([*SMALL, "--csv", "-", "--plot", "-"], "--csv - and --plot -"),
        (["table", "get", "table", "a", "-o", "-", "--json"], "-o - and --json"),
    ],
)
def test_one_thing_only_goes_to_the_standard_output(
    arguments: list[str], both: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    message = f"morphogen: {both} would both write to the standard output\n"
    assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize("arguments", [[*BUILD, "-o", "-"], [*SMALL, "--csv", "-"]])
def test_a_closed_output_is_refused(arguments: list[str]) -> None:
    done = run(*arguments, redirect=">&-", code=2)
    assert done.stderr == b"morphogen: the standard output is closed\n"

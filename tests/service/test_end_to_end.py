"""Client and servers together: real processes, TLS, tables that change, servers that die."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import trustme

import morphogen as mg
import morphogen.demo.lookup as demo_lookup
from morphogen.keyword import build
from morphogen.keyword.file import write_table
from morphogen.service.process import ServerProcess
from naive import Bytes, random_pages

PAGES, PAGE_SIZE = 700, 48
SECONDS = 30
OPTIONS = ("--page-size", str(PAGE_SIZE), "--device", "cpu")
VALUES = {f"key {at}".encode(): f"value {at}".encode() * (at % 4) for at in range(500)}


@pytest.fixture(scope="module")
def table() -> Bytes:
    return random_pages(PAGES, PAGE_SIZE)


@pytest.fixture(scope="module")
def file(table: Bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "pages.bin"
    table.tofile(path)
    return path


@pytest.fixture(scope="module")
def urls(file: Path) -> Iterator[list[str]]:
    with ServerProcess(file, 1, OPTIONS) as one, ServerProcess(file, 0, OPTIONS) as zero:
        yield [one.url, zero.url]  # their order does not matter


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    path = tmp_path_factory.mktemp("words") / "words.table"
    pages, layout = build(VALUES.items(), page_size=512)
    write_table(path, pages, layout)
    with ServerProcess(path, 0) as zero, ServerProcess(path, 1) as one:
        yield [zero.url, one.url]


def test_pages_come_back_whatever_their_number(urls: list[str], table: Bytes) -> None:
    with mg.Client(urls) as client:
        assert client.info.num_pages == PAGES
        for count in (0, 1, 2, 3, 4, 95, 96, 97, 200):
            indices = [at * 17 % PAGES for at in range(count)]
            np.testing.assert_array_equal(client.get(indices), table[indices])


def test_tasks_share_a_client(urls: list[str], table: Bytes) -> None:
    async def ask() -> None:
        async with mg.AsyncClient(urls) as client:
            pages = await asyncio.gather(*(client.get([at]) for at in range(20)))
            np.testing.assert_array_equal(np.concatenate(pages), table[:20])

    asyncio.run(ask())


def test_hits_and_misses(words: list[str]) -> None:
    with mg.Client(words) as client:
        assert client.lookup(b"key 3") == VALUES[b"key 3"]
        assert client.lookup(b"key 4") == b""
        assert client.lookup(b"no such key") is None
        assert client.lookup_many([*VALUES, b""]) == [*VALUES.values(), None]


def test_the_command_line(words: list[str]) -> None:
    command = [sys.executable, "-m", "morphogen", "get", "--json"]
    command += ["--server", words[0], "--server", words[1], "--lookup"]
    for key, code in (("key 3", 0), ("no such key", 3)):
        run = subprocess.run([*command, key], capture_output=True, text=True, check=False)
        assert (run.returncode, run.stderr) == (code, "")
        json.loads(run.stdout)


def test_lookups_over_tls(file: Path, table: Bytes, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert, key, ca = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(cert, append=True)
    certificate.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    options = (*OPTIONS, "--tls-cert", str(cert), "--tls-key", str(key))
    with ServerProcess(file, 0, options) as zero, ServerProcess(file, 1, options) as one:
        urls = [zero.url, one.url]
        with mg.Client(urls, ca_file=ca) as client:
            np.testing.assert_array_equal(client.get([5, 6, 7]), table[5:8])
        with pytest.raises(mg.ServerError):
            mg.Client(urls, retries=0)


# Faults


def test_servers_of_one_party_are_refused(file: Path) -> None:
    with (
        ServerProcess(file, 0, OPTIONS) as zero,
        ServerProcess(file, 0, OPTIONS) as other,
        pytest.raises(mg.MorphogenError, match="party"),
    ):
        mg.Client([zero.url, other.url])


def test_servers_with_different_pages_are_refused(file: Path, tmp_path: Path) -> None:
    altered = tmp_path / "altered.bin"
    raw = bytearray(file.read_bytes())
    raw[1000] ^= 1
    altered.write_bytes(raw)
    with (
        ServerProcess(file, 0, OPTIONS) as zero,
        ServerProcess(altered, 1, OPTIONS) as one,
        pytest.raises(mg.TableMismatchError, match="digest"),
    ):
        mg.Client([zero.url, one.url])


def test_servers_that_stay_at_different_epochs_are_refused(file: Path) -> None:
    with (
        ServerProcess(file, 0, OPTIONS) as zero,
        ServerProcess(file, 1, (*OPTIONS, "--epoch", "1")) as one,
        pytest.raises(mg.EpochMismatchError),
    ):
        mg.Client([zero.url, one.url], backoff=0.001)


def test_a_table_that_is_replaced_is_read_anew(file: Path, table: Bytes, tmp_path: Path) -> None:
    changed = table.copy()
    changed[3] ^= 0xFF
    later = tmp_path / "later.bin"
    changed.tofile(later)

    def port_of(server: ServerProcess) -> tuple[str, str]:
        return ("--port", server.url.rsplit(":", 1)[1])

    with (
        ServerProcess(file, 0, OPTIONS) as zero,
        ServerProcess(file, 1, OPTIONS) as one,
        mg.Client([zero.url, one.url]) as client,
    ):
        np.testing.assert_array_equal(client.get([3]), table[[3]])
        zero.stop()
        one.stop()
        options = (*OPTIONS, "--epoch", "1")
        with (
            ServerProcess(later, 0, (*options, *port_of(zero))),
            ServerProcess(later, 1, (*options, *port_of(one))),
        ):
            np.testing.assert_array_equal(client.get([3]), changed[[3]])
            assert client.info.epoch_id == 1


def test_a_server_that_is_killed_is_an_error_and_harms_no_other_client(
    file: Path, table: Bytes, urls: list[str]
) -> None:
    with ServerProcess(file, 0, OPTIONS) as zero, ServerProcess(file, 1, OPTIONS) as one:
        with (
            mg.Client([zero.url, one.url], retries=1, backoff=0.001) as client,
            ThreadPoolExecutor(1) as pool,
        ):
            stop = threading.Event()

            def read_until_it_fails() -> None:
                while not stop.is_set():
                    np.testing.assert_array_equal(client.get(range(50)), table[:50])

            reading = pool.submit(read_until_it_fails)
            one.process.send_signal(signal.SIGKILL)
            with pytest.raises(mg.ServerError, match=one.url):
                reading.result(SECONDS)
            stop.set()
        with mg.Client(urls) as other:
            np.testing.assert_array_equal(other.get([1]), table[[1]])


def test_a_server_that_does_not_answer_is_an_error_in_time(urls: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises((mg.ServerError, mg.DeadlineError)):
            mg.Client([urls[0], url], timeout=0.3, retries=0)


# Processes


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(mg.ServerError, match=r"ended with 2: morphogen: .*No such file"):
        ServerProcess(tmp_path / "missing", 0)


def test_a_server_stops_once_and_says_how(file: Path) -> None:
    server = ServerProcess(file, 0, OPTIONS)
    assert server.stop() == 0
    assert server.stop() == 0
    assert json.loads(server.log[-1])["event"] == "stopped"


# The demo's second half


def test_the_demo_looks_keys_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_lookup, "CLIENTS", 4)
    monkeypatch.setattr(demo_lookup, "LOOKUPS_EACH", 5)
    steps: list[tuple[int, int]] = []
    result = demo_lookup.run_lookup_demo(lambda *step: steps.append(step), device="cpu")
    assert result.ok
    assert {lookup.key: lookup.value for lookup in result.lookups} == {
        "GREEK SMALL LETTER ALPHA": "\N{GREEK SMALL LETTER ALPHA}",
        "BLACK CHESS QUEEN": "\N{BLACK CHESS QUEEN}",
        "SNOWMAN": "\N{SNOWMAN}",
        "MUSICAL SYMBOL G CLEF": "\N{MUSICAL SYMBOL G CLEF}",
        "KLINGON LETTER ALPHA": None,
        "": None,
    }
    assert (result.clients, result.concurrent, result.wrong) == (4, 20, 0)
    for sizes in result.chunk_sizes:
        assert sum(size * count for size, count in sizes.items()) == 20
    assert max(done for done, _ in steps) == steps[-1][1]
    assert result.load > 0.85
    assert json.dumps(result.as_dict())


def test_a_demo_with_wrong_lookups_says_so() -> None:
    lookup = demo_lookup.Lookup("a", "b", right=False)
    result = demo_lookup.LookupResult(1, 1, 1, 1, 1.0, (), "cpu", (lookup,), 1, 1, 0, ())
    assert not result.ok

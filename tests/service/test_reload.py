"""Servers that take up new epochs while they run: by SIGHUP, by themselves, and from folders."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import morphogen.wire as wire
from epoch_files import (
    PAGES,
    SECONDS,
    ReloadedServer,
    check_answer,
    point,
    replace,
    sealed_pages,
    spoil,
    write_epoch,
    write_manifest,
)
from morphogen.keyword.header import HEADER_BYTES


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=SECONDS) as client:
        yield client


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """A link to the epoch 7 of a table, beside whose file the next ones are written."""
    write_epoch(tmp_path / "words-7.table", 7)
    point(tmp_path / "current", tmp_path / "words-7.table")
    return tmp_path / "current"


def epochs(http: httpx.Client, server: ReloadedServer, table: str = "") -> list[int]:
    info = wire.decode_info(http.get(server.url + table + wire.EPOCH_PATH).content)
    assert info.epochs is not None
    return [epoch.epoch_id for epoch in info.epochs]


def metric(http: httpx.Client, server: ReloadedServer, name: str) -> float:
    lines = http.get(server.metrics_url).text.splitlines()
    (line,) = [line for line in lines if line.startswith(name + " ")]
    return float(line.rpartition(" ")[2])


def reloads(http: httpx.Client, server: ReloadedServer, outcome: str) -> float:
    return metric(http, server, f'morphogen_reloads_total{{outcome="{outcome}"}}')


# Links and files


def test_a_link_that_leads_to_the_next_epoch_is_followed_at_sighup(
    link: Path, http: httpx.Client
) -> None:
    with ReloadedServer(link) as server:
        assert epochs(http, server) == [7]
        write_epoch(link.parent / "words-8.table", 8)
        point(link, link.parent / "words-8.table")
        line = server.hang_up("reloaded")
        assert (line["table"], line["from_epoch"], line["to_epoch"]) == ("", 7, 8)
        assert 0 < line["pages_changed"] < PAGES
        assert line["seconds"] >= 0
        assert epochs(http, server) == [8, 7]
        for epoch in (7, 8):
            check_answer(http, server.url, epoch, sealed_pages(epoch))
        check_answer(http, server.url, 8, sealed_pages(8), named=False)
        assert reloads(http, server, "loaded") == 1
        assert metric(http, server, "morphogen_pages_changed_total") == line["pages_changed"]
        assert metric(http, server, "morphogen_epoch") == 8
        write_epoch(link.parent / "words-9.table", 9)
        point(link, link.parent / "words-9.table")
        server.hang_up("reloaded")
        assert epochs(http, server) == [9, 8]
        assert server.stop() == 0


# Signals


def test_fifty_signals_at_once_are_a_few_reloads_and_the_last_table_is_served(
    link: Path, http: httpx.Client
) -> None:
    with ReloadedServer(link) as server:
        for epoch in range(8, 58):
            write_epoch(link.parent / f"words-{epoch}.table", epoch)
        for epoch in range(8, 58):
            point(link, link.parent / f"words-{epoch}.table")
            server.process.send_signal(signal.SIGHUP)
        while epochs(http, server)[0] != 57:
            assert server.process.poll() is None
        check_answer(http, server.url, 57, sealed_pages(57))
        assert not server.told("reload_refused")
        assert server.stop() == 0


def test_a_signal_while_it_stops_is_nothing(link: Path) -> None:
    with ReloadedServer(link) as server:
        url = httpx.URL(server.url)
        assert url.port is not None
        address = (url.host, url.port)
        with socket.create_connection(address, SECONDS) as connection:
            # It has to wait for the rest of this.
            head = f"POST {wire.QUERY_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {wire.MSGPACK}"
            connection.sendall(
                f"{head}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
            server.process.send_signal(signal.SIGTERM)
            while True:  # until it listens no more
                try:
                    socket.create_connection(address, SECONDS).close()
                except ConnectionError:
                    break
            for _ in range(50):
                server.process.send_signal(signal.SIGHUP)
            connection.sendall(b"x" * 9)
            assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
        assert server.process.wait(SECONDS) == 0
        server.wait_for("stopped")
        assert not [line for line in server.events if line["event"].startswith("reload")]


# A server in which the reading of pages does something on the way.
HELD = """
import signal, sys
import morphogen.service.table as table
from morphogen.cli import main
read, calls = table.PagesFile.read, []
def hold(self, progress=None):
    calls.append(self)
    {action}
    return read(self, progress)
table.PagesFile.read = hold
sys.exit(main(["serve", *sys.argv[1:]]))
"""
AT_START = """
    if len(calls) == 1:
        import os
        os.replace(sys.argv[1] + ".next", sys.argv[1])
        for _ in range(5):
            signal.raise_signal(signal.SIGHUP)
"""
FOR_EVER = """
    if len(calls) == 2:
        print("held", flush=True)
        while True:
            progress(0, 1)
"""


def held_server(link: Path, action: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HELD.format(action=action.strip()), str(link)]
    options = ["--party", "0", "--port", "0", "--device", "cpu"]
    return subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_signal_while_it_starts_is_kept_until_it_runs(link: Path) -> None:
    write_epoch(link.parent / "words-8.table", 8)
    (link.parent / "current.next").symlink_to("words-8.table")
    with held_server(link, AT_START) as process:
        assert process.stderr is not None
        assert '"epoch_id": 7' in process.stderr.readline()
        assert '"event": "reloaded"' in process.stderr.readline()
        process.terminate()
        assert process.stderr.read().count('"event": "reload') == 0
        assert process.wait(SECONDS) == 0


def test_a_server_that_loads_ends_at_once(link: Path) -> None:
    with held_server(link, FOR_EVER) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert '"started"' in process.stderr.readline()
        write_epoch(link.parent / "words-8.table", 8)
        point(link, link.parent / "words-8.table")
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "held\n"
        process.terminate()
        (last,) = process.stderr.read().splitlines()
        assert '"stopped"' in last
        assert process.wait(SECONDS) == 0


# Watching


def test_a_server_that_watches_needs_no_signal_and_tries_what_fails_once(
    link: Path, http: httpx.Client
) -> None:
    folder = link.parent
    with ReloadedServer(link, ("--watch", "0.01")) as server:
        write_epoch(folder / "words-8.table", 8)
        point(link, folder / "words-8.table")
        server.wait_for("reloaded")
        check_answer(http, server.url, 8, sealed_pages(8))
        (folder / "words-9.table").write_bytes(b"broken")
        point(link, folder / "words-9.table")
        server.wait_for("reload_refused")
        replace(folder / "words-9.table", b"broken as well")
        server.wait_for("reload_refused", 2)
        write_epoch(folder / "whole", 9)
        replace(folder / "words-9.table", (folder / "whole").read_bytes())
        server.wait_for("reloaded", 2)
        check_answer(http, server.url, 9, sealed_pages(9))
        assert reloads(http, server, "refused") == 2
        assert not server.told("reload_unchanged")


def test_both_operators_switch_when_the_time_comes(link: Path, http: httpx.Client) -> None:
    folder = link.parent
    root = write_epoch(folder / "words-7.table", 7)
    owner = write_manifest(folder / "words-7.manifest", 7, root=root)
    soon = int(time.time()) + 2
    options = ("--watch", "0.05", "--owner", owner.hex())
    with ReloadedServer(link, options) as zero, ReloadedServer(link, options, party=1) as one:
        root = write_epoch(folder / "words-8.table", 8)
        write_manifest(folder / "words-8.manifest", 8, root=root, activate_at=soon)
        point(link, folder / "words-8.table")
        for server in (zero, one):
            server.wait_for("reloaded")
            assert time.time() >= soon
            info = wire.decode_info(http.get(server.url + wire.EPOCH_PATH).content)
            assert info.manifest == (folder / "words-8.manifest").read_bytes().hex()
            assert [epoch.epoch_id for epoch in info.epochs or ()] == [8, 7]
            assert not server.told("reload_refused")


# Folders


def test_a_broken_epoch_of_a_folder_does_not_hide_the_one_before(
    tmp_path: Path, http: httpx.Client
) -> None:
    for epoch in (7, 8, 9):
        write_epoch(tmp_path / f"words-{epoch}.table", epoch)
    spoil(tmp_path / "words-9.table", HEADER_BYTES)  # which only its pages tell
    with ReloadedServer(tmp_path) as server:
        assert "was altered" in server.wait_for("reload_refused")["reason"]
        assert epochs(http, server) == [8]
        for epoch in (10, 11):
            write_epoch(tmp_path / f"words-{epoch}.table", epoch)
        spoil(tmp_path / "words-11.table", HEADER_BYTES)
        assert server.hang_up("reloaded")["to_epoch"] == 10
        assert reloads(http, server, "refused") == 2


# Several tables


def test_each_of_several_tables_has_its_own_epochs(tmp_path: Path, http: httpx.Client) -> None:
    for name, epoch in (("one", 3), ("two", 7)):
        (tmp_path / name).mkdir()
        write_epoch(tmp_path / name / f"{epoch}.table", epoch)
    named = [f"--table={name}={tmp_path / name}" for name in ("one", "two")]
    with ReloadedServer(None, named) as server:
        told = server.events[0]["tables"]
        assert [(table["table"], table["epoch_id"]) for table in told] == [("one", 3), ("two", 7)]
        write_epoch(tmp_path / "two" / "8.table", 8)
        assert server.hang_up("reloaded")["table"] == "two"
        server.wait_for("reload_unchanged")
        for name, epoch in (("one", 3), ("two", 8), ("two", 7)):
            check_answer(http, f"{server.url}/t/{name}", epoch, sealed_pages(epoch))
        (tmp_path / "one" / "4.table").write_bytes(b"x")
        write_epoch(tmp_path / "two" / "9.table", 9)
        assert server.hang_up("reload_refused")["table"] == "one"
        server.wait_for("reloaded", 2)
        assert (epochs(http, server, "/t/one"), epochs(http, server, "/t/two")) == ([3], [9, 8])


# Memory


def deleted(server: ReloadedServer) -> set[str]:
    """The tables that a server has mapped, and no folder has any more."""
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    return {line.split()[-2] for line in maps.splitlines() if line.endswith(".table (deleted)")}


@pytest.mark.slow
def test_twenty_reloads_leave_no_memory_behind(tmp_path: Path) -> None:
    pages = 4000  # a MiB, of which each epoch has a copy of its own if it is kept alive
    write_epoch(tmp_path / "1.table", 1, pages=pages)
    with ReloadedServer(tmp_path) as server:

        def reload(epoch: int) -> int:
            write_epoch(tmp_path / f"{epoch}.table", epoch, pages=pages)
            server.hang_up("reloaded")
            (tmp_path / f"{epoch - 1}.table").unlink()
            status = Path(f"/proc/{server.process.pid}/status").read_text()
            (size,) = [line for line in status.splitlines() if line.startswith("RssAnon")]
            return int(size.split()[1])

        before = reload(2)
        *_, after = map(reload, range(3, 23))
        while len(deleted(server)) > 1:  # the epoch before the last ends beside the reload
            assert server.process.poll() is None
    # The allocator keeps three or so for the next, which come at any of the first reloads.
    assert after - before < 20 * 1024 / 4

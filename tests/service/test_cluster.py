"""Two parties behind the real service, each with a cluster of its own, whose processes end.

Under load no page is wrong and none is lost, whatever is killed or stopped that has a replica.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import httpx
import numpy as np
import pytest

import morphogen as mg
import morphogen.wire as wire
from epoch_files import (
    SECONDS,
    ReloadedServer,
    point,
    sealed_pages,
    write_epoch,
)
from listening import family_of
from morphogen.cluster.ray_cluster import HostActor
from naive import naive_answers
from served_table import ask, http, problem

pytestmark = pytest.mark.ray

__all__ = ["http"]

PAGES = 2100  # five leaves of keys
# As docs/serving.md has it.
COMMAND = """
morphogen serve fruit.table --party 0 --port 8000 --cluster ray --shards 4 --replicas 2 --threads 1
"""
CLUSTER = COMMAND[COMMAND.index("--cluster") :].split()
PATIENT = ("--shard-timeout", "30", "--hedge", "0.2")
START_SECONDS = 120


class ClusterServer(ReloadedServer):
    """A server with four shards."""

    def __init__(self, path: Path, party: int, *options: str) -> None:
        super().__init__(path, (*CLUSTER, *options), party)
        self.family = family_of(self.process.pid)

    def shards(self) -> list[int]:
        """Return the processes that hold its shards now."""
        title = f"ray::{HostActor.__name__}"  # and the method that it is in
        return [pid for pid in family_of(self.process.pid) if _name(pid).startswith(title)]

    def count(self, name: str) -> float:
        """Return one of its metrics, with its labels."""
        with httpx.Client(trust_env=False) as client:
            lines = client.get(self.metrics_url).text.splitlines()
        (value,) = [line.split()[1] for line in lines if line.split()[0] == f"morphogen_{name}"]
        return float(value)

    def failed(self) -> float:
        """Return how many queries could not be answered."""
        return self.count('queries_total{outcome="failed"}')


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return ""  # it has ended


def until(holds: Callable[[], bool]) -> None:
    """Ask until something holds, which other processes bring about."""
    end = monotonic() + START_SECONDS
    while not holds():
        assert monotonic() < end


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("epochs")
    write_epoch(folder / "words-7.table", 7, pages=PAGES)
    point(folder / "current", folder / "words-7.table")
    return folder


@pytest.fixture(scope="module")
def parties(folder: Path) -> Iterator[list[ClusterServer]]:
    """Return one with two replicas of each shard, and one with one."""
    path = folder / "current"
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(ClusterServer, path, 0, *PATIENT)
        other = pool.submit(ClusterServer, path, 1, "--replicas", "1")
    servers = [future.result() for future in (one, other) if future.exception() is None]
    try:
        for future in (one, other):
            future.result()
        yield servers
    finally:
        for server in servers:
            server.stop()


class Load:
    """What clients read meanwhile, and when."""

    def __init__(self, urls: list[str], epochs: tuple[int, ...]) -> None:
        self.ended: list[float] = []
        self._urls = urls
        self._truths = [sealed_pages(epoch, PAGES) for epoch in epochs]
        self._stopped = threading.Event()
        self._enough = threading.Condition()

    def read(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        with mg.Client(self._urls, verify=True) as client:
            while not self._stopped.is_set():
                rows = random.integers(0, PAGES, size=7).tolist()
                pages = client.get(rows)
                assert any(np.array_equal(pages, truth[rows]) for truth in self._truths), rows
                with self._enough:
                    self.ended.append(monotonic())
                    self._enough.notify_all()

    def goes_on(self, reads: int = 20) -> None:
        """Wait until so many more reads have ended."""
        with self._enough:
            more = len(self.ended) + reads
            assert self._enough.wait_for(
                lambda: len(self.ended) >= more or self._stopped.is_set(), START_SECONDS
            )

    def longest_gap(self, since: float) -> float:
        """Return the most seconds from the end of one read to the next."""
        times = [since, *(end for end in sorted(self.ended) if end > since)]
        return float(np.diff(times).max())

    def stop(self) -> None:
        self._stopped.set()
        with self._enough:
            self._enough.notify_all()


@contextmanager
def load(parties: list[ClusterServer], *epochs: int) -> Iterator[Load]:
    """Have three clients read all the while. None may fail."""
    reads = Load([server.url for server in parties], epochs)
    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(reads.read, seed) for seed in range(3)]
        for client in clients:  # one that fails ends all, and is told below
            client.add_done_callback(lambda _: reads.stop())
        try:
            reads.goes_on()
            yield reads
            reads.goes_on()
        finally:
            reads.stop()
        for client in clients:
            client.result()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_process_that_ends_or_stops_under_load_costs_no_read(
    parties: list[ClusterServer],
    number: signal.Signals,
    record_property: Callable[[str, object], None],
) -> None:
    server = parties[0]
    replaced = server.count("shard_replaced_total")
    with load(parties, 7) as reads:
        pid = server.shards()[0]
        since = monotonic()
        os.kill(pid, number)
        reads.goes_on()
        until(lambda: server.count("shard_replaced_total") == replaced + 1)
    gap = reads.longest_gap(since)
    record_property("longest_gap_seconds", gap)
    print(f"longest time between two reads after {number.name}: {gap:.3f} s")
    assert server.failed() == 0
    assert server.count("shard_mismatches_total") == 0
    until(lambda: len(server.shards()) == 8)
    assert pid not in server.shards()


def test_without_a_replica_a_server_answers_503_until_its_process_is_replaced(
    parties: list[ClusterServer], http: httpx.Client
) -> None:
    server = parties[1]
    queries = mg.make_queries([[3, 700, PAGES - 1]], PAGES)[1]
    body = wire.encode_request(queries)

    def answer() -> httpx.Response:
        response: httpx.Response = ask(http, server.url, body, wire.MSGPACK)
        return response

    before = answer()
    info = wire.decode_info(http.get(server.url + wire.EPOCH_PATH).content)
    pages = wire.decode_response(before.content, wire.MSGPACK, info, 1).pages
    np.testing.assert_array_equal(pages, naive_answers(sealed_pages(7, PAGES), queries))
    os.kill(server.shards()[2], signal.SIGKILL)
    refused: list[httpx.Response] = []

    def is_refused() -> bool:
        refused.append(answer())
        return refused[-1].status_code != 200

    until(is_refused)
    problem(refused[-1], 503)
    assert refused[-1].headers["Retry-After"] == "1"
    until(lambda: answer().status_code == 200)
    assert answer().content == before.content
    assert server.count("shard_replaced_total") == 1
    assert http.get(server.url + "/health/ready").status_code == 200


def test_epochs_change_under_load(parties: list[ClusterServer], folder: Path) -> None:
    before = [server.failed() for server in parties]
    with load(parties, 7, 8) as reads:
        write_epoch(folder / "words-8.table", 8, pages=PAGES)
        point(folder / "current", folder / "words-8.table")
        for server in parties:
            line = server.hang_up("reloaded")
            assert (line["from_epoch"], line["to_epoch"]) == (7, 8)
            reads.goes_on()
    with load(parties, 8), mg.Client([server.url for server in parties], verify=True) as client:
        assert client.authenticated
        rows = [8, 56, 0]
        np.testing.assert_array_equal(client.get(rows), sealed_pages(8, PAGES)[rows])
    assert [server.failed() for server in parties] == before


def test_a_server_that_ends_leaves_no_process(parties: list[ClusterServer]) -> None:
    families = [{*server.family, *family_of(server.process.pid)} for server in parties]
    parties[0].process.send_signal(signal.SIGINT)
    assert parties[0].process.wait(SECONDS) == 130
    assert parties[1].stop() == 0
    until(lambda: not any(_name(pid) for pid in set.union(*families)))
    for server in parties:
        server.wait_for("stopped")
    assert parties[0].told("error") == []

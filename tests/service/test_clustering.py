"""A table on the processes of a cluster goes on from epoch to epoch as one in this process does.

Here the processes are threads that a test ends and stops; `test_cluster.py` has those of Ray.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest

import morphogen as mg
import morphogen.service.clustering as clustering
import morphogen.service.loading as loading
import morphogen.service.run as run
import morphogen.wire as wire
from epoch_files import (
    PAGE_SIZE,
    contents_of,
    point,
    replace,
    sealed_pages,
    spoil,
    write_delta,
    write_epoch,
)
from fake_cluster import FakeCluster
from live_succession import Line, Live, lead, lines
from live_tables import LiveTables
from morphogen.cluster.fleet import Fleet
from morphogen.engine.shards.statistics import ShardStatistics
from morphogen.errors import (
    MorphogenError,
    ShardUnavailableError,
    SourceError,
    TableFileError,
)
from morphogen.keyword.header import HEADER_BYTES
from morphogen.service.clustering import Cluster, ClusterOpener
from morphogen.service.config import ClusterConfig, ServerConfig
from served_table import SECONDS, ask, http, problem

__all__ = ["http", "lines"]

PAGES = 1100  # three leaves of keys


class ClusterLive(Live):
    """A table that is served from two shards, at a time that the test sets."""

    def __init__(self, path: Path, cluster: FakeCluster, replicas: int = 1, **options: Any) -> None:
        def start() -> Fleet:
            return Fleet(
                cluster, shards=2, replicas=replicas, device="cpu", threads=1, interval=0.05
            )

        self.opener = ClusterOpener(start)
        self.cluster = cluster
        try:
            super().__init__(path, opener=self.opener, **options)
        except BaseException:
            self.opener.close()
            raise

    def shards(self) -> ShardStatistics:
        counts = self.generations.shards()
        assert counts is not None
        return counts

    def check(self, epoch: int, pages: Any = None) -> None:
        super().check(epoch, sealed_pages(epoch, PAGES) if pages is None else pages)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.opener.close()


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    cluster = FakeCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the epoch 7 of a table, and a link to it."""
    write_epoch(tmp_path / "words-7.table", 7, pages=PAGES)
    point(tmp_path / "current", tmp_path / "words-7.table")
    return tmp_path


def nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading.PagesFile, "read", lambda *_: pytest.fail("the server read it"))
    monkeypatch.setattr(loading, "differing_pages", lambda *_: pytest.fail("the server read it"))


# Epochs


def test_shards_open_a_new_file_which_the_server_does_not_read(
    folder: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, lines: list[Line]
) -> None:
    nobody_reads(monkeypatch)
    with ClusterLive(folder / "current", cluster) as live:
        write_epoch(folder / "words-8.table", 8, pages=PAGES)
        lead(folder, "words-8.table")
        live.hang_up()
        assert live.epochs == [8, 7]
        live.check(7)
        live.check(8)
        assert lines[-1]["event"] == "reloaded"
        assert all(process.calls.count("change") == 0 for process in cluster.processes)


def test_of_a_delta_only_the_pages_that_change_are_sent(
    folder: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, lines: list[Line]
) -> None:
    nobody_reads(monkeypatch)
    with ClusterLive(folder, cluster) as live:
        opened = [process.calls.count("open") for process in cluster.processes]
        for epoch in (8, 9):
            write_delta(folder / f"{epoch}.delta", epoch - 1, epoch, pages=PAGES)
            live.hang_up()
            assert live.epochs == [epoch, epoch - 1]
            live.check(epoch - 1)
            live.check(epoch)
            differ = (sealed_pages(epoch - 1, PAGES) != sealed_pages(epoch, PAGES)).any(axis=1)
            assert lines[-1]["pages_changed"] == differ.sum()
        assert [process.calls.count("open") for process in cluster.processes] == opened


def test_a_server_begins_with_a_table_and_the_deltas_that_follow_it(
    folder: Path, cluster: FakeCluster
) -> None:
    for epoch in (8, 9):
        write_delta(folder / f"{epoch}.delta", epoch - 1, epoch, pages=PAGES)
    with ClusterLive(folder, cluster) as live:
        assert live.epochs == [9]
        live.check(9)
        assert {number for process in cluster.processes for number, _ in process.versions()} == {9}
        write_epoch(folder / "words-10.table", 10, pages=PAGES)
        write_delta(folder / "11.delta", 10, 11, pages=PAGES)
        live.hang_up()
        assert live.epochs == [11, 9]
        live.check(9)
        live.check(11)


def test_the_number_of_pages_may_change(folder: Path, cluster: FakeCluster) -> None:
    with ClusterLive(folder / "current", cluster) as live:
        write_epoch(folder / "words-8.table", 8, pages=3 * PAGES)
        lead(folder, "words-8.table")
        live.hang_up()
        live.check(7)
        live.check(8, sealed_pages(8, 3 * PAGES))


def test_epochs_that_ended_are_open_on_no_shard(folder: Path, cluster: FakeCluster) -> None:
    with ClusterLive(folder / "current", cluster) as live:
        for epoch in (8, 9, 10):
            write_epoch(folder / f"words-{epoch}.table", epoch, pages=PAGES)
            lead(folder, f"words-{epoch}.table")
            live.hang_up()
        assert live.generations.wait_retired(30)
        live.check(10)  # after it, all that was asked of the shards before is done
        for process in cluster.processes:
            assert {number for number, _ in process.versions()} == {9, 10}
    assert all(process.killed for process in cluster.processes)


def test_plain_pages_are_compared_by_their_digest(
    tmp_path: Path, cluster: FakeCluster, lines: list[Line]
) -> None:
    path = tmp_path / "pages.bin"
    path.write_bytes(contents_of(1, PAGES).tobytes()[:-1])  # the last page is short
    size = contents_of(1, PAGES).shape[1]
    with ClusterLive(path, cluster, page_size=size) as live:
        replace(path, contents_of(1, PAGES).tobytes()[:-1])
        live.hang_up()
        replace(path, contents_of(2, PAGES).tobytes())
        live.hang_up()
        assert [line["event"] for line in lines] == ["reload_unchanged", "reloaded"]
        live.check(1, contents_of(2, PAGES))
        before = contents_of(1, PAGES)
        before[-1, -1] = 0
        live.check(0, before)


# What is refused


def test_pages_that_do_not_have_their_root_are_not_served(
    folder: Path, cluster: FakeCluster, lines: list[Line]
) -> None:
    write_epoch(folder / "words-8.table", 8, pages=PAGES)
    spoil(folder / "words-8.table", HEADER_BYTES + 700 * PAGE_SIZE)
    with ClusterLive(folder / "current", cluster) as live:
        lead(folder, "words-8.table")
        live.hang_up()
        assert live.epochs == [7]
        live.check(7)
        assert lines[-1]["event"] == "reload_refused"
    with pytest.raises((TableFileError, ShardUnavailableError)):
        ClusterLive(folder / "words-8.table", cluster)
    assert all(process.killed for process in cluster.processes)


def test_of_several_epochs_a_server_begins_with_one_that_is_whole(
    folder: Path, cluster: FakeCluster
) -> None:
    write_epoch(folder / "words-8.table", 8, pages=PAGES)
    spoil(folder / "words-8.table", HEADER_BYTES + 700 * PAGE_SIZE)
    with ClusterLive(folder, cluster) as live:
        assert live.epochs == [7]
        live.check(7)
        assert len(live.faults) == 1


def test_more_shards_than_leaves_are_refused(tmp_path: Path, cluster: FakeCluster) -> None:
    write_epoch(tmp_path / "small.table", 7, pages=100)
    with pytest.raises(ValueError, match=r"must be in 1\.\.1, not 2"):
        ClusterLive(tmp_path / "small.table", cluster)


def test_a_file_that_is_replaced_while_shards_open_it_is_refused(
    folder: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "words.table"
    write_epoch(path, 7, pages=PAGES)
    begin = Fleet.open

    def after_a_replacement(self: Fleet, *args: Any, **options: Any) -> Any:
        write_epoch(path, 8, pages=PAGES)
        return begin(self, *args, **options)

    monkeypatch.setattr(Fleet, "open", after_a_replacement)
    with pytest.raises(SourceError, match="was replaced while it was opened"):
        ClusterLive(path, cluster)


def test_plain_pages_that_change_while_they_are_opened_are_refused(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, lines: list[Line]
) -> None:
    path = tmp_path / "pages.bin"
    path.write_bytes(contents_of(1, PAGES).tobytes())
    with ClusterLive(path, cluster, page_size=contents_of(1).shape[1]) as live:
        replace(path, contents_of(2, PAGES).tobytes())
        begin = Fleet.open

        def after_a_replacement(self: Fleet, *args: Any, **options: Any) -> Any:
            replace(path, contents_of(3, PAGES).tobytes())
            return begin(self, *args, **options)

        monkeypatch.setattr(Fleet, "open", after_a_replacement)
        live.hang_up()
        assert lines[-1]["event"] == "reload_refused"
        assert "the pages must have the digest" in lines[-1]["reason"]
        assert live.epochs == [0]


def test_a_cluster_needs_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "find_spec", lambda name: None)
    config = ServerConfig(path=tmp_path / "none", party=0, cluster=ClusterConfig(shards=2))
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'morphogen\[ray\]'"):
        run.serve(config)


def test_a_cluster_off_the_loopback_needs_token_and_tls_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clustering, "find_spec", lambda name: True)
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "no token"))
    for address, words in (("192.0.2.7:6379", "token"), ("192.0.2.7", "HOST:PORT")):
        config = ClusterConfig(shards=2, address=address)
        with pytest.raises((MorphogenError, ValueError), match=words):
            run.serve(ServerConfig(path=tmp_path / "none", party=0, cluster=config))
    with pytest.raises(MorphogenError, match="RAY_USE_TLS"):
        Cluster(ClusterConfig(shards=2, address="192.0.2.7:6379"), "cpu", None)


# Processes that end


def test_with_a_replica_no_answer_is_lost_and_no_epoch_missed(
    folder: Path, cluster: FakeCluster
) -> None:
    with ClusterLive(folder, cluster, replicas=2) as live:
        cluster.refuse = lambda host: True
        cluster.processes[0].kill()
        for _ in range(4):
            live.check(7)
        write_epoch(folder / "words-8.table", 8, pages=PAGES)
        live.hang_up()
        write_delta(folder / "9.delta", 8, 9, pages=PAGES)
        live.hang_up()
        assert live.epochs == [9, 8]
        for epoch in (8, 9, 8, 9):
            live.check(epoch)
        assert live.generations.statistics().failed == 0
        assert live.shards().gaps == 0


def until(holds: Callable[[], bool]) -> None:
    """Ask until something holds, which another thread brings about."""
    end = monotonic() + SECONDS
    while not holds():
        assert monotonic() < end


def test_a_shard_without_a_replica_is_answered_503_until_its_process_is_replaced(
    folder: Path, cluster: FakeCluster, http: httpx.Client
) -> None:
    queries = mg.make_queries([[1, 600, 1099]], PAGES)[0]
    body = wire.encode_request(queries)
    with (
        ClusterLive(folder / "current", cluster) as live,
        LiveTables({"": live.generations}) as served,
    ):
        served.metrics.openers[""] = live.opener
        expected = ask(http, served.url, body, wire.MSGPACK)
        assert expected.status_code == 200
        cluster.refuse = lambda host: True
        cluster.processes[1].kill()
        refused = ask(http, served.url, body, wire.MSGPACK)
        problem(refused, 503)
        assert refused.headers["Retry-After"] == "1"
        assert refused.json()["detail"] == "a part of the table cannot answer now"
        samples = served.samples()
        assert samples["morphogen_shard_gaps_total",] == 1
        for shard, usable in ((0, 1), (1, 0)):
            label = ("shard", str(shard))
            assert samples["morphogen_shard_replicas", label] == 1
            assert samples["morphogen_shard_replicas_usable", label] == usable
        cluster.refuse = lambda host: False
        until(lambda: served.samples()["morphogen_shard_replaced_total",] == 1)
        again = ask(http, served.url, body, wire.MSGPACK)
        assert again.status_code == 200
        assert again.content == expected.content


def test_a_process_is_replaced_though_the_file_of_the_epoch_before_is_gone(
    tmp_path: Path, cluster: FakeCluster
) -> None:
    path = tmp_path / "words.table"
    write_epoch(path, 7, pages=PAGES)
    with ClusterLive(path, cluster, epoch=7) as live:
        write_epoch(path, 8, pages=PAGES)  # by the same name
        live.hang_up()
        assert live.epochs == [8, 7]
        live.check(7)
        cluster.processes[0].kill()
        until(lambda: live.opener.replaced == 1)
        live.check(8)
        with pytest.raises(ShardUnavailableError):
            live.check(7)  # and no page of the epoch 8


def test_counts_of_shards_never_go_back_when_epochs_end(folder: Path, cluster: FakeCluster) -> None:
    with ClusterLive(folder, cluster, replicas=2) as live:
        counted = 0
        for epoch in range(7, 12):
            live.check(epoch)
            counted += 1
            shards = live.shards()
            assert (shards.passes, shards.parts) == (counted, 2 * counted)
            assert (shards.replicas, shards.usable) == ((2, 2), (2, 2))
            write_delta(folder / f"{epoch + 1}.delta", epoch, epoch + 1, pages=PAGES)
            live.hang_up()
            assert live.generations.wait_retired(SECONDS)
        text = live.metrics.text().decode()
        assert f"morphogen_shard_passes_total {counted}.0" in text
        assert "morphogen_shard_mismatches_total 0.0" in text
        shown = set(re.findall("^# TYPE (morphogen_shard_[a-z_]+) ([a-z]+)$", text, re.MULTILINE))
        page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
        assert shown == set(
            re.findall(r"^\| `(morphogen_shard_\w+)` \| (\w+) \|", page, re.MULTILINE)
        )


def test_a_table_without_shards_has_no_metrics_of_them(folder: Path) -> None:
    with Live(folder / "current") as live:
        assert live.generations.shards() is None
        assert "morphogen_shard" not in live.metrics.text().decode()

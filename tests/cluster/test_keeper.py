"""The keeper: a process that ends or stops is replaced by one with the same epochs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from fake_cluster import FakeCluster, FakeProcess
from morphogen.cluster.fleet import Fleet
from morphogen.cluster.keeper import LONGEST_WAIT, Keeper
from morphogen.cluster.replica import Replica
from morphogen.errors import ShardUnavailableError
from naive import Bytes, naive_answers, random_pages, random_rows

PAGES = random_pages(1500, 40)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    cluster = FakeCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    PAGES.tofile(tmp_path / "pages.bin")
    return tmp_path / "pages.bin"


class HandKeptFleet(Fleet):
    """A fleet whose keeper looks when a test says so, at a time that it says."""

    def __init__(self, cluster: FakeCluster, **options: Any) -> None:
        self.now = 0.0
        defaults: dict[str, Any] = {"shards": 2, "device": "cpu", "threads": 1, "timeout": 60.0}
        super().__init__(cluster, keeper=self._keeper, **(defaults | options))

    def _keeper(self, start: Any, **options: Any) -> Keeper:
        return HandKeeper(start, clock=lambda: self.now, **options)

    def begin(self, now: float) -> None:
        """Look."""
        self.now = now
        self.keeper.look([one for row in self.replicas for one in row])

    def look(self, now: float) -> None:
        """Look, and wait until what that began has ended."""
        self.begin(now)
        self.keeper.wait()


class HandKeeper(Keeper):
    def keep(self, replicas: Any) -> None:
        pass


def answers(engine: mg.Engine, pages: Bytes) -> bool:
    batch = mg.make_queries(random_rows(2, 3, len(pages)), len(pages))[0]
    return np.array_equal(engine.answer(batch).pages, naive_answers(pages, batch))


def test_a_process_that_ends_is_replaced_with_all_of_its_epochs(
    cluster: FakeCluster, path: Path
) -> None:
    rows = random_pages(2, 40, seed=1)
    after = PAGES.copy()
    after[[3, 1400]] = rows
    with HandKeptFleet(cluster) as fleet:
        first = fleet.open(path, page_size=40, epoch=1).engine
        second = first.next_epoch([3, 1400], rows, 2)
        for process in tuple(cluster.processes):
            process.kill()
        fleet.look(1.0)  # the question finds them gone
        assert [process.killed for process in cluster.processes] == [True, True, False, False]
        assert fleet.keeper.replaced == 2
        assert answers(first, PAGES)
        assert answers(second, after)


def test_passes_go_to_the_other_replica_meanwhile(
    cluster: FakeCluster, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with HandKeptFleet(cluster, replicas=2) as fleet:
        engine = fleet.open(path, page_size=40).engine
        cluster.processes[0].kill()
        for _ in range(3):
            assert answers(engine, PAGES)
        assert engine.statistics().usable == (1, 2)
        assert caplog.messages == ["shard 0, replica 0 on host-0 is lost: host-0 is gone"]
        fleet.look(1.0)
        assert engine.statistics().usable == (2, 2)
        assert answers(engine, PAGES)


def test_without_a_replica_the_pass_waits_for_the_next_process(
    cluster: FakeCluster, path: Path
) -> None:
    with HandKeptFleet(cluster, shards=1) as fleet:
        engine = fleet.open(path, page_size=40).engine
        cluster.processes[0].kill()
        replacing = threading.Thread(target=fleet.look, args=(1.0,))
        replacing.start()
        assert answers(engine, PAGES)
        replacing.join()


def test_a_process_that_is_stopped_is_ended_after_the_deadline(
    cluster: FakeCluster, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with HandKeptFleet(cluster, replicas=2, shards=1, deadline=5.0, hedge=0.01) as fleet:
        engine = fleet.open(path, page_size=40).engine
        stopped, other = cluster.processes
        stopped.stop()
        assert answers(engine, PAGES)  # by a hedge
        fleet.look(10.0)  # asks
        other.drain()
        fleet.look(15.0)
        other.drain()
        assert not stopped.killed
        fleet.look(15.1)
        assert stopped.killed
        why = "it must answer within 5.0 s, and has not"
        assert caplog.messages[0] == f"shard 0, replica 0 on host-0 is lost: {why}"
        assert fleet.keeper.replaced == 1
        assert engine.statistics().usable == (2,)


def test_one_that_answers_in_time_is_kept(cluster: FakeCluster, path: Path) -> None:
    with HandKeptFleet(cluster, deadline=5.0) as fleet:
        fleet.open(path, page_size=40)
        for now in (10.0, 20.0, 30.0):
            fleet.look(now)
            for process in cluster.processes:
                process.drain()
        assert fleet.keeper.replaced == 0


def test_an_epoch_that_was_closed_meanwhile_is_not_opened_again(
    cluster: FakeCluster, path: Path
) -> None:
    with HandKeptFleet(cluster, shards=1) as fleet:
        first = fleet.open(path, page_size=40, epoch=1).engine
        second = first.next_epoch([3], PAGES[:1], 2)
        cluster.processes[0].kill()
        first.close()
        fleet.look(1.0)
        assert cluster.processes[1].versions() == ((2, None),)
        second.close()


@pytest.mark.parametrize("gone", [False, True])
def test_an_epoch_that_is_to_follow_twice_stays_as_it_was_opened(
    cluster: FakeCluster, path: Path, gone: bool
) -> None:
    rows = random_pages(1, 40, seed=1)
    after = PAGES.copy()
    after[7] = rows
    with HandKeptFleet(cluster, shards=1) as fleet:
        first = fleet.open(path, page_size=40, epoch=1).engine
        second = first.next_epoch([7], rows, 2)
        if gone:
            cluster.refuse = lambda host: True
            cluster.processes[0].kill()
            fleet.look(1.0)
        with pytest.raises(ShardUnavailableError, match="epoch 2 must be opened once, and is open"):
            first.next_epoch([8], rows, 2)
        cluster.refuse = lambda host: False
        cluster.processes[0].kill()
        fleet.look(2.0)
        assert answers(second, after)
        second.close()
        assert cluster.processes[1].versions() == ((1, None),)


def test_an_epoch_that_follows_while_a_process_is_gone_is_in_the_next_one(
    cluster: FakeCluster, path: Path
) -> None:
    rows = random_pages(1, 40, seed=1)
    after = PAGES.copy()
    after[7] = rows
    with HandKeptFleet(cluster, shards=1, replicas=2) as fleet:
        engine = fleet.open(path, page_size=40, epoch=1).engine
        cluster.processes[1].kill()
        second = engine.next_epoch([7], rows, 2)
        rows[:] = 0  # the caller's own again
        third = fleet.open(path, page_size=40, epoch=3).engine
        fleet.look(1.0)
        cluster.processes[0].kill()
        assert answers(second, after)
        assert answers(third, PAGES)
        assert answers(engine, PAGES)


def test_what_cannot_be_replaced_is_tried_again_later_each_time(
    cluster: FakeCluster, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with HandKeptFleet(cluster, shards=1, interval=1.0) as fleet:
        engine = fleet.open(path, page_size=40).engine
        cluster.refuse = lambda host: True
        cluster.processes[0].kill()
        tried = []
        for now in range(1, 17):
            before = len(caplog.records)
            fleet.look(float(now))
            if len(caplog.records) > before:
                tried.append(now)
        assert tried == [1, 2, 4, 8, 16]
        assert "cannot be replaced yet: host-0 starts no process" in caplog.text
        cluster.refuse = lambda host: False
        fleet.look(32.0)
        assert answers(engine, PAGES)


def test_what_cannot_be_replaced_for_a_day_is_tried_on(
    cluster: FakeCluster, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 24 * 60 * 60 // LONGEST_WAIT
    with HandKeptFleet(cluster, shards=1) as fleet:
        engine = fleet.open(path, page_size=40).engine
        cluster.refuse = lambda host: True
        cluster.processes[0].kill()
        for at in range(1, int(tries) + 1):
            fleet.look(at * LONGEST_WAIT)
        assert caplog.text.count("cannot be replaced yet") == tries
        cluster.refuse = lambda host: False
        fleet.look((tries + 1) * LONGEST_WAIT)
        assert answers(engine, PAGES)


def test_a_process_whose_file_is_another_by_now_does_not_answer(
    cluster: FakeCluster, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with HandKeptFleet(cluster, shards=1, timeout=0.05) as fleet:
        engine = fleet.open(path, page_size=40).engine
        path.rename(path.with_name("old"))
        random_pages(1500, 40, seed=8).tofile(path)
        cluster.processes[0].kill()
        fleet.look(1.0)
        assert "must have the digest" in caplog.text
        assert cluster.processes[1].killed
        with pytest.raises(ShardUnavailableError, match="pages 0 to 1499"):
            engine.answer(mg.make_queries([[1, 2, 3]], len(PAGES))[0])


def test_the_process_of_a_host_that_is_gone_is_replaced_on_another(
    cluster: FakeCluster, path: Path
) -> None:
    with HandKeptFleet(cluster, shards=2) as fleet:
        engine = fleet.open(path, page_size=40).engine
        cluster.all = cluster.all[:1]
        cluster.processes[1].kill()
        fleet.look(1.0)
        assert [process.name for process in cluster.processes] == ["host-0", "host-1", "host-0"]
        assert answers(engine, PAGES)


def test_an_epoch_that_is_opened_while_its_process_is_replaced_is_in_the_next_one(
    cluster: FakeCluster, path: Path
) -> None:
    with HandKeptFleet(cluster, shards=1, replicas=2) as fleet:
        fleet.open(path, page_size=40, epoch=1)
        replica = fleet.replicas[0][0]
        before = cluster.processes[0]

        def replaced_meanwhile(method: str) -> None:
            if method == "open":
                before.on_call = lambda method: None
                before.kill()
                fleet.look(1.0)

        before.on_call = replaced_meanwhile
        engine = fleet.open(path, page_size=40, epoch=2).engine
        assert replica.process is cluster.processes[2]
        assert cluster.processes[2].versions() == ((1, None), (2, None))
        assert answers(engine, PAGES)


def test_news_of_a_process_that_was_replaced_changes_nothing() -> None:
    lost: list[Replica] = []
    before, now = (FakeProcess(FakeCluster(1).all[0], "cpu", 1) for _ in range(2))
    replica = Replica(0, 0, before, lost.append)
    replica.lose(before, ShardUnavailableError("gone"))
    replica.restore(now)
    replica.lose(before, ShardUnavailableError("gone"))
    assert lost == [replica]
    assert replica.usable
    replica.retire()
    before.kill()


def test_a_fleet_is_closed_while_a_process_is_put_in_place(
    cluster: FakeCluster, path: Path
) -> None:
    begun = threading.Event()

    def hangs(process: FakeProcess) -> None:
        process.stop()
        process.on_call = lambda method: begun.set()

    with Fleet(cluster, shards=1, device="cpu", threads=1) as fleet:
        fleet.open(path, page_size=40)
        cluster.on_start = hangs
        cluster.processes[0].kill()
        begun.wait()
    assert all(process.killed for process in cluster.processes)


def test_a_process_that_stops_while_it_is_put_in_place_is_ended_after_the_deadline(
    cluster: FakeCluster, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opening = threading.Event()

    def stops_at_the_table(process: FakeProcess) -> None:
        def on_call(method: str) -> None:
            if method == "open":
                process.stop()
                opening.set()

        process.on_call = on_call

    with HandKeptFleet(cluster, shards=1, deadline=5.0) as fleet:
        engine = fleet.open(path, page_size=40).engine
        cluster.on_start = stops_at_the_table
        cluster.processes[0].kill()
        fleet.begin(1.0)
        opening.wait()
        cluster.on_start = lambda process: None
        fleet.begin(2.0)  # asks
        fleet.begin(7.0)
        assert not cluster.processes[1].killed
        fleet.look(7.1)
        assert cluster.processes[1].killed
        assert "cannot be replaced yet: host-0 is gone" in caplog.text
        fleet.look(10.0)
        assert answers(engine, PAGES)


def test_a_keeper_that_gets_no_thread_looks_again(
    cluster: FakeCluster, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with HandKeptFleet(cluster, shards=1) as fleet:
        engine = fleet.open(path, page_size=40).engine
        cluster.processes[0].kill()
        with pytest.MonkeyPatch.context() as patch:

            def refuse(thread: threading.Thread) -> None:
                raise RuntimeError("can't start new thread")

            patch.setattr(threading.Thread, "start", refuse)
            fleet.look(1.0)
        assert "shard 0, replica 0 on host-0 cannot be looked after now: can't start" in caplog.text
        fleet.look(2.0)
        assert answers(engine, PAGES)


def test_a_fleet_is_kept_by_a_thread_of_its_own(cluster: FakeCluster, path: Path) -> None:
    with Fleet(cluster, shards=2, device="cpu", threads=1, timeout=60.0) as fleet:
        engine = fleet.open(path, page_size=40).engine
        for _ in range(3):
            cluster.processes[-1].kill()
            assert answers(engine, PAGES)
    assert fleet.keeper.replaced == 3  # counted after it answers, and before the fleet's end

"""Engines over processes of Ray: right whatever ends or stops, and reached by nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from listening import listening_addresses
from morphogen.cluster import Fleet, RayCluster, open_cluster_engine
from morphogen.cluster.channel import Channel
from morphogen.cluster.process import ask
from morphogen.errors import EngineClosedError, MorphogenError, ShardUnavailableError
from morphogen.keyword.sealing import seal_file
from naive import Bytes, naive_answers, random_pages, random_rows

pytestmark = pytest.mark.ray

PAGES = random_pages(2317, 61)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home in which nothing may be written."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        yield home
    assert list(home.iterdir()) == []


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[RayCluster]:
    with RayCluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "pages.bin"
    PAGES.tofile(path)
    return path


@pytest.fixture(scope="module")
def fleet(cluster: RayCluster) -> Iterator[Fleet]:
    """Two shards with two replicas each. One that is stopped is given up after 4 seconds."""
    options: dict[str, Any] = {"shards": 2, "replicas": 2, "threads": 1, "device": "cpu"}
    with Fleet(cluster, timeout=60.0, hedge=0.05, interval=0.1, deadline=4.0, **options) as fleet:
        yield fleet


def batch(pages: Bytes, total: int) -> tuple[list[mg.Query], Bytes]:
    queries = mg.make_queries(random_rows(total, 3, len(pages)), len(pages))[0]
    return queries, naive_answers(pages, queries)


@contextmanager
def load(
    engine: Callable[[], mg.Engine], tables: dict[int, Bytes]
) -> Iterator[Callable[[int], None]]:
    """Answer without pause, and compare each answer. Yields a function that waits for more."""
    answered = threading.Semaphore(0)
    faults: list[BaseException] = []
    end = threading.Event()
    batches = {epoch: batch(pages, 2) for epoch, pages in tables.items()}
    queries = batches[min(batches)][0]
    expected = {epoch: naive_answers(pages, queries) for epoch, pages in tables.items()}

    def work() -> None:
        try:
            while not end.is_set():
                answer = engine().answer(queries)
                assert np.array_equal(answer.pages, expected[answer.epoch])
                answered.release()
        except BaseException as fault:
            faults.append(fault)
            answered.release(10**6)

    def more(count: int) -> None:
        for _ in range(count):
            answered.acquire()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield more
    finally:
        end.set()
        thread.join()
    assert faults == []


def pid_of(fleet: Fleet, shard: int, at: int) -> int:
    pid: int = ask(fleet.replicas[shard][at].process, "ping")
    return pid


# Answers


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_shards_equal_one_engine(cluster: RayCluster, tmp_path: Path, shards: int) -> None:
    with Fleet(cluster, shards=shards, device="cpu") as fleet:
        for epoch, (num_pages, page_size) in enumerate([(1537, 1), (2049, 61), (2048, 4096)]):
            pages = random_pages(num_pages, page_size)
            pages.tofile(tmp_path / "pages.bin")
            table = fleet.open(tmp_path / "pages.bin", page_size=page_size, epoch=epoch)
            one = mg.open_engine(mg.PageMatrix(pages, epoch), device="cpu")
            with table.engine as engine, one:
                for total in (0, 1, 2, 7, 32):
                    queries = mg.make_queries(random_rows(total, 3, num_pages), num_pages)[0]
                    answer = engine.answer(queries)
                    assert answer.pages.tobytes() == one.answer(queries).pages.tobytes()
                    assert answer.epoch == epoch


def test_one_call_opens_an_engine_and_its_end_ends_the_processes(
    cluster: RayCluster, path: Path, tmp_path: Path
) -> None:
    seal_file(path, tmp_path / "sealed", page_size=125, proof_levels=2)
    with open_cluster_engine(
        tmp_path / "sealed", shards=1, device="cpu", cluster=cluster, epoch=4
    ) as engine:
        assert engine.table.epoch == 4
        replica = engine.shards[0][0].replica  # type: ignore[attr-defined]
        pid = ask(replica.process, "ping")
        assert Path(f"/proc/{pid}").exists()
    with pytest.raises(ShardUnavailableError, match="is gone"):
        ask(replica.process, "ping")


# Faults


def test_no_answer_is_lost_or_wrong_when_a_process_is_killed(
    fleet: Fleet, path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with fleet.open(path, page_size=61, epoch=1).engine as engine:
        replaced = fleet.keeper.replaced
        with load(lambda: engine, {1: PAGES}) as more:
            more(20)
            os.kill(pid_of(fleet, 0, 0), signal.SIGKILL)
            while fleet.keeper.replaced == replaced or engine.statistics().usable != (2, 2):
                more(1)
            more(20)
        statistics = engine.statistics()
        assert statistics.gaps == statistics.mismatches == 0
    # Whether a retry or a hedge came first is the machine's to say. The log tells of it, once.
    lost, found = (one.getMessage() for one in caplog.records if "morphogen" in one.name)
    assert lost.startswith("shard 0, replica 0 on 127.0.0.1 is lost: 127.0.0.1 is gone: ")
    assert found.startswith("shard 0, replica 0 on 127.0.0.1 answers in the place ")
    assert capsys.readouterr().out == ""


def test_no_answer_is_lost_or_wrong_when_a_process_is_stopped(fleet: Fleet, path: Path) -> None:
    with fleet.open(path, page_size=61, epoch=2).engine as engine:
        replaced = fleet.keeper.replaced
        with load(lambda: engine, {2: PAGES}) as more:
            more(20)
            os.kill(pid_of(fleet, 1, 0), signal.SIGSTOP)
            while fleet.keeper.replaced == replaced or engine.statistics().usable != (2, 2):
                more(1)
            more(20)
        statistics = engine.statistics()
        assert statistics.gaps == statistics.mismatches == 0
        assert statistics.hedges_won >= 1


def test_epochs_follow_under_load(fleet: Fleet, path: Path) -> None:
    changed = np.array([0, 1535, 1536, 2316])
    tables = {3: PAGES}
    for epoch in (4, 5, 6):
        tables[epoch] = tables[epoch - 1].copy()
        tables[epoch][changed] = random_pages(4, 61, seed=epoch)
    engines = [fleet.open(path, page_size=61, epoch=3).engine]
    with load(lambda: engines[-1], tables) as more:
        more(5)
        for epoch in (4, 5):
            engines.append(engines[-1].next_epoch(changed, tables[epoch][changed], epoch))
            more(5)
        tables[6].tofile(path.with_name("next.bin"))
        engines.append(fleet.open(path.with_name("next.bin"), page_size=61, epoch=6).engine)
        more(5)
    for engine in engines:
        engine.close()
    assert all(replica.versions == () for row in fleet.replicas for replica in row)


def test_a_forked_router_is_refused_before_it_calls_ray(fleet: Fleet, path: Path) -> None:
    with fleet.open(path, page_size=61, epoch=7).engine as engine:
        queries, expected = batch(PAGES, 1)
        refused = []
        for use in (
            lambda: engine.answer(queries),
            lambda: engine.shards[0][0].submit(None, None),  # type: ignore[arg-type]
            lambda: engine.shards[0][0].next_epoch(None, None, 8),  # type: ignore[arg-type]
            lambda: fleet.open(path),
            lambda: fleet._cluster.hosts(),
        ):
            refused.append(ended_in_fork(use))
        assert refused == [EngineClosedError.__name__] * 5
        assert ended_in_fork(fleet.close) == ended_in_fork(engine.close) == ""
        assert np.array_equal(engine.answer(queries).pages, expected)


def ended_in_fork(use: Callable[[], Any]) -> str:
    """The name of the error that a call raises in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        name = ""
        try:
            use()
        except BaseException as error:
            name = type(error).__name__
        os.write(writing, name.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        name = file.read()
    os.waitpid(child, 0)
    return name


def test_a_file_that_only_the_router_finds_is_refused(
    fleet: Fleet, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    with pytest.raises(ShardUnavailableError, match=r"shard 0, replica 0 .*No such file"):
        fleet.open("/proc/self/cwd/pages.bin", page_size=61, epoch=8)


def test_a_process_that_finds_another_root_is_not_put_in_place(
    fleet: Fleet, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sealed = tmp_path / "sealed"
    seal_file(path, sealed, page_size=125, proof_levels=2)
    with fleet.open(sealed, epoch=9).engine as engine:
        pages = int(engine.table.num_pages)
        path_of_other = tmp_path / "other"
        path_of_other.write_bytes(random_pages(2317, 61, seed=5).tobytes())
        seal_file(path_of_other, sealed, page_size=125, proof_levels=2)
        replica = fleet.replicas[0][0]
        before = replica.process
        os.kill(pid_of(fleet, 0, 0), signal.SIGKILL)
        queries = mg.make_queries([[1, 2, 3]], pages)[0]
        while "cannot be replaced yet" not in caplog.text:
            engine.answer(queries)
        assert "must have the root" in caplog.text
        assert replica.process is before
        assert not replica.usable


def test_a_process_that_no_pass_can_reach_is_refused_at_once(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as behind a firewall that knows Ray's ports alone."""
    connect = Channel.connect
    monkeypatch.setattr(
        Channel, "connect", lambda channel, address: connect(channel, replace(address, port=1))
    )
    with pytest.raises(ShardUnavailableError, match=r"cannot be reached at 127\.0\.0\.1:1: "):
        Fleet(cluster, shards=1, device="cpu")


# Who reaches it


def test_only_the_loopback_listens(cluster: RayCluster, fleet: Fleet) -> None:
    addresses = listening_addresses(os.getpid())
    assert len(addresses) >= 4  # of the head, of this process, of the shards
    assert {str(address) for address in addresses} == {"127.0.0.1"}


def joined(address: str, **environment: str) -> str:
    """Join a cluster from another process, and return what it prints, or its error."""
    program = f"""if True:
        from morphogen.cluster import RayCluster
        with RayCluster({address!r}) as cluster:
            print(len(cluster.hosts()), "hosts,", cluster.started)
    """
    clean = {name: value for name, value in os.environ.items() if "RAY_" not in name}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=clean | environment, capture_output=True, text=True
    )
    return (ended.stdout or ended.stderr).strip().splitlines()[-1]


def test_another_process_joins_with_the_token(cluster: RayCluster) -> None:
    token = os.environ["RAY_AUTH_TOKEN"]
    assert joined(cluster.address, RAY_AUTH_TOKEN=token) == "1 hosts, False"
    assert len(cluster.hosts()) == 1  # it left, and ended nothing


def test_another_process_is_refused_with_another_token(cluster: RayCluster) -> None:
    once = {"RAY_NUM_REDIS_GET_RETRIES": "1"}  # Ray tries for 20 seconds
    said = joined(cluster.address, RAY_AUTH_TOKEN="00" * 32, **once)
    assert said.startswith(f"morphogen.errors.MorphogenError: Ray at {cluster.address} ")


def test_another_process_is_refused_without_a_token(cluster: RayCluster) -> None:
    assert "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH must give" in joined(cluster.address)


def test_a_shard_does_not_give_way_to_other_programs(fleet: Fleet) -> None:
    assert os.getpriority(os.PRIO_PROCESS, pid_of(fleet, 0, 0)) == os.getpriority(0, 0)


def test_the_process_keeps_its_handler_of_sigterm(cluster: RayCluster) -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_process_has_one_cluster(cluster: RayCluster) -> None:
    with pytest.raises(MorphogenError, match="uses a cluster of Ray already"):
        RayCluster()
    assert len(cluster.hosts()) == 1

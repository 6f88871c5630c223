"""Fleets over a cluster without Ray: right answers, and refusals before anything is served."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from fake_cluster import FakeCluster
from morphogen.authentication import seal_pages
from morphogen.cluster.agreement import check_facts, plan_ranges
from morphogen.cluster.fleet import ClusterTable, Fleet
from morphogen.cluster.host_shard import Rows, version_of_package
from morphogen.cluster.source import Source
from morphogen.errors import (
    EngineClosedError,
    MorphogenError,
    ShardMismatchError,
    ShardUnavailableError,
    TableFileError,
)
from morphogen.keyword.file import read_cap
from morphogen.keyword.sealing import seal_file
from naive import Bytes, naive_answers, random_pages, random_rows

PAGES = random_pages(2317, 61)
PAGES[-1, -7:] = 0  # the last page of the file is short


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    cluster = FakeCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "pages.bin"
    path.write_bytes(PAGES.tobytes()[:-7])
    return path


@pytest.fixture
def sealed(path: Path) -> Path:
    target = path.with_name("sealed.table")
    seal_file(path, target, page_size=61 + 4 * 32, proof_levels=4)
    return target


def fleet_over(cluster: FakeCluster, **options: Any) -> Fleet:
    defaults: dict[str, Any] = {"shards": 2, "device": "cpu", "threads": 1, "timeout": 60.0}
    return Fleet(cluster, **(defaults | options))


def assert_answers(engine: mg.Engine, pages: Bytes, epoch: int, total: int = 3) -> None:
    batch = mg.make_queries(random_rows(total, 3, len(pages)), len(pages))[0]
    answer = engine.answer(batch)
    assert answer.epoch == epoch
    assert np.array_equal(answer.pages, naive_answers(pages, batch))


# Answers


@pytest.mark.parametrize("shards", [1, 2, 4, 5])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_fleet_answers_as_one_engine_does(
    cluster: FakeCluster, path: Path, shards: int, replicas: int
) -> None:
    with fleet_over(cluster, shards=shards, replicas=replicas) as fleet:
        engine = fleet.open(path, page_size=61, epoch=7).engine
        for total in (0, 1, 2, 7, 32):
            assert_answers(engine, PAGES, 7, total)
    assert len(cluster.processes) == shards * replicas
    assert all(process.killed for process in cluster.processes)


def test_epochs_stand_beside_each_other(cluster: FakeCluster, path: Path, tmp_path: Path) -> None:
    other = random_pages(2317, 61, seed=2)
    other.tofile(tmp_path / "other.bin")
    changed = np.array([0, 700, 2316])
    rows = random_pages(3, 61, seed=3)
    after = PAGES.copy()
    after[changed] = rows
    with fleet_over(cluster) as fleet, ExitStack() as closing:
        first = closing.enter_context(fleet.open(path, page_size=61, epoch=1).engine)
        second = closing.enter_context(first.next_epoch(changed, rows, 2))
        third = closing.enter_context(
            fleet.open(tmp_path / "other.bin", page_size=61, epoch=3).engine
        )
        for _ in range(2):
            assert_answers(first, PAGES, 1)
            assert_answers(second, after, 2)
            assert_answers(third, other, 3)
        first.close()
        assert_answers(second, after, 2)
    assert all(process.versions() == () for process in cluster.processes)


def test_an_epoch_is_opened_from_a_file_and_pages_that_are_others(
    cluster: FakeCluster, path: Path
) -> None:
    changed = np.array([511, 512, 2316])
    rows = random_pages(3, 61, seed=3)
    after = PAGES.copy()
    after[changed] = rows
    with fleet_over(cluster, shards=4) as fleet:
        table = fleet.open(path, page_size=61, epoch=5, changed=Rows(changed, rows))
        assert_answers(table.engine, after, 5)


def test_an_engine_in_place_of_pages_goes_on(cluster: FakeCluster, path: Path) -> None:
    rows = random_pages(1, 61, seed=3)
    after = PAGES.copy()
    after[1000] = rows
    with fleet_over(cluster) as fleet:
        engine = fleet.open(path, page_size=61, epoch=1).engine
        engine.replace_pages([1000], rows, 2)
        assert_answers(engine, after, 2)
        assert {process.versions() for process in cluster.processes} == {((2, None),)}


def test_a_process_has_its_next_pass_before_it_has_answered_one(
    cluster: FakeCluster, path: Path
) -> None:
    batch = mg.make_queries(random_rows(4, 3, len(PAGES)), len(PAGES))[0]
    with fleet_over(cluster, shards=1) as fleet, ThreadPoolExecutor(1) as executor:
        engine = fleet.open(path, page_size=61).engine
        assert (engine.max_in_flight, engine.replicas) == (2, 1)
        (process,) = cluster.processes
        process.stop()
        answer = executor.submit(engine.answer, batch, max_micro_batch=1)
        while process.calls.count("answer") < 2:
            pass
        process.go_on()
        assert np.array_equal(answer.result().pages, naive_answers(PAGES, batch))


# Authenticated tables


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_shards_prove_the_root_together(cluster: FakeCluster, sealed: Path, shards: int) -> None:
    with fleet_over(cluster, shards=shards) as fleet:
        table = fleet.open(sealed, epoch=4)
        assert table.tree is not None
        assert table.tree.root == table.source.root == table.engine.root
        assert np.array_equal(table.tree.cap, read_cap(sealed))
        assert table.digest is None


@pytest.mark.parametrize("proof_levels", [0, 3, 9, 10])
def test_ranges_are_whole_nodes_of_the_cap(
    cluster: FakeCluster, tmp_path: Path, proof_levels: int
) -> None:
    seal_file_of(tmp_path / "t", random_pages(5000, 7), proof_levels)
    with fleet_over(cluster, shards=4) as fleet:
        table = fleet.open(tmp_path / "t", epoch=4)
        assert table.tree is not None
        assert {one.first % (1 << proof_levels) for one in table.engine.ranges} == {0}
        assert np.array_equal(table.tree.cap, read_cap(tmp_path / "t"))


def seal_file_of(target: Path, contents: Bytes, proof_levels: int) -> None:
    contents.tofile(target)
    size = contents.shape[1] + 32 * proof_levels
    seal_file(target, target, page_size=size, proof_levels=proof_levels)


def test_more_shards_than_nodes_of_the_cap_are_refused(tmp_path: Path) -> None:
    seal_file_of(tmp_path / "t", random_pages(5000, 7), 11)
    opened = Source(str(tmp_path / "t"), None, 0).open()
    assert [one.first for one in plan_ranges(opened, 3)] == [0, 2048, 4096]
    with pytest.raises(ValueError, match=r"shards of .* 3 nodes of 2048 pages .* in 1\.\.3, not 4"):
        plan_ranges(opened, 4)


def test_a_wrong_page_is_refused_by_the_shard_that_has_it(
    cluster: FakeCluster, sealed: Path
) -> None:
    content = bytearray(sealed.read_bytes())
    content[4096 + 600 * 189] ^= 1
    sealed.write_bytes(content)
    with fleet_over(cluster, shards=1) as fleet, pytest.raises(TableFileError, match="altered"):
        fleet.open(sealed)


def test_pages_that_fit_each_other_under_another_root_are_refused(
    cluster: FakeCluster, sealed: Path
) -> None:
    contents = random_pages(2317, 61, seed=9)
    seal = seal_pages(contents, 189, 4)
    content = bytearray(sealed.read_bytes())
    content[4096 : 4096 + seal.pages.size] = seal.pages.tobytes()
    sealed.write_bytes(content)
    with fleet_over(cluster, shards=1) as fleet:
        with pytest.raises(TableFileError, match=f"the root {seal.root.hex()}, not that of its"):
            fleet.open(sealed)
        assert all(process.versions() == () for process in cluster.processes)


# Refusals


def test_more_shards_than_leaves_are_refused(cluster: FakeCluster, path: Path) -> None:
    with (
        fleet_over(cluster, shards=6) as fleet,
        pytest.raises(ValueError, match=r"2317 pages, 5 leaves of 512, must be in 1..5, not 6$"),
    ):
        fleet.open(path, page_size=61)


def test_a_missing_file_is_refused_and_the_fleet_goes_on(
    cluster: FakeCluster, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fleet_over(cluster) as fleet:
        with pytest.raises(FileNotFoundError):
            fleet.open(f"{path}.none")
        with monkeypatch.context() as patch:
            lose_file_on(patch, "host-1")
            with pytest.raises(
                ShardUnavailableError,
                match=r"shard 1, replica 0 on host-1 must have pages 1536 .*No such file",
            ):
                fleet.open(path, page_size=61)
        assert all(process.versions() == () for process in cluster.processes)
        assert_answers(fleet.open(path, page_size=61).engine, PAGES, 0)


def lose_file_on(patch: pytest.MonkeyPatch, host: str) -> None:
    """Have the shards of a host find no file."""
    call = FakeCluster.process_type.call

    def lost(self: Any, method: str, arguments: tuple[Any, ...], tell: Any) -> None:
        if method == "open" and self.name == host:
            source = arguments[0]
            arguments = (replace(source, path=f"{source.path}.none"), *arguments[1:])
        call(self, method, arguments, tell)

    patch.setattr(FakeCluster.process_type, "call", lost)


def facts_of(cluster: FakeCluster, path: Path, **options: Any) -> ClusterTable:
    with fleet_over(cluster, **options) as fleet:
        return fleet.open(path, page_size=None if path.suffix == ".table" else 61)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("table", mg.TableShape(2318, 61), "num_pages 2317, not 2318"),
        ("table", mg.TableShape(2317, 62), "page_size 61, not 62"),
        ("table", mg.TableShape(2317, 61, 3), "epoch 0, not 3"),
        ("root", b"\xab" * 32, f"root none, not {'ab' * 32}"),
        ("release", "0.0.1", f"release {version_of_package()}, not 0.0.1"),
        ("digest", b"\xcd" * 32, f"digest [0-9a-f]{{64}}, not {'cd' * 32}"),
    ],
    ids=["num_pages", "page_size", "epoch", "root", "release", "digest"],
)
def test_a_shard_of_another_table_is_refused_with_both_values(
    cluster: FakeCluster, path: Path, name: str, change: Any, said: str
) -> None:
    table = facts_of(cluster, path, replicas=2)
    rows = [list(row) for row in table.facts]
    ranges = plan_ranges(table.source, 2)
    check_facts(table.source, ranges, rows, version_of_package())
    rows[1][1] = replace(rows[1][1], **{name: change})
    with pytest.raises(ShardMismatchError, match=rf"shard 1, replica 1 on .* must have the {said}"):
        check_facts(table.source, ranges, rows, version_of_package())


def test_two_processes_for_one_range_are_refused(cluster: FakeCluster, path: Path) -> None:
    table = facts_of(cluster, path)
    ranges = plan_ranges(table.source, 2)
    first, second = table.facts[0][0], table.facts[1][0]
    twice = [(first,), (replace(second, range=first.range),)]
    with pytest.raises(ValueError, match=r"shard 1 must begin at page 1536.* not at page 0"):
        check_facts(table.source, ranges, twice, version_of_package())
    with pytest.raises(ValueError, match="no shard has pages 1536 to 2316"):
        check_facts(table.source, ranges[:1], [(first,)], version_of_package())
    same = replace(second, host=first.host, pid=first.pid)
    with pytest.raises(ShardMismatchError, match=r"shard 1, replica 0 .*, not that of shard 0"):
        check_facts(table.source, ranges, [(first,), (same,)], version_of_package())


def test_a_shard_whose_file_has_other_bytes_is_refused(
    cluster: FakeCluster, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = path.with_name("other.bin")
    other.write_bytes(random_pages(2317, 61, seed=4).tobytes()[:-7])
    call = FakeCluster.process_type.call

    def swapped(self: Any, method: str, arguments: tuple[Any, ...], tell: Any) -> None:
        if method == "open":
            arguments = (replace(arguments[0], path=str(other)), *arguments[1:])
        call(self, method, arguments, tell)

    monkeypatch.setattr(FakeCluster.process_type, "call", swapped)
    with (
        fleet_over(cluster) as fleet,
        pytest.raises(ShardMismatchError, match=r"shard 0, replica 0 .* must have the digest"),
    ):
        fleet.open(path, page_size=61)


def test_an_epoch_is_opened_once(cluster: FakeCluster, path: Path) -> None:
    with fleet_over(cluster) as fleet:
        engine = fleet.open(path, page_size=61, epoch=3).engine
        with pytest.raises(ValueError, match="epoch 3 must be opened once, and is open"):
            fleet.open(path, page_size=61, epoch=3)
        assert_answers(engine, PAGES, 3)
        engine.close()
        assert_answers(fleet.open(path, page_size=61, epoch=3).engine, PAGES, 3)


def test_a_closed_fleet_opens_nothing(cluster: FakeCluster, path: Path) -> None:
    fleet = fleet_over(cluster)
    fleet.close()
    fleet.close()
    with pytest.raises(EngineClosedError, match="this fleet is closed"):
        fleet.open(path)


@pytest.mark.parametrize(("shards", "replicas"), [(2, 1), (1, 2)])
def test_a_fleet_whose_second_process_does_not_start_leaves_none(
    cluster: FakeCluster, shards: int, replicas: int
) -> None:
    cluster.refuse = lambda host: host.address == "host-1"
    with pytest.raises(MorphogenError, match="host-1 starts no process"):
        fleet_over(cluster, shards=shards, replicas=replicas)
    assert [process.killed for process in cluster.processes] == [True]


def test_numbers_out_of_range_are_refused(cluster: FakeCluster) -> None:
    with pytest.raises(ValueError, match="shards must be 1 or more, not 0"):
        fleet_over(cluster, shards=0)
    with pytest.raises(ValueError, match="replicas must be 1 or more, not -1"):
        fleet_over(cluster, replicas=-1)
    with pytest.raises(TypeError, match="device must be a str, not int"):
        fleet_over(cluster, device=3)
    assert cluster.processes == []

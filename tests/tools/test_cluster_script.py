"""tools/measure/cluster.py: what counts as a fault, and a short run. Its speeds do not matter."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import callers
import cluster
from morphogen import PageMatrix
from morphogen.bench.workload import random_pages
from morphogen.engine.sharded import ShardedEngine
from morphogen.engine.shards.local import LocalShard
from morphogen.sharding import plan_shards

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "measure" / "cluster.py"
SMALL = [
    "--only",
    "failover",
    "--mib",
    "4",
    "--seconds",
    "0.2",
    "--rounds",
    "1",
    "--strikes",
    "1",
    "--json",
]
PAGES = PageMatrix(random_pages(1024, 64, seed=1))


@pytest.fixture
def engine() -> Iterator[ShardedEngine]:
    ways = [
        [LocalShard(cluster.open_engine(PAGES.slice(one.first, one.count), "cpu", threads=1))]
        for one in plan_shards(PAGES.num_pages, 2)
    ]
    with ShardedEngine(ways, PAGES.table) as engine:
        yield engine


def load(engine: ShardedEngine, right: np.ndarray, batched: bool = True) -> callers.Load:
    with callers.Load(engine, right, callers=2, batched=batched) as found:
        cluster.wait_until(lambda: bool(found.done))
    return found


@pytest.mark.parametrize("batched", [True, False])
def test_right_answers_are_no_fault_and_others_are(engine: ShardedEngine, batched: bool) -> None:
    right = engine.answer(callers.queries_for(engine, callers.POOL)).pages
    load(engine, right, batched).check()
    with pytest.raises(callers.WrongAnswerError, match=r"[1-9]\d* answers wrong, 0 lost"):
        load(engine, right ^ 1, batched).check()


def test_answers_that_never_come_are_lost(engine: ShardedEngine) -> None:
    right = engine.answer(callers.queries_for(engine, callers.POOL)).pages
    with callers.Load(engine, right, callers=1) as found:
        engine.close()
        cluster.wait_until(lambda: bool(found.lost))
    with pytest.raises(callers.WrongAnswerError, match=r"0 answers wrong, [1-9]\d* lost"):
        found.check()


def test_a_gap_is_the_longest_time_without_an_answer(
    engine: ShardedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load(engine, np.empty((callers.POOL, 3, 64), np.uint8))
    found.done = [0.5, 1.5, 1.75, 3.0, 3.25]
    monkeypatch.setattr(callers.time, "perf_counter", lambda: 4.0)
    assert found.gap(since=1.0) == 1.25
    assert found.gap(since=3.5) == 0.5


def test_the_sections_without_failures_measure_shards_of_one_process_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def local(bench: cluster.Bench, *arguments: Any, **options: Any) -> ShardedEngine:
        return bench.local(*arguments, **options)

    monkeypatch.setattr(cluster.Bench, "shards", local)
    no_ray: Any = None
    bench = cluster.Bench(
        tmp_path,
        no_ray,
        [4 * cluster.MIB],
        rounds=1,
        seconds=0.05,
        strikes=1,
        tables=[(4, 64), (4, 4096)],
    )
    rows = [
        row for name in ("overhead", "router", "replicas") for row in cluster.SECTIONS[name](bench)
    ]
    assert {row.limit for row in rows} == {None, cluster.ROUTER_SECONDS, cluster.REPLICA_GAIN}
    # Pages of 4 KiB wait for the memory, which replicas on one host share.
    (gain,) = [row for row in rows if row.limit == cluster.REPLICA_GAIN]
    assert "64 bytes a page" in gain.section
    assert all(row.value > 0 for row in rows if "more" not in row.what)


@pytest.mark.ray
@pytest.mark.slow
def test_a_short_run_with_processes_that_are_killed_and_stopped() -> None:
    run = subprocess.run(
        [sys.executable, str(SCRIPT), *SMALL], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["notes"] == []
    assert len(result["rows"]) == 6
    assert all(row["value"] > 0 for row in result["rows"])

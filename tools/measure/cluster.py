"""What shards on this machine cost, and what they survive: processes of Ray against one engine.

    python tools/measure/cluster.py                          all sections
    python tools/measure/cluster.py --only overhead router   some of them
    python tools/measure/cluster.py --mib 64 --seconds 1     in short

overhead  one query over 1 and 2 shards against one engine with as many threads in all, and over a
          shard that leaves a core to the router
router    the processor time that this process spends for each shard of a pass
failover  processes killed and stopped under load, while every answer is compared
replicas  queries a second with 2 replicas of one thread, against 1, by the size of a page

The exit code is 1 if an answer was wrong or lost; with --strict also if a target is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

sys.path.append(str(Path(__file__).resolve().parents[2] / "asv_bench"))

from benchmarks.rounds import Seconds, interleave
from callers import KEYS, POOL, Load, WrongAnswerError, queries_for
from machine_facts import OtherPrograms, describe_machine
from morphogen import PageMatrix, Query, open_engine
from morphogen.bench.workload import random_pages
from morphogen.cli.signals import cleaning_up
from morphogen.cluster import RayCluster, open_cluster_engine
from morphogen.cluster.process import ask
from morphogen.engine.base import Engine
from morphogen.engine.sharded import ShardedEngine
from morphogen.engine.shards.local import LocalShard
from morphogen.sharding import plan_shards
from rows import Row, as_dict, show

MIB = 1 << 20
PAGE_SIZE = 4096
CORES = len(os.sched_getaffinity(0))
SMALL, LARGE = 256 * MIB, 2048 * MIB  # what the targets of the overhead are for
OVERHEAD_SECONDS, OVERHEAD_RATIO = 3e-3, 1.05
ROUTER_SECONDS, GAP_SECONDS, REPLICA_GAIN = 0.5e-3, 0.1, 1.7
# Bytes a page up to which a full pass waits for its core and not for the memory: at 64 it reads 8
# GB/s, of 41 that a core of Zen 5 reads and 44 that two do. There two cores allow the gain.
NARROW = 64
# MiB and bytes a page. A pass over 1 GiB takes 130 ms, beside which router and callers are little.
TABLES = ((1024, NARROW), (256, PAGE_SIZE))
HEDGE_SECONDS, AT_ONCE = 0.1, 0.5
LEAF = 512  # pages: the least that a shard has
ONE, LOCAL = "one engine", "2 shards, no Ray"
# Of these, what a router costs that has a core of its own, and so caches that no scan empties.
SPARED, SPARED_ONE = "1 of Ray, a core left to the router", "one engine, a core left"


@dataclass
class Bench:
    """Where tables lie, and the cluster; a process has one at a time."""

    folder: Path
    cluster: RayCluster
    sizes: Sequence[int]  # bytes
    rounds: int
    seconds: float  # of a load
    strikes: int  # of each kind
    tables: Sequence[tuple[int, int]] = TABLES  # of the replicas
    engines: ExitStack = field(default_factory=ExitStack)

    def table(self, size: int) -> Path:
        """Return a file of random bytes, which is made once."""
        path = self.folder / f"{size}.pages"
        if not path.exists():
            with path.open("wb") as file:
                for number, start in enumerate(range(0, size, 64 * MIB)):
                    count = min(64 * MIB, size - start) // PAGE_SIZE
                    file.write(random_pages(count, PAGE_SIZE, seed=number).data)
        return path

    def shards(
        self,
        path: Path,
        shards: int,
        replicas: int = 1,
        threads: int = 1,
        hedge: float | None = None,
        page_size: int = PAGE_SIZE,
    ) -> ShardedEngine:
        """Open an engine over processes, with so many threads each."""
        engine = open_cluster_engine(
            path,
            shards=shards,
            replicas=replicas,
            device="cpu",
            cluster=self.cluster,
            threads=threads,
            verify=False,
            hedge=hedge,
            page_size=page_size,
        )
        return self.engines.enter_context(closing(engine))

    def one(self, path: Path, page_size: int = PAGE_SIZE, threads: int = CORES) -> Engine:
        """Open one engine, by default with all cores."""
        pages = PageMatrix.open(path, page_size=page_size)
        return self.engines.enter_context(closing(open_engine(pages, "cpu", threads=threads)))

    def local(
        self,
        path: Path,
        shards: int,
        replicas: int = 1,
        threads: int = 1,
        page_size: int = PAGE_SIZE,
    ) -> ShardedEngine:
        """Open the same as `shards` in this process, without Ray."""
        pages = PageMatrix.open(path, page_size=page_size)
        ways = [
            [
                LocalShard(open_engine(pages.slice(one.first, one.count), "cpu", threads=threads))
                for _ in range(replicas)
            ]
            for one in plan_shards(pages.num_pages, shards)
        ]
        return self.engines.enter_context(closing(ShardedEngine(ways, pages.table)))


def check_same(one: Engine, others: Sequence[Engine], batch: list[Query]) -> None:
    """A fast wrong answer is worth nothing."""
    right = one.answer(batch).pages
    for other in others:
        if not np.array_equal(other.answer(batch).pages, right):
            raise WrongAnswerError(
                f"{other.device} with {batch} does not answer as one engine does"
            )


def of_ray(shards: int) -> str:
    return f"{shards} of Ray"


def overhead(bench: Bench, size: int) -> dict[str, Seconds]:
    """The seconds of one query, by turns: one engine, the same in shards, and Ray's processes."""
    path = bench.table(size)
    with bench.engines:
        engines = {ONE: bench.one(path), LOCAL: bench.local(path, 2, threads=max(1, CORES // 2))}
        for count in (1, 2):
            threads = max(1, CORES // count)
            engines[of_ray(count)] = bench.shards(path, count, threads=threads)
        if CORES > 1:
            engines[SPARED_ONE] = bench.one(path, threads=CORES - 1)
            engines[SPARED] = bench.shards(path, 1, threads=CORES - 1)
        batch = queries_for(engines[ONE], 1)
        check_same(engines[ONE], list(engines.values()), batch)
        calls = {name: partial(engine.answer, batch) for name, engine in engines.items()}
        return interleave(calls, bench.rounds)


def overhead_rows(bench: Bench) -> Iterator[Row]:
    for size in bench.sizes:
        times = overhead(bench, size)
        section = f"Overhead of one query over {size // MIB:,} MiB, threads in all: {CORES}"
        ones = {name: times.pop(name) for name in (ONE, SPARED_ONE) if name in times}
        for name, one in ones.items():
            yield Row.of(section, name, one, "s")
        for name, others in times.items():
            one = ones[SPARED_ONE if name == SPARED else ONE]
            limit = OVERHEAD_SECONDS if name != LOCAL and size == SMALL else None
            yield Row.of(section, f"{name}: more", np.maximum(others - one, 0), "s", limit)
            limit = OVERHEAD_RATIO if name != LOCAL and size == LARGE else None
            yield Row.of(section, f"{name}: times as long", others / one, "x", limit)


def router(bench: Bench, shards: int, queries: Sequence[int]) -> Iterator[tuple[float, Seconds]]:
    """For each number of queries: processor time here for a shard of a pass, seconds of passes.

    Shards are as small as they can be. Where they run on the router's own cores, what they scan
    leaves the router with cold caches.
    """
    with bench.engines:
        engine = bench.shards(bench.table(shards * LEAF * PAGE_SIZE), shards)
        for count in queries:
            batch = queries_for(engine, count)
            times = np.empty(20 * bench.rounds)
            for number in range(-bench.rounds, len(times)):  # the first to warm up
                if number == 0:
                    used = time.process_time()
                start = time.perf_counter()
                engine.answer(batch)
                times[number] = time.perf_counter() - start
            yield (time.process_time() - used) / (len(times) * shards), times


def router_rows(bench: Bench) -> Iterator[Row]:
    queries = (1, 8)
    for shards in (1, 2, 4, 8):
        section = f"Router: {shards} shards of {LEAF * PAGE_SIZE // MIB} MiB each"
        for count, (used, times) in zip(queries, router(bench, shards, queries), strict=True):
            part = f"parts of {count * KEYS * PAGE_SIZE // 1024} KiB"
            limit = ROUTER_SECONDS if shards > 1 else None
            yield Row(section, f"{part}: processor time a shard", used, "s", limit)
            yield Row.of(section, f"{part}: a pass", times, "s")


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.perf_counter() + seconds
    while not true():
        if time.perf_counter() > end:
            raise WrongAnswerError(f"no replica came back within {seconds} s")
        time.sleep(0.01)


def strike(
    engine: ShardedEngine, load: Load, number: signal.Signals, seconds: float
) -> tuple[float, float]:
    """Send a signal to a shard's process; the longest gap at once, and until it was replaced."""
    transport = engine.shards[0][0]
    replica = transport.replica  # type: ignore[attr-defined]
    process = replica.process
    victim = ask(process, "ping")
    start = time.perf_counter()
    os.kill(victim, number)
    time.sleep(AT_ONCE)
    at_once = load.gap(start)
    wait_until(lambda: replica.usable and replica.process is not process)
    time.sleep(seconds)
    return at_once, load.gap(start)


def failover_rows(bench: Bench) -> Iterator[Row]:
    size = min(bench.sizes)
    path = bench.table(size)
    with bench.engines:
        one = bench.one(path)
        right = one.answer(queries_for(one, POOL)).pages
    for name, number, hedge in (
        ("kill -9", signal.SIGKILL, None),
        ("stopped, with a hedge", signal.SIGSTOP, HEDGE_SECONDS),
    ):
        section = f"{name}: 2 shards, 2 replicas, {size // MIB} MiB, 8 callers; the longest gap"
        with bench.engines:
            engine = bench.shards(path, 2, 2, hedge=hedge)
            with Load(engine, right, 8) as load:
                time.sleep(bench.seconds)
                start = time.perf_counter()
                time.sleep(bench.seconds)
                yield Row(section, "before", load.gap(start), "s")
                gaps = [strike(engine, load, number, bench.seconds) for _ in range(bench.strikes)]
            load.check()
            soon, late = np.array(gaps).T
            limit = GAP_SECONDS if number == signal.SIGKILL else None
            yield Row.of(section, f"in the {AT_ONCE} s after", soon, "s", limit)
            yield Row.of(section, "until another process is there", late, "s")


def alone(path: Path, page_size: int) -> Seconds:
    """Return the gain of a second engine where nothing but full passes runs: what cores allow."""
    pages = PageMatrix.open(path, page_size=page_size)
    with ExitStack() as engines, ThreadPoolExecutor(2) as pool:
        pair = [engines.enter_context(open_engine(pages, "cpu", threads=1)) for _ in range(2)]
        batch = queries_for(pair[0], pair[0].max_micro_batch)

        def work(engine: Engine) -> None:
            for _ in range(3):
                engine.answer(batch)

        one, both = (partial(lambda some: list(pool.map(work, some)), pair[:n]) for n in (1, 2))
        times = interleave({"one": one, "both": both}, rounds=3)
    return 2 * times["one"] / times["both"]


def replica_rows(bench: Bench) -> Iterator[Row]:
    for mib, page_size in bench.tables:
        path = bench.table(mib * MIB)
        with bench.engines:
            one = bench.one(path, page_size)
            right = one.answer(queries_for(one, POOL)).pages
        about = f"Replicas of one thread, {mib:,} MiB of {page_size:,} bytes a page"
        yield Row.of(about, "2 engines, no callers", alone(path, page_size))
        for callers, batched in ((128, True), (8, False)):
            if page_size <= NARROW and not batched:
                continue  # for one query the pages are read fast, and so wait for the memory
            section = f"{about}, {callers} callers, {'batched' if batched else 'a pass each'}"
            for name, opened in (("no Ray", bench.local), ("Ray", bench.shards)):
                with bench.engines:
                    engines = [opened(path, 1, count, page_size=page_size) for count in (1, 2)]
                    rates = np.empty((3, 2))
                    for turn, at in itertools.product(range(3), range(2)):
                        with Load(engines[at], right, callers, batched) as load:
                            time.sleep(bench.seconds)
                            rates[turn, at] = len(load.done) / bench.seconds
                        load.check()
                yield Row.of(section, f"{name}: 1 replica", rates[:, 0], "/s")
                gain = rates[:, 1] / rates[:, 0]
                limit = REPLICA_GAIN if name == "Ray" and page_size <= NARROW else None
                yield Row.of(section, f"{name}: 2 replicas", gain, "x", limit, at_least=True)


SECTIONS = {
    "overhead": overhead_rows,
    "router": router_rows,
    "failover": failover_rows,
    "replicas": replica_rows,
}


@contextmanager
def opened(
    folder: Path,
    mib: Sequence[int],
    rounds: int,
    seconds: float = 0.0,
    strikes: int = 0,
    tables: Sequence[tuple[int, int]] = TABLES,
) -> Iterator[Bench]:
    """Start a cluster, and remove its tables in the end."""
    with tempfile.TemporaryDirectory(dir=folder) as own, RayCluster() as cluster:
        sizes = [one * MIB for one in mib]
        yield Bench(Path(own), cluster, sizes, rounds, seconds, strikes, tables)


def table_of(text: str) -> tuple[int, int]:
    """Read "1024x64": MiB, and bytes a page."""
    mib, page_size = map(int, text.split("x"))
    return mib, page_size


def main() -> int:
    parser = argparse.ArgumentParser(description="What shards cost, and what they survive.")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--mib", type=int, nargs="+", default=[256, 2048], help="of the tables")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    parser.add_argument("--strikes", type=int, default=3, help="processes killed, and stopped")
    parser.add_argument(
        "--tables",
        type=table_of,
        nargs="+",
        default=TABLES,
        metavar="MIBxBYTES",
        help="of the replicas, with the bytes of a page",
    )
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="of the tables")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is missed")
    options = parser.parse_args()
    others = OtherPrograms()
    rows: list[Row] = []
    notes: list[str] = []
    bar = Progress(console=Console(stderr=True))
    sizes = (
        options.folder,
        options.mib,
        options.rounds,
        options.seconds,
        options.strikes,
        options.tables,
    )
    # Ray writes of processes that ended to the standard output.
    with redirect_stdout(sys.stderr), opened(*sizes) as bench, bar:
        task = bar.add_task("measuring", total=None)
        try:
            for name in options.only:
                for row in SECTIONS[name](bench):
                    rows.append(row)
                    bar.update(task, description=row.section)
        except WrongAnswerError as fault:
            notes.append(f"WRONG: {fault}.")
    machine = describe_machine(others)
    if options.json:
        print(json.dumps(as_dict(machine, rows, notes), indent=2))
    else:
        show(machine, rows, notes, Console())
    return int(bool(notes) or (options.strict and any(row.missed for row in rows)))


if __name__ == "__main__":
    with cleaning_up():  # temporary files and processes
        sys.exit(main())

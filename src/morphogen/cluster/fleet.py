"""The processes of a cluster that hold one table's shards, and the epochs that they open."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

from morphogen.authentication.hashing import Bytes
from morphogen.authentication.tree import Tree
from morphogen.checks import OwnerProcess, as_int, check_range
from morphogen.cluster.agreement import check_digests, check_facts, plan_ranges, tree_of_caps
from morphogen.cluster.host_shard import Rows, ShardFacts, Version, version_of_package
from morphogen.cluster.keeper import START_SECONDS, Keeper
from morphogen.cluster.placement import Host, choose_host, needs_gpus, place
from morphogen.cluster.process import Processes, ProcessGoneError, ShardProcess, ask
from morphogen.cluster.ray_cluster import RayCluster
from morphogen.cluster.ray_shard import RayShard
from morphogen.cluster.replica import Recipe, Replica
from morphogen.cluster.source import OpenedSource, Proof, Source, source_of
from morphogen.engine.sharded import ShardedEngine
from morphogen.engine.shards.transport import named_version
from morphogen.errors import EngineClosedError, MorphogenError, ShardUnavailableError


@dataclass(frozen=True, slots=True, eq=False)
class ClusterTable:
    """An epoch of a table that a fleet has opened.

    Attributes
    ----------
    engine : ShardedEngine
        Answers over all shards. Close it.
    source : OpenedSource
        The router's own mapping of the file, of which it has read the header.
    tree : Tree or None
        Of an authenticated table: recomputed from all shards' pages.
    digest : str or None
        SHA-256 of all pages of another one, hexadecimal.
    facts : tuple of tuple of ShardFacts
        For each shard, what each replica says.
    """

    engine: ShardedEngine
    source: OpenedSource
    tree: Tree | None
    digest: str | None
    facts: tuple[tuple[ShardFacts, ...], ...]


class Fleet:
    """The processes that hold the shards of a table, each on a host of a cluster.

    They open any number of epochs, beside each other. A process that ends, or does not answer, is
    replaced. It works with ``with``.

    Parameters
    ----------
    cluster : RayCluster
        Starts the processes. It stays the caller's.
    shards : int
        Ranges of pages, 1 or more.
    replicas : int, optional
        Processes for each range.
    device : str, optional
        As `HostShard` takes it, on every host.
    threads : int, optional
        On the CPU, threads of each process; by default the host's cores are shared out.
    timeout, hedge : float, optional
        As `ShardedEngine` takes them.
    interval, deadline : float, optional
        As `Keeper` takes them.
    keeper : callable, optional
        Makes the `Keeper`, for tests.

    Raises
    ------
    MorphogenError
        If the cluster has too few hosts with GPUs.
    ShardUnavailableError
        If a process does not start.
    TypeError, ValueError
        If an argument has the wrong type, or is out of range.
    """

    def __init__(
        self,
        cluster: Processes,
        *,
        shards: int,
        replicas: int = 1,
        device: str = "auto",
        threads: int | None = None,
        timeout: float | None = None,
        hedge: float | None = None,
        interval: float = 1.0,
        deadline: float = 5.0,
        keeper: Callable[..., Keeper] = Keeper,
    ) -> None:
        self._shards, self._copies = as_int("shards", shards), as_int("replicas", replicas)
        check_range("shards", self._shards, 1)
        check_range("replicas", self._copies, 1)
        if not isinstance(device, str):
            raise TypeError(f"device must be a str, not {type(device).__name__}")
        self._owner = OwnerProcess("fleet", "open one in each process", EngineClosedError)
        self._cluster = cluster
        self._device, self._threads = device, threads
        self._timeout, self._hedge = timeout, hedge
        self._closed = self._ends = False
        self._owned: RayCluster | None = None
        self._lock, self._opening = threading.Lock(), threading.Lock()
        hosts = cluster.hosts()
        self._gpus = needs_gpus(device, hosts)
        placed = place(hosts, self._shards, self._copies, gpus=self._gpus)
        self._sharers = Counter(host.id for row in placed for host in row)
        self.keeper: Keeper = keeper(self._another, interval=interval, deadline=deadline)
        rows: list[list[Replica]] = [[] for _ in placed]
        try:
            for shard, row in enumerate(placed):
                for at, host in enumerate(row):
                    process = self._start(host)
                    replica = Replica(shard, at, process, self.keeper.wake, self._dropped)
                    rows[shard].append(replica)
            self.replicas: tuple[tuple[Replica, ...], ...] = tuple(map(tuple, rows))
            for replica in self._all():
                ask(replica.process, "ping", timeout=START_SECONDS)
        except BaseException:
            for replica in (one for replicas_of_shard in rows for one in replicas_of_shard):
                replica.retire()
            raise
        self.keeper.keep(self._all())

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def open(
        self,
        path: str | os.PathLike[str],
        *,
        page_size: int | None = None,
        epoch: int = 0,
        verify: bool = True,
        changed: Rows | None = None,
        root: bytes | None = None,
    ) -> ClusterTable:
        """Open an epoch from a file, beside those that are open.

        Every host finds the file at the same path, and reads its own pages of it.

        Parameters
        ----------
        path : path-like
            A file of pages, sealed pages or a keyword table.
        page_size : int, optional
            Bytes a page of a file of pages, by default 4096.
        epoch : int, optional
            Version of the pages.
        verify : bool, optional
            Whether all shards read all of their pages, and these are compared with the root of an
            authenticated table, or with the router's own file.
        changed : Rows, optional
            Pages of the epoch that are others than the file's, counted from the table's first.
        root : bytes, optional
            Root of an authenticated table with these.

        Returns
        -------
        ClusterTable
            Its tree and digest are the file's.

        Raises
        ------
        EngineClosedError
            If this is closed, or belongs to the parent of this process.
        OSError, TableFileError
            If the file cannot be opened here, or is no whole one.
        ShardMismatchError
            If a shard's file is another.
        ShardUnavailableError
            If a shard has no such file, or its process is gone.
        TypeError, ValueError
            If an argument is out of range: such as more shards than the table has leaves.
        """
        self._owner.check()
        if self._closed:
            raise EngineClosedError("this fleet is closed")
        source = source_of(path, page_size, epoch)
        opened = source.open()
        with self._opening:
            return self._open(source, opened, verify, changed, root)

    def _open(
        self,
        source: Source,
        opened: OpenedSource,
        verify: bool,
        changed: Rows | None,
        root: bytes | None,
    ) -> ClusterTable:
        ranges = plan_ranges(opened, self._shards)
        version = (opened.table.epoch, opened.root if changed is None else root)
        recipes = [
            Recipe(source, held, verify, rows=None if changed is None else changed.within(held))
            for held in ranges
        ]
        if any(version in replica.versions for replica in self._all()):
            raise ValueError(f"{named_version(*version)} must be opened once, and is open")
        shards = [
            [RayShard(replica, held, opened.table, version[1]) for replica in row]
            for held, row in zip(ranges, self.replicas, strict=True)
        ]
        engine = None
        try:
            facts = self._open_all(recipes, version)
            check_facts(opened, ranges, facts, version_of_package())
            tree = digest = None
            if verify and opened.root is not None:
                proofs = [self._prove(row, version) for row in self.replicas]
                tree = tree_of_caps(opened, proofs)
            elif verify:
                digest = check_digests(opened, ranges, facts)
            engine = ClusterEngine(
                shards,
                opened.table,
                timeout=self._timeout,
                hedge=self._hedge,
                device=_device_of(facts),
                root=version[1],
            )
        finally:
            if engine is None:
                for shard in (one for row in shards for one in row):
                    shard.close()
        return ClusterTable(engine, opened, tree, digest, facts)

    def close_with_last(self, cluster: RayCluster | None = None) -> None:
        """Close this when the last epoch is closed.

        Parameters
        ----------
        cluster : RayCluster, optional
            A cluster to close after that.
        """
        self._ends, self._owned = True, cluster

    def close(self) -> None:
        """End all processes. Engines over them answer no more. May be called again."""
        if not self._owner.is_current():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for replica in self._all():
            replica.retire()
        self.keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _all(self) -> list[Replica]:
        return [replica for row in self.replicas for replica in row]

    def _start(self, host: Host) -> ShardProcess:
        return self._cluster.start(host, self._device, self._threads_on(host))

    def _threads_on(self, host: Host) -> int | None:
        sharers = self._sharers[host.id]
        if self._threads is not None or self._gpus or sharers < 2:
            return self._threads
        return max(1, host.cpus // sharers)

    def _another(self, replica: Replica) -> ShardProcess:
        """Start a process in the place of one that is gone."""
        row = self.replicas[replica.shard]
        host = choose_host(
            self._cluster.hosts(),
            busy=[one.process.host for one in self._all() if one is not replica],
            siblings=[one.process.host for one in row if one is not replica],
            former=replica.process.host,
            gpus=self._gpus,
        )
        return self._start(host)

    def _open_all(
        self, recipes: Sequence[Recipe], version: Version
    ) -> tuple[tuple[ShardFacts, ...], ...]:
        """Have all processes open an epoch, at the same time.

        One that is gone has it from its next process on, if another replica has it now.
        """

        def open_one(replica: Replica) -> ShardFacts | ProcessGoneError:
            recipe = recipes[replica.shard]
            try:
                return replica.open(version, recipe)
            except ProcessGoneError as error:
                return error
            except MorphogenError:
                raise
            except (OSError, ValueError) as error:
                raise ShardUnavailableError(
                    f"{replica.name} must have {recipe.range}: {error}"
                ) from error

        replicas = self._all()
        with ThreadPoolExecutor(len(replicas), "morphogen-open") as pool:
            told = iter(list(pool.map(open_one, replicas)))
        facts = []
        for row in self.replicas:
            mine = [next(told) for _ in row]
            good = [one for one in mine if isinstance(one, ShardFacts)]
            for replica, one in zip(row, mine, strict=True):
                if isinstance(one, ProcessGoneError):
                    if not good:
                        raise one
                    replica.adopt(version, replace(recipes[replica.shard], facts=good[0]))
            facts.append(tuple(good))
        return tuple(facts)

    def _prove(self, row: Sequence[Replica], version: Version) -> Bytes:
        """The nodes of the cap above a shard's pages, by any of its replicas."""
        for replica in row:
            try:
                proof: Proof = ask(replica.process, "prove", version)
            except ProcessGoneError as error:
                gone = error
            else:
                assert proof.cap is not None
                return proof.cap
        raise gone

    def _dropped(self) -> None:
        """Close, if that is due: the last epoch was closed."""
        if self._ends and not any(replica.versions for replica in self._all()):
            self.close()
            if self._owned is not None:
                self._owned.close()


class ClusterEngine(ShardedEngine):
    """A sharded engine over processes, each of which has its next pass when it ends one.

    Else it would wait while the router adds up its part, and packs and sends the next keys.
    """

    passes_at_a_replica = 2


def _device_of(facts: Sequence[Sequence[ShardFacts]]) -> str:
    """The devices of all shards, for messages: "cpu"."""
    return "+".join(sorted({one.device for row in facts for one in row}))

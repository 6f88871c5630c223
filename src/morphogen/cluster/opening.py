"""One call that opens an engine over a cluster, and closes all of it with the engine."""

from __future__ import annotations

import os

from morphogen.cluster.fleet import Fleet
from morphogen.cluster.ray_cluster import RayCluster
from morphogen.engine.sharded import ShardedEngine


def open_cluster_engine(
    path: str | os.PathLike[str],
    *,
    shards: int,
    replicas: int = 1,
    device: str = "auto",
    cluster: RayCluster | None = None,
    timeout: float | None = None,
    hedge: float | None = None,
    page_size: int | None = None,
    epoch: int = 0,
    verify: bool = True,
    threads: int | None = None,
) -> ShardedEngine:
    """Open an engine over the hosts of a cluster, each of which has a part of the pages.

    Parameters
    ----------
    path : path-like
        A file of pages, sealed pages or a keyword table, which every host has at this path.
    shards : int
        Ranges of pages, 1 to the leaves of 512 pages.
    replicas : int, optional
        Processes for each range, on different hosts if there are. With more than one, no answer is
        lost when a process ends.
    device : str, optional
        As `HostShard` takes it, on every host.
    cluster : RayCluster, optional
        The cluster, which stays the caller's. By default one on this host, for this engine.
    timeout : float, optional
        Seconds that a pass may take, with all retries.
    hedge : float, optional
        Seconds after which a pass is also submitted to another replica.
    page_size : int, optional
        Bytes a page of a file of pages, by default 4096; a table says its own.
    epoch : int, optional
        Version of the pages.
    verify : bool, optional
        As for `Fleet.open`.
    threads : int, optional
        As for `Fleet`.

    Returns
    -------
    ShardedEngine
        Close it: with the last of it and of the epochs that it opened, the processes end.

    Raises
    ------
    ModuleNotFoundError
        If the extra ``ray`` is not installed.
    OSError, TableFileError
        If the file cannot be opened here, or is no whole one.
    ShardMismatchError
        If a shard's file is another.
    ShardUnavailableError
        If a shard has no such file, or its process does not start.
    MorphogenError, TypeError, ValueError
        As from `RayCluster` and `Fleet`.
    """
    owned = None
    if cluster is None:
        owned = cluster = RayCluster()
    try:
        fleet = Fleet(
            cluster,
            shards=shards,
            replicas=replicas,
            device=device,
            threads=threads,
            timeout=timeout,
            hedge=hedge,
        )
        try:
            table = fleet.open(path, page_size=page_size, epoch=epoch, verify=verify)
            fleet.close_with_last(owned)
        except BaseException:
            fleet.close()
            raise
    except BaseException:
        if owned is not None:
            owned.close()
        raise
    return table.engine

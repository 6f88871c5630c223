"""Where processes are started: on which host each replica of each shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from morphogen.errors import MorphogenError


@dataclass(frozen=True, slots=True, order=True)
class Host:
    """A host of a cluster.

    Parameters
    ----------
    id : str
        What the cluster calls it.
    address : str
        Its address, for messages.
    cpus : int
        Cores that it has for processes: none if it is the router's alone.
    gpus : int
        GPUs that it has.
    """

    id: str
    address: str
    cpus: int = 1
    gpus: int = 0


def needs_gpus(device: str, hosts: Iterable[Host]) -> bool:
    """Whether shards are on GPUs: if these are asked for, or there are some.

    Parameters
    ----------
    device : str
        As `HostShard` takes it.
    hosts : iterable of Host
        The hosts of the cluster.

    Returns
    -------
    bool
    """
    return device.startswith("cuda") or (device == "auto" and any(host.gpus for host in hosts))


def choose_host(
    hosts: Sequence[Host],
    *,
    busy: Iterable[str],
    siblings: Iterable[str] = (),
    former: str | None = None,
    gpus: bool = False,
) -> Host:
    """Choose the host of one replica.

    Replicas of one shard are on different hosts as far as there are any, and no host has two
    processes while another has none. On GPUs a process has all of a host.

    Parameters
    ----------
    hosts : sequence of Host
        Those that can be used.
    busy : iterable of str
        The host of every other process, once for each.
    siblings : iterable of str
        The hosts of the shard's other replicas.
    former : str, optional
        The host that has the shard's pages in memory, because it had the replica before.
    gpus : bool, optional
        Whether it must have GPUs, and no other process.

    Returns
    -------
    Host

    Raises
    ------
    MorphogenError
        If there is none.
    """
    count, apart = Counter(busy), set(siblings)
    able = [host for host in hosts if (host.gpus and not count[host.id] if gpus else host.cpus)]
    if not able:
        what = "a host with GPUs and no other shard" if gpus else "a host"
        raise MorphogenError(f"a shard needs {what}, and the cluster has none of its {len(hosts)}")
    return min(able, key=lambda host: (host.id in apart, count[host.id], host.id != former, host))


def place(
    hosts: Sequence[Host], shards: int, replicas: int, *, gpus: bool = False
) -> tuple[tuple[Host, ...], ...]:
    """Choose the hosts of all replicas.

    Parameters
    ----------
    hosts : sequence of Host
        Those that can be used.
    shards, replicas : int
        How many, 1 or more.
    gpus : bool, optional
        As `choose_host` takes it.

    Returns
    -------
    tuple of tuple of Host
        For each shard, the host of each replica.

    Raises
    ------
    MorphogenError
        If there are too few hosts with GPUs.
    """
    able = sum(1 for host in hosts if host.gpus)
    if gpus and able < shards * replicas:
        raise MorphogenError(
            f"{shards} shards with {replicas} replicas need {shards * replicas} hosts with GPUs, "
            f"and the cluster has {able}"
        )
    busy: list[str] = []
    placed: list[list[Host]] = [[] for _ in range(shards)]
    for _ in range(replicas):
        for hosts_of_shard in placed:
            host = choose_host(
                hosts, busy=busy, siblings=[one.id for one in hosts_of_shard], gpus=gpus
            )
            busy.append(host.id)
            hosts_of_shard.append(host)
    return tuple(map(tuple, placed))

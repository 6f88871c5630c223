"""Hosts of replicas: apart from each other, evenly loaded, and a whole one for each on GPUs."""

from __future__ import annotations

from collections import Counter

import pytest

from morphogen.cluster.placement import Host, choose_host, needs_gpus, place
from morphogen.errors import MorphogenError


def hosts(count: int, gpus: int = 0) -> list[Host]:
    return [Host(f"id-{at}", f"host-{at}", 2, gpus) for at in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_replicas_are_apart_and_hosts_evenly_loaded(count: int, shards: int, replicas: int) -> None:
    placed = place(hosts(count), shards, replicas)
    assert [len(row) for row in placed] == [replicas] * shards
    for row in placed:
        assert len(set(row)) == min(replicas, count)
    load = Counter(host.id for row in placed for host in row)
    loads = [load[host.id] for host in hosts(count)]
    assert max(loads) - min(loads) <= 1


def test_a_replica_goes_back_to_its_host_unless_another_is_freer() -> None:
    three = hosts(3)
    assert choose_host(three, busy=[], former="id-2").id == "id-2"
    assert choose_host(three, busy=["id-2"], former="id-2").id == "id-0"


def test_a_replica_is_not_put_beside_its_sibling_while_there_is_another_host() -> None:
    two = hosts(2)
    assert choose_host(two, busy=["id-0", "id-1", "id-1"], siblings=["id-0"]).id == "id-1"
    assert choose_host(two[:1], busy=["id-0"], siblings=["id-0"]).id == "id-0"


def test_a_host_without_cores_for_processes_has_none() -> None:
    router = Host("id-0", "router", cpus=0)
    placed = place([router, *hosts(3)[1:]], 2, 2)
    assert {host.id for row in placed for host in row} == {"id-1", "id-2"}
    with pytest.raises(MorphogenError, match="needs a host, and the cluster has none of its 1"):
        place([router], 1, 1)


def test_on_gpus_a_host_has_one_process() -> None:
    placed = place([*hosts(1), *hosts(4, gpus=8)[1:]], 3, 1, gpus=True)
    assert [row[0].id for row in placed] == ["id-1", "id-2", "id-3"]
    with pytest.raises(
        MorphogenError, match=r"2 shards with 2 replicas need 4 hosts with GPUs.* 3"
    ):
        place(hosts(3, gpus=1), 2, 2, gpus=True)


def test_a_cluster_without_hosts_is_refused() -> None:
    with pytest.raises(MorphogenError, match="needs a host, and the cluster has none of its 0"):
        place([], 1, 1)
    with pytest.raises(MorphogenError, match=r"a host with GPUs and no other shard.*none of its 1"):
        choose_host(hosts(1, gpus=1), busy=["id-0"], gpus=True)


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [
        ("cpu", 1, False),
        ("auto", 0, False),
        ("auto", 1, True),
        ("cuda", 0, True),
        ("cuda:1", 2, True),
    ],
)
def test_the_device_tells_whether_hosts_need_gpus(device: str, gpus: int, expected: bool) -> None:
    assert needs_gpus(device, hosts(2, gpus)) is expected

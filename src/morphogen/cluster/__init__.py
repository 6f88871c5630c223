"""One table over many hosts: Ray starts the processes, and each answers for a part of the pages.

`open_cluster_engine` opens an engine over them, which a batcher and a service use like any other.
Each party runs a cluster of its own: whoever runs both sees both keys. Needs the extra ``ray``.
"""

from __future__ import annotations

from morphogen.cluster.fleet import ClusterTable as ClusterTable, Fleet as Fleet
from morphogen.cluster.host_shard import HostShard as HostShard
from morphogen.cluster.keeper import Keeper as Keeper
from morphogen.cluster.opening import open_cluster_engine as open_cluster_engine
from morphogen.cluster.ray_cluster import RayCluster as RayCluster
from morphogen.cluster.ray_shard import RayShard as RayShard

__all__ = [
    "ClusterTable",
    "Fleet",
    "HostShard",
    "Keeper",
    "RayCluster",
    "RayShard",
    "open_cluster_engine",
]

"""What a sharded engine refuses: shards of another table, and ranges that do not fit together."""

from __future__ import annotations

from collections.abc import Sequence

from morphogen.engine.shards.transport import ShardTransport, named_version
from morphogen.errors import ShardMismatchError
from morphogen.pages import TableShape
from morphogen.sharding import ShardRange, check_cover


def check_shards(
    shards: Sequence[Sequence[ShardTransport]],
    shape: TableShape,
    root: bytes | None,
    cover: ShardRange,
) -> tuple[ShardRange, ...]:
    """Refuse shards that are not of this table, or not exactly some pages of it.

    Parameters
    ----------
    shards : sequence of sequence of ShardTransport
        Of each range, in order: the ways to its replicas.
    shape : TableShape
        The table.
    root : bytes or None
        Its root.
    cover : ShardRange
        The pages.

    Returns
    -------
    tuple of ShardRange
        Of each shard.

    Raises
    ------
    ShardMismatchError
        If a replica is of another table.
    ValueError
        If a shard has no replica, or its replicas different ranges, or one stands in two places,
        or the ranges are not these pages, each once, in order.
    """
    ranges = []
    seen: set[int] = set()
    for number, replicas in enumerate(shards):
        if not replicas:
            raise ValueError(f"shard {number} must have a replica, not none")
        for replica in replicas:
            if id(replica) in seen:
                raise ValueError(f"{replica.name} must be one replica of one shard, not two")
            seen.add(id(replica))
            if replica.range != replicas[0].range:
                raise ValueError(
                    f"the replicas of a shard must have the same pages: {replicas[0].name} has "
                    f"{replicas[0].range}, {replica.name} has {replica.range}"
                )
            _check_table(replica, shape, root)
        ranges.append(replicas[0].range)
    return check_cover(ranges, cover)


def _check_table(replica: ShardTransport, shape: TableShape, root: bytes | None) -> None:
    """Refuse a replica of another table, if it tells of which it is."""
    table = getattr(replica, "table", shape)
    for field in ("num_pages", "page_size", "epoch"):
        ours, theirs = getattr(shape, field), getattr(table, field)
        if ours != theirs:
            raise ShardMismatchError(f"{field} must be {ours}, not {theirs} as {replica.name} has")
    theirs = getattr(replica, "root", root)
    if theirs != root:
        raise ShardMismatchError(
            f"{replica.name} has {named_version(shape.epoch, theirs)}, not "
            f"{named_version(shape.epoch, root)}"
        )

"""The next epoch of all shards: opened beside the one before, on all of them or on none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

from morphogen.engine.transport import LostShard, ShardTransport
from morphogen.errors import ShardUnavailableError
from morphogen.sharding import ShardRange


def open_next(
    shards: Sequence[Sequence[ShardTransport]],
    cover: ShardRange,
    indices: npt.NDArray[np.int64],
    pages: npt.NDArray[np.uint8],
    epoch: int,
    root: bytes | None,
    opened: list[list[ShardTransport]],
) -> None:
    """Open an epoch on all replicas of all shards.

    A replica that fails has a `LostShard` in its place.

    Parameters
    ----------
    shards : sequence of sequence of ShardTransport
        Of each range, in order: the ways to its replicas.
    cover : ShardRange
        The pages of all shards together.
    indices : numpy.ndarray
        int64, ascending: the pages that change, counted from the first of `cover`.
    pages : numpy.ndarray
        uint8 of shape (indices, page_size): their new bytes.
    epoch : int
        The new version.
    root : bytes or None
        Root of the table of that version.
    opened : list of list of ShardTransport
        Gets what was opened. If this fails, the caller closes what it has by then.

    Raises
    ------
    ShardUnavailableError
        If all replicas of a shard fail.
    """
    for replicas in shards:
        held = replicas[0].range
        begin, end = np.searchsorted(indices, [at - cover.first for at in (held.first, held.stop)])
        changed = indices[begin:end] - (held.first - cover.first)
        opened.append([])
        error: Exception | None = None
        for replica in replicas:
            following: ShardTransport
            try:
                following = replica.next_epoch(changed, pages[begin:end], epoch, root)
            except Exception as raised:
                error = raised
                following = LostShard(replica.name, held, raised)
            opened[-1].append(following)
        if all(isinstance(replica, LostShard) for replica in opened[-1]):
            raise ShardUnavailableError(
                f"no replica of {held} can open epoch {epoch}: {error}"
            ) from error


def close_all(shards: Iterable[Iterable[ShardTransport]]) -> None:
    """Close transports. One that fails keeps none from being closed.

    Parameters
    ----------
    shards : iterable of iterable of ShardTransport
        Of each range: the ways to its replicas.
    """
    with ExitStack() as closing:
        for replicas in shards:
            for replica in replicas:
                closing.callback(replica.close)

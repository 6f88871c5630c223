"""The next epoch of all shards: opened beside the one before, on all of them or on none."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

from morphogen.engine.shards.transport import LostShard, ShardTransport
from morphogen.engine.threads import start_thread
from morphogen.errors import DeviceError, ShardUnavailableError
from morphogen.sharding import ShardRange

MAX_THREADS = 32


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
    opening = _Opening(shards, cover, indices, pages, epoch, root)
    try:
        start_thread(opening.run, "morphogen-epoch")  # which waits until it has run
    except RuntimeError as error:
        raise DeviceError(f"cannot start a thread to open an epoch: {error}") from None
    finally:
        opened.extend(opening.take())
    for replicas in opened:
        lost = [replica for replica in replicas if isinstance(replica, LostShard)]
        if len(lost) == len(replicas):
            raise ShardUnavailableError(
                f"no replica of {lost[0].range} can open epoch {epoch}: {lost[-1].error}"
            ) from lost[-1].error


class _Opening:
    """Opens an epoch on all replicas at the same time: a host may take seconds for it.

    It runs on threads where no signal handler does. A caller that is interrupted does not wait.
    """

    def __init__(
        self,
        shards: Sequence[Sequence[ShardTransport]],
        cover: ShardRange,
        indices: npt.NDArray[np.int64],
        pages: npt.NDArray[np.uint8],
        epoch: int,
        root: bytes | None,
    ) -> None:
        self._shards = shards
        self._first = cover.first
        self._indices, self._pages = indices, pages
        self._epoch, self._root = epoch, root
        self._waiting = deque(replica for replicas in shards for replica in replicas)
        self._count = len(self._waiting)
        self._opened: dict[int, ShardTransport] = {}  # by the replica it follows
        self._state = threading.Lock()
        self._ended = self._taken = False

    def run(self, ready: Callable[[], None]) -> None:
        """Open all, then say so."""
        helpers = []
        try:
            for _ in range(min(self._count, MAX_THREADS) - 1):
                helper = threading.Thread(target=self._work, name="morphogen-epoch", daemon=True)
                helper.start()
                helpers.append(helper)
        except RuntimeError:
            pass  # with fewer threads it takes longer
        self._work()
        for helper in helpers:
            helper.join()
        with self._state:
            self._ended = True
            abandoned = self._taken
        if abandoned:
            close_all([self._opened.values()])
        ready()

    def take(self) -> list[list[ShardTransport]]:
        """What was opened, for each shard. What is not yet open by then is closed."""
        with self._state:
            self._taken = True
            if not self._ended:
                return []
        return [[self._opened[id(replica)] for replica in replicas] for replicas in self._shards]

    def _work(self) -> None:
        while True:
            try:
                replica = self._waiting.popleft()
            except IndexError:
                return
            self._opened[id(replica)] = self._follow(replica)

    def _follow(self, replica: ShardTransport) -> ShardTransport:
        held, indices = replica.range, self._indices
        bounds = [at - self._first for at in (held.first, held.stop)]
        begin, end = np.searchsorted(indices, bounds)
        changed, pages = indices[begin:end] - bounds[0], self._pages[begin:end]
        try:
            return replica.next_epoch(changed, pages, self._epoch, self._root)
        except Exception as error:
            return LostShard(replica.name, held, error)


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

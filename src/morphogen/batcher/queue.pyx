"""The queries that wait for a chunk: bounded, in a share for each client, each with its deadline.

This is Python, but compiled: an interrupt on a caller's thread must not cut a step of the queue.
"""

from time import monotonic

from morphogen.batcher.shares import Shares
from morphogen.checks import as_int, check_range
from morphogen.errors import OverloadedError


class WaitingQueue:
    """Queries that wait, by their futures. Its owner's lock guards every call.

    Parameters
    ----------
    limit, limit_of_client : int
        The most queries that may wait, 1 or more; and the most of a client.
    widths : tuple of int
        The most queries in a chunk, of queries with 1, 2 and 3 keys.

    Attributes
    ----------
    limit, limit_of_client : int
    full : int
        Queries that fill a chunk, whatever their keys.
    cancelled, expired, refused : int
        Queries that left by cancellation, left too late, and were not taken, or had to go.
    seconds : float
        Sum of the times that queries waited until their chunks began.
    """

    def __init__(
        self, limit: SupportsIndex, limit_of_client: SupportsIndex | None, widths: tuple[int, ...]
    ) -> None:
        self.limit = as_int("max_queued", limit)
        check_range("max_queued", self.limit, 1)
        self.limit_of_client = self.limit
        if limit_of_client is not None:
            self.limit_of_client = as_int("max_queued_per_client", limit_of_client)
            check_range("max_queued_per_client", self.limit_of_client, 1, self.limit)
        self.cancelled = 0
        self.expired = 0
        self.refused = 0
        self.seconds = 0.0
        self._entries = {}
        self._shares = Shares()
        self._widths = widths
        self.full = min(widths)
        self._gone = []  # for the room of others, and not told yet

    def __len__(self) -> int:
        return len(self._entries)

    def check_room(self, client: str | None, count: int) -> None:
        """Refuse queries that would not fit, with OverloadedError."""
        own = self._shares.count(client)
        if self.limit_of_client < self.limit and own + count > self.limit_of_client:
            self.refused += count
            raise OverloadedError(
                f"{own} queries of this client wait, and at most {self.limit_of_client} may: "
                f"{count} more cannot"
            )
        if not self._shares.has_room(client, count, self.limit):
            self.refused += count
            raise OverloadedError(
                f"{len(self._entries)} queries wait, and at most {self.limit} may: "
                f"{count} more cannot"
            )

    def add(self, futures: list[AnswerFuture], entries: list[Entry]) -> None:
        """Put queries of one client at the end of its share, once there is room."""
        if not entries:
            return
        # First: a query's length is a call of Python, which an interrupt may end.
        width = self._widths[len(entries[0].query) - 1]
        gone = self._shares.make_room(entries[0].client, len(entries), self.limit)
        for future in gone:
            del self._entries[future]
        self._gone += gone
        self.refused += len(gone)
        self._entries.update(zip(futures, entries, strict=True))
        self._shares.add(entries[0].client, futures, width)

    def discard_cancelled(self, future: AnswerFuture) -> None:
        """Take out one that was cancelled, unless it left already."""
        if self._discard(future):
            self.cancelled += 1

    def expire(self, futures: Iterable[AnswerFuture]) -> list[AnswerFuture]:
        """Take out those that still wait. The caller claims and tells them, without the lock."""
        late = [future for future in futures if self._discard(future)]
        self.expired += len(late)
        return late

    def next_chunk(self, chunk: Turn) -> None:
        """Take out the next chunk, and what is met on the way and too late.

        Parameters
        ----------
        chunk : Turn
            Gets the futures and queries of the chunk, all with the same number of keys, since a
            pass has one; and the futures of those that are too late, or had to go. All are marked
            as running.
        """
        now = monotonic()
        chunk.refused.extend([future for future in self._gone if future.claim()])
        self._gone = []

        def fits(future):
            return not chunk.queries or len(self._entries[future].query) == len(chunk.queries[0])

        def claim(future):
            entry = self._entries.pop(future)
            if not future.claim():
                self.cancelled += 1
            elif entry.deadline is not None and now > entry.deadline:
                self.expired += 1
                chunk.expired.append(future)
            else:
                self.seconds += now - entry.arrived
                chunk.futures.append(future)
                chunk.queries.append(entry.query)
                return True
            return False

        self._shares.take(self._width_of, fits, claim)

    def _width_of(self, future: AnswerFuture) -> int:
        return self._widths[len(self._entries[future].query) - 1]

    def _discard(self, future: AnswerFuture) -> bool:
        entry = self._entries.pop(future, None)
        return entry is not None and self._shares.remove(entry.client, future)

"""The queries that wait for a chunk: bounded, in order of arrival, each with its deadline.

This is Python, but compiled: an interrupt on a caller's thread must not cut a step of the queue.
"""

from collections import OrderedDict
from time import monotonic

from morphogen.checks import as_int, check_range
from morphogen.errors import OverloadedError


class WaitingQueue:
    """Queries that wait, by their futures. Its owner's lock guards every call.

    Parameters
    ----------
    limit : int
        The most queries that may wait, 1 or more.

    Attributes
    ----------
    limit : int
    cancelled, expired, refused : int
        Queries that left by cancellation, left too late, and were not taken.
    seconds : float
        Sum of the times that queries waited until their chunks began.
    """

    def __init__(self, limit: SupportsIndex) -> None:
        self.limit = as_int("max_queued", limit)
        check_range("max_queued", self.limit, 1)
        self.cancelled = 0
        self.expired = 0
        self.refused = 0
        self.seconds = 0.0
        # In order of arrival; a dictionary, so that one cancelled amid it leaves at once.
        self._entries = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def check_room(self, count: int) -> None:
        """Refuse queries that would not fit, with OverloadedError."""
        if len(self._entries) + count > self.limit:
            self.refused += count
            raise OverloadedError(
                f"{len(self._entries)} queries wait, and at most {self.limit} may: "
                f"{count} more cannot"
            )

    def add(self, futures: list[AnswerFuture], entries: list[Entry]) -> None:
        """Put queries at the end."""
        self._entries.update(zip(futures, entries, strict=True))

    def discard_cancelled(self, future: AnswerFuture) -> None:
        """Take out one that was cancelled, unless it left already."""
        if self._entries.pop(future, None) is not None:
            self.cancelled += 1

    def expire(self, futures: Iterable[AnswerFuture]) -> list[AnswerFuture]:
        """Take out those that still wait. The caller claims and tells them, without the lock."""
        late = [future for future in futures if self._entries.pop(future, None) is not None]
        self.expired += len(late)
        return late

    def next_chunk(self, width: int, chunk: Turn) -> None:
        """Take out the next chunk, and those before its last query whose time is up.

        Parameters
        ----------
        width : int
            The most queries in it.
        chunk : Turn
            Gets the futures and queries of the chunk, all with the same number of keys, since a
            pass has one; and the futures of those that are too late. All are marked as running.
        """
        now = monotonic()
        while self._entries and len(chunk.futures) < width:
            future, entry = next(iter(self._entries.items()))
            if chunk.queries and len(entry.query) != len(chunk.queries[0]):
                break
            del self._entries[future]
            if not future.claim():
                self.cancelled += 1
            elif entry.deadline is not None and now > entry.deadline:
                self.expired += 1
                chunk.expired.append(future)
            else:
                self.seconds += now - entry.arrived
                chunk.futures.append(future)
                chunk.queries.append(entry.query)

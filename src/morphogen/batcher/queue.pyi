# Made by tools/release/make_stubs.py from the module's source.
"""The queries that wait for a chunk: bounded, in a share for each client, each with its deadline.

This is Python, but compiled: an interrupt on a caller's thread must not cut a step of the queue.
"""

from collections.abc import Iterable
from typing import SupportsIndex

from morphogen.batcher.entry import Entry
from morphogen.batcher.future import AnswerFuture
from morphogen.batcher.monitor import Turn

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
    ) -> None: ...
    def __len__(self) -> int: ...
    def check_room(self, client: str | None, count: int) -> None:
        """Refuse queries that would not fit, with OverloadedError."""
    def add(self, futures: list[AnswerFuture], entries: list[Entry]) -> None:
        """Put queries of one client at the end of its share, once there is room."""
    def discard_cancelled(self, future: AnswerFuture) -> None:
        """Take out one that was cancelled, unless it left already."""
    def expire(self, futures: Iterable[AnswerFuture]) -> list[AnswerFuture]:
        """Take out those that still wait. The caller claims and tells them, without the lock."""
    def next_chunk(self, chunk: Turn) -> None:
        """Take out the next chunk, and what is met on the way and too late.

        Parameters
        ----------
        chunk : Turn
            Gets the futures and queries of the chunk, all with the same number of keys, since a
            pass has one; and the futures of those that are too late, or had to go. All are marked
            as running.
        """
    def _width_of(self, future: AnswerFuture) -> int: ...
    def _discard(self, future: AnswerFuture) -> bool: ...

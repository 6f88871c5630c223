"""The queries that wait for a chunk: bounded, in order of arrival, each with its deadline."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic
from typing import SupportsIndex

from morphogen.checks import as_int, check_range, check_seconds
from morphogen.errors import DeadlineError, OverloadedError
from morphogen.query import Answer, Query


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A query that may have to wait.

    Attributes
    ----------
    query : Query
    arrived : float
        By `time.monotonic`, as is the next.
    deadline : float or None
        When its chunk must have begun.
    """

    query: Query
    arrived: float
    deadline: float | None


def make_entries(queries: Sequence[Query], timeout: float | None) -> list[Entry]:
    """Entries of queries that arrive now.

    Parameters
    ----------
    queries : sequence of Query
        The queries.
    timeout : float or None
        Seconds that they may wait; None for as long as it takes.

    Returns
    -------
    list of Entry
        In the order of the queries.

    Raises
    ------
    TypeError, ValueError
        If one is no Query, or timeout is no number of 0 or more.
    """
    for query in queries:
        if not isinstance(query, Query):
            raise TypeError(f"a query must be a Query, not {type(query).__name__}")
    arrived = monotonic()
    deadline = None
    if timeout is not None:
        check_seconds("timeout", timeout)
        deadline = arrived + timeout
    return [Entry(query, arrived, deadline) for query in queries]


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

    __slots__ = ("_entries", "cancelled", "expired", "limit", "refused", "seconds")

    def __init__(self, limit: SupportsIndex) -> None:
        self.limit: int = as_int("max_queued", limit)
        check_range("max_queued", self.limit, 1)
        self.cancelled: int = 0
        self.expired: int = 0
        self.refused: int = 0
        self.seconds: float = 0.0
        # In order of arrival; a dictionary, so that one cancelled amid it leaves at once.
        self._entries: OrderedDict[Future[Answer], Entry] = OrderedDict()

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

    def add(self, futures: list[Future[Answer]], entries: list[Entry]) -> None:
        """Put queries at the end."""
        self._entries.update(zip(futures, entries, strict=True))

    def discard_cancelled(self, future: Future[Answer]) -> None:
        """Take out one that was cancelled, unless it left already."""
        if self._entries.pop(future, None) is not None:
            self.cancelled += 1

    def expire(self, futures: Iterable[Future[Answer]]) -> list[Future[Answer]]:
        """Take out those that still wait; tell them by `tell_expired`, without the lock."""
        left = [future for future in futures if self._entries.pop(future, None) is not None]
        late = [future for future in left if self._claim(future)]
        self.expired += len(late)
        return late

    def next_chunk(
        self, width: int
    ) -> tuple[list[Future[Answer]], list[Entry], list[Future[Answer]]]:
        """Take out the next chunk, and those before its last query whose time is up.

        Parameters
        ----------
        width : int
            The most queries in it.

        Returns
        -------
        futures, entries : list
            The chunk, all with the same number of keys, since a pass has one; marked as running.
        expired : list of Future
            To be told by `tell_expired`, without the lock.
        """
        futures: list[Future[Answer]] = []
        entries: list[Entry] = []
        expired: list[Future[Answer]] = []
        now = monotonic()
        while self._entries and len(futures) < width:
            future, entry = next(iter(self._entries.items()))
            if entries and len(entry.query) != len(entries[0].query):
                break
            del self._entries[future]
            if not self._claim(future):
                continue
            if entry.deadline is not None and now > entry.deadline:
                expired.append(future)
            else:
                self.seconds += now - entry.arrived
                futures.append(future)
                entries.append(entry)
        self.expired += len(expired)
        return futures, entries, expired

    def _claim(self, future: Future[Answer]) -> bool:
        """Whether a query that left the queue was not cancelled at just that moment."""
        if future.set_running_or_notify_cancel():
            return True
        self.cancelled += 1
        return False


def tell_expired(futures: Iterable[Future[Answer]]) -> None:
    """Give each its DeadlineError. Their callbacks run here."""
    for future in futures:
        future.set_exception(DeadlineError("the query waited longer than its time-out"))


def tell_failed(error: BaseException, futures: Iterable[Future[Answer]]) -> None:
    """Give each the error that the engine raised. Their callbacks run here."""
    for future in futures:
        future.set_exception(error)


def tell_answered(chunk: Answer, futures: Sequence[Future[Answer]]) -> None:
    """Give each its part of a chunk's answer. Their callbacks run here."""
    size = len(futures)
    for at, future in enumerate(futures):
        try:
            # A copy each, so that a caller who keeps one answer does not keep the whole chunk.
            pages = chunk.pages if size == 1 else chunk.pages[at : at + 1].copy()
            answer = Answer(
                pages, chunk.epoch, chunk.num_pages, chunk.micro_batch_sizes, chunk.party
            )
        except MemoryError as short:
            future.set_exception(short)
        else:
            future.set_result(answer)

"""A query that may have to wait, and when it came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from morphogen.checks import check_seconds
from morphogen.query import Query


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

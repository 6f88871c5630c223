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
    client : str or None
        Whose share of the queue it waits in.
    """

    query: Query
    arrived: float
    deadline: float | None
    client: str | None


def make_entries(
    queries: Sequence[Query], timeout: float | None, client: str | None
) -> list[Entry]:
    """Entries of queries that arrive now.

    Parameters
    ----------
    queries : sequence of Query
        The queries.
    timeout : float or None
        Seconds that they may wait; None for as long as it takes.
    client : str or None
        Whose they are.

    Returns
    -------
    list of Entry
        In the order of the queries.

    Raises
    ------
    TypeError, ValueError
        If one is no Query, timeout is no number of 0 or more, or client is no str.
    """
    for query in queries:
        if not isinstance(query, Query):
            raise TypeError(f"a query must be a Query, not {type(query).__name__}")
    if client is not None and not isinstance(client, str):
        raise TypeError(f"client must be a str, not {type(client).__name__}")
    arrived = monotonic()
    deadline = None
    if timeout is not None:
        check_seconds("timeout", timeout)
        deadline = arrived + timeout
    return [Entry(query, arrived, deadline, client) for query in queries]

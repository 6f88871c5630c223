"""The rules of a client: pages and answers that it accepts, retries, and the queries that it makes.

Nothing here sends anything: every rule is a function of the messages so far.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain
from typing import Any, SupportsIndex

import morphogen.wire as wire
from morphogen.checks import as_indices, check_range
from morphogen.errors import EpochMismatchError, ServerError, TableMismatchError, WireError
from morphogen.keyword import TableLayout
from morphogen.planner import MAX_KEYS_PER_QUERY
from morphogen.query import Answer
from morphogen.wire import BatchResponse, TableInfo

EPOCH_TRIES = 8  # over some seconds: one server may get a new table after the other
MAX_EPOCH_BYTES = 64 * 1024
SECONDS_BETWEEN_NEWS = 1.0  # at least, between questions for no other reason than a later epoch
CAP_BYTES_A_SECOND = 256 * 1024  # at least: a cap may take longer than other messages
MAX_WAIT_SECONDS = 5.0  # however much longer a server asks for
MAX_BACKOFF_SECONDS = 1.0  # on average
# With a backoff of 0.1 the waits are 3.7 to 11 seconds in all: longer than a server's restart.
RETRIES = 10
# Both mean "later": the queue is full, or the server is being replaced.
_TRY_AGAIN = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_FIELD = re.compile(r"[a-z_]{1,16}(\[\d{1,4}\])?(\.[a-z_]{1,16}(\[\d{1,4}\])?)?")


def check_answer(response: BatchResponse, info: TableInfo, url: str) -> Answer:
    """Take an answer, or refuse one from other pages than were asked for.

    Raises
    ------
    EpochMismatchError
        If the server has another epoch by now.
    TableMismatchError
        If it has the same epoch but other pages.
    """
    if response.epoch_id != info.epoch_id:
        raise EpochMismatchError(f"{url} answered from another epoch than {info.epoch_id}")
    for name in ("num_pages", "digest"):
        if getattr(response, name) != getattr(info, name):
            raise TableMismatchError(
                f"{url} answered from another table of epoch {info.epoch_id}: {name} is not that "
                "of /epoch"
            )
    queries = len(response.pages)
    return Answer(response.pages, response.epoch_id, response.num_pages, (queries,), info.party)


def decode_answer(body: bytes | bytearray, info: TableInfo, queries: int, url: str) -> Answer:
    """Decode and check a batch's answer.

    Raises
    ------
    ServerError
        If it does not have the form of an answer.
    EpochMismatchError, TableMismatchError
        See `check_answer`.
    """
    try:
        response = wire.decode_response(body, wire.MSGPACK, info, queries)
    except WireError as error:
        # Not the text: it may quote the server, which may send anything.
        raise ServerError(f"{url}: malformed answer{_where(error.field)}") from None
    return check_answer(response, info, url)


def page_indices(indices: Iterable[SupportsIndex]) -> list[int]:
    """The pages that a caller asks for.

    Raises
    ------
    TypeError
        If one is no int.
    """
    return as_indices("indices", indices)


def check_indices(indices: Iterable[int], num_pages: int) -> None:
    """Refuse a page that there is not.

    Raises
    ------
    ValueError
        If an index is out of range.
    """
    for index in indices:
        check_range("a page's index", index, 0, num_pages - 1)


def page_rows(indices: Sequence[int], info: TableInfo) -> list[list[int]]:
    """Queries for pages. Page 0 fills up the last, and stands for pages that there are not."""
    width = info.keys_per_query
    there = [index if index < info.num_pages else 0 for index in indices]
    there += [0] * (-len(there) % width)
    return [there[start : start + width] for start in range(0, len(there), width)]


def lookup_keys(keys: Iterable[bytes]) -> list[bytes]:
    """The keys that a caller looks up.

    Raises
    ------
    TypeError
        If one is not bytes.
    """
    if isinstance(keys, (bytes, bytearray, memoryview, str)):
        raise TypeError(f"keys must be an iterable of keys, not one {type(keys).__name__}")
    wanted = list(keys)
    for key in wanted:
        if not isinstance(key, bytes):
            raise TypeError(f"a key must be bytes, not {type(key).__name__}")
    return wanted


def lookup_layout(info: TableInfo) -> TableLayout:
    """The layout of the servers' table, if keys can be looked up in it.

    Raises
    ------
    TableMismatchError
        If it is not a keyword table, its layout is not that of its pages, or queries have not as
        many keys as a key has candidates.
    """
    layout = table_layout(info)
    if info.keys_per_query != MAX_KEYS_PER_QUERY:
        raise TableMismatchError(
            f"a lookup takes {MAX_KEYS_PER_QUERY} keys a query: the servers answer queries of "
            f"{info.keys_per_query}"
        )
    return layout


def table_layout(info: TableInfo) -> TableLayout:
    """The layout of the servers' keyword table.

    Raises
    ------
    TableMismatchError
        If it is not a keyword table, or its layout is not that of its pages.
    """
    if info.table is None:
        raise TableMismatchError(
            "the servers' table has pages only: keys can be looked up in a keyword table"
        )
    try:
        layout = TableLayout.from_dict(info.table)
    except (ValueError, TypeError):
        raise TableMismatchError("the servers' keyword layout is malformed") from None
    for name in ("num_pages", "page_size"):
        if getattr(layout, name) != getattr(info, name):
            raise TableMismatchError(
                f"the servers' keyword layout has {name} {getattr(layout, name)}, their table "
                f"{getattr(info, name)}"
            )
    return layout


def lookup_rows(keys: Sequence[bytes], layout: TableLayout) -> list[list[int]]:
    """A query for each fragment of each key: its candidates, three whatever the key."""
    candidates = chain(*map(layout.candidates, keys))
    return [list(row) for row in zip(*[candidates] * MAX_KEYS_PER_QUERY, strict=True)]


def answer_bytes(info: TableInfo, queries: int) -> int:
    """The most bytes that an answer in MessagePack can have."""
    return queries * (16 + info.keys_per_query * (info.page_size + 16)) + 4096


def refusal(status: int, field: Any, url: str) -> Exception:
    """The error for a status that is not 200."""
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    if status == HTTPStatus.CONFLICT:
        return EpochMismatchError(f"{url}: {phrase}: not the keys or the epoch of its table")
    if 300 <= status < 400:
        return ServerError(f"{url}: {phrase}: redirects are not followed, keys go nowhere else")
    return ServerError(f"{url}: {phrase}{_where(field)}")


def _where(field: Any) -> str:
    # A server's own words could repeat keys into a log: only the name of a field is taken.
    known = isinstance(field, str) and _FIELD.fullmatch(field)
    return f" (field {field})" if known else ""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to send the same bytes to the same server again.

    Attributes
    ----------
    retries : int
        The number of attempts after the first.
    backoff : float
        Seconds to wait before the first retry, on average; twice as many before each next, up to
        `MAX_BACKOFF_SECONDS`.

    """

    retries: int
    backoff: float

    def wait(self, attempt: int, retry_after: str | None = None) -> float:
        """Seconds to wait after a failed attempt, counted from 0."""
        # Jitter, so that clients that failed together do not come back together.
        usual = min(self.backoff * 2 ** min(attempt, 32), MAX_BACKOFF_SECONDS)
        jittered: float = usual * random.uniform(0.5, 1.5)
        asked = float(retry_after) if retry_after and re.fullmatch(r"\d{1,9}", retry_after) else 0
        return min(max(jittered, asked), MAX_WAIT_SECONDS)

    def again(self, status: int) -> bool:
        """Whether a status is worth another attempt."""
        return status in _TRY_AGAIN

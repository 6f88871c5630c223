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

import morphogen.dpf as dpf
import morphogen.wire as wire
from morphogen.authentication import num_cap_nodes
from morphogen.authentication.hashing import HASH_BYTES
from morphogen.checks import as_indices, check_range
from morphogen.client.addresses import PARTIES, ServerAddress
from morphogen.errors import EpochMismatchError, ServerError, TableMismatchError, WireError
from morphogen.keyword import TableLayout
from morphogen.pages import MAX_PAGE_SIZE
from morphogen.planner import MAX_KEYS_PER_QUERY
from morphogen.query import Answer
from morphogen.wire import BatchResponse, TableInfo

EPOCH_TRIES = 8  # over some seconds: one server may get a new table after the other
MAX_EPOCH = 2**63 - 1
MAX_EPOCH_BYTES = 64 * 1024
CAP_BYTES_A_SECOND = 256 * 1024  # at least: a cap may take longer than other messages
MAX_WAIT_SECONDS = 5.0  # however much longer a server asks for
MAX_BACKOFF_SECONDS = 1.0  # on average
# With a backoff of 0.1 the waits are 3.7 to 11 seconds in all: longer than a server's restart.
RETRIES = 10
# Both mean "later": the queue is full, or the server is being replaced.
_TRY_AGAIN = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_FIELD = re.compile(r"[a-z_]{1,16}(\[\d{1,4}\])?(\.[a-z_]{1,16}(\[\d{1,4}\])?)?")


def check_info(info: TableInfo, url: str) -> TableInfo:
    """Check that the description of a server is possible at all.

    Raises
    ------
    ServerError
        If not; the message names the field, what is allowed and what the server said.
    """
    for name, low, high in (
        ("format_version", wire.FORMAT_VERSION, wire.FORMAT_VERSION),
        ("party", 0, PARTIES - 1),
        ("num_pages", 1, dpf.MAX_PAGES),
        ("page_size", 1, MAX_PAGE_SIZE),
        ("keys_per_query", 1, MAX_KEYS_PER_QUERY),
        ("epoch_id", 0, MAX_EPOCH),
    ):
        value = getattr(info, name)
        if not low <= value <= high:
            # A large number may be as long as a key, and be one.
            given = f", not {value}" if abs(value) < 2**32 else ""
            raise ServerError(f"{url}: {name} must be in {low}..{high}{given}")
    if not re.fullmatch(r"[0-9a-f]{64}", info.digest):
        raise ServerError(f"{url}: digest must be 64 hexadecimal digits")
    if fault := _root_fault(info):
        raise ServerError(f"{url}: {fault}")
    return info


def _root_fault(info: TableInfo) -> str:
    """What cannot be of the root that a server states, if it states one."""
    levels = info.proof_levels
    if info.root is None and levels is None:
        return ""
    if info.root is None or levels is None:
        return "it states a root without proof levels, or these without a root"
    if info.root != info.digest:
        return "root must be the digest"
    try:
        num_cap_nodes(info.num_pages, levels)
    except ValueError:
        return "proof_levels is more than the tree over its pages has"
    return "" if info.page_size > HASH_BYTES * levels else "its pages are all proof levels"


def agree(
    infos: Sequence[TableInfo],
    addresses: Sequence[ServerAddress],
    known: TableInfo | None,
) -> tuple[TableInfo, TableInfo]:
    """Check that both servers are a pair over the same pages.

    Parameters
    ----------
    infos : sequence of TableInfo
        The description of each server, in the order of the URLs.
    addresses : sequence of ServerAddress
        The servers.
    known : TableInfo or None
        The description that was agreed before.

    Returns
    -------
    tuple of (TableInfo, TableInfo)

    Raises
    ------
    ServerError
        If both say that they are the same party.
    EpochMismatchError
        If their epochs differ: one of them may be about to follow.
    TableMismatchError
        If the pages differ under one epoch.
    """
    one, other = infos
    if one.party == other.party:
        raise ServerError(
            f"{addresses[0].url} and {addresses[1].url} both say that they are party {one.party}: "
            "one must be party 0 and the other party 1"
        )
    if one.epoch_id != other.epoch_id:
        raise EpochMismatchError(
            f"the servers have different epochs: {addresses[0].url} has {one.epoch_id}, "
            f"{addresses[1].url} has {other.epoch_id}"
        )
    differs = _difference(one, other)
    if differs:
        raise TableMismatchError(
            f"the servers disagree about the table of epoch {one.epoch_id}: {differs}, at "
            f"{addresses[0].url} and {addresses[1].url}"
        )
    if known is not None and known.epoch_id == one.epoch_id:
        differs = _difference(known, one)
        if differs:
            raise TableMismatchError(
                f"the servers changed the table, but not its epoch {one.epoch_id}: {differs}"
            )
    return one, other


def _difference(one: TableInfo, other: TableInfo) -> str:
    if (one.root is None) != (other.root is None):
        return "a root is stated by one, and left out by the other"
    for name in ("num_pages", "page_size", "keys_per_query", "proof_levels", "digest"):
        was, now = getattr(one, name), getattr(other, name)
        if was != now:
            return f"{name} differs" if name == "digest" else f"{name} is {was} and {now}"
    return "its keyword layout differs" if one.table != other.table else ""


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

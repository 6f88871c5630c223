"""Queries, answers, and the sum of two answers: the pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import numpy.typing as npt

import morphogen.dpf as dpf
from morphogen.checks import as_indices, as_int
from morphogen.errors import DomainMismatchError, EpochMismatchError
from morphogen.pages import check_array
from morphogen.planner import MAX_KEYS_PER_QUERY, KeyPacker

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in collections.abc from Python 3.12 on


class _Checked:
    """The very tuple whose keys were checked, and their n.

    A copy of a query, or one whose keys were replaced past its class, does not count as checked.
    """

    __slots__ = ("_checked",)

    _checked: tuple[tuple[bytes, ...], int]


@dataclass(frozen=True, slots=True, repr=False)
class Query(_Checked):
    """One party's keys of one query.

    Parameters
    ----------
    keys : iterable of bytes-like
        One to three keys, all for the same number of pages. They are checked and copied.

    Raises
    ------
    InvalidKeyError
        If a key does not have the form of key format v1.
    DomainMismatchError
        If the keys are for different numbers of pages.
    ValueError
        If there are none, or more than three.
    TypeError
        If keys is no iterable of bytes-like objects.
    """

    keys: tuple[bytes, ...]

    def __init__(self, keys: Iterable[Buffer]) -> None:
        if isinstance(keys, (bytes, bytearray, memoryview, str)):
            raise TypeError(f"keys must be a sequence of keys, not one {type(keys).__name__}")
        parsed = [dpf.parse_key(key) for key in keys]
        if not 1 <= len(parsed) <= MAX_KEYS_PER_QUERY:
            raise ValueError(f"a query has 1 to {MAX_KEYS_PER_QUERY} keys, not {len(parsed)}")
        for _, _, n in parsed:
            if n != parsed[0][2]:
                raise DomainMismatchError(
                    f"the keys of a query are for one table: the first has n = {parsed[0][2]}, "
                    f"another n = {n}"
                )
        self._hold(tuple(key for key, _, _ in parsed), parsed[0][2])

    def _hold(self, keys: tuple[bytes, ...], n: int) -> None:
        object.__setattr__(self, "keys", keys)
        object.__setattr__(self, "_checked", (keys, n))

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        # Keys are secrets of the client: a log line must not carry them.
        return f"Query({len(self.keys)} keys of {len(self.keys[0])} bytes)"


def query_of_checked_keys(keys: tuple[bytes, ...], n: int) -> Query:
    """Make a query of keys that `morphogen.dpf` made or parsed, without a second check of them.

    Parameters
    ----------
    keys : tuple of bytes
        One to three keys of one party.
    n : int
        The n that all of them have.

    Returns
    -------
    Query
        Equal to ``Query(keys)``.
    """
    query = Query.__new__(Query)
    query._hold(keys, n)
    return query


def check_query(query: Query, num_pages: int) -> None:
    """Refuse a query that an engine with so many pages does not answer.

    Keys that were checked when the query was made are not checked again.

    Parameters
    ----------
    query : Query
        The query, of any number of keys.
    num_pages : int
        Pages of the engine.

    Raises
    ------
    InvalidKeyError, KeyDomainError
        If a key is malformed, or made for another number of pages.
    TypeError, ValueError
        If the query holds something other than one to three keys.
    """
    keys, n = getattr(query, "_checked", (None, -1))
    if keys is not query.keys or n != (num_pages - 1).bit_length():
        KeyPacker(num_pages).pack([query])  # its errors say what is wrong


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Answer:
    """One party's answer to a batch.

    Attributes
    ----------
    pages : numpy.ndarray
        uint8 of shape (queries, keys per query, page_size), in request order.
        ``np.asarray(answer)`` gives the same array.
    epoch : int
        Version of the page matrix that answered.
    num_pages : int
        Pages in that page matrix.
    micro_batch_sizes : tuple of int
        Queries in each chunk that ran, in order.
    party : int or None
        The party whose keys were answered, 0 or 1; None if it is not known, or they were of both.
    """

    pages: npt.NDArray[np.uint8]
    epoch: int
    num_pages: int
    micro_batch_sizes: tuple[int, ...]
    party: int | None = None

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        if dtype is not None and np.dtype(dtype) != self.pages.dtype:
            if copy is False:
                raise ValueError(f"a copy is needed to convert uint8 to {np.dtype(dtype)}")
            return self.pages.astype(dtype)
        return self.pages.copy() if copy else self.pages

    def __repr__(self) -> str:
        return (
            f"Answer(pages=uint8{list(self.pages.shape)}, epoch={self.epoch}, "
            f"num_pages={self.num_pages}, micro_batch_sizes={self.micro_batch_sizes})"
        )


def make_query(indices: Sequence[SupportsIndex], num_pages: SupportsIndex) -> tuple[Query, Query]:
    """Make the queries that fetch one to three pages.

    Parameters
    ----------
    indices : sequence of int
        The pages to fetch, each 0 <= index < num_pages. They may repeat.
    num_pages : int
        Pages in the page matrix, 1 to 2**40.

    Returns
    -------
    tuple of (Query, Query)
        For party 0 and party 1. Send each to its own server only: both together give the indices
        away.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> import morphogen as mg
    >>> query0, query1 = mg.make_query([3, 5, 7], num_pages=1000)
    >>> query0
    Query(3 keys of 128 bytes)
    """
    dpf.key_size(num_pages)  # refuses an impossible number
    rows = [_index_row(indices, "indices")]
    (query0,), (query1,) = queries_of_rows(rows, num_pages)
    return query0, query1


def make_queries(
    rows: npt.ArrayLike | Sequence[Sequence[SupportsIndex]], num_pages: SupportsIndex
) -> tuple[list[Query], list[Query]]:
    """Make the queries of a whole batch.

    Parameters
    ----------
    rows : array_like of int, shape (queries, 1..3)
        The pages that each query fetches.
    num_pages : int
        Pages in the page matrix, 1 to 2**40.

    Returns
    -------
    tuple of (list of Query, list of Query)
        For party 0 and party 1, in the order of the rows.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or range.
    """
    dpf.key_size(num_pages)  # refuses an impossible number for an empty batch, too
    array = _as_array(rows)
    if array.ndim == 1 and array.size == 0:
        return [], []
    if array.ndim != 2:
        raise ValueError(
            f"rows must have 2 dimensions, a row of indices for each query, not {array.ndim}"
        )
    return queries_of_rows([_index_row(row, "a row") for row in array.tolist()], num_pages)


def _as_array(rows: npt.ArrayLike | Sequence[Sequence[SupportsIndex]]) -> npt.NDArray[Any]:
    try:
        array = np.asarray(rows)  # raises if the rows differ in length
        if array is not rows:
            # Of lists it makes other numbers: floats of 2**63 and 1, ints of True and 1.
            array = np.asarray(rows, dtype=object)
    except ValueError:
        raise ValueError(
            "rows must be a table of page indices: a row for each query, all equally long"
        ) from None
    if array.dtype.kind not in "iuO" and array.size:
        raise TypeError(f"rows must be integers, not {array.dtype}")
    return array


def _index_row(indices: Iterable[SupportsIndex], what: str) -> list[int]:
    row = as_indices(what, indices)
    if not 1 <= len(row) <= MAX_KEYS_PER_QUERY:
        raise ValueError(f"{what} must have 1 to {MAX_KEYS_PER_QUERY} entries, not {len(row)}")
    return row


def queries_of_rows(
    rows: list[list[int]], num_pages: SupportsIndex
) -> tuple[list[Query], list[Query]]:
    """Make the queries of rows that have the right form, as `make_queries` does of any.

    Parameters
    ----------
    rows : list of list of int
        One to three pages for each query.
    num_pages : int
        Pages in the page matrix.

    Returns
    -------
    tuple of (list of Query, list of Query)

    Raises
    ------
    ValueError
        If an index is out of range.
    """
    n = (as_int("num_pages", num_pages) - 1).bit_length()
    keys0, keys1 = dpf.gen_many([index for row in rows for index in row], num_pages)
    halves: tuple[list[Query], list[Query]] = ([], [])
    first = 0
    for row in rows:
        end = first + len(row)
        halves[0].append(query_of_checked_keys(tuple(keys0[first:end]), n))
        halves[1].append(query_of_checked_keys(tuple(keys1[first:end]), n))
        first = end
    return halves


def reconstruct(
    answer0: Answer, answer1: Answer, *, out: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
    """Add both servers' answers up to the pages that were asked for (Reconstruct).

    Parameters
    ----------
    answer0, answer1 : Answer
        The answers of party 0 and party 1 to the two halves of the same batch.
    out : numpy.ndarray, optional
        The array to write the pages to, of their shape. By default a new one.

    Returns
    -------
    numpy.ndarray
        uint8 of shape (queries, keys per query, page_size), in request order.

    Raises
    ------
    EpochMismatchError
        If the answers have different epochs.
    DomainMismatchError
        If they differ in num_pages, or the answers in shape.
    TypeError
        If an argument is no Answer, or out is not an array of uint8.
    ValueError
        If both answers are one, or of one party, or out has another shape or is read-only.

    Notes
    -----
    A server that answers falsely is not caught here: see docs/protocol.md.

    Examples
    --------
    Two servers have the same pages; here one engine stands for both.

    >>> import numpy as np
    >>> import morphogen as mg
    >>> array = np.random.default_rng(1).integers(0, 256, (1000, 64), dtype=np.uint8)
    >>> query0, query1 = mg.make_query([3, 5, 7], num_pages=1000)
    >>> with mg.open_engine(mg.PageMatrix(array), device="cpu") as engine:
    ...     answer0 = engine.answer([query0])
    ...     answer1 = engine.answer([query1])
    >>> pages = mg.reconstruct(answer0, answer1)
    >>> pages.shape
    (1, 3, 64)
    >>> bool((pages[0] == array[[3, 5, 7]]).all())
    True
    """
    for answer in (answer0, answer1):
        if not isinstance(answer, Answer):
            raise TypeError(f"an answer must be an Answer, not {type(answer).__name__}")
    if answer0.epoch != answer1.epoch:
        raise EpochMismatchError(
            f"the answers are of different epochs: {answer0.epoch} and {answer1.epoch}"
        )
    if answer0.num_pages != answer1.num_pages:
        raise DomainMismatchError(
            f"the answers are of tables of different sizes: {answer0.num_pages} and "
            f"{answer1.num_pages} pages"
        )
    if answer0.pages.shape != answer1.pages.shape:
        raise DomainMismatchError(
            f"the answers differ in shape: {answer0.pages.shape} and {answer1.pages.shape}"
        )
    if answer0.party is not None and answer0.party == answer1.party:
        raise ValueError(
            f"the answers must be of party 0 and party 1, not both of party {answer0.party}"
        )
    if answer0.pages is answer1.pages and answer0.pages.size:
        raise ValueError("the answers must be of party 0 and party 1, not one answer twice")
    if out is not None:
        check_array("out", out, answer0.pages.shape)
    return np.bitwise_xor(answer0.pages, answer1.pages, out=out)

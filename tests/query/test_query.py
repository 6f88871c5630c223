"""Query, and the first steps of a client: make_query, make_queries."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import re
from typing import Any

import numpy as np
import pytest

import morphogen as mg

NUM_PAGES = 1000


def hidden_index(query0: mg.Query, query1: mg.Query, position: int, num_pages: int) -> int:
    """The page that a pair of keys fetches."""
    shares = [mg.dpf.eval_full(query.keys[position], num_pages) for query in (query0, query1)]
    (index,) = np.flatnonzero(np.unpackbits(shares[0] ^ shares[1], bitorder="little"))
    return int(index)


# Query


@pytest.mark.parametrize("count", [1, 2, 3])
def test_query_holds_its_keys_as_bytes(count: int) -> None:
    keys = [mg.dpf.gen(i, NUM_PAGES)[0] for i in range(count)]
    for given in (keys, tuple(keys), iter(keys), [bytearray(key) for key in keys]):
        query = mg.Query(given)
        assert query.keys == tuple(keys)
        assert type(query.keys) is tuple
        assert {type(key) for key in query.keys} == {bytes}
        assert len(query) == count


def test_query_copies_its_keys() -> None:
    key = bytearray(mg.dpf.gen(7, NUM_PAGES)[0])
    query = mg.Query([key])
    expected = bytes(key)
    key[:] = bytes(len(key))
    assert query.keys == (expected,)


@pytest.mark.parametrize("count", [0, 4, 10])
def test_query_of_another_number_of_keys(count: int) -> None:
    keys = [mg.dpf.gen(0, NUM_PAGES)[0]] * count
    with pytest.raises(ValueError, match=rf"1 to 3 keys, not {count}$"):
        mg.Query(keys)


def test_one_key_is_no_sequence_of_keys() -> None:
    key = mg.dpf.gen(0, NUM_PAGES)[0]
    ones: tuple[Any, ...] = (key, bytearray(key), memoryview(key), "key")
    for one in ones:
        with pytest.raises(TypeError, match=rf"not one {type(one).__name__}$"):
            mg.Query(one)


@pytest.mark.parametrize("keys", [None, 5, [None], [5.0], ["key"], [["key"]]])
def test_query_of_other_types(keys: Any) -> None:
    with pytest.raises(TypeError):
        mg.Query(keys)


def test_keys_of_one_query_are_for_one_table() -> None:
    keys = [mg.dpf.gen(0, num_pages)[0] for num_pages in (NUM_PAGES, NUM_PAGES, 100)]
    with pytest.raises(mg.DomainMismatchError, match=r"n = 10, another n = 7$"):
        mg.Query(keys)


def test_query_is_a_value() -> None:
    query, other = mg.make_query([1, 2], NUM_PAGES)
    assert query == mg.Query(query.keys) == copy.deepcopy(query)
    assert query == pickle.loads(pickle.dumps(query))
    assert hash(query) == hash(mg.Query(query.keys))
    assert query != other
    with pytest.raises(dataclasses.FrozenInstanceError):
        query.keys = ()  # type: ignore[misc]


def test_query_shows_no_key() -> None:
    query = mg.make_query([1, 2], NUM_PAGES)[0]
    for text in (repr(query), str(query), f"{query}", repr([query])):
        assert "Query(2 keys of 128 bytes)" in text
        for key in query.keys:
            assert key.hex() not in text
            assert repr(key)[2:-1] not in text


# make_query, make_queries


@pytest.mark.parametrize("indices", [[0], [999], [5, 5], [1, 2, 3], (7, 8), range(3)])
def test_make_query_fetches_the_indices(indices: Any) -> None:
    query0, query1 = mg.make_query(indices, NUM_PAGES)
    assert len(query0.keys) == len(query1.keys) == len(indices)
    for position, index in enumerate(indices):
        assert hidden_index(query0, query1, position, NUM_PAGES) == index
    assert {key[4] for key in query0.keys} == {0}
    assert {key[4] for key in query1.keys} == {1}


def test_equal_indices_get_fresh_keys() -> None:
    query0, _ = mg.make_query([5, 5, 5], NUM_PAGES)
    again, _ = mg.make_query([5, 5, 5], NUM_PAGES)
    assert len({*query0.keys, *again.keys}) == 6


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_indices_may_be_numpy_integers(kind: Any) -> None:
    row: Any = np.array([3, 200, 77], dtype=kind)
    assert [
        hidden_index(*mg.make_query(indices, kind(250)), position, 250)
        for indices in (row, list(row))
        for position in range(3)
    ] == [3, 200, 77] * 2
    queries0, queries1 = mg.make_queries(np.stack([row, row[::-1]]), kind(250))
    assert hidden_index(queries0[1], queries1[1], 0, 250) == 77


@pytest.mark.parametrize("keys", [1, 2, 3])
def test_make_queries_keeps_the_order_of_the_rows(keys: int) -> None:
    rows = np.random.default_rng(keys).integers(0, NUM_PAGES, (6, keys))
    for given in (
        rows,
        rows.tolist(),
        [tuple(row) for row in rows.tolist()],
        np.asfortranarray(rows),
    ):
        queries0, queries1 = mg.make_queries(given, NUM_PAGES)
        assert type(queries0) is type(queries1) is list
        found = [
            [hidden_index(*pair, position, NUM_PAGES) for position in range(keys)]
            for pair in zip(queries0, queries1, strict=True)
        ]
        assert found == rows.tolist()


@pytest.mark.parametrize("rows", [[], (), np.zeros((0, 3), dtype=int), np.zeros((0, 1))])
def test_make_queries_of_no_rows(rows: Any) -> None:
    assert mg.make_queries(rows, NUM_PAGES) == ([], [])


@pytest.mark.parametrize("indices", [[], [1, 2, 3, 4], range(9)])
def test_make_query_of_another_number_of_indices(indices: Any) -> None:
    with pytest.raises(ValueError, match=rf"1 to 3 entries, not {len(indices)}$"):
        mg.make_query(indices, NUM_PAGES)


@pytest.mark.parametrize("indices", [5, None, "12", [1.0], ["1"], [None], [[1]], np.array([1.0])])
def test_make_query_of_other_types(indices: Any) -> None:
    with pytest.raises(TypeError, match=r"indices must be a sequence of ints"):
        mg.make_query(indices, NUM_PAGES)


@pytest.mark.parametrize("index", [-1, NUM_PAGES, 2**64])
def test_index_outside_the_table(index: int) -> None:
    message = rf"index must be in 0\.\.999, not {index}$"
    with pytest.raises(ValueError, match=message):
        mg.make_query([0, index], NUM_PAGES)
    rows = [[0, 1], [2, index]]
    for given in (rows, tuple(map(tuple, rows)), np.array(rows, dtype=object)):
        with pytest.raises(ValueError, match=message):
            mg.make_queries(given, NUM_PAGES)


# The types that numpy makes of such rows: uint64, float64 (with -1 or 1 beside 2**63), object.
@pytest.mark.parametrize(
    "row",
    [
        [2**63],
        [2**63, 1, 2],
        [2**64 - 1, -1, 0],
        [2**64, 1, 2],
        [-(2**63)],
        [1, -(2**63) - 1],
        [1, 2, 10**4000],
        [np.uint64(2**63), np.int64(3)],
    ],
)
def test_no_index_is_too_large_for_a_right_error(row: Any) -> None:
    wrong = next(index for index in row if not 0 <= index < NUM_PAGES)
    message = rf"^index must be in 0\.\.999, not {wrong}$"
    with pytest.raises(ValueError, match=message):
        mg.make_query(row, NUM_PAGES)
    with pytest.raises(ValueError, match=message):
        mg.make_queries([row, row], NUM_PAGES)


@pytest.mark.parametrize("num_pages", [2**40, 2**33 + 5])
def test_indices_of_large_tables_in_every_kind_of_rows(num_pages: int) -> None:
    last = num_pages - 1
    for rows in ([[last, 0]], np.array([[last, 0]]), np.array([[last, 0]], dtype=object)):
        (query0,), (query1,) = mg.make_queries(rows, num_pages)
        for index, keys in zip((last, 0), zip(query0.keys, query1.keys, strict=True), strict=True):
            assert sum(mg.dpf.eval_at(key, index, num_pages) for key in keys) == 1


def test_every_index_is_checked_before_the_first_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda size: pytest.fail("a key was made"))
    with pytest.raises(ValueError, match=r"not 1000$"):
        mg.make_queries([[0]] * 5 + [[NUM_PAGES]], NUM_PAGES)


@pytest.mark.parametrize(
    "row", [[1.0, 2], [True, False, True], [np.True_, 1], ["1", "2"], [None, 1], [1 + 0j, 2]]
)
def test_an_index_is_an_int_and_no_bool(row: Any) -> None:
    """A row of bools is a mask, not indices."""
    with pytest.raises(TypeError, match=r"^indices must be a sequence of ints: "):
        mg.make_query(row, NUM_PAGES)
    for given in ([row], np.array([row], dtype=object)):
        with pytest.raises(TypeError, match=r"^a row must be a sequence of ints: "):
            mg.make_queries(given, NUM_PAGES)


@pytest.mark.parametrize("num_pages", [0, -5, 2**40 + 1])
def test_num_pages_out_of_range(num_pages: int) -> None:
    with pytest.raises(ValueError, match=rf"num_pages must be in .* not {num_pages}$"):
        mg.make_query([0], num_pages)
    with pytest.raises(ValueError, match=rf"num_pages must be in .* not {num_pages}$"):
        mg.make_queries([[0]], num_pages)


@pytest.mark.parametrize(
    ("rows", "given"),
    [(5, "0"), ([1, 2, 3], "1"), (np.zeros((2, 2, 2), dtype=int), "3")],
)
def test_make_queries_of_another_dimension(rows: Any, given: str) -> None:
    with pytest.raises(ValueError, match=rf"^rows must have 2 dimensions, .* not {given}$"):
        mg.make_queries(rows, NUM_PAGES)


def test_no_rows_for_an_impossible_table() -> None:
    with pytest.raises(ValueError, match=r"num_pages must be in 1\.\.2\*\*40, not 0$"):
        mg.make_queries([], 0)


@pytest.mark.parametrize("width", [0, 4, 9])
def test_make_queries_of_another_width(width: int) -> None:
    with pytest.raises(ValueError, match=rf"1 to 3 entries, not {width}$"):
        mg.make_queries(np.zeros((2, width), dtype=int), NUM_PAGES)


def test_make_queries_of_ragged_rows() -> None:
    with pytest.raises(ValueError, match=r"^rows must be a table .*, all equally long$"):
        mg.make_queries([[1, 2], [3]], NUM_PAGES)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.bool_, np.complex128, "U1", "M8[s]"])
def test_make_queries_of_other_types(dtype: Any) -> None:
    message = rf"rows must be integers, not {re.escape(str(np.dtype(dtype)))}$"
    with pytest.raises(TypeError, match=message):
        mg.make_queries(np.ones((2, 3)).astype(dtype), NUM_PAGES)

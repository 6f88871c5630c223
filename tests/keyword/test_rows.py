"""The rows of a keyword table in native memory: what goes in, and what is refused whole."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import morphogen as mg
from morphogen.keyword.builder import TableBuilder
from morphogen.keyword.rows import Rows
from tables_in_memory import items_of

PAIRS = st.lists(st.tuples(st.binary(max_size=200), st.binary(max_size=300)), max_size=50)


def sizes(rows: Rows) -> list[int]:
    out = np.empty(rows.count, dtype=np.uint32)
    rows.value_sizes(out, 0)
    return [int(size) for size in out]


@given(batches=st.lists(PAIRS, max_size=5))
@settings(max_examples=50, deadline=None)
def test_rows_of_many_batches_have_their_sizes(batches: list[list[tuple[bytes, bytes]]]) -> None:
    rows = Rows()
    for batch in batches:
        rows.add_many([key for key, _ in batch], [value for _, value in batch])
    assert sizes(rows) == [len(value) for batch in batches for _, value in batch]


def test_text_is_stored_as_utf_8() -> None:
    builder = TableBuilder(page_size=512)
    builder.add("schlüssel", "größe")
    builder.add_many(("a", b"b", "\N{SNOWMAN}"), ["", b"\xff", "\U0001f600"])
    assert items_of(builder.build(), ["schlüssel".encode(), b"a", b"b", "☃".encode()]) == [
        "größe".encode(), b"", b"\xff", "\U0001f600".encode(),
    ]  # fmt: skip


def test_a_row_takes_little_more_than_its_bytes() -> None:
    rows = Rows()
    rows.add_many([b"k" * 16] * 1000, [b"v" * 32] * 1000)
    assert rows.memory() == 1000 * (16 + 32 + 2 + 8)


WRONG: list[tuple[Any, Any, type[Exception], str]] = [
    ([b"a", 5], [b"", b""], TypeError, "entry 4: a key must be bytes or str, not int"),
    ([b"a", b"b"], [b"", None], TypeError, "entry 4: a value must be bytes or str, not NoneType"),
    ([b"a", b"b"], [b""], ValueError, "there must be a value for each of 2 keys, not 1"),
    (b"ab", [b"", b""], TypeError, "must be sequences of bytes or str, not bytes"),
    ([b"a", b"b"], "vw", TypeError, "must be sequences of bytes or str, not str"),
    (5, [b""], TypeError, "keys must be a sequence"),
    (["a", "\ud800"], ["", ""], ValueError, "entry 4: its key is text with a lone surrogate, at 0"),
    (["a", "b"], ["", "12\udfff"], ValueError, "entry 4: its value is .* lone surrogate, at 2"),
    ([bytearray(b"a")], [b""], TypeError, "entry 3: a key must be bytes or str, not bytearray"),
]


@pytest.mark.parametrize(("keys", "values", "error", "message"), WRONG)
def test_a_batch_with_a_wrong_row_adds_nothing(
    keys: Any, values: Any, error: type[Exception], message: str
) -> None:
    builder = TableBuilder(page_size=512)
    builder.add_many([b"x", b"y"], [b"1", b"2"])
    with pytest.raises(error, match=message):
        builder.add_many(keys, values)
    assert len(builder) == 2
    builder.add(b"z", b"3")
    assert items_of(builder.build(), [b"x", b"y", b"z", b"a"]) == [b"1", b"2", b"3", None]


def test_sequences_other_than_lists_are_taken() -> None:
    builder = TableBuilder(page_size=512)
    others: Any = [(np.array([b"a", b"b"]), iter([b"1", b"2"])), ({b"c": 0}.keys(), deque([b"3"]))]
    for keys, values in others:
        builder.add_many(keys, values)
    assert items_of(builder.build(), [b"a", b"b", b"c"]) == [b"1", b"2", b"3"]


def test_nothing_is_added_while_a_table_is_built() -> None:
    builder = TableBuilder(page_size=512)
    builder.add(b"a", b"1")

    def add(done: int, total: int, name: str) -> None:
        if name == "sealing":
            return  # the pages have all of the entries
        with pytest.raises(mg.MorphogenError, match="nothing can be added while a table is built"):
            builder.add(b"b", b"2")

    built = builder.build(add)
    assert built.layout.entries == len(builder) == 1
    builder.add(b"b", b"2")
    assert items_of(builder.build(), [b"a", b"b"]) == [b"1", b"2"]


def test_sizes_of_rows_that_are_not_there_are_refused() -> None:
    rows = Rows()
    rows.add_many([b"a"], [b"1"])
    for first, count in ((1, 1), (0, 2), (2**63, 1), (2, 0)):
        with pytest.raises(ValueError, match="first must leave"):
            rows.value_sizes(np.empty(count, dtype=np.uint32), first)

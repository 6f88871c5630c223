"""The native parts of an update: arrays that do not go together are refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from keyword_tables import numbered
from morphogen.keyword.entries import Entries
from morphogen.keyword.matching import match_entries
from morphogen.keyword.moving import place_more
from table_updates import rows_of


@pytest.fixture
def entries() -> Entries:
    """Nine entries of values up to four bytes, in slots of 24."""
    made = Entries(rows_of(numbered(9, 4)), None, 4, 9)
    made.set_seed(bytes(16))
    return made


def arrays(num_pages: int = 5, page_size: int = 50, slots: int = 10, bytes_touched: int = 5) -> Any:
    return (
        np.zeros((num_pages, page_size), dtype=np.uint8),
        2,
        np.zeros(slots, dtype=np.uint32),
        np.zeros(bytes_touched, dtype=np.uint8),
    )


def test_an_empty_table_has_none_of_the_entries(entries: Entries) -> None:
    pages, slots, owners, touched = arrays()
    found = match_entries(entries, pages, slots, owners, touched)
    assert found is not None
    assert found[0].tolist() == list(range(9))
    assert found[1:] == (0, 0)
    assert not owners.any()
    assert not touched.any()
    # Five pages of two slots have room for nine.
    moved = place_more(entries, found[0], slots, owners, touched)
    assert moved is not None
    assert sorted(owners) == list(range(10))
    assert touched.all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"page_size": 47}, "slots_per_page must fit a page, not 2"),
        ({"num_pages": 0, "slots": 0, "bytes_touched": 0}, "slots and entries must be 1 to"),
        ({"slots": 9}, "owners must have 10 numbers, not 9"),
        ({"bytes_touched": 4}, "touched must have 5 bytes, not 4"),
    ],
)
def test_arrays_of_another_shape_are_not_matched(
    entries: Entries, given: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        match_entries(entries, *arrays(**given))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda added, owners: (added, 3, owners), "owners must be those of 5 pages, not 10"),
        (lambda added, owners: (added, 0, owners), "owners must be those of 5 pages, not 10"),
        (lambda added, owners: (added + 1, 2, owners), "the number of an entry must be below 9"),
        (lambda added, owners: (added, 2, owners + 10), "the number of an entry must be below 9"),
    ],
)
def test_numbers_that_are_no_entries_are_not_placed(
    entries: Entries, change: Callable[..., Any], message: str
) -> None:
    _, _, owners, touched = arrays()
    added, slots, owners = change(np.array([8], dtype=np.uint32), owners)
    with pytest.raises(ValueError, match=message):
        place_more(entries, added, slots, owners, touched)


def test_what_is_no_entries_is_refused() -> None:
    pages, slots, owners, touched = arrays()
    for other in (None, [b"key"]):
        with pytest.raises(TypeError, match="entries must be Entries"):
            match_entries(other, pages, slots, owners, touched)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="entries must be Entries"):
            place_more(other, owners, slots, owners, touched)  # type: ignore[arg-type]

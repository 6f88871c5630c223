"""The filling of pages: which pages and slots are refused before a byte is written."""

from __future__ import annotations

import numpy as np
import pytest

from morphogen.keyword.entries import Entries
from morphogen.keyword.filling import fill_pages
from morphogen.keyword.rows import Rows


def one_entry() -> Entries:
    rows = Rows()
    rows.add_many([b"key"], [b"value"])
    entries = Entries(rows, None, value_size=5, count=1)
    entries.set_seed(bytes(16))
    return entries


@pytest.mark.parametrize("first_page", [2, 3, 2**63, 2**64 - 1])
def test_pages_that_the_table_does_not_have_are_refused(first_page: int) -> None:
    pages = np.full((2, 64), 7, dtype=np.uint8)
    owners = np.array([1, 0, 0], dtype=np.uint32)
    with pytest.raises(ValueError, match=f"that of 2 pages, not {first_page}"):
        fill_pages(one_entry(), owners, 1, pages, first_page)
    assert (pages == 7).all()


@pytest.mark.parametrize("slots", [0, 3])
def test_slots_that_do_not_fit_a_page_are_refused(slots: int) -> None:
    pages = np.full((1, 64), 7, dtype=np.uint8)  # a slot takes 25 bytes
    with pytest.raises(ValueError, match=f"slots_per_page must fit a page, not {slots}"):
        fill_pages(one_entry(), np.zeros(8, dtype=np.uint32), slots, pages, 0)
    assert (pages == 7).all()


def test_the_last_pages_are_filled_and_owners_that_there_are_not_leave_their_slots_empty() -> None:
    pages = np.full((2, 64), 7, dtype=np.uint8)
    owners = np.array([0, 0, 0, 1, 2, 2**32 - 1], dtype=np.uint32)
    fill_pages(one_entry(), owners, 2, pages, 1)
    assert pages[0, 25 + 20 : 25 + 25].tobytes() == b"value"
    assert not pages[0, :25].any()
    assert not pages[1].any()

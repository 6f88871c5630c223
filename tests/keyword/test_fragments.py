"""Values longer than a slot, in fragments: by an implementation that shares nothing with ours."""

from __future__ import annotations

import re
import struct
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from keyword_tables import plain, read
from morphogen.keyword import TableLayout
from morphogen.keyword.layout import hash_key
from naive import Bytes

SEED = bytes(range(16))
KEYS = (b"", b"one", b"two", b"three", b"\xff" * 70)


def a_layout(**changes: Any) -> TableLayout:
    values: dict[str, Any] = {
        "num_pages": 40,
        "page_size": 200,
        "slots_per_page": 5,
        "value_size": 5,
        "seed": SEED,
        "entries": 60,
        "fragments": 4,
        "proof_levels": 1,
    }
    return TableLayout(**values | changes)


def filled(layout: TableLayout, items: dict[bytes, bytes]) -> Bytes:
    """Pages with those items; their siblings are whatever."""
    pages = np.full((layout.num_pages, layout.page_size), 255, dtype=np.uint8)
    for page, content in zip(pages, plain(layout).fill(items), strict=True):
        page[: layout.content_size] = np.frombuffer(content, dtype=np.uint8)
    return pages


@given(
    items=st.dictionaries(st.binary(max_size=9), st.binary(max_size=20), max_size=15),
    absent=st.lists(st.binary(max_size=9), max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_values_of_any_size_are_found(items: dict[bytes, bytes], absent: list[bytes]) -> None:
    layout = a_layout()
    pages = filled(layout, items)
    table = plain(layout)
    for key in [*items, *absent]:
        candidates = layout.candidates(key)
        assert candidates == table.candidates(key)
        assert len(candidates) == 12
        assert read(layout, pages, key) == items.get(key)
        rows = [pages[at].tobytes() for at in candidates]
        assert table.find(key, rows) == items.get(key)


def test_every_length_up_to_the_largest() -> None:
    layout = a_layout()
    for length in range(layout.max_value_size + 1):
        value = bytes(range(1, length + 1))
        assert read(layout, filled(layout, {b"key": value}), b"key") == value


def test_the_first_fragment_lies_where_version_1_has_it() -> None:
    assert hash_key(b"key", SEED, 1000, 0) == hash_key(b"key", SEED, 1000)
    assert a_layout().candidates(b"key")[:3] == a_layout(fragments=1).candidates(b"key")
    checks = {hash_key(b"key", SEED, 1000, fragment)[1] for fragment in range(32)}
    assert len(checks) == 32


def slots_of(layout: TableLayout, pages: Bytes, key: bytes, fragment: int) -> list[tuple[int, int]]:
    """Where the fragments of a key lie, among the pages of its candidates."""
    check = plain(layout).check(key, fragment)
    return [
        (row, at)
        for row in range(3 * fragment, 3 * fragment + 3)
        for at in range(0, layout.slots_per_page * layout.slot_size, layout.slot_size)
        if pages[row, at : at + 16].tobytes() == check
    ]


def test_a_missing_or_wrong_fragment_is_a_miss() -> None:
    layout = a_layout()
    value = bytes(range(18))
    pages = filled(layout, {b"key": value})[list(layout.candidates(b"key"))]
    assert layout.find(b"key", pages) == value
    for fragment in range(4):
        places = slots_of(layout, pages, b"key", fragment)
        right = 18 - 5 * fragment + 1
        for stored in {0, *range(1, 30), 2**32 - 1} - {right}:
            other = pages.copy()
            for row, at in places:
                other[row, at + 16 : at + 20] = np.frombuffer(struct.pack("<I", stored), np.uint8)
            found = layout.find(b"key", other)
            # A shorter value that needs fewer fragments is one, if the others agree: none does.
            expected = None
            if fragment == 0 and 1 <= stored <= 6:
                expected = value[: stored - 1]
            assert found == expected
        other = pages.copy()
        for row, at in places:
            other[row, at] ^= 1
        assert layout.find(b"key", other) is None


def test_no_page_makes_find_raise_or_compare_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of a server's choosing: nothing that the client does may depend on them."""
    layout = a_layout()
    hashed: list[int] = []

    def counting(key: bytes, seed: bytes, num_pages: int, fragment: int = 0) -> Any:
        hashed.append(fragment)
        return hash_key(key, seed, num_pages, fragment)

    monkeypatch.setattr("morphogen.keyword.layout.hash_key", counting)
    rng = np.random.default_rng(3)
    honest = filled(layout, {key: bytes(17) for key in KEYS})
    for key, kind in product(KEYS, range(4)):
        pages = honest[list(layout.candidates(key))]
        if kind == 1:
            pages[:] = 0
        elif kind == 2:
            pages ^= rng.integers(0, 2, pages.shape, dtype=np.uint8)
        elif kind == 3:
            pages[:3] = 255
        hashed.clear()
        layout.find(key, pages)
        assert hashed == [0, 1, 2, 3]


def test_pages_of_one_fragment_do_not_serve_another() -> None:
    layout = a_layout()
    pages = filled(layout, {b"key": bytes(18)})[list(layout.candidates(b"key"))]
    order = [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11]
    assert layout.find(b"key", pages[order]) is None
    with pytest.raises(ValueError, match=re.escape("shape (12, 200), not (3, 200)")):
        layout.find(b"key", pages[:3])


# The layout


def test_a_layout_there_and_back() -> None:
    layout = a_layout()
    data = layout.as_dict()
    assert data == {
        "version": 2,
        "num_pages": 40,
        "page_size": 200,
        "slots_per_page": 5,
        "value_size": 5,
        "seed": SEED.hex(),
        "entries": 60,
        "fragments": 4,
        "proof_levels": 1,
    }
    assert TableLayout.from_dict(data) == layout
    assert (layout.content_size, layout.max_value_size) == (168, 20)
    for name in ("fragments", "proof_levels"):
        with pytest.raises(ValueError, match=f"^{name} is missing from the table's layout$"):
            TableLayout.from_dict({key: value for key, value in data.items() if key != name})
    with pytest.raises(ValueError, match=r"^a table's layout has 2 fields that are unknown$"):
        TableLayout.from_dict(data | {"version": 1})


def test_what_the_root_vouches_for() -> None:
    layout = a_layout()
    assert layout.authenticated_bytes() == plain(layout).authenticated()
    assert len(layout.authenticated_bytes()) == 48
    changes: dict[str, Any] = {
        "slots_per_page": 4,
        "value_size": 6,
        "entries": 59,
        "seed": bytes(16),
        "fragments": 3,
    }
    others = [a_layout(**{name: value}) for name, value in changes.items()]
    assert len({layout.authenticated_bytes(), *(o.authenticated_bytes() for o in others)}) == 6
    with pytest.raises(ValueError, match=r"^version must be 2 for a table with a root, not 1$"):
        a_layout(version=1, fragments=1, proof_levels=0).authenticated_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "version must be 1 or 2, not 3: "),
        ({"version": 1}, "version must be 2 for a table of more than one fragment or of proof"),
        ({"version": 1, "fragments": 1}, "version must be 2 for a table of more than one"),
        ({"fragments": 0}, "fragments must be in 1..32, not 0"),
        ({"fragments": 33}, "fragments must be in 1..32, not 33"),
        ({"fragments": 2, "value_size": 0}, "fragments must be in 1..1, not 2"),
        (
            {"fragments": 3, "value_size": 2**31 - 1, "page_size": 2**40},
            "fragments must be in 1..2, not 3",
        ),
        ({"proof_levels": -1}, "proof_levels must be in 0..6, not -1"),
        ({"proof_levels": 7, "page_size": 4096}, "proof_levels must be in 0..6, not 7"),
        (
            {"proof_levels": 6, "page_size": 192},
            "proof_levels must be at most 5, so that pages of 192 bytes have room for content, not "
            "6",
        ),
        (
            {"proof_levels": 3},
            "slots_per_page must be at most 4, as many slots of 25 bytes as a page of 200 bytes "
            "with 3 proof levels has room for, not 5",
        ),
    ],
)
def test_a_wrong_layout_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        a_layout(**changes)
    if "version" not in changes:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            TableLayout.from_dict(a_layout().as_dict() | changes)

"""The keyword table: its format, its lookups and its layout."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import keyword_format as fmt
from keyword_tables import build_version_1, numbered, plain, read
from morphogen.keyword import TableLayout

PROTOCOL = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
SEED = bytes(range(0x11, 0x21))


def a_layout(**changes: Any) -> TableLayout:
    values: dict[str, Any] = {
        "num_pages": 5,
        "page_size": 64,
        "slots_per_page": 2,
        "value_size": 4,
        "seed": SEED,
        "entries": 7,
        "version": 1,
    }
    return TableLayout(**values | changes)


# The format, by an implementation of docs/protocol.md that shares nothing with the library


def document_example() -> dict[str, bytes]:
    section = PROTOCOL.read_text(encoding="utf-8").split("\n## 12. Keyword tables\n")[1]
    block = section.split("```text\n")[1].split("```")[0]
    lines = (line.partition("=") for line in re.sub(r"\n +", "", block).splitlines())
    return {name.strip(): bytes.fromhex(digits) for name, _, digits in lines}


def test_the_example_of_the_document_is_true() -> None:
    """Layout, hash, check, pages and header, from the document's own inputs."""
    document = document_example()
    table = fmt.Format(2, 64, 2, 4, document["seed"], 3)
    assert document["seed"] == SEED
    pages = [document["page.0"], document["page.1"]]
    expected = {"seed": SEED, "page.0": pages[0], "page.1": pages[1]}
    values = {b"apple": b"red", b"plum": b"blue", b"": b"", b"pear": None}
    for name, (key, value) in zip(
        ("apple", "plum", "empty", "absent"), values.items(), strict=True
    ):
        expected[f"{name}.key"] = key
        expected[f"{name}.digest"] = table.digest(key)
        expected[f"{name}.pages"] = bytes(table.candidates(key))
        assert table.find(key, [pages[at] for at in table.candidates(key)]) == value
    raw = fmt.table_file(table, pages)
    expected |= {"header.fields": raw[:104], "header.seal": raw[4064:4096]}
    assert document == expected
    assert len(fmt.entries_of(table, pages)) == 3


def test_the_library_gives_the_example_of_the_document() -> None:
    document = document_example()
    items = [(b"apple", b"red"), (b"plum", b"blue"), (b"", b"")]
    pages, layout = build_version_1(items, page_size=64, seed=SEED)
    assert layout == TableLayout(2, 64, 2, 4, SEED, 3, version=1)
    assert [row.tobytes() for row in pages] == [document["page.0"], document["page.1"]]
    for name, key in (("apple", b"apple"), ("plum", b"plum"), ("empty", b""), ("absent", b"pear")):
        assert bytes(layout.candidates(key)) == document[f"{name}.pages"]


@given(
    keys=st.dictionaries(st.binary(max_size=40), st.binary(max_size=30), min_size=1, max_size=60),
    page_size=st.integers(50, 300),
    absent=st.lists(st.binary(max_size=40), max_size=10),
)
@settings(max_examples=60, deadline=None)
def test_any_table_is_read_alike_by_the_independent_implementation(
    keys: dict[bytes, bytes], page_size: int, absent: list[bytes]
) -> None:
    pages, layout = build_version_1(keys.items(), page_size=page_size)
    table = plain(layout)
    rows = [row.tobytes() for row in pages]
    entries = fmt.entries_of(table, rows)
    assert len(entries) == len(keys) == layout.entries
    for key in [*keys, *absent]:
        candidates = layout.candidates(key)
        assert candidates == table.candidates(key)
        assert read(layout, pages, key) == keys.get(key)
        assert table.find(key, [rows[at] for at in candidates]) == keys.get(key)
    for key, value in keys.items():
        page, stored = entries[table.check(key)]
        assert stored == value
        assert page in table.candidates(key)


@pytest.mark.parametrize("num_pages", [1, 2, 3, 2**32 - 1, 2**32 + 1, 2**40 - 1, 2**40])
def test_candidates_of_tables_of_any_size(num_pages: int) -> None:
    layout = a_layout(num_pages=num_pages, entries=1)
    for number in range(200):
        key = number.to_bytes(2, "little")
        candidates = layout.candidates(key)
        assert candidates == plain(layout).candidates(key)
        assert all(0 <= page < num_pages for page in candidates)


def test_candidates_are_spread_evenly() -> None:
    layout = a_layout(num_pages=10, entries=1)
    counts = [Counter[int](), Counter[int](), Counter[int]()]
    for number in range(10_000):
        for position, page in enumerate(layout.candidates(str(number).encode())):
            counts[position][page] += 1
    for count in counts:
        assert all(850 < count[page] < 1150 for page in range(10))  # 5 standard deviations


def test_candidates_depend_on_the_seed() -> None:
    layouts = [a_layout(num_pages=2**40, entries=1, seed=bytes([i]) * 16) for i in range(5)]
    assert len({layout.candidates(b"key") for layout in layouts}) == 5


# Hits and misses


@pytest.mark.parametrize(("page_size", "slots"), [(70, 1), (100, 2), (400, 8), (4096, 81)])
def test_hits_and_misses(page_size: int, slots: int) -> None:
    items = numbered(3000, 30)
    pages, layout = build_version_1(items, page_size=page_size)
    assert layout.slots_per_page == slots
    assert pages.dtype == np.uint8
    assert pages.shape == (layout.num_pages, page_size)
    for key, value in items:
        assert read(layout, pages, key) == value
    for number in range(3000, 6000):
        assert read(layout, pages, f"key {number}".encode()) is None


def test_an_empty_value_is_not_a_miss() -> None:
    pages, layout = build_version_1([(b"there", b"")], page_size=20)
    assert layout.value_size == 0
    assert read(layout, pages, b"there") == b""
    assert read(layout, pages, b"not there") is None


def test_a_key_of_any_bytes_and_any_length() -> None:
    keys = [b"", b"\0", b"\0\0", b"\xff" * 100_000, "schlüssel".encode(), b"a", b"a\0"]
    pages, layout = build_version_1([(key, b"%d" % at) for at, key in enumerate(keys)])
    assert [read(layout, pages, key) for key in keys] == [b"%d" % at for at in range(len(keys))]


def test_values_that_look_like_slots() -> None:
    """Zeros at the end of a value are its own, and its bytes are never taken for a check."""
    values = [bytes(5), b"\0" * 30, b"\xff" * 30, b"x\0", b"\0x"]
    pages, layout = build_version_1(
        [(b"%d" % at, value) for at, value in enumerate(values)], page_size=200
    )
    assert [read(layout, pages, b"%d" % at) for at in range(len(values))] == values


def test_three_candidates_even_where_they_coincide() -> None:
    """A table of one page has nothing else to offer, and still three are read."""
    pages, layout = build_version_1(numbered(5, 3), page_size=4096)
    assert layout.num_pages == 1
    for key, value in numbered(5, 3):
        assert layout.candidates(key) == (0, 0, 0)
        assert read(layout, pages, key) == value
    assert layout.candidates(b"absent") == (0, 0, 0)
    assert read(layout, pages, b"absent") is None


def test_some_candidates_coincide_in_every_small_table() -> None:
    items = numbered(40, 3)
    pages, layout = build_version_1(items, page_size=64, seed=SEED)
    distinct = Counter(len(set(layout.candidates(key))) for key, _ in items)
    assert set(distinct) == {2, 3}
    assert all(read(layout, pages, key) == value for key, value in items)


def test_pages_may_be_strided_and_in_any_order() -> None:
    items = numbered(50, 3)
    pages, layout = build_version_1(items, page_size=64)
    for key, value in items:
        read_only = pages[list(layout.candidates(key))][::-1]
        read_only.flags.writeable = False
        assert not read_only.flags.c_contiguous
        assert layout.find(key, read_only) == value


# Answers of servers


def test_no_page_makes_find_raise() -> None:
    """Bytes of a server's choosing: nothing that the client does may depend on them."""
    pages, layout = build_version_1(numbered(50, 30), page_size=128)
    rng = np.random.default_rng(1)
    for key, _ in numbered(50):
        for fill in (0, 255, 1):
            assert layout.find(key, np.full((3, 128), fill, dtype=np.uint8)) is None
        assert layout.find(key, rng.integers(0, 256, (3, 128), dtype=np.uint8)) is None
        spoilt = pages[list(layout.candidates(key))]
        spoilt ^= rng.integers(0, 2, spoilt.shape, dtype=np.uint8)
        layout.find(key, spoilt)


@pytest.mark.parametrize("stored", [0, 6, 7, 255, 2**16, 2**31, 2**32 - 1])
def test_a_slot_with_an_impossible_length_is_no_entry(stored: int) -> None:
    layout = a_layout()
    pages = np.zeros((3, 64), dtype=np.uint8)
    slot = plain(layout).check(b"key") + stored.to_bytes(4, "little")
    pages[1, 24:44] = np.frombuffer(slot, dtype=np.uint8)
    assert layout.find(b"key", pages) is None
    # An honest slot behind it is found all the same.
    slot = slot[:16] + (3).to_bytes(4, "little") + b"ok"
    pages[2, 0:22] = np.frombuffer(slot, dtype=np.uint8)
    assert layout.find(b"key", pages) == b"ok"


@pytest.mark.parametrize(("stored", "value"), [(1, b""), (2, b"w"), (5, b"wxyz")])
def test_every_possible_length(stored: int, value: bytes) -> None:
    layout = a_layout()
    pages = np.zeros((3, 64), dtype=np.uint8)
    slot = plain(layout).check(b"key") + stored.to_bytes(4, "little") + b"wxyz"
    pages[2, 24:48] = np.frombuffer(slot, dtype=np.uint8)
    assert layout.find(b"key", pages) == value


def test_every_byte_of_a_check_counts() -> None:
    layout = a_layout(slots_per_page=1, entries=1)
    honest = plain(layout).check(b"key") + b"\1\0\0\0"
    for at in range(16):
        for bit in range(8):
            slot = bytearray(honest)
            slot[at] ^= 1 << bit
            pages = np.zeros((3, 64), dtype=np.uint8)
            pages[0, :20] = np.frombuffer(bytes(slot), dtype=np.uint8)
            assert layout.find(b"key", pages) is None


def test_bytes_behind_the_slots_are_not_searched() -> None:
    layout = a_layout(page_size=48 + 24)
    pages = np.zeros((3, 72), dtype=np.uint8)
    slot = plain(layout).check(b"key") + b"\1\0\0\0"
    pages[:, 48:68] = np.frombuffer(slot, dtype=np.uint8)
    assert layout.find(b"key", pages) is None


def test_what_find_is_not_for() -> None:
    layout = a_layout()
    with pytest.raises(TypeError, match=r"pages must be a numpy\.ndarray, not list"):
        layout.find(b"", [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pages must have dtype uint8, not float64"):
        layout.find(b"", np.zeros((3, 64)))  # type: ignore[arg-type]
    for shape in ((3, 63), (2, 64), (192,)):
        with pytest.raises(ValueError, match=re.escape(f"shape (3, 64), not {shape}")):
            layout.find(b"", np.zeros(shape, dtype=np.uint8))
    for call in (layout.candidates, lambda key: layout.find(key, np.zeros((3, 64), np.uint8))):
        with pytest.raises(TypeError, match="key must be bytes, not str"):
            call("secret")  # type: ignore[arg-type]


# The layout


def test_a_layout_there_and_back() -> None:
    layout = a_layout()
    data = layout.as_dict()
    assert data == {
        "version": 1,
        "num_pages": 5,
        "page_size": 64,
        "slots_per_page": 2,
        "value_size": 4,
        "seed": "1112131415161718191a1b1c1d1e1f20",
        "entries": 7,
    }
    assert TableLayout.from_dict(data) == layout
    assert (layout.slot_size, layout.load) == (24, 0.7)
    with pytest.raises(FrozenInstanceError):
        layout.entries = 3  # type: ignore[misc]


NUMBERS = ("num_pages", "page_size", "slots_per_page", "entries")
NOT_NUMBERS: tuple[Any, ...] = (0, -1, 2**80, 1.0, "1", None, True, [])
NOT_SIZES: tuple[Any, ...] = (-1, 2**32 - 1, 1.0, "1", None, False)
NOT_SEEDS: tuple[Any, ...] = (
    "", "11" * 15, "11" * 17, "g" * 32, "AB" * 16, "1 " * 16, " " + "1" * 31, b"1" * 16, 1, None
)  # fmt: skip
NOT_VERSIONS: tuple[Any, ...] = (0, 3, "1", True, None, 1.0)
WRONG: list[tuple[str, Any]] = [
    *((name, value) for name in NUMBERS for value in NOT_NUMBERS),
    *(("value_size", value) for value in NOT_SIZES),
    *(("seed", value) for value in NOT_SEEDS),
    *(("version", value) for value in NOT_VERSIONS),
    ("slots_per_page", 3),
    ("value_size", 13),
    ("page_size", 47),
    ("entries", 11),
    ("num_pages", 2**40 + 1),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_field_is_named(name: str, value: Any) -> None:
    names = "slots_per_page" if name in ("page_size", "value_size") else name
    data = a_layout().as_dict() | {name: value}
    with pytest.raises(ValueError, match=f"^({name}|{names}) must be "):
        TableLayout.from_dict(data)


@pytest.mark.parametrize("name", list(a_layout().as_dict()))
def test_a_missing_field_is_named(name: str) -> None:
    data = a_layout().as_dict()
    del data[name]
    with pytest.raises(ValueError, match=f"^{name} is missing"):
        TableLayout.from_dict(data)


def test_what_is_no_layout() -> None:
    with pytest.raises(ValueError, match="has 2 fields that are unknown"):
        TableLayout.from_dict(a_layout().as_dict() | {"more": 1, "and": 2})
    wrong: tuple[Any, ...] = (None, [], "layout", 5)
    for data in wrong:
        with pytest.raises(ValueError, match="a table's layout must be a mapping, not"):
            TableLayout.from_dict(data)


def test_a_layout_made_by_hand_is_checked_too() -> None:
    with pytest.raises(TypeError, match="seed must be bytes, not str"):
        a_layout(seed="1" * 16)
    with pytest.raises(TypeError, match="entries must be int, not bool"):
        a_layout(entries=True)
    with pytest.raises(ValueError, match="seed must have 16 bytes, not 15"):
        a_layout(seed=bytes(15))

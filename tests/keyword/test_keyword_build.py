"""The building of a keyword table: its load, its seeds, its places, and the input it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest

import cuckoo_reference as reference
import keyword_format as fmt
import morphogen as mg
import morphogen.keyword as keyword
import morphogen.keyword.cuckoo as cuckoo
import morphogen.keyword.placement as placement
from keyword_tables import numbered, plain, read
from morphogen.keyword import build
from morphogen.keyword.entries import Entries
from morphogen.keyword.hashing import hash_entries

SEED = bytes(range(0x11, 0x21))

# Building


@pytest.mark.parametrize(
    ("page_size", "slots", "load"), [(20, 1, 0.85), (40, 2, 0.9), (160, 8, 0.9)]
)
def test_a_hundred_thousand_entries_fill_the_table(page_size: int, slots: int, load: float) -> None:
    keys = [i.to_bytes(4, "big") for i in range(100_000)]
    built = keyword.build_table(((key, b"") for key in keys), page_size=page_size, seed=SEED)
    assert built.layout.slots_per_page == slots
    assert load - 0.001 < built.layout.load <= load
    assert built.layout.load > 0.849
    assert built.tries == 1
    table = plain(built.layout)
    entries = fmt.entries_of(table, [row.tobytes() for row in built.pages])
    assert len(entries) == 100_000
    for key in keys:
        page, _ = entries[table.check(key)]
        assert page in table.candidates(key)


@pytest.mark.parametrize(("page_size", "load"), [(20, 0.9), (40, 0.96), (160, 0.98)])
def test_tables_can_be_fuller_than_they_are_by_default(page_size: int, load: float) -> None:
    items = [(i.to_bytes(4, "big"), b"") for i in range(20_000)]
    _, layout = build(items, page_size=page_size, load=load, seed=SEED)
    assert load - 0.001 < layout.load <= load


@pytest.mark.parametrize("page_size", [20, 45, 4096])
def test_tables_of_few_entries(page_size: int) -> None:
    for count in range(1, 40):
        items = numbered(count)
        pages, layout = build(items, page_size=page_size)
        assert layout.entries == count
        assert all(read(layout, pages, key) == value for key, value in items)


def test_a_value_of_a_whole_page() -> None:
    largest = bytes(range(44))
    pages, layout = build([(b"a", largest), (b"b", b"")], page_size=64)
    assert (layout.slots_per_page, layout.value_size, layout.fragments) == (1, 44, 1)
    assert read(layout, pages, b"a") == largest
    with pytest.raises(mg.TableBuildError, match="a slot takes 20 bytes, a page of 19 bytes has"):
        build([(b"a", b"")], page_size=19)


def test_a_value_of_32_slots_at_most() -> None:
    largest = bytes(32 * 44)
    pages, layout = build([(b"a", largest), (b"b", b"")], page_size=64)
    assert (layout.value_size, layout.fragments) == (44, 32)
    assert read(layout, pages, b"a") == largest
    message = "entry 2: a value has 1409 bytes, and 32 slots of 44 bytes have room for 1408 at most"
    with pytest.raises(mg.TableBuildError, match=f"^{message}$") as caught:
        build([(b"a", largest), (b"b", largest + b"!")], page_size=64)
    assert caught.value.entries == (2,)


def test_a_table_without_entries_is_refused() -> None:
    with pytest.raises(mg.TableBuildError, match="at least one entry, not 0"):
        build([])


def test_a_key_that_is_there_twice_is_named_by_its_rows_only() -> None:
    items = [(b"a", b"1"), (b"secret", b"2"), (b"b", b"3"), (b"secret", b"2")]
    with pytest.raises(mg.TableBuildError) as caught:
        build(items)
    assert str(caught.value) == "entries 2 and 4 have the same key"
    assert caught.value.entries == (2, 4)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((bytearray(b"secret"), b""), "entry 1: a key must be bytes or str, not bytearray"),
        ((b"", None), "entry 1: a value must be bytes or str, not NoneType"),
    ],
)
def test_only_bytes_and_text(item: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        build([item])


@pytest.mark.parametrize("load", [0, -1, 1.01, float("nan"), float("inf")])
def test_loads_that_are_none(load: float) -> None:
    with pytest.raises(ValueError, match="load must be above 0 and at most 1, not"):
        build(numbered(2), load=load)


def test_page_sizes_and_seeds_that_are_none() -> None:
    for page_size in (0, -1, 2**40 + 1):
        with pytest.raises(ValueError, match=f"page_size must be in .*, not {page_size}"):
            build(numbered(2), page_size=page_size)
    with pytest.raises(ValueError, match="seed must have 16 bytes, not 3"):
        build(numbered(2), seed=b"abc")


def test_the_same_seed_gives_the_same_table() -> None:
    items = numbered(2000, 9)
    first, second = (build(items, page_size=64, seed=SEED) for _ in range(2))
    assert (first[0] == second[0]).all()
    assert first[1] == second[1]
    assert first[1].seed == SEED


def test_every_table_has_a_seed_of_its_own() -> None:
    assert len({build(numbered(1))[1].seed for _ in range(20)}) == 20


def test_a_table_that_cannot_be_is_refused_after_a_few_seeds() -> None:
    """With one slot a page, 1000 entries do not fit 1000 pages: some are no one's candidate."""
    message = (
        "no table was found for 1000 entries in 1000 pages of 1 slots with any of 8 seeds: "
        "choose a load below 1"
    )
    with pytest.raises(mg.TableBuildError, match=f"^{message}$"):
        build(numbered(1000), page_size=20, load=1.0)


@pytest.mark.parametrize("seed", [None, SEED])
def test_another_seed_is_tried_where_one_fails(
    seed: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    placements = 0

    def third_time_lucky(*args: Any) -> Any:
        nonlocal placements
        placements += 1
        return cuckoo.place(*args) if placements % 3 == 0 else None

    monkeypatch.setattr(placement, "place", third_time_lucky)
    items = numbered(100, 5)
    tables = [keyword.build_table(items, page_size=64, seed=seed) for _ in range(2)]
    for built in tables:
        assert built.tries == 3
        assert built.layout.seed != seed
        assert all(read(built.layout, built.pages, key) == value for key, value in items)
    # Those that follow a given seed are derived from it.
    assert (tables[0].layout == tables[1].layout) == (seed is not None)


def test_a_seed_that_gives_two_keys_one_check_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chance does it once in 2**128 pairs: here, under the first seed the checks have no bits."""

    masks = iter([0, 2**64 - 1])

    def hashed(entries: Entries, *args: Any, **options: Any) -> Any:
        return hash_entries(entries, *args, mask=next(masks), **options)

    monkeypatch.setattr(placement, "hash_entries", hashed)
    built = keyword.build_table(numbered(20, 5), seed=SEED)
    assert built.tries == 2
    assert all(read(built.layout, built.pages, key) == v for key, v in numbered(20, 5))


def test_progress_goes_from_nothing_to_all() -> None:
    calls: list[tuple[int, int]] = []
    build(numbered(40_000), progress=lambda done, total: calls.append((done, total)))
    assert calls[0] == (0, 160_000)
    assert calls[-1] == (160_000, 160_000)
    assert calls == sorted(calls)
    assert len(calls) > 6


# The specification: pages in plain Python


@pytest.mark.parametrize("page_size", [20, 33, 64, 512, 4096])
@pytest.mark.parametrize("largest", [0, 5, 44])
def test_a_table_without_fragments_or_proofs_is_the_specification_s_byte_for_byte(
    page_size: int, largest: int
) -> None:
    items = numbered(700, min(largest, page_size - 20))
    value_size = max(len(value) for _, value in items)
    built = keyword.build_table(
        items, page_size=page_size, seed=SEED, value_size=value_size, proof_levels=0
    )
    expected, layout = specified(items, page_size, value_size, built.layout.seed)
    assert (built.layout.num_pages, built.layout.slots_per_page) == layout
    assert [page.tobytes() for page in built.pages] == expected


def specified(
    items: list[tuple[bytes, bytes]], page_size: int, value_size: int, seed: bytes
) -> tuple[list[bytes], tuple[int, int]]:
    slot_size = 20 + value_size
    slots = page_size // slot_size
    num_pages = math.ceil(len(items) / ((0.9 if slots > 1 else 0.85) * slots))
    table = fmt.Format(num_pages, page_size, slots, value_size, seed, len(items))
    candidates = [table.candidates(key) for key, _ in items]
    owners = reference.place(candidates, num_pages, slots)
    assert owners is not None
    pages = []
    for page in range(num_pages):
        content = b""
        for owner in owners[page * slots : (page + 1) * slots]:
            slot = b""
            if owner >= 0:
                key, value = items[owner]
                slot = table.check(key) + (len(value) + 1).to_bytes(4, "little") + value
            content += slot.ljust(slot_size, b"\0")
        pages.append(content.ljust(page_size, b"\0"))
    return pages, (num_pages, slots)

"""Updates of keyword tables: the right rows afterwards, in the fewest pages."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import morphogen as mg
import morphogen.keyword.update as update_module
from keyword_tables import build_version_1, numbered
from morphogen.keyword import TableLayout
from morphogen.keyword.file import OpenedTable
from morphogen.keyword.hashing import hash_entries
from morphogen.keyword.layout import hash_key
from morphogen.keyword.matching import match_entries
from morphogen.keyword.update import NoUpdate, TableUpdate, rebuild_table, update_table
from table_updates import (
    Items,
    applied,
    built,
    check_holds,
    find,
    opened_pages,
    rows_of,
    slots_of,
    updated,
)

KEYS = [f"key {number}".encode() for number in range(80)]


def update_of(old: OpenedTable, items: Items) -> TableUpdate:
    update = update_table(old, rows_of(items.items()))
    assert isinstance(update, TableUpdate), update
    return update


def test_the_same_rows_in_any_order_change_no_page() -> None:
    items = dict(numbered(500, 40))
    old = built(items, page_size=512, value_size=10)
    shuffled = list(items.items())
    random.Random(1).shuffle(shuffled)
    update = update_of(old, dict(shuffled))
    assert len(update.indices) == 0
    assert update.contents.shape == (0, update.layout.content_size)
    assert (update.inserted, update.changed, update.deleted, update.moved) == (0, 0, 0, 0)
    assert update.layout == old.layout


def test_a_changed_value_changes_its_own_slot_only() -> None:
    items = dict(numbered(500, 40))
    old = built(items, page_size=512, value_size=40)
    new = updated(old, items | {b"key 7": b"other"})
    check_holds(new, items | {b"key 7": b"other"}, [])
    differ = (slots_of(old) != slots_of(new)).any(axis=2)
    assert differ.sum() == 1


def test_a_deleted_entry_leaves_zeros() -> None:
    items = dict(numbered(500, 40))
    old = built(items, page_size=512, value_size=40)
    fewer = {key: value for key, value in items.items() if key != b"key 40"}
    update = update_of(old, fewer)
    assert (update.inserted, update.changed, update.deleted, update.moved) == (0, 0, 1, 0)
    new = applied(old, update)
    check_holds(new, fewer, [b"key 40"])
    differ = (slots_of(old) != slots_of(new)).any(axis=2)
    assert differ.sum() == 1
    assert not slots_of(new)[differ].any()


def test_a_new_entry_takes_the_slot_of_a_deleted_one_in_a_full_table() -> None:
    items = dict.fromkeys(KEYS[:12], b"v")
    layout = TableLayout(1, 12 * 21, 12, 1, bytes(16), 12)
    old = opened_pages(np.zeros((1, 12 * 21), dtype=np.uint8), replace(layout, entries=1))
    old = updated(old, items)
    assert (slots_of(old)[:, :, 16] != 0).all()
    swapped = dict.fromkeys(KEYS[1:13], b"w")
    check_holds(updated(old, swapped), swapped, KEYS)


@pytest.mark.parametrize("sizes", [(3, 25), (25, 3), (25, 0), (0, 30), (10, 11), (20, 29)])
def test_a_value_takes_more_slots_or_fewer(sizes: tuple[int, int]) -> None:
    items = dict(numbered(60, 10))
    before, after = ({b"key 5": b"x" * size} for size in sizes)
    old = built(items | before, page_size=256, value_size=10, fragments=3)
    update = update_of(old, items | after)
    check_holds(applied(old, update), items | after, KEYS)
    more = max(1, -(-sizes[1] // 10)) - max(1, -(-sizes[0] // 10))
    assert (update.inserted, update.deleted) == (max(0, more), max(0, -more))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_changes_one_after_the_other_leave_what_a_dict_holds(data: st.DataObject) -> None:
    slots = data.draw(st.sampled_from([1, 1, 2, 5, 12]), "slots")
    value_size = data.draw(st.sampled_from([0, 1, 4]), "value size")
    fragments = data.draw(st.integers(1, 4), "fragments") if value_size else 1
    levels = data.draw(st.integers(0, 3), "proof levels")
    load = data.draw(st.sampled_from([0.5, 0.85, 0.95]), "load")
    contents = st.binary(max_size=fragments * value_size)
    items = data.draw(st.dictionaries(st.sampled_from(KEYS), contents, min_size=4), "rows")
    entries = sum(max(1, -(-len(value) // max(1, value_size))) for value in items.values())
    num_pages = max(8, round(entries / load / slots))
    page_size = slots * (20 + value_size) + 32 * levels + data.draw(st.integers(0, 3), "rest")
    layout = TableLayout(num_pages, page_size, slots, value_size, bytes(16), 1, fragments, levels)
    table = opened_pages(np.zeros((num_pages, page_size), dtype=np.uint8), layout)
    for _ in range(4):
        update = update_table(table, rows_of(items.items()))
        if isinstance(update, NoUpdate):
            assert update.reason.startswith(("no place was found", "there are "))
            return
        again = update_table(table, rows_of(items.items()))
        assert isinstance(again, TableUpdate)
        assert np.array_equal(update.contents, again.contents)
        before = table.pages.body[update.indices, : layout.content_size]
        assert (update.contents != before).any(axis=1).all()
        assert (np.diff(update.indices) > 0).all()
        table = applied(table, update)
        check_holds(table, items, KEYS)
        for key in data.draw(st.lists(st.sampled_from(KEYS)), "gone"):
            if len(items) > 1:
                items.pop(key, None)
        items |= data.draw(st.dictionaries(st.sampled_from(KEYS), contents, max_size=20), "set")


@pytest.mark.parametrize(("slots", "load"), [(1, 0.9), (2, 0.95), (4, 0.95), (8, 0.97)])
def test_an_insert_touches_as_few_pages_as_any_chain(slots: int, load: float) -> None:
    count = 300
    items = {b"%d" % number: b"v" for number in range(count)}
    old = built(items, page_size=21 * slots, value_size=1, load=load, proof_levels=0)
    for number in range(200):
        update = update_of(old, items | {b"new %d" % number: b"v"})
        assert len(update.indices) == fewest_pages(old, items, b"new %d" % number)
        assert len(update.indices) == update.moved + 1


def fewest_pages(table: OpenedTable, items: Items, key: bytes) -> int:
    """The pages of the shortest chain that gives a key a slot, by breadth first."""
    layout = table.layout
    assert layout is not None
    hashes = {item: hash_key(item, layout.seed, layout.num_pages) for item in items}
    keys = {check: item for item, (_, check) in hashes.items()}
    slots = slots_of(table)
    pages, seen, count = {*hash_key(key, layout.seed, layout.num_pages)[0]}, set[int](), 1
    while True:
        if any((slots[page, :, 16:20] == 0).all(axis=1).any() for page in pages):
            return count
        seen |= pages
        held = [keys[slot[:16].tobytes()] for page in pages for slot in slots[page]]
        pages = {page for item in held for page in hashes[item][0]} - seen
        count += 1


def test_pages_that_change_anyway_take_new_entries_before_others() -> None:
    """Each deletion frees a slot, and each new entry that can takes one of them."""
    items = {b"%d" % number: b"v" for number in range(20_000)}
    old = built(items, page_size=4096, value_size=100, load=0.8, proof_levels=0)
    fewer = dict(list(items.items())[6000:])
    deletions = update_of(old, fewer)
    assert old.layout is not None
    assert len(deletions.indices) == old.layout.num_pages  # each has some
    both = update_of(old, fewer | {b"new %d" % number: b"v" for number in range(1000)})
    assert np.array_equal(both.indices, deletions.indices)
    assert both.moved == 0


def test_rows_with_one_key_are_refused_or_the_first_or_last_counts() -> None:
    items = dict(numbered(50, 9))
    old = built(items, page_size=256, value_size=3, fragments=3)
    long, short, new = b"123456789", b"1", b"a new key"
    pairs = [*items.items(), (b"key 3", long), (new, short), (b"key 3", short), (new, long)]
    first = items | {new: short}
    last = items | {b"key 3": short, new: long}
    with pytest.raises(mg.TableBuildError, match="entries 4 and 51 have the same key") as caught:
        update_table(old, rows_of(pairs))
    assert caught.value.entries == (4, 51)
    with pytest.raises(mg.TableBuildError, match="entries 51 and 52 have the same key"):
        update_table(old, rows_of([*items.items(), (new, short), (new, short)]))
    for duplicates, expected in (("first", first), ("last", last)):
        update = update_table(old, rows_of(pairs), duplicates)  # type: ignore[arg-type]
        assert isinstance(update, TableUpdate)
        check_holds(applied(old, update), expected, KEYS)
        update = update_table(old, rows_of(expected.items()))
        assert isinstance(update, TableUpdate)
        check_holds(applied(old, update), expected, KEYS)


def test_no_rows_are_refused_as_a_build_refuses_them() -> None:
    old = built(dict(numbered(50)), page_size=256)
    with pytest.raises(mg.TableBuildError, match="a keyword table needs at least one entry, not 0"):
        update_table(old, rows_of([]))


def test_what_does_not_fit_says_so_and_why() -> None:
    items = dict(numbered(50, 4))
    old = built(items, page_size=256, value_size=4)
    assert old.layout is not None
    reason = NoUpdate("a value has 5 bytes, and the table has room for 4")
    assert update_table(old, rows_of((items | {b"key 1": b"12345"}).items())) == reason
    assert update_table(old, rows_of([(b"a", b"12345"), (b"a", b"1")]), "first") == reason
    assert isinstance(
        update_table(old, rows_of([(b"a", b"12345"), (b"a", b"1")]), "last"), TableUpdate
    )
    slots = old.layout.num_pages * old.layout.slots_per_page
    reason = NoUpdate(f"there are {slots + 1} entries, and the table has {slots} slots")
    assert update_table(old, rows_of(numbered(slots + 1))) == reason
    single = built({b"%d" % number: b"" for number in range(900)}, page_size=20, proof_levels=0)
    assert single.layout is not None
    full = single.layout.num_pages
    reason = NoUpdate(
        f"no place was found for an entry: of {full} slots {full - 1} would be in use"
    )
    assert update_table(single, rows_of((b"%d" % n, b"") for n in range(full - 1))) == reason


def test_two_keys_with_one_check_need_another_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new key has the check of one that stays, or of one that is new too."""
    old = built(dict(numbered(50)), page_size=256)
    assert old.layout is not None
    empty = opened_pages(np.zeros_like(old.pages.body), old.layout)
    monkeypatch.setattr(update_module, "match_entries", partial(match_entries, mask=0))
    expected = NoUpdate("two keys have the same check under the table's seed")
    assert update_table(old, rows_of([*numbered(50), (b"new", b"")])) == expected
    assert update_table(empty, rows_of([(b"one", b""), (b"new", b"")])) == expected
    monkeypatch.setattr(update_module, "hash_entries", partial(hash_entries, mask=0))
    assert update_table(empty, rows_of([(b"one", b""), (b"new", b"")]), "first") == expected


def test_only_keyword_tables_of_version_2_are_updated() -> None:
    pages, layout = build_version_1(numbered(9), page_size=64)
    with pytest.raises(ValueError, match="must be of version 2 to be updated, not 1"):
        update_table(opened_pages(pages, layout), rows_of(numbered(9)))
    old = built(dict(numbered(9)), page_size=64)
    plain = OpenedTable(old.pages, None, replace(old.header, layout=None), old.tree)
    with pytest.raises(ValueError, match="only a keyword table can be updated"):
        update_table(plain, rows_of(numbered(9)))


def test_slots_that_no_builder_writes_are_put_right() -> None:
    """An entry that is there twice, in a page that is not its own, or with bytes behind it."""
    items = dict(numbered(60, 3))
    table = built(items, page_size=256, value_size=4, load=0.3, proof_levels=1)
    layout = table.layout
    assert layout is not None
    pages = table.pages.body.copy()
    slots = slots_of(table)
    used = slots[:, :, 16:20].any(axis=2)
    free = np.argwhere(~used)
    for number, (page, slot) in enumerate(np.argwhere(used)[:20]):
        to_page, to_slot = free[number]
        place = pages[to_page, 24 * to_slot : 24 * (to_slot + 1)]
        place[:] = slots[page, slot]
        if number % 3 == 1:
            pages[page, 24 * slot : 24 * (slot + 1)] = 0
        elif number % 3 == 2:
            pages[page, 24 * slot + 23] = 1  # no value here has four bytes
            pages[page, 24 * slot + 16 : 24 * slot + 20] = 255
    broken = opened_pages(pages, layout)
    assert any(find(broken, key) != value for key, value in items.items())
    more = items | {b"new": b"1"}
    check_holds(updated(broken, more), more, KEYS)


def test_an_exception_of_the_progress_ends_the_update() -> None:
    old = built(dict(numbered(50)), page_size=256)
    told: list[str] = []

    def tell(done: int, total: int, name: str) -> None:
        told.append(name)

    update_table(old, rows_of([*numbered(50), (b"new", b"")]), progress=tell)
    assert list(dict.fromkeys(told)) == ["matching", "placing", "filling"]

    def stop(done: int, total: int, name: str) -> None:
        raise KeyboardInterrupt

    rows = rows_of(numbered(50))
    with pytest.raises(KeyboardInterrupt):
        update_table(old, rows, progress=stop)
    rows.add_many([b"more"], [b""])  # nobody reads them any more


def test_a_rebuilt_table_keeps_the_shape_that_servers_know(tmp_path: Path) -> None:
    items = dict(numbered(500, 9))
    old = built(items, page_size=512, value_size=3, fragments=4, proof_levels=2)
    fewer = rows_of((key, b"") for key in items)
    rebuilt = rebuild_table(tmp_path / "new", old, fewer, seed=bytes(16))
    layout = rebuilt.header.layout
    assert layout is not None
    assert rebuilt.tries == 1
    assert (layout.value_size, layout.fragments, layout.proof_levels) == (3, 4, 2)
    assert (layout.page_size, layout.seed) == (512, bytes(16))
    # Fewer levels where the tree has no more, and other slots where a value needs them.
    few = rebuild_table(tmp_path / "few", old, rows_of([(b"a", b"1")])).header.layout
    assert few is not None
    assert (few.num_pages, few.proof_levels, few.fragments) == (1, 0, 4)
    large = rows_of([*items.items(), (b"large", b"x" * 200)])
    wide = rebuild_table(tmp_path / "wide", old, large).header.layout
    assert wide is not None
    assert wide.max_value_size >= 200
    assert (wide.page_size, wide.fragments >= 4) == (512, True)
    empty = built(dict.fromkeys(items, b""), page_size=512)
    assert rebuild_table(tmp_path / "empty", empty, fewer).header.layout is not None
    with pytest.raises(mg.TableBuildError, match="a keyword table needs at least one entry, not 0"):
        rebuild_table(tmp_path / "none", old, rows_of([]))

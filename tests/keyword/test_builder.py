"""Tables of entries of any size, of keys that come again, and of builds that are interrupted."""

from __future__ import annotations

import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import morphogen as mg
from keyword_tables import numbered, opened, read
from morphogen.authentication import check_pages, fill_siblings
from morphogen.keyword.builder import TableBuilder
from morphogen.keyword.file import open_table
from tables_in_memory import items_of

SEED = bytes(range(0x11, 0x21))
# Sizes up to 100,000 bytes, many of them small.
SIZES = st.one_of(st.integers(0, 60), st.integers(0, 3000), st.integers(0, 100_000))


def filled(size: int, number: int) -> bytes:
    return (number.to_bytes(4, "little") * (size // 4 + 1))[:size]


@given(
    shapes=st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=25),
    page_size=st.sampled_from([None, 4096, 5000, 16_384]),
    absent=st.lists(st.binary(max_size=20), max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_entries_of_any_size_are_found_again_and_all_else_is_a_miss(
    shapes: list[tuple[int, int]], page_size: int | None, absent: list[bytes]
) -> None:
    items = {
        filled(key, number) + b"\1": filled(value, number)
        for number, (key, value) in enumerate(shapes)
    }
    builder = TableBuilder(page_size=page_size)
    builder.add_many(list(items), list(items.values()))
    built = builder.build()
    layout = built.layout
    assert items_of(built, items) == list(items.values())
    assert all(read(layout, built.pages, key + b"\2") is None for key in [*absent, *items])
    cap = fill_siblings(built.pages.copy(), layout.proof_levels, layout.authenticated_bytes()).cap
    assert check_pages(built.pages, range(layout.num_pages), cap, layout.proof_levels)


def test_a_few_long_values_do_not_blow_a_table_up() -> None:
    builder = TableBuilder()
    keys = [b"%d" % number for number in range(20_000)]
    builder.add_many(keys, [b"short"] * 19_999 + [b"x" * 3000])
    built = builder.build()
    assert built.pages.nbytes < 3_000_000
    assert items_of(built, [keys[0], keys[-1]]) == [b"short", b"x" * 3000]
    assert built.advice is not None
    assert built.advice.startswith("1 of 20,000 values have more than ")


def test_the_root_is_that_of_the_pages_and_of_the_file(tmp_path: Path) -> None:
    builder = TableBuilder(page_size=1024, seed=SEED)
    builder.add_pairs(numbered(3000, 90))
    built = builder.build()
    layout = built.layout
    tree = fill_siblings(built.pages.copy(), layout.proof_levels, layout.authenticated_bytes())
    written = builder.write(tmp_path / "table")
    assert built.root == tree.root == written.header.root
    assert written.header.layout == layout
    assert written.tries == built.tries == 1
    pages, layout = opened(tmp_path / "table")
    assert np.array_equal(pages.body, built.pages)
    for key, value in numbered(3000, 90):
        assert read(layout, pages.body, key) == value


@pytest.mark.parametrize("proof_levels", [0, 1, 7, 9])
@pytest.mark.parametrize("page_size", [512, 65_536])
def test_a_written_table_is_the_built_one_whatever_the_proof_levels(
    tmp_path: Path, proof_levels: int, page_size: int
) -> None:
    """With 9, a node of the cap covers more pages than are filled together."""
    builder = TableBuilder(page_size=page_size, proof_levels=proof_levels, seed=SEED)
    builder.add_pairs((b"%d" % number, bytes(page_size // 3)) for number in range(700))
    built = builder.build()
    builder.write(tmp_path / "table")
    table = open_table(tmp_path / "table")
    assert table.layout == built.layout
    assert table.header.proof_levels == proof_levels
    assert np.array_equal(table.pages.body, built.pages)


# Sizes that are given


def test_sizes_that_are_given_are_kept() -> None:
    builder = TableBuilder(page_size=600, value_size=10, proof_levels=2, load=0.5, seed=SEED)
    builder.add_pairs(numbered(100, 35))
    layout = builder.build().layout
    assert (layout.page_size, layout.value_size, layout.proof_levels) == (600, 10, 2)
    assert (layout.fragments, layout.slots_per_page, layout.seed) == (4, (600 - 64) // 30, SEED)
    assert 0.4 < layout.load <= 0.5


def test_the_builder_says_why_pages_have_their_size() -> None:
    builder = TableBuilder(page_size=None)
    builder.add_pairs(numbered(2000, 30))
    built = builder.build()
    assert built.reason is not None
    assert built.reason.startswith(f"pages of {built.layout.page_size:,} bytes: a lookup exchanges")
    assert items_of(built, [b"key 7"]) == [numbered(8, 30)[7][1]]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"page_size": 0}, ValueError, r"page_size must be in .*, not 0"),
        ({"page_size": "4k"}, TypeError, "page_size must be an int"),
        ({"value_size": 4077}, ValueError, r"value_size must be in .*4076.*, not 4077"),
        ({"value_size": 4000, "proof_levels": 4}, ValueError, "value_size must be in .*, not 4000"),
        ({"value_size": -1, "page_size": None}, ValueError, "value_size must be in .*, not -1"),
        ({"proof_levels": 41}, ValueError, "proof_levels must be in .*, not 41"),
        ({"page_size": 64, "proof_levels": 2}, ValueError, r"proof_levels must be in .*1.*, not 2"),
        ({"load": 0}, ValueError, "load must be above 0 and at most 1, not 0"),
        ({"seed": b"abc"}, ValueError, "seed must have 16 bytes, not 3"),
        ({"duplicates": "both"}, ValueError, "duplicates must be error, first or last, not both"),
    ],
)
def test_options_that_are_none(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TableBuilder(**options)


def test_more_proof_levels_than_the_tree_has_are_refused() -> None:
    builder = TableBuilder(proof_levels=3)
    builder.add_pairs(numbered(100, 30))
    with pytest.raises(ValueError, match=r"proof_levels must be in 0\.\.1, not 3"):
        builder.build()


@pytest.mark.parametrize("page_size", [None, 4096])
def test_a_value_of_more_than_32_slots_is_refused_before_anything_is_written(
    tmp_path: Path, page_size: int | None
) -> None:
    builder = TableBuilder(page_size=page_size, value_size=10)
    builder.add_pairs([(b"a", bytes(320)), (b"b", bytes(321)), (b"c", bytes(400))])
    message = "entry 2: a value has 400 bytes, and 32 slots of 10 bytes have room for 320 at most"
    with pytest.raises(mg.TableBuildError, match=f"^{message}$") as caught:
        builder.write(tmp_path / "table")
    assert caught.value.entries == (2,)
    assert list(tmp_path.iterdir()) == []


# Keys that come again


def test_the_first_or_the_last_value_of_a_key_counts() -> None:
    keys = [b"a", b"b", b"a", b"c", b"b", b"a"]
    values = [b"1", b"2", b"3" * 900, b"4", b"5", b"6"]
    expected = {
        "first": ([b"1", b"2", b"4"], 1),
        "last": ([b"6", b"5", b"4"], 1),
    }
    for policy, (found, value_size) in expected.items():
        builder = TableBuilder(duplicates=policy)  # type: ignore[arg-type]
        builder.add_many(keys, values)
        built = builder.build()
        assert items_of(built, [b"a", b"b", b"c"]) == found
        assert (built.layout.entries, built.layout.value_size) == (3, value_size)
    builder = TableBuilder()
    builder.add_many(keys, values)
    with pytest.raises(mg.TableBuildError, match="entries 1 and 3 have the same key") as caught:
        builder.build()
    assert caught.value.entries == (1, 3)


@given(
    keys=st.lists(st.integers(0, 30), min_size=1, max_size=150),
    policy=st.sampled_from(["first", "last"]),
    value_size=st.sampled_from([None, 3]),
)
@settings(max_examples=60, deadline=None)
def test_duplicates_are_those_of_a_dictionary(
    keys: list[int], policy: Any, value_size: int | None
) -> None:
    names = [b"%d" % key for key in keys]
    values = [b"%d" % number * (number % 7) for number in range(len(keys))]
    pairs = list(zip(names, values, strict=True))
    expected = dict(pairs if policy == "last" else reversed(pairs))
    builder = TableBuilder(page_size=256, value_size=value_size, duplicates=policy)
    builder.add_many(names, values)
    built = builder.build()
    assert items_of(built, expected) == list(expected.values())
    most = built.layout.value_size or 1
    assert built.layout.entries == sum(max(1, -(-len(v) // most)) for v in expected.values())


# Stages and interrupts


def test_the_stages_are_told_in_order_each_from_nothing_to_all(tmp_path: Path) -> None:
    builder = TableBuilder()
    builder.add_pairs(numbered(30_000, 20))
    calls: list[tuple[int, int, str]] = []
    builder.build(lambda *call: calls.append(call))
    check_stages(calls, ["hashing", "placing", "filling", "sealing"])
    calls.clear()
    builder.write(tmp_path / "table", lambda *call: calls.append(call))
    check_stages(calls, ["hashing", "placing", "writing"])


def check_stages(calls: list[tuple[int, int, str]], expected: list[str]) -> None:
    assert list(dict.fromkeys(name for _, _, name in calls)) == expected
    for stage in expected:
        work = [(done, total) for done, total, name in calls if name == stage]
        assert work == sorted(work)
        assert (work[0][0], work[-1][0]) == (0, work[-1][1])


def test_entries_are_hashed_in_pieces_between_which_an_interrupt_is_seen() -> None:
    builder = TableBuilder()
    builder.add_many([b"%d" % number for number in range(60_000)], [b""] * 60_000)
    done: list[int] = []
    builder.build(lambda work, total, name: done.append(work) if name == "hashing" else None)
    assert max(b - a for a, b in pairwise(done)) < 10_000
    # Long keys take their time, too.
    builder = TableBuilder()
    builder.add_many([b"%d" % number + bytes(100_000) for number in range(200)], [b""] * 200)
    done.clear()
    builder.build(lambda work, total, name: done.append(work) if name == "hashing" else None)
    assert max(b - a for a, b in pairwise(done)) < 60


@pytest.mark.parametrize("stage", ["hashing", "placing", "filling", "sealing", "writing"])
def test_an_interrupted_build_leaves_nothing_and_the_next_one_works(
    tmp_path: Path, stage: str
) -> None:
    builder = TableBuilder(seed=SEED)
    builder.add_pairs(numbered(5000, 30))

    def interrupt(done: int, total: int, name: str) -> None:
        if name == stage:
            signal.raise_signal(signal.SIGINT)

    def work() -> object:
        if stage == "writing":
            return builder.write(tmp_path / "table", interrupt)
        return builder.build(interrupt)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert list(tmp_path.iterdir()) == []
    assert len(builder) == 5000
    assert items_of(builder.build(), [b"key 31"]) == [numbered(32, 30)[31][1]]


def test_an_interrupt_amid_a_batch_adds_nothing() -> None:
    builder = TableBuilder()
    previous = signal.signal(signal.SIGALRM, _interrupted)
    keys = values = [b"x" * 1000] * 200_000

    def add() -> None:
        signal.setitimer(signal.ITIMER_REAL, 1e-3)
        builder.add_many(keys, values)

    try:
        with pytest.raises(KeyboardInterrupt):
            add()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert len(builder) == 0


def _interrupted(number: int, frame: object) -> None:
    raise KeyboardInterrupt

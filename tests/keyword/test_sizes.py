"""The choice of a table's sizes, against a search of all of them."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import morphogen as mg
import morphogen.keyword.sizes as table_sizes
from morphogen.authentication import default_proof_levels
from morphogen.keyword.rows import Rows
from morphogen.keyword.sizes import Plan, Sizes, Wishes

NOTHING = Wishes(None, None, None, None)
VALUES = st.one_of(
    st.lists(st.integers(0, 40), min_size=1, max_size=60),
    st.lists(st.sampled_from([0, 1, 5, 5, 5, 30, 700, 3000]), min_size=1, max_size=200),
)


def sizes_of(values: list[int]) -> Sizes:
    numbers, counts = np.unique(np.array(values, dtype=np.int64), return_counts=True)
    return Sizes(numbers, counts.astype(np.int64))


def table_of(values: list[int], page_size: int, value_size: int) -> tuple[int, int, int] | None:
    """Fragments, bytes and proof levels of a table, by plain counting."""
    if max(values) > 32 * value_size or page_size < 20 + value_size:
        return None
    fragments = [max(1, math.ceil(value / value_size)) if value else 1 for value in values]
    for levels in range(41):
        content = page_size - 32 * levels
        slots = content // (20 + value_size)
        pages = math.ceil(sum(fragments) / ((0.9 if slots > 1 else 0.85) * slots))
        room = (page_size - 20 - value_size) // 32
        if levels >= min(default_proof_levels(pages), page_size // 256, room):
            return max(fragments), pages * page_size, levels
    raise AssertionError("a table has at most 40 levels")


@given(values=VALUES, page_size=st.sampled_from([20, 21, 40, 64, 100, 255, 256, 300, 512, 1024]))
@settings(max_examples=150, deadline=None)
def test_the_chosen_value_size_is_the_best_of_all(values: list[int], page_size: int) -> None:
    all_tables = {
        value_size: table
        for value_size in range(max(values) + 1)
        if (table := table_of(values, page_size, value_size)) is not None
    }
    plan = table_sizes.best_value_size(sizes_of(values), NOTHING, page_size)
    if not all_tables:
        assert plan is None
        return
    smallest = min(nbytes for _, nbytes, _ in all_tables.values())
    near = {size: table for size, table in all_tables.items() if table[1] * 20 <= smallest * 21}
    best = min(near, key=lambda size: (near[size][0], near[size][1], -size))
    assert plan is not None
    assert (plan.value_size, plan.fragments, plan.nbytes, plan.proof_levels) == (best, *near[best])


@given(values=VALUES, value_size=st.integers(1, 50))
@settings(deadline=None)
def test_entries_are_counted(values: list[int], value_size: int) -> None:
    counted = sum(max(1, math.ceil(min(value, 32 * value_size) / value_size)) for value in values)
    assert sizes_of(values).entries(np.array([value_size]))[0] == counted


def test_sizes_of_rows_are_counted_by_the_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_sizes, "_PIECE", 7)
    rows = Rows()
    values = [i * i % 23 for i in range(100)]
    rows.add_many([b""] * 100, [bytes(value) for value in values])
    kept = np.array([0, 6, 7, 8, 50, 98, 99], dtype=np.uint32)
    for chosen in (None, kept):
        expected = values if chosen is None else [values[i] for i in chosen]
        counted = Sizes.of_rows(rows, chosen)
        assert counted.total == len(expected)
        for size in range(24):
            larger = sum(value > size for value in expected)
            assert counted.larger_than(np.array([size]))[0] == larger


@pytest.mark.parametrize(
    "values", [[16] * 5000, [0] * 3000, [900] * 2000, [40] * 3000 + [5000], [30_000] * 50, [7]]
)
def test_the_chosen_page_size_exchanges_the_fewest_bytes(values: list[int]) -> None:
    sizes = sizes_of(values)
    plan, reason = table_sizes.choose(sizes, NOTHING)
    plans = []
    for exponent in range(8, 17):
        found = table_sizes.best_value_size(sizes, NOTHING, 1 << exponent)
        plans += [found] if found is not None else []
    smallest = min(found.nbytes for found in plans)
    near = [found for found in plans if found.nbytes * 20 <= smallest * 21]
    assert plan in near
    assert plan.bytes_of_lookup == min(found.bytes_of_lookup for found in near)
    keys = 2 * 3 * plan.fragments * mg.dpf.key_size(plan.num_pages)
    assert plan.bytes_of_lookup == keys + 2 * 3 * plan.fragments * plan.page_size
    assert reason is not None
    assert reason.startswith(f"pages of {plan.page_size:,} bytes: a lookup exchanges ")


def test_pages_whose_cap_is_large_are_not_chosen() -> None:
    """Pages of 256 bytes have one proof level: their cap would take 0.8 GB here."""
    sizes = Sizes(np.array([16]), np.array([300_000_000]))
    plan, _ = table_sizes.choose(sizes, NOTHING)
    assert plan.page_size >= 1024
    assert math.ceil(plan.num_pages / 2**plan.proof_levels) * 32 <= 16 << 20


def test_a_value_that_needs_larger_pages_gets_them() -> None:
    sizes = Sizes(np.array([10, 40_000_000]), np.array([5, 1]))
    plan, _ = table_sizes.choose(sizes, NOTHING)
    assert plan.fragments * plan.value_size >= 40_000_000


def test_the_sizes_of_a_huge_page_are_chosen_soon() -> None:
    sizes = sizes_of([3, 100, 5_000, 80_000, 1_000_000])
    for page_size in (1 << 20, (1 << 24) + 5):
        assert table_sizes.best_value_size(sizes, NOTHING, page_size) is not None


def advice_of(values: list[int], wishes: Wishes) -> str | None:
    sizes = sizes_of(values)
    plan, _ = table_sizes.choose(sizes, wishes)
    return table_sizes.advice(sizes, wishes, plan)


def test_the_cost_of_outliers_is_told() -> None:
    wishes = Wishes(4096, None, None, None)
    assert advice_of([10] * 1000, wishes) is None
    text = advice_of([20] * 20_000 + [3000], wishes)
    assert text is not None
    found = re.fullmatch(
        r"1 of 20,001 values have more than (\d+) bytes, the largest 3,000: for them every lookup "
        r"asks for (\d+) pages instead of 3; with a value size of 3,000 it would ask for 3, and "
        r"the table would take (\S+) bytes instead of (\S+)",
        text,
    )
    assert found is not None
    slot, pages, whole, table = (int(number.replace(",", "")) for number in found.groups())
    assert pages == 3 * math.ceil(3000 / slot)
    assert whole > 90_000_000 > 3_000_000 > table


def test_a_value_size_that_wastes_is_told() -> None:
    wishes = Wishes(4096, 2000, None, None)
    text = advice_of([20] * 1000, wishes)
    assert text is not None
    assert text.startswith("with a value size of 20 the table would take ")
    assert advice_of([20] * 1000, Wishes(4096, 20, None, None)) is None


def test_a_plan_says_what_a_lookup_exchanges() -> None:
    plan = Plan(1000, 4096, 10, 300, 9000, 2, 4, 0.9)
    assert (plan.nbytes, plan.pages_of_lookup) == (4_096_000, 6)
    assert plan.bytes_of_lookup == 2 * 6 * (mg.dpf.key_size(1000) + 4096)

"""The counts of several batchers are added."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import given, strategies as st

import morphogen as mg

NUMBERS = [field.name for field in fields(mg.BatcherStatistics) if field.name != "chunk_sizes"]
COUNTS = st.builds(
    mg.BatcherStatistics,
    **dict.fromkeys(NUMBERS, st.integers(0, 9)),
    chunk_sizes=st.dictionaries(st.integers(1, 4), st.integers(1, 9)),
)


@given(COUNTS, COUNTS)
def test_a_sum_has_each_count_of_both(
    one: mg.BatcherStatistics, other: mg.BatcherStatistics
) -> None:
    total = one + other
    for name in NUMBERS:
        assert getattr(total, name) == getattr(one, name) + getattr(other, name)
    assert list(total.chunk_sizes) == sorted({*one.chunk_sizes, *other.chunk_sizes})
    for size, count in total.chunk_sizes.items():
        assert count == one.chunk_sizes.get(size, 0) + other.chunk_sizes.get(size, 0)

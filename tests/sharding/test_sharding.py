"""Ranges of pages, and sums of their parts."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from morphogen.sharding import Coverage, ShardRange, check_cover, fold, plan_shards
from naive import Bytes

LEAF = 512


def parts_of(count: int, seed: int = 0) -> list[Bytes]:
    rng = np.random.default_rng([count, seed])
    return list(rng.integers(0, 256, (count, 2, 3, 5), dtype=np.uint8))


# Plans


@pytest.mark.parametrize("leaves", range(1, 12))
def test_a_plan_is_all_pages_each_once(leaves: int) -> None:
    for num_pages in (LEAF * leaves, LEAF * leaves - 1, LEAF * (leaves - 1) + 1):
        for shards in range(1, leaves + 1):
            plan = plan_shards(num_pages, shards)
            assert len(plan) == shards
            assert [page for one in plan for page in range(one.first, one.stop)] == [
                *range(num_pages)
            ]
            assert all(one.first % LEAF == 0 for one in plan)
            sizes = [-(-one.count // LEAF) for one in plan]
            assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("weights", [*itertools.product((1, 2, 7, 1000), repeat=3)], ids=str)
def test_a_plan_by_weights_is_all_pages_each_once(weights: tuple[int, ...]) -> None:
    for leaves in range(3, 40, 7):
        plan = plan_shards(LEAF * leaves - 5, 3, weights=weights)
        assert check_cover(plan, ShardRange(0, LEAF * leaves - 5)) == plan
        for one, weight in zip(plan, weights, strict=True):
            fair = leaves * weight / sum(weights)
            # Others of one leaf, who would have none, take some.
            assert one.count <= LEAF * (fair + 2)


def test_a_shard_with_more_memory_has_more_pages() -> None:
    room = [80 << 30, 80 << 30, 24 << 30]
    plan = plan_shards(2**35, 3, weights=room)
    for one, weight in zip(plan, room, strict=True):
        assert abs(one.count - 2**35 * weight / sum(room)) < LEAF


def test_the_largest_table_is_cut_too() -> None:
    plan = plan_shards(2**40, 1000)
    assert check_cover(plan, ShardRange(0, 2**40)) == plan


REFUSED_PLANS: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    (
        (1024, 3),
        {},
        ValueError,
        r"^shards of a table of 1024 pages, 2 leaves of 512, must be in 1\.\.2, not 3$",
    ),
    (
        (100, 2),
        {},
        ValueError,
        r"^shards of a table of 100 pages, 1 leaf of 512, must be in 1\.\.1, not 2$",
    ),
    ((1, 2), {}, ValueError, r"1\.\.1, not 2$"),
    ((1024, 0), {}, ValueError, r"1\.\.2, not 0$"),
    ((0, 1), {}, ValueError, r"^num_pages must be in 1\.\."),
    ((1024, "2"), {}, TypeError, r"^shards must be an int, not str$"),
    ((1024.0, 2), {}, TypeError, r"^num_pages must be an int, not float$"),
    ((1024, 2), {"weights": [1]}, ValueError, r"^weights must be as many as shards, 2, not 1$"),
    ((1024, 2), {"weights": [1, 0]}, ValueError, r"^a weight must be 1 or more, not 0$"),
    ((1024, 2), {"weights": [1, 0.5]}, TypeError, r"^a weight must be an int, not float$"),
]


@pytest.mark.parametrize(("arguments", "options", "error", "message"), REFUSED_PLANS, ids=str)
def test_plans_that_cannot_be(
    arguments: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan_shards(*arguments, **options)


# Ranges


def test_a_range_knows_where_it_ends() -> None:
    assert ShardRange(1024, 7).stop == 1031
    assert str(ShardRange(1024, 7)) == "pages 1024 to 1030"
    assert type(ShardRange(np.int64(512), np.int64(3)).first) is int  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "count", "message"),
    [
        (100, 1, r"^first must be a multiple of 512, not 100$"),
        (-512, 1, r"^first must be in 0\.\."),
        (512, 0, r"^count of pages from 512 on must be in 1\.\..*, not 0$"),
        (512, 2**40, r"^count of pages from 512 on must be in 1\.\."),
    ],
)
def test_ranges_that_no_table_has(first: int, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardRange(first, count)


A, B, C = ShardRange(0, 512), ShardRange(512, 1024), ShardRange(1536, 100)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([A, C], r"^no shard has pages 512 to 1535: shard 1 begins at page 1536$"),
        ([B, C], r"^no shard has pages 0 to 511: shard 0 begins at page 512$"),
        ([A, B], r"^no shard has pages 1536 to 1635: the shards end at page 1536$"),
        ([], r"^no shard has pages 0 to 1635: the shards end at page 0$"),
        ([A, A, B, C], r"^shard 1 must begin at page 512, .*, not at page 0$"),
        ([A, ShardRange(512, 1025), C], r"^shard 2 must begin at page 1537, .* not at page 1536$"),
        ([A, C, B], r"^no shard has pages 512 to 1535"),
        ([A, B, ShardRange(1536, 101)], r"^the shards must end at page 1636, .*, not at 1637$"),
    ],
    ids=str,
)
def test_ranges_that_are_not_all_pages_each_once_are_refused(
    ranges: list[ShardRange], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_cover(ranges, ShardRange(0, 1636))


def test_ranges_of_a_part_of_a_table_cover_that_part() -> None:
    assert check_cover([B, C], ShardRange(512, 1124)) == (B, C)
    with pytest.raises(ValueError, match=r"^shard 0 must begin at page 512, .* not at page 0$"):
        check_cover([A, B, C], ShardRange(512, 1124))


# Sums

RANGES = plan_shards(LEAF * 5, 5)


@pytest.mark.parametrize("count", range(1, 6))
def test_the_sum_of_one_part_of_every_range_is_the_same_in_every_order(count: int) -> None:
    parts = parts_of(count)
    copies = [part.copy() for part in parts]
    right = np.bitwise_xor.reduce(parts, axis=0)
    for order in itertools.permutations(range(count)):
        coverage = Coverage(RANGES[:count])
        for index in order:
            assert not coverage.complete
            assert coverage.add(index, parts[index])
        assert coverage.complete
        out = np.full_like(right, 0xA5)
        fold(coverage, out)
        assert np.array_equal(out, right)
    # A part may be a transport's own memory.
    assert all(map(np.array_equal, parts, copies))


@given(st.lists(st.integers(0, 4), max_size=12))
def test_a_part_that_comes_twice_counts_once_and_one_that_is_missing_is_named(
    order: list[int],
) -> None:
    coverage, parts, seen = Coverage(RANGES), parts_of(5), set[int]()
    for turn, index in enumerate(order):
        # A double may have other bytes.
        part = parts[index] if index not in seen else parts_of(5, seed=turn + 1)[index]
        assert coverage.add(index, part) == (index not in seen)
        seen.add(index)
        assert [coverage.has(at) for at in range(5)] == [at in seen for at in range(5)]
    assert coverage.missing == tuple(RANGES[at] for at in range(5) if at not in seen)
    assert coverage.complete == (len(seen) == 5)
    out = np.zeros_like(parts[0])
    if coverage.complete:
        fold(coverage, out)
        assert np.array_equal(out, np.bitwise_xor.reduce(parts, axis=0))
    else:
        more = f" and {4 - len(seen)} more" if len(seen) < 4 else ""
        with pytest.raises(
            ValueError, match=f"^a sum .*, and {coverage.missing[0]}{more} has none$"
        ):
            fold(coverage, out)
        assert not out.any()


def test_a_part_of_another_shape_is_not_added() -> None:
    coverage, parts = Coverage(RANGES[:2]), parts_of(2)
    coverage.add(0, parts[0])
    with pytest.raises(ValueError, match=r"^a part must have shape \(2, 3, 5\), not \(1, 1, 5\)$"):
        coverage.add(1, parts[1][:1, :1])  # numpy would repeat it
    assert coverage.missing == RANGES[1:2]
    assert coverage.add(1, parts[1])
    with pytest.raises(ValueError, match=r"^out must have the shape of the parts, \(2, 3, 5\)"):
        fold(coverage, np.zeros((4, 3, 5), np.uint8))

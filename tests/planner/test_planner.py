"""Cutting batches into chunks, and packing their keys."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

import morphogen as mg
from morphogen import planner

NUM_PAGES = 3000


def queries(total: int, keys: int, num_pages: int = NUM_PAGES) -> list[mg.Query]:
    rows = np.arange(total * keys).reshape(total, keys) % num_pages
    return mg.make_queries(rows, num_pages)[0]


def concatenated(batch: list[mg.Query]) -> bytes:
    return b"".join(key for query in batch for key in query.keys)


# Ranges


@pytest.mark.parametrize(
    ("total", "ranges"),
    [
        (0, []),
        (1, [(0, 1)]),
        (2, [(0, 2)]),
        (3, [(0, 2), (2, 3)]),
        (4, [(0, 2), (2, 4)]),
        (5, [(0, 2), (2, 4), (4, 5)]),
        (8, [(0, 2), (2, 4), (4, 6), (6, 8)]),
    ],
)
def test_chunks_have_at_most_two_queries_by_default(
    total: int, ranges: list[tuple[int, int]]
) -> None:
    assert planner.micro_batch_ranges(total) == ranges


def test_ranges_cover_the_batch_in_order() -> None:
    for cap in range(1, 41):
        for total in range(201):
            ranges = planner.micro_batch_ranges(total, cap)
            assert [i for start, stop in ranges for i in range(start, stop)] == list(range(total))
            sizes = [stop - start for start, stop in ranges]
            assert all(size == cap for size in sizes[:-1])
            assert all(1 <= size <= cap for size in sizes[-1:])
            assert planner.micro_batch_ranges(total, max_micro_batch=cap) == ranges


def test_ranges_of_a_cap_wider_than_any_batch() -> None:
    assert planner.micro_batch_ranges(5, 2**63 - 1) == [(0, 5)]
    assert planner.micro_batch_ranges(np.int64(3), np.uint8(2)) == [(0, 2), (2, 3)]


def test_ranges_are_lists_of_pairs_of_ints() -> None:
    ranges = planner.micro_batch_ranges(3)
    assert type(ranges) is list
    assert {type(pair) for pair in ranges} == {tuple}
    assert {type(end) for pair in ranges for end in pair} == {int}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1,), r"total_queries must be in 0\.\.2\*\*63 - 1, not -1$"),
        ((-(2**70),), rf"total_queries must be in 0\.\.2\*\*63 - 1, not {-(2**70)}$"),
        ((2**70,), rf"total_queries must be in 0\.\.2\*\*63 - 1, not {2**70}$"),
        ((5, 0), r"max_micro_batch must be in 1\.\.2\*\*63 - 1, not 0$"),
        ((5, -3), r"max_micro_batch must be in 1\.\.2\*\*63 - 1, not -3$"),
        ((5, 2**70), rf"max_micro_batch must be in 1\.\.2\*\*63 - 1, not {2**70}$"),
    ],
)
def test_ranges_of_numbers_out_of_range(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planner.micro_batch_ranges(*arguments)


@pytest.mark.parametrize("value", [1.0, "2", None, [2], b"\2"])
def test_ranges_of_other_types(value: Any) -> None:
    name = type(value).__name__
    with pytest.raises(TypeError, match=rf"total_queries must be an int, not {name}$"):
        planner.micro_batch_ranges(value)
    with pytest.raises(TypeError, match=rf"max_micro_batch must be an int, not {name}$"):
        planner.micro_batch_ranges(5, value)


# Packing


def test_a_packer_knows_the_party_of_its_batch() -> None:
    packer = planner.KeyPacker(NUM_PAGES)
    batches = mg.make_queries([[1, 2], [3, 4]], NUM_PAGES)
    assert packer.party == -1
    for party, batch in enumerate(batches):
        packer.pack(batch)
        assert packer.party == party
    packer.pack([batches[0][0], batches[1][0]])
    assert packer.party == -1
    packer.pack(batches[1])
    with pytest.raises(TypeError):
        packer.pack([batches[1][0], None])
    assert packer.party == -1
    packer.pack([])
    assert packer.party == -1


@pytest.mark.parametrize("num_pages", [1, 512, 513, NUM_PAGES, 2**25, 2**40])
@pytest.mark.parametrize("keys", [1, 2, 3])
def test_packed_keys_stand_in_request_order(num_pages: int, keys: int) -> None:
    packer = planner.KeyPacker(num_pages)
    assert packer.num_pages == num_pages
    assert packer.key_size == mg.dpf.key_size(num_pages)
    batch = queries(5, keys, num_pages)
    packer.pack(batch)
    assert packer.packed() == concatenated(batch)
    assert (packer.query_count, packer.keys_per_query) == (5, keys)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3)), max_size=8))
def test_one_packer_serves_batches_of_any_size(shapes: list[tuple[int, int]]) -> None:
    packer = planner.KeyPacker(NUM_PAGES)
    for total, keys in shapes:
        batch = queries(total, keys)
        packer.pack(batch)
        assert packer.packed() == concatenated(batch)
        assert packer.query_count == total
        assert packer.keys_per_query == (keys if total else 3)


def test_empty_batch() -> None:
    packer = planner.KeyPacker(NUM_PAGES)
    for _ in range(2):
        packer.pack([])
        assert packer.packed() == b""
        assert (packer.query_count, packer.keys_per_query) == (0, 3)
        packer.pack(queries(4, 2))


def test_a_refused_batch_leaves_no_half_of_it() -> None:
    packer = planner.KeyPacker(NUM_PAGES)
    packer.pack(queries(4, 2))
    with pytest.raises(TypeError):
        packer.pack([*queries(2, 3), None])  # type: ignore[list-item]
    assert packer.packed() == b""
    batch = queries(3, 1)
    packer.pack(batch)
    assert packer.packed() == concatenated(batch)


def test_both_parties_may_be_in_one_batch() -> None:
    first, second = mg.make_query([1, 2], NUM_PAGES)
    packer = planner.KeyPacker(NUM_PAGES)
    packer.pack([first, second])
    assert packer.packed() == concatenated([first, second])


def test_mixed_key_counts() -> None:
    batch = [*queries(2, 3), *queries(1, 2)]
    with pytest.raises(ValueError, match=r"queries\[0\] has 3, queries\[2\] has 2$"):
        planner.KeyPacker(NUM_PAGES).pack(batch)


@pytest.mark.parametrize("batch", [None, (), "", b"", 3, iter([]), np.zeros(3), {}])
def test_not_a_list(batch: Any) -> None:
    name = type(batch).__name__
    with pytest.raises(TypeError, match=rf"queries must be a list of Query, not {name}$"):
        planner.KeyPacker(NUM_PAGES).pack(batch)


@pytest.mark.parametrize("item", [None, b"MGK1", ("key",), 5])
def test_not_a_query(item: Any) -> None:
    name = type(item).__name__
    with pytest.raises(TypeError, match=rf"queries\[1\] must be a Query with .*, not {name}$"):
        planner.KeyPacker(NUM_PAGES).pack([*queries(1, 1), item])


def test_another_domain() -> None:
    message = r"n = 13, that is 4097 to 8192 pages, but the table has 3000 pages, n = 12$"
    with pytest.raises(mg.KeyDomainError, match=message):
        planner.KeyPacker(NUM_PAGES).pack(queries(1, 1, num_pages=5000))


@pytest.mark.parametrize("num_pages", [0, -1, 2**40 + 1, 2**70])
def test_num_pages_out_of_range(num_pages: int) -> None:
    with pytest.raises(ValueError, match=rf"num_pages must be in .* not {num_pages}$"):
        planner.KeyPacker(num_pages)


def test_num_pages_of_another_type() -> None:
    with pytest.raises(TypeError, match=r"num_pages must be an int, not float$"):
        planner.KeyPacker(1.0)  # type: ignore[arg-type]


# Memory and imports


def test_packing_again_allocates_nothing_that_stays() -> None:
    packer = planner.KeyPacker(NUM_PAGES)
    large, small = queries(32, 3), queries(2, 3)
    rounds = [large, small] * 50
    packer.pack(large)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for batch in rounds:
            packer.pack(batch)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # This is far less than the keys of one batch, or one object a round.
    assert after - before < 1000
    assert peak - before < 2000


def test_the_planner_loads_no_device() -> None:
    script = "import sys, morphogen.planner; print(*sys.modules, sep='\\n')"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    modules = result.stdout.split()
    assert "morphogen.planner" in modules
    assert not [name for name in modules if "cuda" in name or name.startswith("morphogen.engine")]

"""A key that is cut down to some pages is a key for a table of these pages."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import morphogen as mg
import reference as ref
from morphogen import dpf
from naive import naive_answers, open_engine, random_pages, unpack

LEAF = dpf.PAGES_PER_LEAF
ENTROPY = bytes(range(48))
PROTOCOL = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"


def unit_of(count: int) -> int:
    """What the first of so many pages must be a multiple of."""
    return int(max(LEAF, 1 << (count - 1).bit_length()))


def random_range(rng: random.Random, num_pages: int, most: int) -> tuple[int, int]:
    """A range of a table that a key can be cut down to."""
    count = rng.randint(1, min(num_pages, rng.choice([1, 511, 513, most // 3 + 1, most])))
    unit = unit_of(count)
    first = unit * rng.randint(0, (num_pages - count) // unit)
    if rng.random() < 0.2:  # the ragged end of the table
        first = (num_pages - 1) // unit * unit
        count = min(count, num_pages - first)
    return first, count


def assert_restricted(key: bytes, first: int, count: int, num_pages: int) -> bytes:
    """Cut a key down, and compare with the reference; the new key is returned."""
    part = dpf.restrict(key, first, count, num_pages)
    assert part == ref.restrict(key, first, count, num_pages)
    assert len(part) == dpf.key_size(count)
    assert dpf.parse_key(part)[0] == part
    return part


@pytest.mark.parametrize("num_pages", [1, 300, 512, 513, 1024, 1100, 2048, 4 * 512 + 77, 7 * 512])
def test_every_range_of_leaves_of_a_small_table(num_pages: int) -> None:
    keys = dpf.gen(num_pages * 2 // 3, num_pages, entropy=ENTROPY)
    whole = [unpack(dpf.eval_full(key, num_pages), num_pages) for key in keys]
    ranges = 0
    for first in range(0, num_pages, LEAF):
        for stop in sorted({*range(first + LEAF, num_pages, LEAF), num_pages, first + 1}):
            count = stop - first
            for key, bits in zip(keys, whole, strict=True):
                if first % unit_of(count):
                    with pytest.raises(
                        ValueError, match=rf"^first must be a multiple of {unit_of(count)} "
                    ):
                        dpf.restrict(key, first, count, num_pages)
                    continue
                part = assert_restricted(key, first, count, num_pages)
                assert np.array_equal(unpack(dpf.eval_full(part, count), count), bits[first:stop])
                ranges += 1
    assert ranges >= 2 * (num_pages // LEAF)


def test_a_thousand_random_ranges_have_the_bits_of_the_whole_key() -> None:
    rng = random.Random(18)
    for num_pages in (1025, 5000, 40_000, 2**17 - 3, 2**20):
        keys = dpf.gen(rng.randrange(num_pages), num_pages, entropy=rng.randbytes(48))
        whole = [unpack(dpf.eval_full(key, num_pages), num_pages) for key in keys]
        for turn in range(220):
            first, count = random_range(rng, num_pages, num_pages)
            part = dpf.restrict(keys[turn % 2], first, count, num_pages)
            bits = unpack(dpf.eval_full(part, count), count)
            assert np.array_equal(bits, whole[turn % 2][first : first + count])


@pytest.mark.parametrize("num_pages", [2**25, 2**35 + 12_345, 2**38 - 1, 2**40])
def test_ranges_of_a_large_table(num_pages: int) -> None:
    rng = random.Random(num_pages)
    for _ in range(60):
        index = rng.randrange(num_pages)
        keys = dpf.gen(index, num_pages, entropy=rng.randbytes(48))
        first, count = random_range(rng, num_pages, 2**22)
        if rng.random() < 0.5:  # the hidden page is in the range
            first = index // unit_of(count) * unit_of(count)
            count = min(count, num_pages - first)
        parts = [assert_restricted(key, first, count, num_pages) for key in keys]
        sample = {0, count - 1, *(rng.randrange(count) for _ in range(20))}
        if first <= index < first + count:
            sample.add(index - first)
        for key, part in zip(keys, parts, strict=True):
            for at in sample:
                assert dpf.eval_at(part, at, count) == dpf.eval_at(key, first + at, num_pages)


def test_a_range_as_large_as_half_of_the_largest_table() -> None:
    key = dpf.gen(2**40 - 1, 2**40, entropy=ENTROPY)[1]
    part = assert_restricted(key, 2**39, 2**39, 2**40)
    assert dpf.eval_at(part, 2**39 - 1, 2**39) == dpf.eval_at(key, 2**40 - 1, 2**40)
    assert dpf.restrict(key, 0, 2**40, 2**40) == key


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_restricted_key_can_be_cut_down_again(data: st.DataObject) -> None:
    num_pages = data.draw(st.integers(1, 2**40))
    key = dpf.gen(data.draw(st.integers(0, num_pages - 1)), num_pages, entropy=ENTROPY)[0]
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    first, count = random_range(rng, num_pages, num_pages)
    inner, some = random_range(rng, count, count)
    again = dpf.restrict(dpf.restrict(key, first, count, num_pages), inner, some, count)
    assert again == dpf.restrict(key, first + inner, some, num_pages)


def test_both_parties_keys_are_equal_where_the_hidden_page_is_not() -> None:
    """So the party byte is no party's: it is the node's control bit."""
    index, num_pages = 5 * LEAF + 7, 16 * LEAF
    seen = set()
    for turn in range(20):
        keys = dpf.gen(index, num_pages, entropy=random.Random(turn).randbytes(48))
        for first in range(0, num_pages, 2 * LEAF):
            parts = [dpf.restrict(key, first, 2 * LEAF, num_pages) for key in keys]
            assert (parts[0] == parts[1]) == (not first <= index < first + 2 * LEAF)
            bytes_of_party = {part[4] for part in parts}
            assert len(bytes_of_party) == 1 + (first <= index < first + 2 * LEAF)
            seen.add((first, parts[0][4]))
    assert seen == {(first, bit) for first in range(0, num_pages, 2 * LEAF) for bit in (0, 1)}


def test_an_engine_over_the_range_answers_restricted_keys_as_a_slice_answers_whole_ones() -> None:
    num_pages = 7 * LEAF + 100
    content = random_pages(num_pages, 24)
    rows = np.array([[3, 2000, 3680], [2048, 4 * LEAF, 100]])
    queries = mg.make_queries(rows, num_pages)
    totals = []
    for batch in queries:
        total = np.zeros((2, 3, 24), np.uint8)
        for first, count in ((0, 4 * LEAF), (4 * LEAF, 2 * LEAF), (6 * LEAF, LEAF + 100)):
            parts = [
                mg.Query([dpf.restrict(key, first, count, num_pages) for key in query.keys])
                for query in batch
            ]
            with open_engine(content[first : first + count]) as engine:
                answer = engine.answer(parts).pages
            with open_engine(mg.PageMatrix(content).slice(first, count)) as engine:
                assert np.array_equal(engine.answer(batch).pages, answer)
            total ^= answer
        assert np.array_equal(total, naive_answers(content, batch))
        totals.append(total)
    assert np.array_equal(totals[0] ^ totals[1], content[rows])


def test_the_documents_example_is_true() -> None:
    section = PROTOCOL.read_text(encoding="utf-8").split("\n### 6.3 ")[1]
    block = section.split("```text\n")[1].split("```")[0]
    keys = dpf.gen(700, 1025, entropy=bytes(range(0x11, 0x41)))
    lines = re.sub(r"\n +", "", block).splitlines()
    assert len(lines) == 4
    for line in lines:
        name, _, digits = line.partition(" = ")
        party, first, count = map(int, name.strip().removeprefix("p").split("."))
        assert assert_restricted(keys[party], first, count, 1025).hex() == digits


# Refused


@pytest.mark.parametrize(
    ("first", "count", "message"),
    [
        (1, 1, r"^first must be a multiple of 512 for 1 pages, not 1$"),
        (512, 513, r"^first must be a multiple of 1024 for 513 pages, not 512$"),
        (1024, 2000, r"^first must be a multiple of 2048 for 2000 pages, not 1024$"),
        (-512, 1, r"^first must be in 0\.\.4999, not -512$"),
        (5120, 1, r"^first must be in 0\.\.4999, not 5120$"),
        (4096, 0, r"^count of pages from 4096 on must be in 1\.\.904, not 0$"),
        (4096, 905, r"^count of pages from 4096 on must be in 1\.\.904, not 905$"),
    ],
)
def test_a_range_that_no_node_covers(first: int, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dpf.restrict(dpf.gen(7, 5000)[0], first, count, 5000)


@pytest.mark.parametrize(
    "arguments", [(0.0, 1, 5000), (0, "1", 5000), (None, 1, 5000), (0, 1, 5e3)]
)
def test_numbers_of_another_type(arguments: Any) -> None:
    with pytest.raises(TypeError, match=r"^(first|count|num_pages) must be an int, not"):
        dpf.restrict(dpf.gen(7, 5000)[0], *arguments)


def test_a_key_of_another_table_or_form() -> None:
    key = dpf.gen(7, 5000)[0]
    with pytest.raises(mg.KeyDomainError, match="the table has 500 pages"):
        dpf.restrict(key, 0, 500, 500)
    with pytest.raises(mg.InvalidKeyError):
        dpf.restrict(key[:-1], 0, 512, 5000)
    with pytest.raises(TypeError, match="a key must be bytes-like, not int"):
        dpf.restrict(7, 0, 512, 5000)  # type: ignore[arg-type]
    assert dpf.restrict(memoryview(key), 0, 512, 5000) == dpf.restrict(key, 0, 512, 5000)

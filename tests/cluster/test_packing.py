"""What the router and a shard's process send each other comes out as it went in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from morphogen.cluster.host_shard import Rows
from morphogen.cluster.packing import pack_call, pack_result, unpack_call, unpack_result
from morphogen.cluster.source import Source
from morphogen.engine.shards.transport import Part, Pass
from morphogen.sharding import ShardRange

NUMBERS = st.integers(0, 2**63 - 1)
ROOTS = st.none() | st.binary(min_size=32, max_size=32)
RANGES = st.builds(
    ShardRange, st.integers(0, 2**20).map(lambda leaf: 512 * leaf), st.integers(1, 2**30)
)


@settings(deadline=None)
@given(
    st.builds(Pass, NUMBERS, NUMBERS, ROOTS, st.binary(), st.integers(0, 99), st.integers(1, 3)),
    RANGES,
)
def test_a_pass_arrives_as_it_was(job: Pass, held: ShardRange) -> None:
    assert unpack_call(pack_call("answer", (job, held))) == ("answer", (job, held))


@settings(deadline=None)
@given(NUMBERS, RANGES, NUMBERS, ROOTS, st.integers(0, 4), st.integers(1, 3), st.integers(1, 70))
def test_a_part_arrives_as_it_was(
    number: int,
    held: ShardRange,
    epoch: int,
    root: bytes | None,
    queries: int,
    keys: int,
    size: int,
) -> None:
    pages = np.arange(queries * keys * size, dtype=np.uint8).reshape(queries, keys, size)
    part = unpack_result(pack_result(Part(number, held, epoch, root, pages)))
    assert isinstance(part, Part)
    assert (part.number, part.range, part.epoch, part.root) == (number, held, epoch, root)
    assert np.array_equal(part.pages, pages)
    assert part.pages.dtype == np.uint8


def test_a_part_of_a_view_arrives_in_its_own_order() -> None:
    pages = np.arange(48, dtype=np.uint8).reshape(4, 2, 6)[::-1, :, ::2]
    part = unpack_result(pack_result(Part(1, ShardRange(0, 4), 0, None, pages)))
    assert np.array_equal(part.pages, pages)


@pytest.mark.parametrize("result", [None, 7, (1, 2), [], {"a": b"b"}, ((3, None), (4, b"r"))])
def test_any_other_result_arrives_as_it_was(result: object) -> None:
    assert unpack_result(pack_result(result)) == result


def test_any_other_call_arrives_as_it_was() -> None:
    source, held = Source("pages", 70, 7), ShardRange(512, 512)
    rows = Rows(np.array([3]), np.ones((1, 70), np.uint8))
    method, arguments = unpack_call(pack_call("open", (source, held, (7, None), True, rows)))
    assert method == "open"
    assert arguments[:4] == (source, held, (7, None), True)
    for name in ("indices", "pages"):
        assert np.array_equal(getattr(arguments[4], name), getattr(rows, name))

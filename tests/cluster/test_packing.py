"""Passes, parts and errors arrive at the other end as they were."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings, strategies as st

from morphogen.cluster.packing import pack_outcome, pack_pass, unpack_outcome, unpack_pass
from morphogen.engine.shards.transport import Part, Pass
from morphogen.errors import ShardMismatchError, ShardUnavailableError
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
    assert unpack_pass(*pack_pass(job, held)) == (job, held)


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
    part = arrived(Part(number, held, epoch, root, pages))
    assert isinstance(part, Part)
    assert (part.number, part.range, part.epoch, part.root) == (number, held, epoch, root)
    assert np.array_equal(part.pages, pages)
    assert part.pages.dtype == np.uint8


def test_a_part_of_a_view_arrives_in_its_own_order() -> None:
    pages = np.arange(48, dtype=np.uint8).reshape(4, 2, 6)[::-1, :, ::2]
    part = arrived(Part(1, ShardRange(0, 4), 0, None, pages))
    assert isinstance(part, Part)
    assert np.array_equal(part.pages, pages)


def test_an_error_arrives_with_its_class() -> None:
    error = arrived(ShardMismatchError("this shard answers for others"))
    assert type(error) is ShardMismatchError
    assert str(error) == "this shard answers for others"


class UnsendableError(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def test_an_error_that_cannot_be_sent_arrives_with_its_text() -> None:
    error = arrived(UnsendableError("a", "b"))
    assert type(error) is ShardUnavailableError
    assert str(error) == "UnsendableError: a and b"


def arrived(outcome: Part | Exception) -> Part | Exception | int:
    return unpack_outcome(*pack_outcome(outcome))

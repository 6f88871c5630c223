"""gen_many: the keys of gen, several pairs at a time."""

from __future__ import annotations

import random

import pytest

import reference as ref
from morphogen import dpf

ENTROPY = 48


@pytest.mark.parametrize("count", range(8))
def test_the_keys_are_those_of_gen(count: int, instruction_set: str) -> None:
    rng = random.Random(count)
    for num_pages in (1, 2, 512, 513, 70_000, 2**25, 2**40):
        indices = [rng.randrange(num_pages) for _ in range(count)]
        entropy = rng.randbytes(ENTROPY * count)
        keys0, keys1 = dpf.gen_many(
            indices, num_pages, entropy=entropy, instruction_set=instruction_set
        )
        assert (len(keys0), len(keys1)) == (count, count)
        for at, index in enumerate(indices):
            part = entropy[ENTROPY * at :][:ENTROPY]
            assert (keys0[at], keys1[at]) == ref.gen(index, num_pages, part)
            assert (keys0[at], keys1[at]) == dpf.gen(index, num_pages, entropy=part)


def test_each_pair_has_entropy_of_its_own_from_the_system() -> None:
    num_pages, indices = 70_000, [5, 69_999, 5, 0, 600]
    keys0, keys1 = dpf.gen_many(iter(indices), num_pages)
    for key0, key1, index in zip(keys0, keys1, indices, strict=True):
        bits = dpf.eval_full(key0, num_pages) ^ dpf.eval_full(key1, num_pages)
        assert [*bits.nonzero()[0]] == [index // 8]
        assert bits[index // 8] == 1 << index % 8
    for part in (slice(16, 32), slice(32, 48)):  # salt, root seed
        assert len({key[part] for key in keys0}) == len(indices)
    assert not {key[32:48] for key in keys0} & {key[32:48] for key in keys1}


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([3, 1000], ValueError, r"index must be in 0\.\.999, not 1000"),
        ([3, -1], ValueError, r"index must be in 0\.\.999, not -1"),
        ([3, 1.0], TypeError, "index must be an int, not float"),
        (7, TypeError, "iterable"),
    ],
)
def test_a_wrong_index_is_refused(indices: list[int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dpf.gen_many(indices, 1000)


def test_wrong_entropy_is_refused_for_any_pair() -> None:
    with pytest.raises(ValueError, match="entropy must have 96 bytes, not 48"):
        dpf.gen_many([1, 2], 1000, entropy=bytes(range(48)))
    with pytest.raises(ValueError, match="two different seeds, not two equal ones"):
        dpf.gen_many([1, 2], 1000, entropy=bytes(range(48)) + bytes(48))

"""Gen, Eval and EvalFull of key format v1: known answers, and that a pair differs in one bit."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import reference as ref
from morphogen import dpf
from naive import unpack

VECTORS = json.loads(
    (Path(__file__).resolve().parents[1] / "vectors" / "dpf_v1.json").read_text(encoding="utf-8")
)
ENTROPY = bytes(range(48))

each_vector = pytest.mark.parametrize(
    "vector", VECTORS["keys"], ids=lambda v: f"{v['num_pages']}-{v['index']}"
)


def differing_pages(
    keys: tuple[bytes, bytes], num_pages: int, instruction_set: str | None = None
) -> list[int]:
    """Return the pages at which the selection bits of the two keys differ."""
    shares = [dpf.eval_full(key, num_pages, instruction_set=instruction_set) for key in keys]
    for share in shares:
        assert share.dtype == np.uint8
        assert share.shape == (-(-num_pages // 8),)
        assert num_pages % 8 == 0 or share[-1] >> num_pages % 8 == 0
    differences: list[int] = np.flatnonzero(unpack(shares[0] ^ shares[1], num_pages)).tolist()
    return differences


# Known answers


@each_vector
def test_gen_makes_the_vectors_keys(vector: dict[str, Any], instruction_set: str) -> None:
    entropy = bytes.fromhex(vector["seed0"] + vector["seed1"] + vector["salt"])
    key0, key1 = dpf.gen(
        vector["index"], vector["num_pages"], entropy=entropy, instruction_set=instruction_set
    )
    assert key0.hex() == vector["key0"]
    assert key1.hex() == vector["key1"]


@each_vector
def test_eval_full_gives_the_vectors_bits(vector: dict[str, Any], instruction_set: str) -> None:
    for party in (0, 1):
        key = bytes.fromhex(vector[f"key{party}"])
        bits = dpf.eval_full(key, vector["num_pages"], instruction_set=instruction_set)
        assert hashlib.sha256(bits.tobytes()).hexdigest() == vector[f"bits{party}_sha256"]


@each_vector
def test_eval_at_gives_the_vectors_bits(vector: dict[str, Any]) -> None:
    num_pages, index = vector["num_pages"], vector["index"]
    rng = random.Random(index)
    sample = {0, index, num_pages - 1, *(rng.randrange(num_pages) for _ in range(200))}
    few = sorted(sample)[:20]
    for party in (0, 1):
        key = bytes.fromhex(vector[f"key{party}"])
        bits = unpack(dpf.eval_full(key, num_pages), num_pages)
        assert all(dpf.eval_at(key, i, num_pages) == bits[i] for i in sample)
        assert all(dpf.eval_at(key, i, num_pages) == ref.eval_at(key, i, num_pages) for i in few)


@pytest.mark.parametrize("num_pages", [1, 7, 512, 513, 1537, 4097, 70_000, 524_289])
def test_equals_the_reference(num_pages: int, instruction_set: str) -> None:
    rng = random.Random(num_pages)
    index, entropy = rng.randrange(num_pages), rng.randbytes(48)
    keys = dpf.gen(index, num_pages, entropy=entropy, instruction_set=instruction_set)
    assert keys == ref.gen(index, num_pages, entropy)
    parties = (0, 1) if num_pages < 5_000 else (1,)
    for party in parties:
        bits = dpf.eval_full(keys[party], num_pages, instruction_set=instruction_set)
        assert bits.tobytes() == reference_bits(keys[party], num_pages)


@functools.cache
def reference_bits(key: bytes, num_pages: int) -> bytes:
    """Return the reference's eval_full, computed once for each key because it is slow."""
    return ref.eval_full(key, num_pages)


# A pair differs in exactly one bit


def test_every_small_num_pages(instruction_set: str) -> None:
    rng = random.Random(1100)
    for num_pages in range(1, 1101):
        borders = (b + j for b in (0, 8, 64, 512, 1024, num_pages) for j in (-1, 0, 1))
        sample = {*borders, *(rng.randrange(num_pages) for _ in range(3))}
        for index in sample:
            if 0 <= index < num_pages:
                keys = dpf.gen(index, num_pages, entropy=rng.randbytes(48))
                assert differing_pages(keys, num_pages, instruction_set) == [index]


@pytest.mark.parametrize("num_pages", [*range(1, 41), 513, 1025])
def test_every_index(num_pages: int) -> None:
    for index in range(num_pages):
        assert differing_pages(dpf.gen(index, num_pages), num_pages) == [index]


@pytest.mark.slow
def test_every_index_of_small_tables() -> None:
    # A leaf has 512 pages.
    for num_pages in (*range(1, 130), *range(509, 516), *range(1021, 1028), 1536, 1537):
        for index in range(num_pages):
            assert differing_pages(dpf.gen(index, num_pages), num_pages) == [index]


# kernels/dpf_leaves.h expands runs of 1,024 leaves, which are 524,288 pages.
SUBTREE = 524_288


@pytest.mark.parametrize(
    "num_pages",
    [
        2**16 - 1,
        2**16,
        2**16 + 1,
        100_003,
        SUBTREE - 1,
        SUBTREE,
        SUBTREE + 1,
        2**20,
        2**20 + 1,
        3 * SUBTREE + 12_345,
    ],
)
def test_larger_domains(num_pages: int, instruction_set: str) -> None:
    rng = random.Random(num_pages)
    borders = (b + j for b in (0, 512, 2**16, SUBTREE, 2**20, num_pages) for j in (-1, 0))
    for index in sorted({*borders, rng.randrange(num_pages)}):
        if 0 <= index < num_pages:
            keys = dpf.gen(index, num_pages, entropy=rng.randbytes(48))
            assert differing_pages(keys, num_pages, instruction_set) == [index]


def test_instruction_sets_agree(instruction_set: str) -> None:
    for num_pages in (513, 5_000, 70_001, 2 * SUBTREE + 513):
        key = dpf.gen(num_pages // 3, num_pages, entropy=ENTROPY)[1]
        expected = dpf.eval_full(key, num_pages, instruction_set="baseline")
        bits = dpf.eval_full(key, num_pages, instruction_set=instruction_set)
        assert np.array_equal(bits, expected)


@given(st.data(), st.integers(1, 200_000), st.binary(min_size=48, max_size=48))
def test_pair_property(data: st.DataObject, num_pages: int, entropy: bytes) -> None:
    index = data.draw(st.integers(0, num_pages - 1))
    if entropy[:16] == entropy[16:32]:
        entropy = ENTROPY
    keys = dpf.gen(index, num_pages, entropy=entropy)
    assert differing_pages(keys, num_pages) == [index]
    other = data.draw(st.integers(0, num_pages - 1))
    bits = [dpf.eval_at(key, other, num_pages) for key in keys]
    assert bits[0] ^ bits[1] == (other == index)
    full = unpack(dpf.eval_full(keys[0], num_pages), num_pages)
    assert bits[0] == full[other]


@settings(max_examples=50)
@given(st.data(), st.integers(0, 40), st.binary(min_size=48, max_size=48))
def test_gen_and_eval_at_equal_the_reference(data: st.DataObject, n: int, entropy: bytes) -> None:
    num_pages = data.draw(st.integers(2**n // 2 + 1, 2**n))
    index = data.draw(st.integers(0, num_pages - 1))
    other = data.draw(st.integers(0, num_pages - 1))
    if entropy[:16] == entropy[16:32]:
        entropy = ENTROPY
    keys = dpf.gen(index, num_pages, entropy=entropy)
    assert keys == ref.gen(index, num_pages, entropy)
    for key in keys:
        for position in (index, other):
            expected = ref.eval_at(key, position, num_pages)
            assert dpf.eval_at(key, position, num_pages) == expected


def test_the_largest_table() -> None:
    num_pages = 2**40
    rng = random.Random(40)
    for index in (0, 1, 2**39 - 1, 2**39, num_pages - 1, rng.randrange(num_pages)):
        keys = dpf.gen(index, num_pages)
        assert [len(key) for key in keys] == [608, 608]
        near = {0, num_pages - 1, index, index ^ 1, index ^ 512, index ^ 2**39}
        for other in near | {rng.randrange(num_pages) for _ in range(20)}:
            bits = [dpf.eval_at(key, other, num_pages) for key in keys]
            assert set(bits) <= {0, 1}
            assert bits[0] ^ bits[1] == (other == index)


def test_selection_bits_are_balanced() -> None:
    """Each key alone selects about half of the pages, near the hidden one too."""
    num_pages = 2**17
    for key in dpf.gen(70_000, num_pages, entropy=ENTROPY):
        bits = unpack(dpf.eval_full(key, num_pages), num_pages)
        # Six standard deviations.
        assert abs(int(bits.sum()) - num_pages // 2) < 6 * num_pages**0.5 / 2
        leaf = bits[70_000 // 512 * 512 :][:512]
        assert abs(int(leaf.sum()) - 256) < 6 * 512**0.5 / 2


# Keys


@pytest.mark.parametrize(
    ("num_pages", "size"),
    [
        (1, 112),
        (2, 112),
        (512, 112),
        (513, 128),
        (1024, 128),
        (1025, 144),
        (2**16, 224),
        (2**16 + 1, 240),
        (2**25, 368),
        (2**25 + 1, 384),
        (2**40 - 1, 608),
        (2**40, 608),
    ],
)
def test_key_size(num_pages: int, size: int) -> None:
    assert dpf.key_size(num_pages) == size == ref.key_size(num_pages)
    assert [len(key) for key in dpf.gen(num_pages - 1, num_pages)] == [size, size]


def test_key_size_around_every_power_of_two() -> None:
    for n, j in itertools.product(range(41), (-1, 0, 1)):
        if 1 <= 2**n + j <= 2**40:
            assert dpf.key_size(2**n + j) == ref.key_size(2**n + j)


def test_a_pair_is_equal_but_for_party_and_root_seed() -> None:
    for num_pages in (1, 513, 100_000):
        key0, key1 = dpf.gen(num_pages // 2, num_pages)
        assert type(key0) is type(key1) is bytes
        assert key0[:4] == b"MGK1"
        assert (key0[4], key1[4]) == (0, 1)
        assert key0[5:32] == key1[5:32]
        assert key0[32:48] != key1[32:48]
        assert key0[48:] == key1[48:]


def test_entropy_is_fresh_for_each_pair() -> None:
    pairs = [dpf.gen(3, 1000) for _ in range(50)]
    salts = {key[16:32] for pair in pairs for key in pair}
    seeds = {key[32:48] for pair in pairs for key in pair}
    assert len(salts) == 50
    assert len(seeds) == 100
    assert not salts & seeds


def test_entropy_fixes_the_keys() -> None:
    assert dpf.gen(3, 1000, entropy=ENTROPY) == dpf.gen(3, 1000, entropy=bytearray(ENTROPY))
    key0, key1 = dpf.gen(3, 1000, entropy=ENTROPY)
    assert key0[32:48] + key1[32:48] + key0[16:32] == ENTROPY


# Arguments


@pytest.mark.parametrize("length", [0, 1, 16, 47, 49, 96])
def test_entropy_of_another_length(length: int) -> None:
    with pytest.raises(ValueError, match=f"48 bytes, not {length}$"):
        dpf.gen(0, 10, entropy=bytes(length))


def test_entropy_with_equal_seeds() -> None:
    with pytest.raises(ValueError, match="two different seeds"):
        dpf.gen(0, 10, entropy=ENTROPY[:16] * 2 + bytes(16))


def test_entropy_with_seeds_that_differ_in_any_one_bit() -> None:
    for bit in range(128):
        other = bytearray(ENTROPY[:16])
        other[bit // 8] ^= 1 << bit % 8
        key0, key1 = dpf.gen(3, 10, entropy=ENTROPY[:16] + other + bytes(16))
        assert (dpf.eval_full(key0, 10) ^ dpf.eval_full(key1, 10)).tolist() == [8, 0]


@pytest.mark.parametrize("entropy", ["x" * 48, 48, list(ENTROPY)])
def test_entropy_of_another_type(entropy: Any) -> None:
    with pytest.raises(TypeError, match=f"bytes-like, not {type(entropy).__name__}$"):
        dpf.gen(0, 10, entropy=entropy)


def test_entropy_is_a_keyword() -> None:
    with pytest.raises(TypeError):
        dpf.gen(0, 10, ENTROPY)  # type: ignore[misc]


@pytest.mark.parametrize("num_pages", [0, -1, 2**40 + 1, 2**64, 2**64 + 1, -(2**70)])
def test_num_pages_out_of_range(num_pages: int) -> None:
    key = dpf.gen(0, 1)[0]
    for call in (
        lambda: dpf.gen(0, num_pages),
        lambda: dpf.key_size(num_pages),
        lambda: dpf.eval_full(key, num_pages),
        lambda: dpf.eval_at(key, 0, num_pages),
    ):
        with pytest.raises(ValueError, match=rf"must be in 1\.\.2\*\*40, not {num_pages}$"):
            call()


@pytest.mark.parametrize(
    ("index", "num_pages"),
    [(-1, 1), (1, 1), (1000, 1000), (1023, 1000), (2**40, 2**40), (2**64, 1000), (2**64 + 3, 8)],
)
def test_index_outside_the_table(index: int, num_pages: int) -> None:
    key = dpf.gen(0, num_pages)[1]
    last = r"2\*\*40 - 1" if num_pages == 2**40 else num_pages - 1
    message = rf"index must be in 0\.\.{last}, not {index}$"
    with pytest.raises(ValueError, match=message):
        dpf.gen(index, num_pages)
    with pytest.raises(ValueError, match=message):
        dpf.eval_at(key, index, num_pages)


@pytest.mark.parametrize("value", [1.0, "1", None, b"\1", [1], np.float64(1)])
def test_numbers_of_another_type(value: Any) -> None:
    key = dpf.gen(0, 10)[0]
    name = type(value).__name__
    for call in (
        lambda: dpf.gen(0, value),
        lambda: dpf.key_size(value),
        lambda: dpf.eval_full(key, value),
        lambda: dpf.eval_at(key, 0, value),
    ):
        with pytest.raises(TypeError, match=f"num_pages must be an int, not {name}$"):
            call()
    for call in (lambda: dpf.gen(value, 10), lambda: dpf.eval_at(key, value, 10)):
        with pytest.raises(TypeError, match=f"index must be an int, not {name}$"):
            call()


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.uint64, np.int64])
def test_numpy_integers_are_integers(kind: type[np.integer[Any]]) -> None:
    keys = dpf.gen(kind(7), kind(100), entropy=ENTROPY)
    assert keys == dpf.gen(7, 100, entropy=ENTROPY)
    assert dpf.eval_at(keys[0], kind(7), kind(100)) == dpf.eval_at(keys[0], 7, 100)


def test_keys_may_be_any_bytes_like() -> None:
    num_pages = 5000
    key = dpf.gen(4321, num_pages)[1]
    expected = dpf.eval_full(key, num_pages)
    spread: Any = np.zeros(2 * len(key), dtype=np.uint8)
    spread[::2] = np.frombuffer(key, dtype=np.uint8)
    others: tuple[Any, ...] = (
        bytearray(key),
        memoryview(key),
        memoryview(bytearray(key)),
        np.frombuffer(key, dtype=np.uint8),
        np.frombuffer(key, dtype=np.uint32),
        spread[::2],
        memoryview(spread)[::2],
        memoryview(key[::-1])[::-1],
        type("Key", (bytes,), {})(key),
    )
    for other in others:
        assert np.array_equal(dpf.eval_full(other, num_pages), expected)
        assert dpf.eval_at(other, 4321, num_pages) == unpack(expected, num_pages)[4321]


@pytest.mark.parametrize("key", [None, "MGK1" * 28, 112, 1.5, [1] * 112, object()])
def test_keys_of_another_type(key: Any) -> None:
    for call in (lambda: dpf.eval_full(key, 10), lambda: dpf.eval_at(key, 0, 10)):
        with pytest.raises(TypeError, match=f"a key must be bytes-like, not {type(key).__name__}$"):
            call()


def test_unknown_instruction_set() -> None:
    key = dpf.gen(0, 10)[0]
    with pytest.raises(ValueError, match=r"must be one of .*'baseline'.*, not 'mmx'"):
        dpf.eval_full(key, 10, instruction_set="mmx")
    with pytest.raises(ValueError, match=r"must be one of .*'baseline'.*, not 'mmx'"):
        dpf.gen(0, 10, instruction_set="mmx")
    with pytest.raises(TypeError):
        dpf.eval_full(key, 10, instruction_set=1)  # type: ignore[arg-type]


def test_each_result_is_its_own() -> None:
    key = dpf.gen(5, 1000)[0]
    first, second = dpf.eval_full(key, 1000), dpf.eval_full(key, 1000)
    first[:] = 0
    assert second.any()
    assert np.array_equal(second, dpf.eval_full(key, 1000))

"""Keys with random mutations: each is refused or evaluated as the reference does, and none crashes.

This file also runs under AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

import morphogen as mg
import reference as ref
from forged import NUM_PAGES, forged
from morphogen import dpf
from naive import naive_answers, random_pages


def mutated(rng: random.Random, keys: list[bytes]) -> bytes:
    """Return a key with one of many mutations, which may leave it well formed."""
    key = bytearray(rng.choice(keys))
    kind = rng.randrange(9)
    if kind == 0:  # bits anywhere
        for _ in range(rng.randint(1, 8)):
            key[rng.randrange(len(key))] ^= 1 << rng.randrange(8)
    elif kind == 1:  # one bit of the header
        key[rng.randrange(16)] ^= 1 << rng.randrange(8)
    elif kind == 2:  # one byte of the header
        key[rng.randrange(16)] = rng.randrange(256)
    elif kind == 3:  # bits of seeds and corrections only
        for _ in range(rng.randint(1, 8)):
            key[rng.randrange(16, len(key))] ^= 1 << rng.randrange(8)
    elif kind == 4:
        del key[rng.randrange(len(key)) :]
    elif kind == 5:
        key += rng.randbytes(rng.choice((1, 16, rng.randint(1, 700))))
    elif kind == 6:  # the header of one key, the body of another
        key[:16] = rng.choice(keys)[:16]
    elif kind == 7:  # a length and an n that fit, the rest random
        n = rng.randrange(64)
        key[5:] = bytes([n]) + rng.randbytes(106 + 16 * max(0, n - 9))
        if rng.random() < 0.8:
            key[6:16] = bytes(10)
    else:  # a stretch overwritten
        start = rng.randrange(len(key))
        stop = min(len(key), start + rng.randint(1, 40))
        key[start:stop] = rng.choice((b"\0", b"\xff", b"M")) * (stop - start)
    return bytes(key)


def is_well_formed(key: bytes) -> bool:
    """Ask the reference's parser, which shares no code with the library."""
    try:
        ref.parse_key(key)
    except ValueError:
        return False
    return True


def run_mutated_keys(seed: int, count: int) -> tuple[int, int]:
    """Put mutated keys through every function; count the well-formed and the fitting ones."""
    rng = random.Random(seed)
    sizes = (1, 2, 300, 512, 513, NUM_PAGES, 5000, 70_000, 2**25, 2**40)
    keys = [key for size in sizes for key in dpf.gen(rng.randrange(size), size)]
    tables = {size: random_pages(size, 9) for size in (1, 300, 513, NUM_PAGES)}
    engines = {
        size: mg.open_engine(mg.PageMatrix(table), device="cpu", threads=1)
        for size, table in tables.items()
    }
    instruction_sets = mg.instruction_set.supported()
    well_formed = fitting = 0
    for _ in range(count):
        key = mutated(rng, keys)
        size = rng.choice(list(tables))
        if not is_well_formed(key):
            for call in (
                lambda key=key: mg.Query([key]),
                lambda key=key, size=size: dpf.eval_full(key, size),
                lambda key=key, size=size: dpf.eval_at(key, size - 1, size),
                lambda key=key, size=size: engines[size].answer([forged(key)]),
            ):
                with pytest.raises(mg.InvalidKeyError):
                    call()
            continue
        well_formed += 1
        n = key[5]
        index = rng.randrange(2**n)
        assert dpf.eval_at(key, index, 2**n) in (0, 1)
        query = mg.Query([key])
        if n <= 17:
            bits = dpf.eval_full(key, 2**n, instruction_set=rng.choice(instruction_sets))
            assert bits[index // 8] >> index % 8 & 1 == dpf.eval_at(key, index, 2**n)
        if n == ref.domain_bits(size):
            fitting += 1
            pages = engines[size].answer([query]).pages
            assert np.array_equal(pages, naive_answers(tables[size], [query]))
        else:
            for call in (
                lambda key=key, size=size: dpf.eval_full(key, size),
                lambda query=query, size=size: engines[size].answer([query]),
            ):
                with pytest.raises(mg.KeyDomainError):
                    call()
    for opened in engines.values():
        opened.close()
    return well_formed, fitting


def test_mutated_keys() -> None:
    well_formed, fitting = run_mutated_keys(seed=2, count=12_000)
    # The mutations make enough well-formed keys and enough others.
    assert 2_000 < well_formed < 10_000
    assert fitting > 200


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
def test_more_mutated_keys(seed: int) -> None:
    run_mutated_keys(seed, count=20_000)


def test_random_bytes() -> None:
    rng = random.Random(3)
    for _ in range(5_000):
        key = rng.randbytes(rng.randrange(700))
        with pytest.raises(mg.InvalidKeyError):
            mg.Query([key])
        with pytest.raises(mg.InvalidKeyError):
            dpf.eval_full(key, NUM_PAGES)

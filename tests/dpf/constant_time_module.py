"""Runs the installed module with secret entropy, for test_constant_time.py, under memcheck.

Each line of the output names a call, and counts the reports of memcheck while it ran: branches on
secrets, and addresses made from them. The index is public here: Python's ints branch on their size.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import morphogen as mg

marks = ctypes.CDLL(sys.argv[1])
SEED, ENTROPY = 16, 48  # bytes
urandom = os.urandom


def mark(address: int, secret: bytes) -> None:
    marks.mark(ctypes.c_void_p(address), secret, ctypes.c_size_t(len(secret)))


def address_of(data: bytes) -> int:
    address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
    assert address is not None
    return address


def secret_entropy(size: int = ENTROPY) -> bytes:
    """Random bytes, secret but for the last bit of each seed, in which a pair's seeds differ.

    So memcheck knows that they differ, if no part of them is compared without the rest.
    """
    entropy = bytearray(urandom(size))
    secret = bytearray(b"\xff" * size)
    for end in range(SEED - 1, size, ENTROPY):
        entropy[end] &= 0x7F
        entropy[end + SEED] |= 0x80
        secret[end] = secret[end + SEED] = 0x7F
    held = bytes(entropy)
    mark(address_of(held), bytes(secret))
    return held


def counted(name: str, call: Callable[[], Any]) -> Any:
    before = marks.reports()
    result = call()
    print(name, marks.reports() - before)
    return result


def selected(keys: tuple[bytes, bytes], num_pages: int, **options: str) -> list[int]:
    """The page that a pair of keys selects, whose bytes are made public once they are added up."""
    shares = [
        counted("eval_full", partial(mg.dpf.eval_full, key, num_pages, **options)) for key in keys
    ]
    both: Any = shares[0] ^ shares[1]
    mark(both.ctypes.data, bytes(both.nbytes))
    return np.flatnonzero(np.unpackbits(both, bitorder="little")).tolist()


print("under valgrind" if marks.under_valgrind() else "not under valgrind")
mg.make_query([0], 1)  # imports what it needs
os.urandom = secret_entropy
for num_pages in (1, 512, 513, 40_000):
    index = num_pages * 2 // 3
    given = secret_entropy()
    pairs = [
        counted("gen", partial(mg.dpf.gen, index, num_pages)),
    ]
    for name in mg.instruction_set.supported():
        call = partial(mg.dpf.gen, index, num_pages, entropy=given, instruction_set=name)
        pairs.append(counted("gen with entropy", call))
        # A group of three, and the rest of one.
        given_all = secret_entropy(4 * ENTROPY)
        together = partial(
            mg.dpf.gen_many, [index] * 4, num_pages, entropy=given_all, instruction_set=name
        )
        pairs += zip(*counted("gen_many", together), strict=True)
    queries = counted("make_query", partial(mg.make_query, [index, 0], num_pages))
    pairs += zip(*(query.keys for query in queries), strict=True)
    part = partial(mg.dpf.restrict, pairs[0][0], 0, 512, num_pages)
    if num_pages > 512:
        counted("restrict", part)
    for pair, page in zip(pairs, [index] * (len(pairs) - 1) + [0], strict=True):
        for name in mg.instruction_set.supported():
            assert selected(pair, num_pages, instruction_set=name) == [page]
counted("gen", partial(mg.dpf.gen, 2**39, 2**40))
# To show that a report would be counted:
counted("leak", lambda: given[:SEED] == given[SEED : 2 * SEED])

"""Random tables and queries to measure with, and the right answers to them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from morphogen import dpf
from morphogen.query import Query

Pages = npt.NDArray[np.uint8]

_ENTROPY_BYTES = 48
# Fits the second-level cache, so that all keys of the naive answer read a block from there.
_BLOCK_BYTES = 1 << 20


def random_pages(num_pages: int, page_size: int, seed: int) -> Pages:
    """Random pages, the same for the same seed on every machine.

    Parameters
    ----------
    num_pages, page_size : int
    seed : int
        0 or more.

    Returns
    -------
    numpy.ndarray
        uint8 of shape (num_pages, page_size).
    """
    # SFC64 is numpy's fastest, and the stream of a bit generator, unlike that of a Generator's
    # methods, never changes between versions of numpy.
    source = np.random.SFC64(seed)
    pages = np.empty((num_pages, page_size), dtype=np.uint8)
    flat = pages.reshape(-1)
    for start in range(0, flat.size, _BLOCK_BYTES):
        block = flat[start : start + _BLOCK_BYTES]
        words = source.random_raw(-(-block.size // 8)).astype("<u8", copy=False)
        block[:] = words.view(np.uint8)[: block.size]
    return pages


def random_queries(num_pages: int, queries: int, keys_per_query: int, seed: int) -> list[Query]:
    """Party 0's queries for random pages, the same for the same seed on every machine.

    Parameters
    ----------
    num_pages, queries, keys_per_query : int
    seed : int
        0 or more.

    Returns
    -------
    list of Query
        For measurements only: the keys hide nothing from anyone who knows the seed.
    """
    source = np.random.SFC64(seed)

    def entropy() -> bytes:
        return source.random_raw(_ENTROPY_BYTES // 8).astype("<u8").tobytes()

    return [
        Query(
            dpf.gen(int(index) % num_pages, num_pages, entropy=entropy())[0]
            for index in source.random_raw(keys_per_query)
        )
        for _ in range(queries)
    ]


def naive_answer(pages: Pages, query: Query) -> Pages:
    """What a server must answer, by the definition: the XOR of all pages that a key selects.

    Parameters
    ----------
    pages : numpy.ndarray
        uint8 of shape (num_pages, page_size).
    query : Query

    Returns
    -------
    numpy.ndarray
        uint8 of shape (keys, page_size).
    """
    num_pages, page_size = pages.shape
    selections = [dpf.eval_full(key, num_pages) for key in query.keys]
    answer = np.zeros((len(selections), page_size), dtype=np.uint8)
    step = max(1, _BLOCK_BYTES // page_size // 8) * 8  # whole bytes of selection bits
    for start in range(0, num_pages, step):
        block = pages[start : start + step]
        for total, selection in zip(answer, selections, strict=True):
            packed = selection[start // 8 : (start + step) // 8]
            bits = np.unpackbits(packed, count=len(block), bitorder="little")
            total ^= np.bitwise_xor.reduce(block[bits.astype(bool)], axis=0)
    return answer


def checksum(pages: Pages) -> str:
    """BLAKE2b of 16 bytes, in hexadecimal, over an answer's pages in request order.

    Parameters
    ----------
    pages : numpy.ndarray

    Returns
    -------
    str
    """
    return hashlib.blake2b(pages.tobytes(), digest_size=16).hexdigest()


def available_memory() -> int:
    """Bytes of memory that can be used without swapping.

    Returns
    -------
    int
    """
    try:
        # What sysconf calls available leaves out caches that the system would give up.
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

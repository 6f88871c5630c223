"""Random pages and queries to measure with, and the right answers to them."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import morphogen.dpf as dpf
from morphogen.progress import Progress
from morphogen.query import Query

Pages = npt.NDArray[np.uint8]
Selection = npt.NDArray[np.uint8]
# Gives pages start..stop.
PageReader = Callable[[int, int], Pages]

_ENTROPY_BYTES = 48
# Fits the second-level cache, so that all keys of the naive answer read a block from there.
_BLOCK_BYTES = 1 << 20


def random_pages(
    num_pages: int,
    page_size: int,
    seed: int,
    *,
    progress: Progress | None = None,
) -> Pages:
    """Random pages, the same for the same seed on every machine.

    Parameters
    ----------
    num_pages, page_size : int
    seed : int
        0 or more.
    progress : callable, optional
        Called with the bytes made and the bytes in all, for every megabyte.

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
        if progress is not None:
            progress(start + block.size, flat.size)
    return pages


def unbacked_pages(num_pages: int, page_size: int) -> Pages:
    """Pages that take addresses but no memory, for an engine that makes its own.

    Parameters
    ----------
    num_pages, page_size : int

    Returns
    -------
    numpy.ndarray
        uint8 of shape (num_pages, page_size), read-only. Do not read it.
    """
    # Even a strict system promises no memory for pages that can never be written.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    mapping = mmap.mmap(-1, num_pages * page_size, flags=flags, prot=mmap.PROT_READ)
    pages = np.frombuffer(mapping, dtype=np.uint8).reshape(num_pages, page_size)
    pages.flags.writeable = False
    return pages


def generated_pages(seed: int, indices: npt.ArrayLike, page_size: int) -> Pages:
    """Any of the pages that a GPU makes from a seed.

    Parameters
    ----------
    seed : int
        0 or more; its low 64 bits count.
    indices : array_like of int
    page_size : int

    Returns
    -------
    numpy.ndarray
        uint8 of the shape of indices and one dimension more, of page_size.
    """
    # As kernels/page_stream.h does it: the words of all pages are counted, with the padding.
    words = -(-page_size // 16) * 2
    first = np.asarray(indices, dtype=np.uint64)[..., np.newaxis] * np.uint64(words)
    z: npt.NDArray[np.uint64] = np.add(first, np.arange(1, words + 1, dtype=np.uint64))
    z *= np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(seed % 2**64)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return np.ascontiguousarray(z.astype("<u8", copy=False).view(np.uint8)[..., :page_size])


@dataclass(frozen=True, slots=True)
class RandomFetch:
    """Random pages to fetch, and the queries for them.

    Attributes
    ----------
    indices : numpy.ndarray
        int64 of shape (queries, keys per query).
    queries : tuple of (list of Query, list of Query)
        Party 0's and party 1's.
    """

    indices: npt.NDArray[np.int64]
    queries: tuple[list[Query], list[Query]]


def random_fetch(num_pages: int, queries: int, keys_per_query: int, seed: int) -> RandomFetch:
    """Queries for random pages, the same for the same seed on every machine.

    Parameters
    ----------
    num_pages, queries, keys_per_query : int
    seed : int
        0 or more.

    Returns
    -------
    RandomFetch
        For measurements only: the keys hide nothing from anyone who knows the seed.
    """
    source = np.random.SFC64(seed)

    def entropy() -> bytes:
        return source.random_raw(_ENTROPY_BYTES // 8).astype("<u8").tobytes()

    indices = np.empty((queries, keys_per_query), dtype=np.int64)
    parties: tuple[list[Query], list[Query]] = ([], [])
    for row in indices:
        row[:] = source.random_raw(keys_per_query) % np.uint64(num_pages)
        pairs = [dpf.gen(index, num_pages, entropy=entropy()) for index in row.tolist()]
        for party, batch in enumerate(parties):
            batch.append(Query(pair[party] for pair in pairs))
    return RandomFetch(indices, parties)


def random_queries(num_pages: int, queries: int, keys_per_query: int, seed: int) -> list[Query]:
    """Party 0's half of `random_fetch`.

    Parameters
    ----------
    num_pages, queries, keys_per_query, seed : int

    Returns
    -------
    list of Query
    """
    return random_fetch(num_pages, queries, keys_per_query, seed).queries[0]


def page_sums(
    read: PageReader, num_pages: int, page_size: int, selections: Sequence[Selection]
) -> Pages:
    """XOR of the selected pages, for several selections in one pass.

    Parameters
    ----------
    read : callable
        Gives pages start..stop.
    num_pages, page_size : int
    selections : sequence of numpy.ndarray
        Bits, as ``dpf.eval_full`` gives them. Those beyond the last page do not count.

    Returns
    -------
    numpy.ndarray
        uint8 of shape (selections, page_size).
    """
    sums = np.zeros((len(selections), page_size), dtype=np.uint8)
    step = max(1, _BLOCK_BYTES // page_size // 8) * 8  # whole bytes of selection bits
    for start in range(0, num_pages, step):
        block = read(start, min(start + step, num_pages))
        for total, selection in zip(sums, selections, strict=True):
            packed = selection[start // 8 : (start + step) // 8]
            bits = np.unpackbits(packed, count=len(block), bitorder="little")
            total ^= np.bitwise_xor.reduce(block[bits.astype(bool)], axis=0)
    return sums


def naive_answer(pages: Pages, query: Query) -> Pages:
    """The right answer of a server, by the definition: the XOR of all pages that a key selects.

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
    return page_sums(lambda start, stop: pages[start:stop], num_pages, page_size, selections)


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
        # sysconf does not count caches that the system would give up.
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

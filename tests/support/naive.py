"""Random pages, guarded arrays, and answers by plain numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import morphogen as mg
from morphogen.engine.base import Engine

Bytes = npt.NDArray[np.uint8]

GUARD = 0xA5  # what guard bytes hold


def random_pages(num_pages: int, page_size: int, seed: int = 0) -> Bytes:
    """Return random pages: uint8[num_pages, page_size]."""
    rng = np.random.default_rng([seed, num_pages, page_size])
    return rng.integers(0, 256, (num_pages, page_size), dtype=np.uint8)


def unpack(bits: Bytes, num_pages: int) -> npt.NDArray[np.bool_]:
    """Return the selection bits as one bool for each page."""
    return np.unpackbits(bits, count=num_pages, bitorder="little").astype(bool)


def naive_answer(pages: Bytes, key: bytes) -> Bytes:
    """Return the XOR of the pages that a key selects."""
    selected = unpack(mg.dpf.eval_full(key, len(pages)), len(pages))
    return np.bitwise_xor.reduce(pages[selected], axis=0, initial=0, dtype=np.uint8)


def naive_answers(pages: Bytes, queries: Sequence[mg.Query]) -> Bytes:
    """Return the naive answer to a batch: uint8[queries, keys per query, page_size]."""
    per_query = len(queries[0].keys) if queries else 3
    answers = [naive_answer(pages, key) for query in queries for key in query.keys]
    return np.array(answers, dtype=np.uint8).reshape(len(queries), per_query, pages.shape[1])


def guarded(shape: tuple[int, ...], offset: int = 3, content: Any = None) -> tuple[Bytes, Bytes]:
    """Return an array amid guard bytes, `offset` bytes past a cache line, and all its memory."""
    size = int(np.prod(shape))
    memory = np.full(size + 256, GUARD, dtype=np.uint8)
    start = 64 - memory.ctypes.data % 64 + offset
    array = memory[start:][:size].reshape(shape)
    if content is not None:
        array[...] = content
    return array, memory


def assert_guards(array: Bytes, memory: Bytes) -> None:
    start = array.ctypes.data - memory.ctypes.data
    assert (memory[:start] == GUARD).all()
    assert (memory[start + array.size :] == GUARD).all()


def open_engine(content: Bytes | mg.PageMatrix, **options: Any) -> Engine:
    pages = content if isinstance(content, mg.PageMatrix) else mg.PageMatrix(content)
    return mg.open_engine(pages, device="cpu", **options)


def random_rows(total: int, keys: int, num_pages: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, total, keys]).integers(0, num_pages, (total, keys))

"""Random pages and queries, and the right answers to them."""

from __future__ import annotations

import numpy as np
import pytest

import morphogen.bench.workload as workload
import reference
from morphogen import PageMatrix, dpf


def test_random_pages():
    pages = workload.random_pages(1000, 1237, 5)
    assert pages.shape == (1000, 1237)
    assert np.array_equal(pages, workload.random_pages(1000, 1237, 5))
    # Bytes of every value, about equally often, and no page of zeros.
    counts = np.bincount(pages.reshape(-1), minlength=256)
    assert counts.min() > 0.9 * counts.mean()
    assert pages.any(axis=1).all()
    # The stream is the same on every machine, or checksums could not be compared.
    assert workload.random_pages(1, 8, 0).tobytes().hex() == "32636ab95f9e9591"


def test_naive_answer_against_the_reference():
    pages = workload.random_pages(700, 3, 1)
    (query,) = workload.random_queries(700, 1, 3, 2)
    rows = [page.tobytes() for page in pages]
    expected = [reference.answer(rows, key) for key in query.keys]
    assert [page.tobytes() for page in workload.naive_answer(pages, query)] == expected


def test_available_memory():
    assert workload.available_memory() > 1 << 20


def test_random_fetch():
    fetch = workload.random_fetch(700, 3, 2, 4)
    assert fetch.indices.shape == (3, 2)
    for query0, query1, row in zip(*fetch.queries, fetch.indices, strict=True):
        for key0, key1, index in zip(query0.keys, query1.keys, row, strict=True):
            selected = dpf.eval_full(key0, 700) ^ dpf.eval_full(key1, 700)
            assert np.unpackbits(selected, bitorder="little").nonzero()[0].tolist() == [index]
    assert workload.random_queries(700, 3, 2, 4) == fetch.queries[0]


def splitmix64(seed: int, counter: int) -> int:
    mask = 2**64 - 1
    z = (seed + (counter + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_the_generator_is_splitmix64():
    # The first outputs for seed 1234567 of the generator as its authors publish it.
    outputs = [splitmix64(1234567, counter) for counter in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1, 2**64 + 7])
@pytest.mark.parametrize(("page_size", "words"), [(1, 2), (8, 2), (16, 2), (17, 4), (4096, 512)])
def test_generated_pages(seed, page_size, words):
    indices = [[0, 3], [2**36, 1]]
    pages = workload.generated_pages(seed, indices, page_size)
    assert pages.shape == (2, 2, page_size)
    assert pages.dtype == np.uint8
    for row, made in zip(indices, pages, strict=True):
        for index, page in zip(row, made, strict=True):
            expected = b"".join(
                splitmix64(seed % 2**64, index * words + word).to_bytes(8, "little")
                for word in range(words)
            )
            assert page.tobytes() == expected[:page_size]


def test_unbacked_pages_need_no_memory():
    # More than a machine has: the addresses are all that is taken.
    pages = PageMatrix(workload.unbacked_pages(2**28, 4096))
    assert (pages.num_pages, pages.page_size) == (2**28, 4096)
    with pytest.raises(ValueError, match="read-only"):
        workload.unbacked_pages(1, 1)[0, 0] = 1

"""Authenticated pages: what a server's start costs, against the digest of other pages."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.rounds import interleave
from morphogen import PageMatrix
from morphogen.authentication import default_proof_levels, fill_siblings, tree_of_pages
from morphogen.bench.workload import random_pages
from morphogen.service import digest_pages
from passes import MIB
from rows import Row

PAGE_SIZES = (1024, 4096, 16384)
START = 1.7  # times the digest


def tree_rows(mib: int, rounds: int) -> Iterator[Row]:
    """Recompute the trees of random pages, by turns with their SHA-256. One thread."""
    data = random_pages(mib, MIB, seed=0)
    for page_size in PAGE_SIZES:
        pages = data.reshape(-1, page_size)
        levels = default_proof_levels(len(pages))
        root = fill_siblings(pages, levels).root
        matrix = PageMatrix(pages)
        assert tree_of_pages(matrix, levels).root == root
        times = interleave(
            {
                "tree": partial(tree_of_pages, matrix, levels),
                "digest": partial(digest_pages, matrix),
            },
            rounds,
        )
        section = f"The start of a server of {mib} MiB in pages of {page_size:,} bytes"
        ratio = times["tree"] / times["digest"]
        yield Row.of(section, "the tree, against the SHA-256 of all pages", ratio, "x", START)
        yield Row.of(section, "the SHA-256 of all pages", times["digest"], "s")

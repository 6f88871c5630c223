"""The right answers of a benchmark, worked out without the engine that is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

import morphogen.dpf as dpf
from morphogen.bench.workload import PageReader, Pages, RandomFetch, page_sums


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """The right answers to party 0's queries, as far as they are known.

    Attributes
    ----------
    page_shape : tuple of (int, int)
        Keys a query, and bytes a page.
    naive : mapping of int to numpy.ndarray
        By the number of a query, the XOR of the pages that its keys select.
    read : int or None
        The result of a pure read.
    fetched : numpy.ndarray or None
        The pages that the queries fetch: the sums of both parties' answers.
    other : numpy.ndarray or None
        Party 1's answer.
    """

    page_shape: tuple[int, int]
    naive: Mapping[int, Pages]
    read: int | None
    fetched: Pages | None = None
    other: Pages | None = None

    def with_other_party(self, other: Pages, fetched: Pages) -> Expected:
        """The same, and party 0's and party 1's answers must add up to the fetched pages."""
        return replace(self, other=other, fetched=fetched)

    def faults(self, name: str, pages: Pages) -> list[str]:
        """The faults of an answer to the first queries, which has the right shape."""
        q = len(pages)
        faults = [
            f"the {name} differs from the naive XOR of the pages in query {at}"
            for at, expected in self.naive.items()
            if at < q and not np.array_equal(pages[at], expected)
        ]
        if self.fetched is not None and self.other is not None:
            if self.other.shape != self.fetched.shape:
                return [
                    *faults,
                    f"party 1's answer has shape {self.other.shape}, not {self.fetched.shape}",
                ]
            wrong = pages ^ self.other[:q] != self.fetched[:q]
            if wrong.any():
                faults.append(
                    f"the {name} and party 1's answer do not add up to the fetched pages in "
                    f"queries {np.nonzero(wrong.any(axis=(1, 2)))[0].tolist()}"
                )
        return faults


def nothing_expected(keys_per_query: int, page_size: int) -> Expected:
    """Nothing is known of the answers, since adding so many pages up takes too long."""
    return Expected((keys_per_query, page_size), {}, None)


def expect(
    read: PageReader, num_pages: int, page_size: int, fetch: RandomFetch, positions: Sequence[int]
) -> Expected:
    """Work out the answers to queries by the definition.

    Parameters
    ----------
    read : callable
        Gives pages start..stop.
    num_pages, page_size : int
    fetch : RandomFetch
    positions : sequence of int
        Numbers of the queries to work out.

    Returns
    -------
    Expected
    """
    queries = [fetch.queries[0][at] for at in positions]
    selections = [dpf.eval_full(key, num_pages) for query in queries for key in query.keys]
    everything = np.full(-(-num_pages // 8), 255, dtype=np.uint8)
    *sums, total = page_sums(read, num_pages, page_size, [*selections, everything])
    keys = fetch.indices.shape[1]
    answers = np.array(sums).reshape(len(queries), keys, page_size)
    return Expected(
        (keys, page_size),
        dict(zip(positions, answers, strict=True)),
        # Engines may pad pages: only pages of whole words have the same words in all of them.
        int(np.bitwise_xor.reduce(total.view("<u8"))) if page_size % 8 == 0 else None,
    )

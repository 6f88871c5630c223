"""Engines that answer wrongly, each with the message that the benchmark must report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from morphogen import Answer, Query

# Takes the answer, the queries, the width, and the number of this call among those of this size
# and width.
Edit = Callable[[Answer, list[Query], int | None, int], Answer]


def edited_engine(base: type[Any], edit: Edit) -> type[Any]:
    """Make an engine class that passes its answers through a function."""
    calls: Counter[tuple[int, int | None]] = Counter()

    class EditedEngine(base):  # type: ignore[misc]
        def answer(
            self, queries: list[Query], *, max_micro_batch: int | None = None, **options: Any
        ) -> Answer:
            calls[len(queries), max_micro_batch] += 1
            answer = super().answer(queries, max_micro_batch=max_micro_batch, **options)
            return edit(answer, queries, max_micro_batch, calls[len(queries), max_micro_batch])

    return EditedEngine


def edited(answer: Answer, pages: np.ndarray, sizes: tuple[int, ...] | None = None) -> Answer:
    sizes = answer.micro_batch_sizes if sizes is None else sizes
    return Answer(pages, answer.epoch, answer.num_pages, sizes)


def flip_batch(answer: Answer, queries: list[Query], width: int | None, calls: int) -> Answer:
    if width is None:
        answer.pages[-1, -1, -1] ^= 1
    return answer


def flip_single(answer: Answer, queries: list[Query], width: int | None, calls: int) -> Answer:
    if width == 1:
        answer.pages[0, 0, 0] ^= 128
    return answer


def flip_both(answer: Answer, queries: list[Query], width: int | None, calls: int) -> Answer:
    answer.pages[-1, 1, 7] ^= 16
    return answer


def swap_batch(answer: Answer, queries: list[Query], width: int | None, calls: int) -> Answer:
    return edited(answer, answer.pages[::-1].copy()) if width is None else answer


def swap_both(answer: Answer, queries: list[Query], width: int | None, calls: int) -> Answer:
    return edited(answer, answer.pages[::-1].copy())


def swap_keys(answer: Answer, queries: list[Query], width: int | None, calls: int) -> Answer:
    return edited(answer, answer.pages[:, ::-1].copy())


def shorten_batch(answer: Answer, queries: list[Query], width: int | None, calls: int) -> Answer:
    return edited(answer, answer.pages[:-1].copy()) if width is None else answer


def shorten_both(answer: Answer, queries: list[Query], width: int | None, calls: int) -> Answer:
    return edited(answer, answer.pages[:-1].copy())


def flip_later(answer: Answer, queries: list[Query], width: int | None, calls: int) -> Answer:
    # This spoils the last round only: all earlier answers are right.
    if (len(queries), width, calls) == (5, 1, 3):
        answer.pages[0, 0, 0] ^= 1
    return answer


def lose_a_chunk(answer: Answer, queries: list[Query], width: int | None, calls: int) -> Answer:
    return edited(answer, answer.pages, answer.micro_batch_sizes[:-1])


def batch_the_loop(answer: Answer, queries: list[Query], width: int | None, calls: int) -> Answer:
    return edited(answer, answer.pages, (len(queries),))


# The messages for three rounds of batches of 1, 2 and 5 queries of three keys, with pages of 40
# bytes.
EDITS: dict[Edit, str] = {
    flip_batch: "q = 5: the batch differs from the naive XOR of the pages in query 4",
    flip_single: "q = 5: the batch differs from the single-query loop in queries [0]",
    flip_both: "q = 5: the single differs from the naive XOR of the pages in query 4",
    swap_batch: "q = 5: the batch differs from the single-query loop in queries [0, 1, 3, 4]",
    swap_both: "q = 2: the batch differs from the naive XOR of the pages in query 0",
    swap_keys: "q = 1: the single differs from the naive XOR of the pages in query 0",
    shorten_batch: "q = 5: the batch answered shape (4, 3, 40), not (5, 3, 40)",
    shorten_both: "q = 2: the single answered shape (1, 3, 40), not (2, 3, 40)",
    flip_later: "q = 5: the answer of the single changed in 1 rounds",
    lose_a_chunk: "q = 5: the batch ran in chunks of (",
    batch_the_loop: "q = 2: the single-query loop ran in chunks of (2,)",
}


# Ways to spoil an answer, by the fault that they make.
Spoil = Callable[[Answer], Answer]


def _flipped(answer: Answer) -> Answer:
    pages = answer.pages.copy()
    pages[len(pages) // 2, 0, 0] ^= 1
    return edited(answer, pages)


SPOILS: dict[str, Spoil] = {
    "corrupted": _flipped,
    "wrong order": lambda answer: edited(answer, answer.pages[::-1].copy()),
    "short": lambda answer: edited(answer, answer.pages[:-1].copy()),
    "a chunk lost": lambda answer: edited(answer, answer.pages, answer.micro_batch_sizes[:-1]),
}

# Decides from the queries and the options max_micro_batch, lanes and graph.
When = Callable[[list[Query], dict[str, Any]], bool]


def spoiled_engine(base: type[Any], spoil: Spoil, when: When) -> type[Any]:
    """Make an engine class that spoils some of its answers."""

    class SpoiledEngine(base):  # type: ignore[misc]
        def answer(self, queries: list[Query], **options: Any) -> Answer:
            answer = super().answer(queries, **options)
            return spoil(answer) if when(queries, options) else answer

    return SpoiledEngine

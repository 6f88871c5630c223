"""Which variant of a kernel is called best: one that is right, and gains more than noise."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from morphogen.bench.variants import VariantMatrix, contender
from morphogen.engine.cuda.variants import DEFAULT

GAINS = [1.5, 1.5, 1.5, 1.5]


def matrix() -> VariantMatrix:
    """That of an engine with one variant, for queries of 3 keys."""
    engine = SimpleNamespace(variants=(DEFAULT, "red"), default_strategy=SimpleNamespace(lanes=2))
    return VariantMatrix(["all"], cast(Any, engine), 3)


def trial(q: int, gains: Mapping[int, list[float]], wrong: str = "") -> Any:
    """A trial, by the width of chunks with what the variant gained in each round."""
    times = {contender(DEFAULT, width): [1.0] * len(gain) for width, gain in gains.items()}
    for width, gain in gains.items():
        times[contender("red", width)] = [1 / one for one in gain]
    return SimpleNamespace(
        q=q,
        times=times,
        faults_of=lambda name: [name] if wrong and name.startswith(wrong) else [],
        row=lambda *, correct, contender, variant: (variant, correct),
    )


@pytest.mark.parametrize(
    ("gains", "best"),
    [
        (GAINS, "red"),
        ([1.005, 1.005, 1.005, 1.005], DEFAULT),  # too little
        ([0.9, 0.9, 1.5, 1.5], DEFAULT),  # in half of the rounds
        ([0.5, 0.5, 0.5, 0.5], DEFAULT),
    ],
)
def test_a_variant_is_best_if_it_gains_in_most_rounds(gains: list[float], best: str) -> None:
    found = matrix()
    found.add(trial(1, {1: gains}))
    assert found.best[1].name == best
    assert found.best[1].fastest == "red"


def test_a_variant_that_answers_wrong_is_not_best() -> None:
    found = matrix()
    found.add(trial(1, {1: GAINS}, wrong="red"))
    assert (found.best[1].name, found.best[1].fastest) == (DEFAULT, "")
    rows: list[Any] = found.rows
    assert rows == [(DEFAULT, True), ("red", False)]


@pytest.mark.parametrize("order", [(2, 4), (4, 2)])
def test_the_largest_batch_decides(order: tuple[int, int]) -> None:
    trials = {2: trial(2, {2: [0.5]}), 4: trial(4, {2: GAINS, 4: GAINS})}
    found = matrix()
    for q in order:
        found.add(trials[q])
    assert (found.best[2].name, found.best[2].q) == ("red", 4)

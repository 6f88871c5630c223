"""Interleaved rounds: contenders take turns, so that what disturbs the machine hits all alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np

from morphogen.query import Answer

# Answers to a batch, by one call or several; or what a pure read gives.
Contender = Callable[[], list[Answer] | int]


@dataclass(frozen=True, slots=True)
class RoundTimes:
    """What the rounds of one batch size took, one by one.

    Attributes
    ----------
    q : int
        Queries in the batch.
    ms : mapping of str to tuple of float
        Milliseconds in each timed round, by contender; all took part in the same rounds.
    """

    q: int
    ms: Mapping[str, tuple[float, ...]]


class Rounds:
    """What the contenders took in each round, and what they answered.

    Parameters
    ----------
    contenders : mapping of str to callable
        By name.

    Attributes
    ----------
    times : dict of str to list of float
        Milliseconds in each timed round.
    answers : dict of str to Answer
        The first answer of each contender that answers.
    reads : list of int
        What pure reads gave.
    changed : dict of str to int
        In how many rounds the answer was not that of the first.
    """

    def __init__(self, contenders: Mapping[str, Contender]) -> None:
        self._contenders = dict(contenders)
        self.times: dict[str, list[float]] = {name: [] for name in contenders}
        self.answers: dict[str, Answer] = {}
        self.reads: list[int] = []
        self.changed: dict[str, int] = dict.fromkeys(contenders, 0)

    def run(self, number: int, *, timed: bool) -> None:
        """Run every contender once, and count it as timed or as a warm-up.

        Parameters
        ----------
        number : int
            Of the round; it decides the order.
        timed : bool
        """
        # What ran before shapes caches and clocks of what runs next: another in each round.
        names = list(self._contenders)
        random.Random(number).shuffle(names)
        for name in names:
            run = self._contenders[name]
            start = perf_counter_ns()
            result = run()
            elapsed = perf_counter_ns() - start
            if timed:
                self.times[name].append(elapsed / 1e6)
            if isinstance(result, int):
                self.reads.append(result)
                self.changed[name] += result != self.reads[0]
            else:
                answer = joined(result)
                first = self.answers.setdefault(name, answer)
                self.changed[name] += not np.array_equal(answer.pages, first.pages)


def joined(answers: list[Answer]) -> Answer:
    """The answers to the parts of a batch as one.

    Parameters
    ----------
    answers : list of Answer
        At least one.

    Returns
    -------
    Answer
    """
    if len(answers) == 1:
        return answers[0]
    return Answer(
        np.concatenate([answer.pages for answer in answers]),
        answers[0].epoch,
        answers[0].num_pages,
        sum((answer.micro_batch_sizes for answer in answers), ()),
    )

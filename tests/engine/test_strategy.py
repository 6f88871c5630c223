"""Strategies: which ones an engine has, and that none changes an answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import morphogen as mg
from morphogen.engine.strategy import Choices, Strategy
from naive import naive_answers, open_engine, random_pages, random_rows

PAGES = random_pages(40, 24)
BATCH = mg.make_queries(random_rows(5, 3, len(PAGES)), len(PAGES))[0]

DEFAULT = Strategy(width=2, lanes=2, graph=False)
CHOICES = Choices("cuda:1", DEFAULT, widest=8, lanes=(1, 2, 4), graph=True)
FEW = Choices("cpu", Strategy(width=4, lanes=1, graph=False), widest=4)


def test_who_asks_for_nothing_gets_the_default() -> None:
    assert CHOICES.choose(None, None, False) is DEFAULT


@pytest.mark.parametrize(
    ("asked", "strategy"),
    [
        ((1, None, False), Strategy(1, 2, False)),
        ((8, None, False), Strategy(8, 2, False)),
        ((None, 4, False), Strategy(2, 4, False)),
        ((None, None, True), Strategy(2, 2, True)),
        ((np.int64(4), np.uint8(1), True), Strategy(4, 1, True)),
    ],
)
def test_what_is_not_asked_for_stays_as_it_was(
    asked: tuple[Any, Any, bool], strategy: Strategy
) -> None:
    assert CHOICES.choose(*asked) == strategy


def test_only_a_width_that_is_not_asked_for_is_a_number_of_keys() -> None:
    choices = Choices("cpu", Strategy(width=2, lanes=1, graph=False, keys=6), widest=4)
    for own in (choices.choose(None, None, False), choices.choose(None, 1, False)):
        assert [own.width_for(keys) for keys in (1, 2, 3)] == [6, 3, 2]
    asked = choices.choose(4, None, False)
    assert [asked.width_for(keys) for keys in (1, 2, 3)] == [4, 4, 4]
    assert [choices.check_width(None, keys) for keys in (1, 2, 3)] == [6, 3, 2]
    assert [DEFAULT.width_for(keys) for keys in (1, 2, 3)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("choices", "asked", "message"),
    [
        (CHOICES, (9, None, False), r"max_micro_batch must be in 1\.\.8 on cuda:1, not 9"),
        (CHOICES, (0, None, False), r"max_micro_batch must be in 1\.\.8 on cuda:1, not 0"),
        (CHOICES, (None, 3, False), r"lanes must be 1, 2 or 4 on cuda:1, not 3"),
        (CHOICES, (None, -1, False), r"lanes must be 1, 2 or 4 on cuda:1, not -1"),
        (FEW, (5, None, False), r"max_micro_batch must be in 1\.\.4 on cpu, not 5"),
        (FEW, (None, 2, False), r"lanes must be 1 on cpu, not 2"),
        (FEW, (None, None, True), r"graph must be False on cpu, not True: there are none"),
    ],
)
def test_what_a_device_does_not_have(choices: Choices, asked: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        choices.choose(*asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((2.0, None, False), "max_micro_batch must be an int, not float"),
        ((None, "2", False), "lanes must be an int, not str"),
        ((None, None, 1), "graph must be a bool, not int"),
        ((None, None, None), "graph must be a bool, not NoneType"),
    ],
)
def test_what_is_of_another_type(asked: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        CHOICES.choose(*asked)


def test_the_cpu_has_chunks_of_any_width_and_one_lane() -> None:
    with open_engine(PAGES) as engine:
        own = Strategy(engine.max_micro_batch, lanes=1, graph=False, keys=96)
        assert engine.default_strategy == own
        assert engine.widest_micro_batch == engine.max_micro_batch
        naive = naive_answers(PAGES, BATCH)
        asked: list[dict[str, Any]] = [{}, {"lanes": 1}, {"lanes": 1, "graph": False}]
        for options in (*asked, {**asked[-1], "max_micro_batch": 2}):
            assert np.array_equal(engine.answer(BATCH, **options).pages, naive)
        with pytest.raises(ValueError, match=r"^lanes must be 1 on cpu, not 2$"):
            engine.answer(BATCH, lanes=2)
        with pytest.raises(ValueError, match=r"^graph must be False on cpu"):
            engine.answer(BATCH, graph=True)
        assert engine.check_width(None) == engine.max_micro_batch

"""Placing, against the specification in plain Python and against matchings."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import cuckoo_reference as reference
from morphogen.keyword.cuckoo import place

Candidates = list[tuple[int, int, int]]


def placed(candidates: Candidates, num_pages: int, slots: int) -> list[int] | None:
    """The entry of each slot, -1 for none, as the specification has it."""
    array = np.array(candidates, dtype=np.uint32).reshape(-1, 3)
    owners = place(array, num_pages, slots)
    return None if owners is None else (owners.astype(np.int64) - 1).tolist()


def random_candidates(seed: int, count: int, num_pages: int) -> Candidates:
    choice = random.Random(seed)
    return [
        (choice.randrange(num_pages), choice.randrange(num_pages), choice.randrange(num_pages))
        for _ in range(count)
    ]


def test_what_has_one_place_only_gets_it() -> None:
    """0 and 1 have no choice, so 2 and 3 have to leave."""
    candidates = [(0, 1, 2), (1, 2, 3), (0, 0, 0), (1, 1, 1)]
    assert placed(candidates, 4, 1) == [2, 3, 0, 1]


def test_one_entry_more_than_slots_is_given_up() -> None:
    assert placed([(0, 0, 0)] * 4, 1, 4) == [0, 1, 2, 3]
    assert placed([(0, 0, 0)] * 5, 1, 4) is None
    assert placed([(0, 1, 2)] * 4, 3, 1) is None
    assert placed([(0, 1, 1)] * 5, 9, 2) is None
    assert placed([], 3, 2) == [-1] * 6


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 7, 8, 16, 63, 76, 200])
@pytest.mark.parametrize("load", [0.3, 0.8, 0.9, 0.915, 0.97, 0.999, 1.0])
def test_every_slot_has_the_owner_of_the_specification(slots: int, load: float) -> None:
    """Among them are loads of which no table can be built, and ones that a few seeds build."""
    for seed, num_pages in enumerate((1, 2, 3, 10, 64, 300)):
        candidates = random_candidates(seed, int(num_pages * slots * load), num_pages)
        expected = reference.place(candidates, num_pages, slots)
        assert placed(candidates, num_pages, slots) == expected


@given(
    seed=st.integers(0, 2**32),
    num_pages=st.integers(1, 200),
    slots=st.integers(1, 40),
    load=st.floats(0, 1.1),
)
@settings(max_examples=200, deadline=None)
def test_any_shape_and_load_is_placed_as_the_specification_does(
    seed: int, num_pages: int, slots: int, load: float
) -> None:
    candidates = random_candidates(seed, int(num_pages * slots * load), num_pages)
    expected = reference.place(candidates, num_pages, slots)
    assert placed(candidates, num_pages, slots) == expected


@given(data=st.data(), num_pages=st.integers(1, 6), slots=st.integers(1, 3))
@settings(max_examples=300, deadline=None)
def test_placing_finds_a_place_wherever_there_is_one(
    data: st.DataObject, num_pages: int, slots: int
) -> None:
    """Against augmenting paths, which find a matching if and only if there is one."""
    page = st.integers(0, num_pages - 1)
    candidates = data.draw(st.lists(st.tuples(page, page, page), max_size=num_pages * slots + 1))
    found = placed(candidates, num_pages, slots)
    assert (found is not None) == has_matching(candidates, num_pages, slots)
    if found is not None:
        assert sorted(owner for owner in found if owner >= 0) == list(range(len(candidates)))
        for slot, owner in enumerate(found):
            assert owner < 0 or slot // slots in candidates[owner]


def has_matching(candidates: Candidates, num_pages: int, slots: int) -> bool:
    owners: list[list[int]] = [[] for _ in range(num_pages)]

    def augment(entry: int, tried: set[int]) -> bool:
        for page in candidates[entry]:
            if page in tried:
                continue
            tried.add(page)
            if len(owners[page]) < slots:
                owners[page].append(entry)
                return True
            for position, other in enumerate(owners[page]):
                if augment(other, tried):
                    owners[page][position] = entry
                    return True
        return False

    return all(augment(entry, set()) for entry in range(len(candidates)))


def test_progress_is_told_between_pieces_of_some_thousand_moves() -> None:
    """Each is a look for an interrupt, too."""
    told: list[tuple[int, int]] = []
    candidates = np.array(random_candidates(1, 200_000, 250_000), dtype=np.uint32)
    assert place(candidates, 250_000, 1, lambda *work: told.append(work)) is not None
    assert (told[0], told[-1]) == ((0, 200_000), (200_000, 200_000))
    assert told == sorted(told)
    assert max(after[0] - before[0] for before, after in pairwise(told)) < 70_000


def test_an_exception_of_the_progress_ends_the_placing() -> None:
    candidates = np.array(random_candidates(1, 1000, 2000), dtype=np.uint32)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place(candidates, 2000, 1, stop)


def test_candidates_that_are_no_pages_are_refused() -> None:
    with pytest.raises(ValueError, match="candidates must be below 3"):
        place(np.array([[0, 1, 2], [0, 1, 3]], dtype=np.uint32), 3, 1)
    with pytest.raises(ValueError, match="candidates must be 3 for each entry, not 2"):
        place(np.zeros((4, 2), dtype=np.uint32), 3, 1)
    for num_pages, slots in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="a table has pages and slots"):
            place(np.zeros((1, 3), dtype=np.uint32), num_pages, slots)

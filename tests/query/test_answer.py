"""Answer, and the last step of a client: reconstruct."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import morphogen as mg

NUM_PAGES = 1000


def answer(
    pages: Any = None, *, epoch: int = 0, num_pages: int = NUM_PAGES, sizes: tuple[int, ...] = (2,)
) -> mg.Answer:
    if pages is None:
        pages = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    return mg.Answer(pages=pages, epoch=epoch, num_pages=num_pages, micro_batch_sizes=sizes)


# Answer


def test_answer_is_an_array() -> None:
    given = answer()
    assert np.asarray(given) is given.pages
    assert np.asarray(given, dtype=np.uint8) is given.pages
    assert given.__array__(copy=False) is given.pages


def test_answer_copies_on_request() -> None:
    given = answer()
    for copied in (np.array(given), np.array(given, copy=True), given.__array__(copy=True)):
        assert copied.dtype == np.uint8
        assert np.array_equal(copied, given.pages)
        assert not np.shares_memory(copied, given.pages)


def test_answer_converts_on_request() -> None:
    given = answer()
    converted = np.asarray(given, dtype=np.int64)
    assert converted.dtype == np.int64
    assert np.array_equal(converted, given.pages)
    with pytest.raises(ValueError, match=r"convert uint8 to int64$"):
        given.__array__(np.int64, copy=False)


def test_answer_mixes_with_arrays() -> None:
    given = answer()
    assert np.array_equal(np.bitwise_xor(given, given), np.zeros_like(given.pages))
    assert np.concatenate([given, given]).shape == (4, 3, 4)


def test_answer_is_frozen_and_shows_its_shape() -> None:
    given = answer(epoch=7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        given.epoch = 8  # type: ignore[misc]
    shown = "Answer(pages=uint8[2, 3, 4], epoch=7, num_pages=1000, micro_batch_sizes=(2,))"
    assert repr(given) == shown


# reconstruct


def test_reconstruct_adds_up_both_answers() -> None:
    rng = np.random.default_rng(5)
    shares = rng.integers(0, 256, (2, 4, 3, 9), dtype=np.uint8)
    before = shares.copy()
    pages = mg.reconstruct(answer(shares[0]), answer(shares[1]))
    assert pages.dtype == np.uint8
    assert np.array_equal(pages, shares[0] ^ shares[1])
    assert np.array_equal(shares, before)
    assert not np.shares_memory(pages, shares)


def test_reconstruct_into_the_callers_array() -> None:
    one, other = answer(), answer(np.full((2, 3, 4), 7, dtype=np.uint8))
    out = np.empty((2, 3, 4), dtype=np.uint8)
    assert mg.reconstruct(one, other, out=out) is out
    np.testing.assert_array_equal(out, one.pages ^ 7)
    wrong: Any
    for wrong, error in (
        (out.tolist(), TypeError),
        (out.astype(np.int8), TypeError),
        (np.empty((5, 2, 3, 4), dtype=np.uint8), ValueError),
        (np.empty((2, 3, 5), dtype=np.uint8), ValueError),
    ):
        with pytest.raises(error, match=r"^out must "):
            mg.reconstruct(one, other, out=wrong)


def party_answers(rows: Any) -> tuple[list[mg.Answer], npt.NDArray[np.uint8]]:
    """Both parties' answers by one engine, and the pages."""
    array = np.random.default_rng(3).integers(0, 256, (NUM_PAGES, 5), dtype=np.uint8)
    with mg.open_engine(mg.PageMatrix(array), "cpu", threads=1) as engine:
        batches = mg.make_queries(rows, NUM_PAGES)
        return [engine.answer(batch) for batch in batches], array


def test_an_answer_knows_its_party_and_one_partys_answers_are_not_added_up() -> None:
    """Their sum would be zeros, or pages of other queries."""
    (answer0, answer1), array = party_answers([[3, 7]])
    (again0, again1), _ = party_answers([[3, 7]])
    assert (answer0.party, answer1.party) == (0, 1)
    for one, other in ((answer0, answer1), (answer1, answer0)):
        assert (mg.reconstruct(one, other)[0] == array[[3, 7]]).all()
    for one, other in ((answer0, answer0), (answer0, again0), (answer1, again1)):
        message = rf"^the answers must be of party 0 and party 1, not both of party {one.party}$"
        with pytest.raises(ValueError, match=message):
            mg.reconstruct(one, other)


def test_one_answer_is_not_added_to_itself_though_its_party_is_not_known() -> None:
    one = answer()
    assert one.party is None
    for other in (one, answer(one.pages), copy.copy(one)):
        with pytest.raises(ValueError, match=r"party 0 and party 1, not one answer twice$"):
            mg.reconstruct(one, other)


def test_an_answer_to_queries_of_both_parties_is_of_none() -> None:
    array = np.zeros((NUM_PAGES, 5), dtype=np.uint8)
    with mg.open_engine(mg.PageMatrix(array), "cpu", threads=1) as engine:
        both = engine.answer(list(mg.make_query([3], NUM_PAGES)))
        assert (both.party, engine.answer([]).party) == (None, None)
    other = dataclasses.replace(both, pages=both.pages.copy())
    assert not mg.reconstruct(both, other).any()


def test_reconstruct_of_no_queries() -> None:
    nothing = answer(np.empty((0, 3, 4), dtype=np.uint8), sizes=())
    assert mg.reconstruct(nothing, nothing).shape == (0, 3, 4)


def test_chunks_of_the_servers_may_differ() -> None:
    assert not mg.reconstruct(answer(sizes=(2,)), answer(sizes=(1, 1))).any()


def test_different_epochs() -> None:
    with pytest.raises(mg.EpochMismatchError, match=r"epochs: 3 and 4$"):
        mg.reconstruct(answer(epoch=3), answer(epoch=4))


def test_different_num_pages() -> None:
    with pytest.raises(mg.DomainMismatchError, match=r"1000 and 999 pages$"):
        mg.reconstruct(answer(), answer(num_pages=999))


@pytest.mark.parametrize("shape", [(1, 3, 4), (2, 1, 4), (2, 3, 1), (2, 3, 5), (0, 3, 4)])
def test_different_shapes(shape: tuple[int, ...]) -> None:
    other = answer(np.zeros(shape, dtype=np.uint8))
    with pytest.raises(mg.DomainMismatchError) as caught:
        mg.reconstruct(answer(), other)
    assert str(caught.value).endswith(f"(2, 3, 4) and {shape}")


@pytest.mark.parametrize("other", [None, np.zeros((2, 3, 4), dtype=np.uint8), b"", 0])
def test_reconstruct_of_other_types(other: Any) -> None:
    name = type(other).__name__
    for pair in ((answer(), other), (other, answer())):
        with pytest.raises(TypeError, match=rf"must be an Answer, not {name}$"):
            mg.reconstruct(*pair)

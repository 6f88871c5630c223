"""Generations of a table: which one answers, and when those before it end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import morphogen as mg
import morphogen.service.generations as generations_module
from fake_server import sealed_pages
from held_engine import SECONDS
from live_tables import HeldGeneration, publish
from morphogen.service import Generations
from morphogen.wire import WireConflictError
from naive import naive_answers, random_pages, random_rows

PAGES, SIZE = 60, 16


def generation(epoch: int, **options: Any) -> HeldGeneration:
    return HeldGeneration(random_pages(PAGES, SIZE, epoch), epoch, **options)


def queries(total: int, seed: int = 0) -> list[mg.Query]:
    return mg.make_queries(random_rows(total, 3, PAGES, seed), PAGES)[0]


def epochs(generations: Generations) -> list[int]:
    return [held.info.epoch_id for held in generations.held]


@pytest.fixture
def first() -> HeldGeneration:
    return generation(5)


@pytest.fixture
def table(first: HeldGeneration) -> Iterator[Generations]:
    generations = Generations(first)
    yield generations
    for held in generations.held:
        assert isinstance(held, HeldGeneration)
        held.held.held.set()
    generations.close()


# Which one answers


def test_the_one_that_is_asked_for_is_picked(table: Generations) -> None:
    publish(table, generation(7))
    assert [table.pick(number).info.epoch_id for number in (None, 7, 5)] == [7, 7, 5]
    assert table.current is table.held[0]


def test_an_epoch_that_is_not_held_is_a_conflict_that_names_those_that_are(
    table: Generations,
) -> None:
    with pytest.raises(WireConflictError, match=r"^the table's epoch_id is 5, not 6$") as told:
        table.pick(6)
    assert told.value.field == "epoch_id"
    publish(table, generation(6))
    publish(table, generation(8))
    with pytest.raises(WireConflictError, match=r"^the table's epoch_id is 8 or 6, not 5$"):
        table.pick(5)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_so_many_are_held_as_may_be(first: HeldGeneration, keep: int) -> None:
    generations = Generations(first, keep)
    for number in range(6, 10):
        before = generations.held
        publish(generations, generation(number))
        # Whoever has the tuple of before goes on with that.
        assert before is not generations.held
        assert epochs(generations) == list(range(number, 4, -1))[:keep]
    generations.close()


@pytest.mark.parametrize("keep", [0, -1, 17])
def test_fewer_or_more_than_clients_know_are_not_held(first: HeldGeneration, keep: int) -> None:
    with pytest.raises(ValueError, match=rf"^keep must be in 1\.\.16, not {keep}$"):
        Generations(first, keep)
    first.close()


def test_a_manifest_is_part_of_the_description() -> None:
    signed = generation(5, manifest=bytes(range(256)))
    assert signed.info.manifest == bytes(range(256)).hex()
    signed.close()


# What is refused


@pytest.mark.parametrize("number", [4, 5])
def test_an_epoch_that_is_not_above_the_current_one_is_refused(
    table: Generations, number: int
) -> None:
    other = generation(number)
    with pytest.raises(ValueError, match=rf"must be above 5, the current one, not {number}"):
        publish(table, other)
    assert epochs(table) == [5]
    assert not other.ended  # it is its maker's
    other.close()


LAYOUT = {"version": 1}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: generation(6, party=1), "party must be 0, as it is now, not 1"),
        (lambda: generation(6, keys_per_query=2), "keys_per_query must be 3, as it is now, not 2"),
        (
            lambda: HeldGeneration(random_pages(PAGES, 8), 6),
            "page_size must be 16, as it is now, not 8",
        ),
        (lambda: generation(6, layout=LAYOUT), "must be not a keyword table, as the current one"),
        (
            lambda: HeldGeneration((seal := sealed_pages(PAGES, 48, 1)).pages[:, :], 6, seal=seal),
            "page_size must be 16",
        ),
    ],
    ids=["party", "keys", "size", "layout", "both"],
)
def test_an_epoch_of_another_shape_is_refused(
    table: Generations, make: Callable[[], HeldGeneration], told: str
) -> None:
    other = make()
    with pytest.raises(ValueError, match=told):
        publish(table, other)
    assert epochs(table) == [5]
    other.close()


def test_pages_do_not_begin_or_cease_to_prove_themselves() -> None:
    seal = sealed_pages(PAGES, 48, 1)
    for with_seal in (True, False):
        one = HeldGeneration(seal.pages, 5, seal=seal if with_seal else None)
        other = HeldGeneration(seal.pages, 6, seal=None if with_seal else seal)
        generations = Generations(one)
        with pytest.raises(ValueError, match="authenticated, as the current one is"):
            publish(generations, other)
        generations.close()
        other.close()


def test_a_table_may_grow_and_shrink(table: Generations) -> None:
    for number, pages in ((6, 1000), (7, 1)):
        publish(table, HeldGeneration(random_pages(pages, SIZE), number))
        assert table.current.info.num_pages == pages


def test_none_is_published_once_all_are_closed(first: HeldGeneration) -> None:
    generations, late = Generations(first), generation(6)
    generations.close()
    with pytest.raises(mg.BatcherClosedError, match="takes no new epoch: it is shutting down"):
        publish(generations, late)
    assert not late.ended
    late.close()


# The end


def test_one_that_falls_out_ends_once_all_it_took_is_answered(
    table: Generations, first: HeldGeneration
) -> None:
    first.held.held.clear()
    sent = queries(5)
    taken = first.batcher.submit_many(sent)
    assert first.held.begun.acquire(timeout=SECONDS)
    publish(table, generation(6))
    publish(table, generation(7))  # this does not wait
    assert not table.wait_retired(timeout=0)
    assert not first.held.closed
    with pytest.raises(mg.BatcherClosedError):
        first.batcher.submit(sent[0])
    first.held.held.set()
    assert table.wait_retired(SECONDS)
    assert first.ended
    for query, future in zip(sent, taken, strict=True):
        assert (future.result(0).pages == naive_answers(first.table, [query])).all()


def test_all_are_closed_at_the_end_those_that_fell_out_too(first: HeldGeneration) -> None:
    generations, living = Generations(first), [first]
    first.held.held.clear()
    taken = first.batcher.submit_many(queries(1))
    assert first.held.begun.acquire(timeout=SECONDS)
    for number in (6, 7):
        living.append(generation(number))
        publish(generations, living[-1])
    shut = threading.Thread(target=generations.close)
    shut.start()
    living[2].held.held.clear()
    first.held.held.set()
    shut.join(SECONDS)
    assert not shut.is_alive()
    assert all(one.ended for one in living)
    assert taken[0].done()
    generations.close()  # again


def test_none_takes_queries_while_another_answers_its_last(
    table: Generations, first: HeldGeneration
) -> None:
    publish(table, second := generation(6))
    first.held.held.clear()
    first.batcher.submit_many(queries(1))
    assert first.held.begun.acquire(timeout=SECONDS)
    table.shut()  # this does not wait
    for one in (first, second):
        with pytest.raises(mg.BatcherClosedError):
            one.batcher.submit(queries(1)[0])
        assert not one.held.closed


def test_an_engine_of_somebody_else_is_left_open(first: HeldGeneration) -> None:
    first.engine = None
    Generations(first).close()
    assert first.batcher.closed
    assert not first.held.closed
    first.held.close()


def test_an_engine_that_does_not_close_keeps_none_from_ending(
    table: Generations, first: HeldGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda told: died.set())

    def fail() -> None:
        raise mg.DeviceError("it is gone")

    monkeypatch.setattr(first.held, "close", fail)
    publish(table, generation(6))
    publish(table, generation(7))
    assert table.wait_retired(SECONDS)
    assert died.wait(SECONDS)
    assert table.statistics().answered == 0
    first.held.inner.close()


def test_an_engine_that_does_not_close_at_the_end_keeps_none_from_ending(
    first: HeldGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    generations, second = Generations(first), generation(6)
    publish(generations, second)

    def fail() -> None:
        raise mg.DeviceError("it is gone")

    with monkeypatch.context() as patched:
        patched.setattr(second.held, "close", fail)
        with pytest.raises(mg.DeviceError, match="it is gone"):
            generations.close()
        assert first.ended
    generations.close()
    assert second.ended


def refuse(*_: Any) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("how", ["the next", "the end"])
def test_where_there_is_no_thread_one_ends_with_the_next_or_at_the_end(
    table: Generations, first: HeldGeneration, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    publish(table, second := generation(6))
    with monkeypatch.context() as patched:
        patched.setattr(generations_module, "start_thread", refuse)
        publish(table, generation(7))
        assert not first.ended
        if how == "the end":
            table.close()
    if how == "the next":
        publish(table, generation(8))
        assert table.wait_retired(SECONDS)
        assert second.ended
    assert first.ended


@pytest.mark.parametrize("failing", [0, 1])
def test_of_two_that_end_together_one_that_fails_keeps_the_other_from_nothing(
    table: Generations, first: HeldGeneration, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    died = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda told: died.set())
    made = [first, *map(generation, (6, 7, 8))]
    publish(table, made[1])
    with monkeypatch.context() as patched:
        patched.setattr(generations_module, "start_thread", refuse)
        publish(table, made[2])

    def fail() -> None:
        raise mg.DeviceError("it is gone")

    monkeypatch.setattr(made[failing].held, "close", fail)
    publish(table, made[3])
    assert table.wait_retired(SECONDS)
    assert died.wait(SECONDS)
    assert made[1 - failing].ended
    made[failing].held.inner.close()


# Counts


def test_counts_are_those_of_all_that_ever_answered(table: Generations) -> None:
    answered, sizes = 0, {1: 0, 2: 0}
    for number in range(5, 10):
        if number > 5:
            publish(table, generation(number))
        for one in table.held:
            for future in one.batcher.submit_many(queries(3)):
                future.result()
            answered += 3
            sizes[1] += 1
            sizes[2] += 1
        now = table.statistics()
        assert (now.answered, now.chunk_sizes, now.queued, now.running) == (answered, sizes, 0, 0)
    assert table.wait_retired(SECONDS)
    assert table.statistics().answered == answered
    table.close()
    assert table.statistics().answered == answered


def test_what_waits_in_one_that_fell_out_is_counted(
    table: Generations, first: HeldGeneration
) -> None:
    first.held.held.clear()
    first.batcher.submit_many(queries(5))
    assert first.held.begun.acquire(timeout=SECONDS)
    publish(table, generation(6))
    publish(table, generation(7))
    now = table.statistics()
    assert (now.queued, now.running, now.answered) == (3, 2, 0)
    first.held.held.set()
    assert table.wait_retired(SECONDS)
    now = table.statistics()
    assert (now.queued, now.running, now.answered) == (0, 0, 5)


def test_the_widest_chunk_of_any_epoch_is_remembered(table: Generations) -> None:
    for number, width in ((6, 4), (7, 1), (8, 1), (9, 1)):
        publish(table, generation(number, width=width))
        assert table.width == 4

"""Epochs side by side: a request's own is answered, and a switch fails no request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

import morphogen as mg
import morphogen.wire as wire
from held_engine import SECONDS
from live_tables import HeldGeneration
from morphogen.wire import JSON, MSGPACK, SINGLE_PATH
from naive import naive_answers, random_pages
from served_table import ask, http, problem
from switching import PAGES, SIZE, Asking, Switching, check, generation, live, queries

__all__ = ["http", "live"]

# Which one answers


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_the_epoch_that_a_request_names_answers_it(
    live: Switching, http: httpx.Client, kind: str
) -> None:
    live.publish(second := generation(7, 100))
    for epoch, of in ((5, live.first), (7, second), (None, second)):
        sent = queries(3, of.info.num_pages)
        body = wire.encode_request(sent, epoch_id=epoch, content_type=kind)
        check(ask(http, live.url, body, kind), sent, of, now=7)
    assert live.first.held.chunks == [2, 1]


def test_a_single_query_may_name_its_epoch_too(live: Switching, http: httpx.Client) -> None:
    live.publish(generation(7))
    (query,) = queries(1)
    for epoch in (5, 7):
        body = msgspec.msgpack.encode({"keys": query.keys, "epoch_id": epoch})
        answer = ask(http, live.url, body, MSGPACK, SINGLE_PATH)
        assert msgspec.msgpack.decode(answer.content)["epoch_id"] == epoch
        assert answer.headers["Morphogen-Epoch"] == "7"


@pytest.mark.parametrize("epoch", [0, 4, 6, 8, 2**63 - 1])
def test_another_epoch_is_a_conflict(live: Switching, http: httpx.Client, epoch: int) -> None:
    live.publish(generation(7))
    body = wire.encode_request(queries(1), epoch_id=epoch)
    told = problem(ask(http, live.url, body, MSGPACK), 409, "epoch_id")
    assert told["detail"] == f"the table's epoch_id is 7 or 5, not {epoch}"
    assert "Morphogen-Epoch" not in ask(http, live.url, body, MSGPACK).headers


def test_the_epoch_is_told_before_keys_are_looked_at(live: Switching, http: httpx.Client) -> None:
    keys = [b"no key"] * 3
    body = {"queries": [{"keys": keys}], "epoch_id": 4, "num_pages": PAGES + 1}
    problem(ask(http, live.url, msgspec.msgpack.encode(body), MSGPACK), 409, "epoch_id")
    body["epoch_id"] = 5
    problem(ask(http, live.url, msgspec.msgpack.encode(body), MSGPACK), 409, "num_pages")
    body["num_pages"] = PAGES
    fault = ask(http, live.url, msgspec.msgpack.encode(body), MSGPACK)
    problem(fault, 400, "queries[0].keys[0]")


def test_keys_are_checked_against_the_pages_of_their_own_epoch(
    live: Switching, http: httpx.Client
) -> None:
    live.publish(generation(7, 1000))
    for epoch, pages in ((5, 1000), (7, PAGES), (None, PAGES)):
        body = wire.encode_request(queries(1, pages), epoch_id=epoch)
        problem(ask(http, live.url, body, MSGPACK), 409, "queries[0].keys[0]")


# A switch under load


def test_what_was_taken_is_answered_though_its_epoch_is_over(live: Switching) -> None:
    live.first.held.held.clear()
    sent = queries(5)
    asking = Asking(live.url, sent, 5)
    assert live.first.held.begun.acquire(timeout=SECONDS)
    live.publish(generation(6), generation(7))
    assert not live.generations.wait_retired(timeout=0)
    live.first.held.held.set()
    check(asking.answer(), sent, live.first, now=7)
    assert live.generations.wait_retired(SECONDS)
    assert live.first.ended


def elsewhere(step: Callable[[], None]) -> None:
    """Take a step on a thread of its own, and wait for it."""
    thread = threading.Thread(target=step)
    thread.start()
    thread.join(SECONDS)


def answered_after(
    live: Switching, monkeypatch: pytest.MonkeyPatch, switch: Callable[[], None]
) -> None:
    """Let a switch happen right after a request has picked the first epoch."""
    inner, once = live.first.batcher.answer_many, iter([switch])

    async def outer(*args: Any, **options: Any) -> list[mg.Answer]:
        for step in once:
            elsewhere(step)
        return await inner(*args, **options)

    monkeypatch.setattr(live.first.batcher, "answer_many", outer)


def over(live: Switching, *published: HeldGeneration) -> Callable[[], None]:
    def switch() -> None:
        live.publish(*published)
        assert live.generations.wait_retired(SECONDS)
        assert live.first.ended

    return switch


def test_a_request_whose_epoch_ends_as_it_is_picked_is_a_conflict(
    live: Switching, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered_after(live, monkeypatch, over(live, generation(6), generation(7)))
    body = wire.encode_request(queries(1), epoch_id=5)
    told = problem(ask(http, live.url, body, MSGPACK), 409, "epoch_id")
    assert told["detail"] == "the table's epoch_id is 7 or 6, not 5"


def test_a_request_that_names_no_epoch_is_answered_by_the_one_that_came(
    live: Switching, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered_after(live, monkeypatch, over(live, generation(6), last := generation(7)))
    sent = queries(2)
    check(ask(http, live.url, wire.encode_request(sent), MSGPACK), sent, last, now=7)


def test_keys_that_do_not_fit_the_one_that_came_are_a_conflict(
    live: Switching, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered_after(live, monkeypatch, over(live, generation(6), generation(7, 1000)))
    told = ask(http, live.url, wire.encode_request(queries(2)), MSGPACK)
    problem(told, 409, "queries[0].keys[0]")


def test_an_epoch_that_ends_as_its_room_is_looked_at_is_none_to_wait_for(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Switching(keep=1) as live:
        inner = live.first.batcher.check_room

        def check_room(*args: Any) -> None:
            elsewhere(over(live, generation(6)))
            inner(*args)

        monkeypatch.setattr(live.first.batcher, "check_room", check_room)
        sent = queries(1)
        answer = ask(http, live.url, wire.encode_request(sent), MSGPACK)
        last = live.generations.current
        assert isinstance(last, HeldGeneration)
        check(answer, sent, last, now=6)


def test_a_server_that_shuts_down_is_no_conflict(live: Switching, http: httpx.Client) -> None:
    live.publish(generation(6))
    live.generations.shut()
    for epoch in (5, 6, None):
        body = wire.encode_request(queries(1), epoch_id=epoch)
        assert "takes no queries" in problem(ask(http, live.url, body, MSGPACK), 503)["detail"]


def test_an_engine_that_has_failed_is_no_conflict(live: Switching, http: httpx.Client) -> None:
    live.publish(last := generation(6))
    last.held.close()
    last.held.error = mg.EngineClosedError("this engine is closed")
    problem(ask(http, live.url, wire.encode_request(queries(1)), MSGPACK), 503)
    body = wire.encode_request(queries(1), epoch_id=5)
    assert ask(http, live.url, body, MSGPACK).status_code == 200


def test_a_server_that_stops_answers_for_epochs_that_are_over() -> None:
    with Switching() as live:
        living = [live.first, generation(6), generation(7)]
        live.first.held.held.clear()
        sent = queries(2)
        asking = Asking(live.url, sent, 5)
        assert live.first.held.begun.acquire(timeout=SECONDS)
        live.publish(*living[1:])
        live.stop()
        live.first.held.held.set()
        check(asking.answer(), sent, live.first, now=7)
        live.join()
        assert all(one.ended for one in living)


def test_while_epochs_come_and_go_answers_are_right_or_conflicts() -> None:
    tables = {number: random_pages(PAGES + number, SIZE, number) for number in range(5, 40)}
    seen: list[int] = []
    done, asked = threading.Event(), threading.Semaphore(0)
    with Switching(HeldGeneration(tables[5], 5)) as live:

        def read(seed: int) -> None:
            with httpx.Client(trust_env=False, timeout=SECONDS) as client:
                while not done.is_set():
                    info = wire.decode_info(client.get(live.url + "/epoch").content)
                    offered = wire.offers(info)[seed % len(wire.offers(info))]
                    sent = queries(2, offered.num_pages)
                    named = offered.epoch_id if seed < 3 else None
                    body = wire.encode_request(sent, epoch_id=named)
                    response = ask(client, live.url, body, MSGPACK)
                    seen.append(response.status_code)
                    asked.release()
                    if response.status_code == 200:
                        got = wire.decode_response(response.content, MSGPACK, offered, 2)
                        assert named in (None, got.epoch_id)
                        right = naive_answers(tables[got.epoch_id], sent)
                        np.testing.assert_array_equal(got.pages, right)

        with ThreadPoolExecutor() as pool:
            reading = [pool.submit(read, seed) for seed in range(4)]
            for number in range(6, 40):
                live.publish(HeldGeneration(tables[number], number))
                for _ in range(3):  # some are asked in each epoch
                    assert asked.acquire(timeout=SECONDS)
            done.set()
            for one in reading:
                one.result(SECONDS)
        assert live.generations.wait_retired(SECONDS)
    assert set(seen) <= {200, 409}
    assert seen.count(200) > 0

"""Epochs side by side: a request's own is answered, and a switch fails no request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

import morphogen as mg
import morphogen.wire as wire
from fake_server import sealed_pages
from held_engine import SECONDS
from live_tables import HeldGeneration, LiveTables, publish
from morphogen.service import Generations
from morphogen.wire import JSON, MSGPACK, QUERY_PATH, SINGLE_PATH
from naive import naive_answers, random_pages, random_rows
from served_table import ask, http, problem

__all__ = ["http"]

PAGES, SIZE = 60, 16


def generation(epoch: int, pages: int = PAGES, **options: Any) -> HeldGeneration:
    return HeldGeneration(random_pages(pages, SIZE, epoch), epoch, **options)


def queries(total: int, pages: int = PAGES, party: int = 0) -> list[mg.Query]:
    return mg.make_queries(random_rows(total, 3, pages), pages)[party]


class Switching(LiveTables):
    """One table, of which epoch 5 is the first."""

    def __init__(self, first: HeldGeneration | None = None, keep: int = 2) -> None:
        self.first = first or generation(5)
        self.generations = Generations(self.first, keep)
        super().__init__({"": self.generations})

    def publish(self, *published: HeldGeneration) -> None:
        for one in published:
            publish(self.generations, one)


@pytest.fixture
def live() -> Iterator[Switching]:
    with Switching() as app:
        yield app


class Asking(threading.Thread):
    """A request on its way, on a thread and a connection of its own."""

    def __init__(self, url: str, sent: list[mg.Query], epoch: int | None) -> None:
        super().__init__()
        self.url, self.sent, self.epoch = url, sent, epoch
        self.response: httpx.Response
        self.start()

    def run(self) -> None:
        body = wire.encode_request(self.sent, epoch_id=self.epoch)
        with httpx.Client(trust_env=False, timeout=SECONDS) as client:
            self.response = ask(client, self.url, body, MSGPACK)

    def answer(self) -> httpx.Response:
        self.join(SECONDS)
        return self.response


def check(response: httpx.Response, sent: list[mg.Query], of: HeldGeneration, now: int) -> None:
    """Check that a response is the right one of a generation, while an epoch is current."""
    assert response.status_code == 200, response.text
    kind = response.headers["Content-Type"]
    got = wire.decode_response(response.content, kind, of.info, len(sent))
    assert (got.epoch_id, got.num_pages, got.digest) == (
        of.info.epoch_id,
        of.info.num_pages,
        of.info.digest,
    )
    np.testing.assert_array_equal(got.pages, naive_answers(of.table, sent))
    assert response.headers["Morphogen-Epoch"] == str(now)


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


# What the server says of them


def test_all_epochs_are_listed_and_the_current_one_stands_above(
    live: Switching, http: httpx.Client
) -> None:
    held = [live.first]
    for number in (6, 7):
        live.publish(made := generation(number, 10 * number, manifest=bytes([number]) * 256))
        held = [made, *held][:2]
        info = wire.decode_info(http.get(live.url + "/epoch").content)
        assert wire.offers(info) == [one.info for one in held]
        assert msgspec.structs.replace(info, epochs=None) == held[0].info


def test_health_is_the_current_ones(live: Switching, http: httpx.Client) -> None:
    live.publish(last := generation(6))
    live.first.held.close()
    assert http.get(live.url + "/health").status_code == 200
    last.held.close()
    for path in ("/health", "/health/ready"):
        response = http.get(live.url + path)
        assert response.status_code == 503
        assert response.json()["reason"] == "this engine is closed"
    live.publish(generation(7))
    assert http.get(live.url + "/health").json() == {"live": True, "ready": True}


def test_each_epoch_that_is_held_has_its_cap(http: httpx.Client) -> None:
    seals = {number: sealed_pages(PAGES + number, 48, 1) for number in (5, 6, 7)}
    made = [HeldGeneration(seals[number].pages, number, seal=seals[number]) for number in seals]
    with Switching(made[0]) as live:
        for upto in range(1, 4):
            for number, seal in list(seals.items())[:upto]:
                got = http.get(live.url + wire.cap_path(number))
                if number + 2 < 5 + upto:
                    problem(got, 404)
                    continue
                assert got.content == seal.cap.tobytes()
                tag = got.headers["ETag"]
                assert tag == f'"{seal.root.hex()}"'
                known = http.get(live.url + wire.cap_path(number), headers={"If-None-Match": tag})
                assert known.status_code == 304
            if upto < 3:
                live.publish(made[upto])


def test_the_openapi_document_is_of_the_current_epoch(live: Switching, http: httpx.Client) -> None:
    def lengths() -> set[int]:
        document = http.get(live.url + "/schema/openapi.json").json()
        content = document["paths"][QUERY_PATH]["post"]["requestBody"]["content"][JSON]
        keys = content["schema"]["properties"]["queries"]["items"]["properties"]["keys"]
        return {keys["items"]["minLength"], keys["items"]["maxLength"]}

    assert lengths() == {2 + 2 * mg.dpf.key_size(PAGES)}
    live.publish(generation(6, 1000))
    assert lengths() == {2 + 2 * mg.dpf.key_size(1000)}


def test_the_openapi_document_names_the_epochs(live: Switching, http: httpx.Client) -> None:
    document = http.get(live.url + "/schema/openapi.json").json()
    described = document["paths"]["/epoch"]["get"]["responses"]["200"]["content"][JSON]["schema"]
    assert described["properties"]["epochs"]["items"]["required"] == [
        *("epoch_id", "num_pages", "page_size", "keys_per_query", "digest", "table")
    ]
    answer = document["paths"][QUERY_PATH]["post"]["responses"]["200"]
    assert answer["headers"]["Morphogen-Epoch"]["required"] is True


# Limits


def test_the_largest_body_follows_the_epochs_that_are_held(
    live: Switching, http: httpx.Client
) -> None:
    few, many = live.first.info, msgspec.structs.replace(live.first.info, num_pages=100_000)
    body = b" " * (wire.max_body_bytes(few) + 1)
    assert len(body) < wire.max_body_bytes(many)
    problem(ask(http, live.url, body, JSON), 413)
    live.publish(generation(6, 100_000))
    problem(ask(http, live.url, body, JSON), 400)
    live.publish(generation(7))  # the large one is still held
    problem(ask(http, live.url, body, JSON), 400)
    live.publish(generation(8))
    problem(ask(http, live.url, body, JSON), 413)
    problem(ask(http, live.url, iter([body]), JSON), 413)  # no length told


def test_longer_keys_of_an_epoch_before_are_not_taken_for_more_queries(http: httpx.Client) -> None:
    with Switching(generation(5, 1_000_000, max_queued=1)) as live:
        live.publish(generation(6, 1, max_queued=1))
        sent = queries(1, 1_000_000)
        for kind in (JSON, MSGPACK):
            body = wire.encode_request(sent, epoch_id=5, content_type=kind)
            check(ask(http, live.url, body, kind), sent, live.first, now=6)


def test_who_has_no_room_in_the_current_epoch_has_none_in_another(
    live: Switching, http: httpx.Client
) -> None:
    live.publish(last := generation(6, max_queued=2))
    last.held.held.clear()
    running = Asking(live.url, queries(1), 6)
    assert last.held.begun.acquire(timeout=SECONDS)
    waiting = last.batcher.submit_many(queries(2), client="127.0.0.1")
    body = wire.encode_request(queries(1), epoch_id=5)
    problem(ask(http, live.url, body, MSGPACK), 429)
    assert not live.first.held.calls
    last.held.held.set()
    assert running.answer().status_code == 200
    assert all(future.result(SECONDS) for future in waiting)


# Metrics


def test_no_counter_goes_back_when_an_epoch_ends(live: Switching, http: httpx.Client) -> None:
    before: dict[tuple[Any, ...], float] = {}
    for number in range(5, 10):
        if number > 5:
            live.publish(generation(number, width=number % 3 + 1))
        for epoch in (number, None):
            body = wire.encode_request(queries(number), epoch_id=epoch)
            assert ask(http, live.url, body, MSGPACK).status_code == 200
        assert live.generations.wait_retired(SECONDS)
        now = live.samples()
        counters = {
            name for name in now if name[0].endswith(("_total", "_bucket", "_count", "_sum"))
        }
        assert before.keys() <= now.keys()
        assert all(now[name] >= before.get(name, 0) for name in counters)
        assert now["morphogen_epoch",] == number
        assert now["morphogen_epochs",] == min(number - 4, 2)
        before = now
    answered = 2 * sum(range(5, 10))
    assert now["morphogen_queries_total", ("outcome", "answered")] == answered
    assert now["morphogen_chunk_size_sum",] == answered
    assert now["morphogen_chunk_size_count",] == now["morphogen_chunk_size_bucket", ("le", "3.0")]


def test_reloads_are_counted_by_what_came_of_them(live: Switching) -> None:
    def reloads() -> list[float]:
        samples = live.samples()
        outcomes = ("loaded", "unchanged", "refused")
        return [samples["morphogen_reloads_total", ("outcome", one)] for one in outcomes]

    assert reloads() == [0, 0, 0]
    live.metrics.reloads["loaded"] += 2
    live.metrics.reloads["refused"] += 1
    live.metrics.pages_changed[""] += 33
    assert reloads() == [2, 0, 1]
    assert live.samples()["morphogen_pages_changed_total",] == 33

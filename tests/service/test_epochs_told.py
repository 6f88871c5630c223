"""Epochs side by side: what a server tells of them, its limits, its metrics."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

import morphogen as mg
import morphogen.wire as wire
from fake_server import sealed_pages
from held_engine import SECONDS
from live_tables import HeldGeneration
from morphogen.wire import JSON, MSGPACK, QUERY_PATH
from served_table import ask, http, problem
from switching import PAGES, Asking, Switching, check, generation, live, queries

__all__ = ["http", "live"]


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

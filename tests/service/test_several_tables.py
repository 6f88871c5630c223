"""Several tables on one server, each under paths of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
import pytest

import morphogen as mg
import morphogen.wire as wire
from fake_server import sealed_pages
from live_tables import HeldGeneration, LiveTables, publish
from morphogen.service import Generations, create_tables_app
from morphogen.wire import JSON, MSGPACK, QUERY_PATH, SINGLE_PATH
from naive import naive_answers, random_pages, random_rows
from openapi_calls import call_all
from sealed_tables import sealed_table
from served_table import SECONDS, ask, http, problem

__all__ = ["http"]

PLAIN, BIG = 60, 100_000
WORDS = sealed_table({b"apple": b"red", b"plum": b"blue"}, padding=0)
SEAL = sealed_pages(50, 96, 1)


def tables(party: int = 0) -> dict[str, Generations]:
    """Return the plain table, a large one, one that proves itself, and a keyword table."""
    made = {
        "": HeldGeneration(random_pages(PLAIN, 16), 5, party=party),
        "big.1": HeldGeneration(random_pages(BIG, 4), 3, party=party, keys_per_query=1),
        "sealed": HeldGeneration(SEAL.pages, 8, party=party, seal=SEAL),
        "words": HeldGeneration(
            WORDS.seal.pages, 9, party=party, seal=WORDS.seal, layout=WORDS.layout.as_dict()
        ),
    }
    return {name: Generations(first) for name, first in made.items()}


@pytest.fixture(scope="module")
def servers() -> Iterator[list[LiveTables]]:
    with ExitStack() as stack:
        yield [stack.enter_context(LiveTables(tables(party))) for party in (0, 1)]


@pytest.fixture
def live() -> Iterator[LiveTables]:
    with LiveTables(tables()) as app:
        yield app


# Paths


def test_each_table_answers_on_its_own_paths(live: LiveTables, http: httpx.Client) -> None:
    for name, generations in live.tables.items():
        url = live.url + wire.table_path(name)
        current = generations.current
        assert isinstance(current, HeldGeneration)
        info = wire.decode_info(http.get(url + "/epoch").content)
        assert wire.offers(info) == [current.info]
        rows = random_rows(2, info.keys_per_query, info.num_pages)
        sent = mg.make_queries(rows, info.num_pages)[0]
        for kind in (JSON, MSGPACK):
            answer = ask(http, url, wire.encode_request(sent, content_type=kind), kind)
            got = wire.decode_response(answer.content, kind, info, 2)
            np.testing.assert_array_equal(got.pages, naive_answers(current.table, sent))
            assert answer.headers["Morphogen-Epoch"] == str(info.epoch_id)
        caps = http.get(url + wire.cap_path(info.epoch_id))
        if current.cap is None:
            problem(caps, 404)
        else:
            assert caps.content == current.cap.tobytes()


@pytest.mark.parametrize("name", ["big.1", "sealed"])
def test_a_client_reads_from_a_table_by_its_url(servers: list[LiveTables], name: str) -> None:
    urls = [f"{server.url}/t/{name}" for server in servers]
    current = servers[0].tables[name].current
    assert isinstance(current, HeldGeneration)
    with mg.Client(urls, timeout=SECONDS) as client:
        np.testing.assert_array_equal(client.get([49, 0, 7]), current.table[[49, 0, 7]])
        assert client.authenticated == (name == "sealed")


def test_a_client_looks_keys_up_in_a_table_by_its_url(servers: list[LiveTables]) -> None:
    urls = [f"{server.url}/t/words" for server in reversed(servers)]
    with mg.Client(urls, root=WORDS.seal.root, timeout=SECONDS) as client:
        assert client.lookup_many([b"apple", b"pear", b"plum"]) == [b"red", None, b"blue"]


def test_a_client_reads_on_when_one_of_the_tables_changes(http: httpx.Client) -> None:
    with ExitStack() as stack:
        zero, one = (stack.enter_context(LiveTables(tables(party))) for party in (0, 1))
        with mg.Client([f"{server.url}/t/big.1" for server in (zero, one)]) as client:
            before = client.get([3])
            changed = random_pages(BIG, 4, seed=1)
            for party, server in enumerate((zero, one)):
                publish(
                    server.tables["big.1"],
                    HeldGeneration(changed, 4, party=party, keys_per_query=1),
                )
            for url in (zero.url, one.url):
                assert http.get(url + "/epoch").json()["epoch_id"] == 5
                assert http.get(url + "/t/big.1/epoch").json()["epoch_id"] == 4
            assert client.get([3]).tolist() in (before.tolist(), changed[[3]].tolist())


@pytest.mark.parametrize(
    "path", ["/t", "/t/", "/t/words", "/t/word/epoch", "/t/WORDS/epoch", "/t//epoch", "/t/./epoch"]
)
def test_other_paths_are_not_there(
    servers: list[LiveTables], http: httpx.Client, path: str
) -> None:
    # httpx would take dots out of a path.
    request = httpx.Request("GET", servers[0].url)
    request.url = request.url.copy_with(raw_path=path.encode())
    problem(http.send(request), 404)


def test_without_a_plain_table_the_plain_paths_are_not_there(http: httpx.Client) -> None:
    named = {"a": Generations(HeldGeneration(random_pages(PLAIN, 16), 5))}
    with LiveTables(named) as live:
        problem(http.get(live.url + "/epoch"), 404)
        problem(ask(http, live.url, b"", MSGPACK), 404)
        assert http.get(live.url + "/t/a/epoch").json()["epoch_id"] == 5
        assert http.get(live.url + "/health").json() == {"live": True, "ready": True}
        # A lone table has no label, whatever its name.
        assert live.samples()["morphogen_epoch",] == 5


@pytest.mark.parametrize("name", [".", "..", "a/b", "x" * 65, "ä", "{x:int}"])
def test_a_table_that_no_path_can_name_is_refused(name: str) -> None:
    generations = Generations(HeldGeneration(random_pages(PLAIN, 16), 5))
    with pytest.raises(ValueError, match=r"^a table's name must be "):
        create_tables_app({name: generations})
    generations.close()


def test_a_service_of_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^there must be at least one table, not 0$"):
        create_tables_app({})


def test_the_openapi_document_has_the_paths_of_all(
    servers: list[LiveTables], http: httpx.Client
) -> None:
    paths = http.get(servers[0].url + "/schema/openapi.json").json()["paths"]
    of_one = [QUERY_PATH, SINGLE_PATH, "/epoch", "/health", "/health/live", "/health/ready"]
    expected = {
        prefix + path for prefix in ("", "/t/big.1", "/t/sealed", "/t/words") for path in of_one
    }
    caps = {"/t/sealed" + wire.cap_path("{epoch}"), "/t/words" + wire.cap_path("{epoch}")}
    assert set(paths) == expected | caps


@pytest.mark.slow
def test_what_the_openapi_document_allows_never_makes_it_fail() -> None:
    with LiveTables(tables()) as live:
        publish(live.tables[""], HeldGeneration(random_pages(1000, 16), 6))
        called = call_all(live.url)
        assert {"GET /t/words" + wire.cap_path("{epoch}"), f"POST /t/big.1{QUERY_PATH}"} <= called


# Each by itself


def test_bodies_are_as_large_as_the_table_needs(
    servers: list[LiveTables], http: httpx.Client
) -> None:
    url = servers[0].url
    body = b" " * (wire.max_body_bytes(servers[0].tables[""].current.info) + 1)
    problem(ask(http, url, body, JSON), 413)
    problem(ask(http, url + "/t/sealed", body, JSON), 413)
    problem(ask(http, url + "/t/big.1", body, JSON), 400)


def test_the_server_is_ready_if_all_tables_are(live: LiveTables, http: httpx.Client) -> None:
    live.tables["sealed"].shut()
    for path in ("/health", "/health/ready"):
        for prefix in ("", "/t/sealed"):
            response = http.get(live.url + prefix + path)
            assert response.status_code == 503
            told: dict[str, Any] = response.json()
            assert told["ready"] is False
            assert "this batcher is closed" in told["reason"]
            assert ("table 'sealed'" in told["reason"]) == (prefix == "")
        assert http.get(f"{live.url}/t/words{path}").status_code == 200
    for prefix in ("", "/t/sealed", "/t/words"):
        assert http.get(f"{live.url}{prefix}/health/live").json() == {"live": True}
    body = wire.encode_request(mg.make_queries(random_rows(1, 3, PLAIN), PLAIN)[0])
    assert ask(http, live.url, body, MSGPACK).status_code == 200


def test_one_full_table_leaves_room_in_the_others(http: httpx.Client) -> None:
    made = {
        name: HeldGeneration(random_pages(PLAIN, 16), 5, max_queued=1) for name in ("", "other")
    }
    with LiveTables({name: Generations(first) for name, first in made.items()}) as live:
        queries = mg.make_queries(random_rows(2, 3, PLAIN), PLAIN)[0]
        full = made[""]
        full.held.held.clear()
        full.batcher.submit_many(queries[:1])
        assert full.held.begun.acquire(timeout=SECONDS)
        full.batcher.submit_many(queries[:1], client="127.0.0.1")
        body = wire.encode_request(queries[:1])
        problem(ask(http, live.url, body, MSGPACK), 429)
        assert ask(http, live.url + "/t/other", body, MSGPACK).status_code == 200


def test_metrics_tell_tables_apart(live: LiveTables, http: httpx.Client) -> None:
    body = wire.encode_request(mg.make_queries(random_rows(2, 1, BIG), BIG)[0])
    assert ask(http, live.url + "/t/big.1", body, MSGPACK).status_code == 200
    assert http.get(live.url + "/t/sealed" + wire.cap_path(8)).status_code == 200
    assert http.get(live.url + "/t/nothing/epoch").status_code == 404
    assert http.get(live.url + "/health").status_code == 200  # what came before is counted
    live.metrics.pages_changed["words"] += 4
    samples = live.samples()
    answered = {
        name: samples["morphogen_queries_total", ("outcome", "answered"), ("table", name)]
        for name in live.tables
    }
    assert answered == {"": 0, "big.1": 2, "sealed": 0, "words": 0}
    of = {name: ("table", name) for name in live.tables}
    assert [samples["morphogen_epoch", of[name]] for name in live.tables] == [5, 3, 8, 9]
    assert samples["morphogen_pages", of["big.1"]] == BIG
    assert samples["morphogen_chunk_size_sum", of["big.1"]] == 2
    changed = [samples["morphogen_pages_changed_total", of[name]] for name in live.tables]
    assert changed == [0, 0, 0, 4]
    root = ("root", SEAL.root.hex())
    assert samples["morphogen_table_info", ("proof_levels", "1"), root, of["sealed"]] == 1
    for path, status in (
        ("/t/big.1" + QUERY_PATH, "200"),
        ("/t/sealed" + wire.cap_path("{epoch}"), "200"),
        ("other", "404"),
    ):
        assert samples["morphogen_requests_total", ("path", path), ("status", status)] == 1


def test_all_tables_end_with_the_server() -> None:
    with LiveTables(tables()) as live:
        living = [held for one in live.tables.values() for held in one.held]
    assert all(isinstance(one, HeldGeneration) and one.ended for one in living)

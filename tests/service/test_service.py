"""The service: real sockets, every status with its problem document."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import morphogen as mg
import morphogen.engine.base as base
import morphogen.wire as wire
from fake_server import sealed_pages
from morphogen.service.process import ServerProcess
from morphogen.wire import JSON, MSGPACK, QUERY_PATH, SINGLE_PATH
from naive import Bytes, naive_answers, random_rows
from openapi_calls import call_all
from recorded_wire import EPOCHS, EXCHANGES, recorded_pages
from served_table import (
    EPOCH,
    PAGE_SIZE,
    PAGES,
    SECONDS,
    LiveApp,
    ask,
    file,
    http,
    live,
    problem,
    servers,
    some_queries,
    table,
)

__all__ = ["file", "http", "live", "servers", "table"]


# Answers


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
@pytest.mark.parametrize("total", [1, 2, 5, 32])
def test_both_servers_answers_give_the_pages(
    servers: list[ServerProcess], http: httpx.Client, table: Bytes, kind: str, total: int
) -> None:
    rows = random_rows(total, 3, PAGES)
    pages = []
    for server, queries in zip(servers, mg.make_queries(rows, PAGES), strict=True):
        info = wire.decode_info(http.get(server.url + "/epoch").content)
        response = ask(http, server.url, wire.encode_request(queries, content_type=kind), kind)
        assert response.status_code == 200
        assert response.headers["Content-Type"] == kind
        decoded = wire.decode_response(response.content, kind, info, total)
        np.testing.assert_array_equal(decoded.pages, naive_answers(table, queries))
        assert (decoded.epoch_id, decoded.num_pages, decoded.digest) == (EPOCH, PAGES, info.digest)
        pages.append(decoded.pages)
    np.testing.assert_array_equal(pages[0] ^ pages[1], table[rows])


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_one_query(
    servers: list[ServerProcess], http: httpx.Client, table: Bytes, kind: str
) -> None:
    (query,) = some_queries(1)
    keys = [key if kind == MSGPACK else "0x" + key.hex() for key in query.keys]
    whole = {"keys": keys, "epoch_id": EPOCH, "num_pages": PAGES}
    codec: Any = msgspec.json if kind == JSON else msgspec.msgpack
    response = ask(http, servers[0].url, codec.encode(whole), kind, SINGLE_PATH)
    body = codec.decode(response.content)
    assert set(body) == {"epoch_id", "num_pages", "digest", "pages"}
    got = [bytes.fromhex(page[2:]) if kind == JSON else page for page in body["pages"]]
    assert got == [page.tobytes() for page in naive_answers(table, [query])[0]]


def test_the_table_is_described(
    servers: list[ServerProcess], http: httpx.Client, table: Bytes
) -> None:
    for party, server in enumerate(servers):
        assert http.get(server.url + "/epoch").json() == {
            "party": party,
            "epoch_id": EPOCH,
            "num_pages": PAGES,
            "page_size": PAGE_SIZE,
            "keys_per_query": 3,
            "format_version": 1,
            "digest": sha256(table.tobytes()).hexdigest(),
            "device": "cpu",
            "table": None,
            "epochs": [
                {
                    "epoch_id": EPOCH,
                    "num_pages": PAGES,
                    "page_size": PAGE_SIZE,
                    "keys_per_query": 3,
                    "digest": sha256(table.tobytes()).hexdigest(),
                    "table": None,
                }
            ],
        }


def test_the_recorded_bytes_are_answered(http: httpx.Client) -> None:
    with LiveApp(recorded_pages()) as live:
        described = http.get(live.url + "/epoch").content
        # What a server says since then comes after what it said.
        assert described.startswith(EPOCHS[0].removesuffix(b"}") + b',"epochs":[')
        for exchange in EXCHANGES:
            if exchange.party == 0:
                got = ask(http, live.url, exchange.request, exchange.kind, exchange.path)
                assert got.content == exchange.response, exchange.name
                assert got.status_code == exchange.status
                assert got.headers["Content-Type"] == exchange.answered_kind


def test_a_short_last_page_is_part_of_the_digest(tmp_path: Path, http: httpx.Client) -> None:
    path = tmp_path / "odd.bin"
    path.write_bytes(b"x" * 100)
    with ServerProcess(path, 1, ("--page-size", "64", "--keys-per-query", "1")) as server:
        info = http.get(server.url + "/epoch").json()
        assert (info["num_pages"], info["keys_per_query"]) == (2, 1)
        assert info["digest"] == sha256(b"x" * 100 + bytes(28)).hexdigest()
        query = mg.make_query([1], 2)[1]
        body = wire.encode_request([query], content_type=JSON)
        assert ask(http, server.url, body, JSON).status_code == 200


def test_live_and_ready(servers: list[ServerProcess], http: httpx.Client) -> None:
    assert http.get(servers[0].url + "/health").json() == {"live": True, "ready": True}
    assert http.get(servers[0].url + "/health/live").json() == {"live": True}
    assert http.get(servers[0].url + "/health/ready").json() == {"ready": True}


def test_live_but_not_ready_once_the_batcher_is_closed(live: LiveApp, http: httpx.Client) -> None:
    live.batcher.close()
    assert http.get(live.url + "/health/live").status_code == 200
    for path in ("/health", "/health/ready"):
        response = http.get(live.url + path)
        assert response.status_code == 503
        assert response.json()["ready"] is False
    body = wire.encode_request(some_queries(1))
    assert "takes no queries" in problem(ask(http, live.url, body, MSGPACK), 503)["detail"]


def test_each_key_is_checked_twice_from_make_queries_to_the_answer(
    table: Bytes, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse, checked = mg.dpf.parse_key, Counter[bytes]()

    def counting_parse(key: Any) -> tuple[bytes, int, int]:
        checked[bytes(key)] += 1
        return parse(key)

    class CountingPacker:
        """Stands for every packer but the engine's, which are compiled code."""

        def __init__(self, num_pages: int) -> None:
            self.packer = mg.planner.KeyPacker(num_pages)

        def pack(self, queries: list[mg.Query]) -> None:
            checked.update(key for query in queries for key in query.keys)
            self.packer.pack(queries)

    monkeypatch.setattr(mg.dpf, "parse_key", counting_parse)
    for name, module in list(sys.modules.items()):
        others = name.startswith("morphogen.") and module not in (mg.planner, base)
        if others and hasattr(module, "KeyPacker"):
            monkeypatch.setattr(module, "KeyPacker", CountingPacker)
    queries = some_queries(5)
    with LiveApp(table) as live:
        assert ask(http, live.url, wire.encode_request(queries), MSGPACK).status_code == 200
        # Each call of the engine packs its queries, which checks their keys.
        checked.update(k for chunk, _ in live.engine.calls for query in chunk for k in query.keys)
    assert checked == {key: 2 for query in queries for key in query.keys}


# Refusals


@pytest.mark.parametrize(
    ("body", "kind", "status", "field"),
    [
        (b"", JSON, 400, ""),
        (b"{", JSON, 400, ""),
        (b"\xff", JSON, 400, ""),
        (b"", MSGPACK, 400, ""),
        (b"\xc1", MSGPACK, 400, ""),
        (b"[]", JSON, 400, ""),
        (b'{"queries": []}', JSON, 400, "queries"),
        (b'{"queries": [{"keys": ["0x"]}]}', JSON, 400, "queries[0].keys"),
        (b'{"queries": [{"keys": ["0x", "0x", "0x"]}]}', JSON, 400, "queries[0].keys[0]"),
        (wire.encode_request(some_queries(33)), MSGPACK, 413, "queries"),
        (b" " * 200_000, JSON, 413, ""),
        (wire.encode_request(some_queries(1)), "text/plain", 415, "Content-Type"),
        (wire.encode_request(some_queries(2, party=1)), MSGPACK, 409, "queries[0].keys[0]"),
        (
            wire.encode_request([mg.make_query([1, 2, 3], 9000)[0]]),
            MSGPACK,
            409,
            "queries[0].keys[0]",
        ),
        (wire.encode_request(some_queries(1), epoch_id=4), MSGPACK, 409, "epoch_id"),
        (wire.encode_request(some_queries(1), num_pages=701), MSGPACK, 409, "num_pages"),
    ],
)
def test_what_is_refused(
    servers: list[ServerProcess],
    http: httpx.Client,
    body: bytes,
    kind: str,
    status: int,
    field: str,
) -> None:
    problem(ask(http, servers[0].url, body, kind), status, field)


def test_paths_and_methods_that_are_not_there(
    servers: list[ServerProcess], http: httpx.Client
) -> None:
    problem(http.get(servers[0].url + "/nothing"), 404)
    problem(http.get(servers[0].url + QUERY_PATH), 405)
    problem(http.post(servers[0].url + "/epoch"), 405)


def test_a_chunked_body_without_end_is_cut(servers: list[ServerProcess]) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 10_000

    with httpx.Client(trust_env=False, timeout=SECONDS) as http:
        try:
            response = ask(http, servers[0].url, endless(), JSON)
        except (httpx.WriteError, httpx.RemoteProtocolError):
            return  # the server had closed before all was sent
        problem(response, 413)


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_mutated_bodies_never_make_the_server_fail(
    servers: list[ServerProcess], http: httpx.Client, kind: str
) -> None:
    _mutate(servers[0], http, kind, 250)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_thousands_of_mutated_bodies(
    servers: list[ServerProcess], http: httpx.Client, kind: str
) -> None:
    _mutate(servers[0], http, kind, 2000)


def _mutate(server: ServerProcess, http: httpx.Client, kind: str, count: int) -> None:
    choice = random.Random(kind)
    whole = wire.encode_request(some_queries(2), epoch_id=EPOCH, content_type=kind)
    for _ in range(count):
        mutated = bytearray(whole)
        for _ in range(choice.randint(1, 4)):
            at = choice.randrange(len(mutated))
            match choice.randrange(3):
                case 0:
                    mutated[at] = choice.randrange(256)
                case 1:
                    del mutated[at : at + choice.randint(1, 9)]
                case _:
                    mutated[at:at] = choice.randbytes(choice.randint(1, 9))
        response = ask(http, server.url, bytes(mutated), kind)
        if response.status_code != 200:
            assert response.status_code in (400, 409, 413)
            problem(response, response.status_code, response.json().get("field", ""))
    body = wire.encode_request(some_queries(1), content_type=kind)
    assert ask(http, server.url, body, kind).status_code == 200


@pytest.mark.slow
def test_what_the_openapi_document_allows_never_makes_the_server_fail(
    servers: list[ServerProcess],
) -> None:
    paths = {f"POST {QUERY_PATH}", f"POST {SINGLE_PATH}", "GET /epoch"}
    assert paths <= call_all(servers[0].url)


@pytest.mark.slow
def test_what_the_openapi_document_of_authenticated_pages_allows_never_makes_it_fail() -> None:
    seal = sealed_pages(PAGES, PAGE_SIZE, 1)
    with LiveApp(seal.pages, seal=seal) as live:
        assert "GET " + wire.cap_path("{epoch}") in call_all(live.url)


# Metrics


def test_metrics(live: LiveApp, http: httpx.Client) -> None:
    for total in (1, 3):
        ask(http, live.url, wire.encode_request(some_queries(total)), MSGPACK)
    ask(http, live.url, b"", MSGPACK)
    http.get(live.url + "/anything/at/all")
    http.get(live.url + "/health")  # on the same connection: what came before is counted
    text = live.metrics.text().decode()
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["morphogen_queries_total", ("outcome", "answered")] == 4
    assert samples["morphogen_chunk_size_bucket", ("le", "1.0")] == 2
    assert samples["morphogen_chunk_size_bucket", ("le", "2.0")] == 3
    assert samples["morphogen_chunk_size_sum",] == 4
    assert samples["morphogen_epoch",] == EPOCH
    assert samples["morphogen_queue_depth",] == 0
    assert samples["morphogen_server_info", ("device", "cpu"), ("party", "0")] == 1
    for phase, count in (("decode", 2), ("answer", 2), ("encode", 2)):
        assert samples["morphogen_phase_seconds_count", ("phase", phase)] == count
    for path, status, count in (
        (QUERY_PATH, "200", 2),
        (QUERY_PATH, "400", 1),
        ("other", "404", 1),
    ):
        key = ("morphogen_requests_total", ("path", path), ("status", status))
        assert samples[key] == count

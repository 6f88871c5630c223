"""Today's code reads and writes the bytes that were recorded when the wire format was made."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

import morphogen as mg
import morphogen.wire as wire
from morphogen.keyword.file import read_header
from morphogen.wire import JSON, MSGPACK
from naive import naive_answers, open_engine
from recorded_wire import EPOCHS, EXCHANGES, KEYS, RECORD, VECTORS, Exchange, recorded_pages

INFOS = [wire.decode_info(body) for body in EPOCHS]
ANSWERED = [exchange for exchange in EXCHANGES if exchange.status == 200]
each_answered = pytest.mark.parametrize("exchange", ANSWERED, ids=lambda exchange: exchange.name)


def test_all_paths_and_both_encodings_are_recorded() -> None:
    assert {(exchange.path, exchange.kind) for exchange in ANSWERED} == {
        (path, kind) for path in (wire.QUERY_PATH, wire.SINGLE_PATH) for kind in (JSON, MSGPACK)
    }


def asked(exchange: Exchange) -> list[mg.Query]:
    queries = [mg.Query(keys) for keys in KEYS[exchange.party]]
    if exchange.path == wire.SINGLE_PATH:
        return queries[1:]
    return queries[:1] if "names no table" in exchange.name else queries


@each_answered
def test_requests(exchange: Exchange) -> None:
    queries = asked(exchange)
    single = exchange.path == wire.SINGLE_PATH
    info = INFOS[exchange.party]
    got = wire.decode_request(exchange.request, exchange.kind, info, single=single)
    assert got.queries == queries
    named = (None, None) if "names no table" in exchange.name else (5, 1000)
    assert (got.epoch_id, got.num_pages) == named
    if not single:
        body = wire.encode_request(
            queries, epoch_id=named[0], num_pages=named[1], content_type=exchange.kind
        )
        assert body == exchange.request


@each_answered
def test_answers(exchange: Exchange) -> None:
    queries = asked(exchange)
    single = exchange.path == wire.SINGLE_PATH
    info = INFOS[exchange.party]
    table = recorded_pages()
    with open_engine(table, threads=1) as engine:
        pages = engine.answer(queries).pages
    response = wire.BatchResponse(5, 1000, info.digest, pages)
    assert wire.encode_response(response, exchange.kind, single=single) == exchange.response
    if not single:
        got = wire.decode_response(exchange.response, exchange.kind, info, len(queries))
        np.testing.assert_array_equal(got.pages, naive_answers(table, queries))
        assert (got.epoch_id, got.num_pages, got.digest) == (5, 1000, info.digest)


def test_both_answers_give_the_pages() -> None:
    halves = {
        exchange.party: wire.decode_response(
            exchange.response, MSGPACK, INFOS[exchange.party], 2
        ).pages
        for exchange in ANSWERED
        if exchange.name.startswith("a batch in MessagePack")
    }
    np.testing.assert_array_equal(halves[0] ^ halves[1], recorded_pages()[RECORD["rows"]])


@pytest.mark.parametrize("body", EPOCHS, ids=["party 0", "party 1", "keyword table"])
def test_what_a_server_says_of_its_pages(body: bytes) -> None:
    assert msgspec.json.encode(wire.decode_info(body)) == body


def test_the_keyword_layout_is_that_of_the_recorded_file() -> None:
    layout = read_header(VECTORS / "keyword_v1.table").layout
    assert layout is not None
    assert INFOS[2].table == layout.as_dict()

"""Requests and answers as bytes: they are read as they were written, and others are refused."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import numpy as np
import pytest

import morphogen as mg
import morphogen.wire as wire
from morphogen.wire import JSON, MSGPACK, BatchResponse, TableInfo, WireConflictError
from naive import random_pages, random_rows

PAGES, PAGE_SIZE, KEYS = 700, 40, 3
INFO = TableInfo(
    party=0,
    epoch_id=7,
    num_pages=PAGES,
    page_size=PAGE_SIZE,
    keys_per_query=KEYS,
    format_version=1,
    digest="ab" * 32,
    device="cpu",
)
BOTH = pytest.mark.parametrize("kind", [JSON, MSGPACK])


def queries(total: int, party: int = 0, num_pages: int = PAGES, keys: int = KEYS) -> list[mg.Query]:
    return mg.make_queries(random_rows(total, keys, num_pages), num_pages)[party]


def response(total: int) -> BatchResponse:
    pages = random_pages(total * KEYS, PAGE_SIZE).reshape(total, KEYS, PAGE_SIZE)
    return BatchResponse(7, PAGES, INFO.digest, pages)


def as_json(total: int = 2) -> Any:
    return json.loads(wire.encode_request(queries(total), content_type=JSON))


def refused(body: Any, kind: str = JSON, info: TableInfo = INFO, **options: Any) -> mg.WireError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(mg.WireError) as error:
        wire.decode_request(raw, kind, info, **options)
    return error.value


# Requests


@BOTH
@pytest.mark.parametrize("total", [1, 2, 32])
def test_a_request_is_read_as_it_was_written(kind: str, total: int) -> None:
    sent = queries(total)
    body = wire.encode_request(sent, epoch_id=7, num_pages=PAGES, content_type=kind)
    got = wire.decode_request(body, kind, INFO)
    assert (got.queries, got.epoch_id, got.num_pages) == (sent, 7, PAGES)
    assert len(body) <= wire.max_body_bytes(INFO)


@pytest.mark.parametrize("name", ["epoch_id", "num_pages"])
@pytest.mark.parametrize("kind", [wire.JSON, wire.MSGPACK])
def test_a_request_is_not_written_that_no_server_reads(name: str, kind: str) -> None:
    for number in (-1, 2**63, 2**70):
        wrong: Any = {name: number}
        with pytest.raises(
            ValueError, match=rf"^{name} must be in 0\.\.2\*\*63 - 1, not {number}$"
        ):
            wire.encode_request([], content_type=kind, **wrong)
    wrong = {name: 1.0}
    with pytest.raises(TypeError, match=rf"^{name} must be an int, not float$"):
        wire.encode_request([], content_type=kind, **wrong)


def test_the_json_of_a_request_has_just_the_documented_form() -> None:
    (query,) = queries(1)
    body = json.loads(wire.encode_request([query], content_type=JSON))
    assert body == {"queries": [{"keys": ["0x" + key.hex() for key in query.keys]}]}


def test_the_messagepack_of_a_request_has_binary_keys() -> None:
    (query,) = queries(1)
    body = msgspec.msgpack.decode(wire.encode_request([query], epoch_id=1, num_pages=2))
    assert body == {"queries": [{"keys": list(query.keys)}], "epoch_id": 1, "num_pages": 2}


def test_a_request_of_one_query() -> None:
    (query,) = queries(1)
    body = {"keys": ["0x" + key.hex().upper() for key in query.keys], "epoch_id": 7}
    got = wire.decode_request(json.dumps(body).encode(), JSON, INFO, single=True)
    assert got.queries == [query]
    packed = msgspec.msgpack.encode({"keys": list(query.keys)})
    assert wire.decode_request(packed, MSGPACK, INFO, single=True).queries == [query]


def test_the_largest_request_of_the_largest_table_fits_even_indented() -> None:
    info = msgspec.structs.replace(INFO, num_pages=2**40)
    body = wire.encode_request(queries(32, num_pages=2**40), content_type=JSON)
    indented = json.dumps(json.loads(body), indent=2).encode()
    assert len(indented) <= wire.max_body_bytes(info)


@pytest.mark.parametrize("keys", [1, 3])
@pytest.mark.parametrize("num_pages", [1, 2**40])
def test_the_length_of_a_body_tells_the_fewest_queries_in_it(num_pages: int, keys: int) -> None:
    info = msgspec.structs.replace(INFO, num_pages=num_pages, keys_per_query=keys)
    (query,) = queries(1, num_pages=num_pages)
    query = mg.Query(query.keys[:keys])
    for total in range(1, 33):
        packed = wire.encode_request([query] * total, epoch_id=2**62, num_pages=num_pages)
        text = wire.encode_request([query] * total, content_type=JSON)
        indented = json.dumps(json.loads(text), indent=2).encode()
        fewest = [
            wire.fewest_queries(len(body), kind, info)
            for kind, body in ((MSGPACK, packed), (JSON, text), (JSON, indented))
        ]
        assert all(1 <= count <= total for count in fewest)
        assert fewest[0] >= total - 8
    assert wire.fewest_queries(10**9, MSGPACK, info) == 32


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("queries", None, "queries"),
        ("queries", {}, "queries"),
        ("queries", [], "queries"),
        ("queries", [[]], "queries[0]"),
        ("queries", [{}], "queries[0]"),
        ("queries", [{"keys": None}], "queries[0].keys"),
        ("queries", [{"keys": []}], "queries[0].keys"),
        ("queries", [{"keys": [1, 2, 3]}], "queries[0].keys[0]"),
        ("queries", [{"keys": ["0x", "0x", "0x"]}], "queries[0].keys[0]"),
        ("queries", [{"keys": ["0x0", "0x", "0x"]}], "queries[0].keys[0]"),
        ("queries", [{"keys": ["00", "0x", "0x"]}], "queries[0].keys[0]"),
        ("queries", [{"keys": ["0xzz", "0x", "0x"]}], "queries[0].keys[0]"),
        ("queries", [{"keys": ["0X00", "0x", "0x"]}], "queries[0].keys[0]"),
        ("epoch_id", "7", "epoch_id"),
        ("epoch_id", 7.5, "epoch_id"),
        ("epoch_id", 8, "epoch_id"),
        ("epoch_id", -(2**63), "epoch_id"),
        ("num_pages", True, "num_pages"),
        ("num_pages", PAGES - 1, "num_pages"),
    ],
)
def test_errors_name_the_field(name: str, value: Any, field: str) -> None:
    assert refused({**as_json(), name: value}).field == field


def test_hexadecimal_is_read_strictly() -> None:
    body = as_json(1)
    keys = body["queries"][0]["keys"]
    keys[1] = keys[1][:10] + " " * 2 + keys[1][12:]
    error = refused(body)
    assert error.field == "queries[0].keys[1]"
    assert str(error) == "must be 0x and an even number of hexadecimal digits"


def test_fields_that_are_not_known_are_refused_without_their_names() -> None:
    body = as_json()
    body["queries"][1]["secret-4711"] = 1
    assert "4711" not in str(refused(body))
    assert "not known" in str(refused(body))
    assert "not known" in str(refused({**as_json(), "x": 1}))


@pytest.mark.parametrize("total", [33, 40, 1000])
def test_too_many_queries(total: int) -> None:
    error = refused({"queries": [{"keys": []}] * total})
    assert isinstance(error, wire.WireTooManyError)
    assert str(error) == f"there may be at most 32 queries, not {total}"


@pytest.mark.parametrize("keys", [1, 2])
def test_another_number_of_keys(keys: int) -> None:
    body = wire.encode_request(queries(2, keys=keys))
    error = refused(body, MSGPACK)
    assert error.field == "queries[0].keys"
    assert str(error) == f"a query has 3 keys here, not {keys}"


def test_keys_of_the_other_party_are_a_conflict() -> None:
    error = refused(wire.encode_request(queries(2, party=1)), MSGPACK)
    assert isinstance(error, WireConflictError)
    assert error.field == "queries[0].keys[0]"


def test_one_key_of_the_other_party_amid_others_is_a_conflict() -> None:
    body = as_json(3)
    body["queries"][2]["keys"][1] = "0x" + queries(1, party=1)[0].keys[0].hex()
    error = refused(body)
    assert isinstance(error, WireConflictError)
    assert error.field == "queries[2].keys[1]"


def test_keys_of_another_table_are_a_conflict() -> None:
    error = refused(wire.encode_request(queries(1, num_pages=5000)), MSGPACK)
    assert isinstance(error, WireConflictError)
    assert str(error) == "the key is for a table of another size: its n is 13, the table's 10"


@BOTH
def test_bodies_that_are_malformed_or_cut_short(kind: str) -> None:
    whole = wire.encode_request(queries(1), content_type=kind)
    for end in range(len(whole)):
        refused(whole[:end], kind)
    refused(whole + b"\x00", kind)


def test_a_body_nested_without_end() -> None:
    refused(b"[" * 100_000, JSON)
    refused(b"\x91" * 100_000, MSGPACK)


@BOTH
def test_mutated_bodies_raise_wire_errors_and_nothing_else(kind: str) -> None:
    choice = random.Random(5)
    whole = wire.encode_request(queries(2), epoch_id=7, content_type=kind)
    accepted = 0
    for _ in range(3000):
        body = bytearray(whole)
        for _ in range(choice.randint(1, 3)):
            body[choice.randrange(len(body))] = choice.randrange(256)
        try:
            wire.decode_request(bytes(body), kind, INFO)
            accepted += 1
        except mg.WireError:
            continue
    assert accepted < 3000  # many mutations give another key, which is as good as any


def test_messages_carry_no_keys() -> None:
    body = as_json(1)
    key = body["queries"][0]["keys"][0]
    shifted = "0x" + key[66:] + key[2:66]  # begins with its seed
    for bad in (key[:-2], key + "00", key[2:], "0x4d474b32" + key[10:], shifted):
        body["queries"][0]["keys"][0] = bad
        assert key[80:96] not in str(refused(body))
    body["queries"][0]["keys"][0] = shifted
    assert str(refused(body)) == "a key starts with b'MGK1'"


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/jsonp", "json"])
def test_content_types_that_are_not_known(content_type: str) -> None:
    with pytest.raises(mg.WireError) as error:
        wire.media_type(content_type)
    assert error.value.field == "Content-Type"


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON "])
def test_content_types_with_parameters(content_type: str) -> None:
    assert wire.media_type(content_type) == JSON


# Answers


@BOTH
@pytest.mark.parametrize("total", [1, 32])
def test_an_answer_is_read_as_it_was_written(kind: str, total: int) -> None:
    sent = response(total)
    got = wire.decode_response(wire.encode_response(sent, kind), kind, INFO, total)
    np.testing.assert_array_equal(got.pages, sent.pages)
    assert (got.epoch_id, got.num_pages, got.digest) == (7, PAGES, INFO.digest)


def test_the_json_of_an_answer_has_the_documented_form() -> None:
    sent = response(2)
    pages = [["0x" + page.tobytes().hex() for page in row] for row in sent.pages]
    rest = {"epoch_id": 7, "num_pages": PAGES, "digest": INFO.digest}
    assert json.loads(wire.encode_response(sent, JSON)) == {
        "results": [{"pages": row} for row in pages],
        **rest,
    }
    single = json.loads(wire.encode_response(response(1), JSON, single=True))
    assert single == {"pages": ["0x" + p.tobytes().hex() for p in response(1).pages[0]], **rest}


@BOTH
def test_answers_of_another_shape(kind: str) -> None:
    body = wire.encode_response(response(2), kind)
    for expected, info, field in (
        (1, INFO, "results"),
        (3, INFO, "results"),
        (2, msgspec.structs.replace(INFO, keys_per_query=2), "results[0].pages"),
        (2, msgspec.structs.replace(INFO, page_size=41), "results[0].pages[0]"),
        (2, msgspec.structs.replace(INFO, page_size=39), "results[0].pages[0]"),
    ):
        with pytest.raises(mg.WireError) as error:
            wire.decode_response(body, kind, info, expected)
        assert error.value.field == field
    for end in range(0, len(body), 7):
        with pytest.raises(mg.WireError):
            wire.decode_response(body[:end], kind, INFO, 2)


# The description of the pages


def test_the_table_is_read_as_it_was_written() -> None:
    info = msgspec.structs.replace(INFO, table={"seed": "00" * 16})
    assert wire.decode_info(msgspec.json.encode(info)) == info
    sealed = msgspec.structs.replace(info, root=INFO.digest, proof_levels=4)
    assert wire.decode_info(msgspec.json.encode(sealed)) == sealed
    more = {**msgspec.to_builtins(info), "of a later version": 1}
    assert wire.decode_info(json.dumps(more).encode()) == info


def test_pages_without_authentication_are_described_without_a_root() -> None:
    body = json.loads(msgspec.json.encode(INFO))
    assert not {"root", "proof_levels"} & set(body)
    assert body["table"] is None
    nulls = {**body, "root": None, "proof_levels": None}
    assert wire.decode_info(json.dumps(nulls).encode()) == INFO


def test_each_epoch_has_a_path_of_its_own_for_the_cap() -> None:
    assert wire.cap_path(0) == "/epoch/0/cap"
    assert wire.cap_path(2**63 - 1) == "/epoch/9223372036854775807/cap"


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"party": "0"}'])
def test_what_is_no_table(body: bytes) -> None:
    with pytest.raises(mg.WireError):
        wire.decode_info(body)

"""A server of authenticated pages: it states their root, and hands out the cap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

import morphogen as mg
import morphogen.wire as wire
from fake_server import sealed_pages
from morphogen.authentication import Seal, Tree, check_pages, root_of_cap
from morphogen.service import create_app, describe_table
from morphogen.wire import JSON, MSGPACK, QUERY_PATH, SINGLE_PATH
from naive import open_engine, random_pages, random_rows
from served_table import EPOCH, PAGE_SIZE, PAGES, LiveApp, ask, http, problem

__all__ = ["http"]

LEVELS = 1
CAP = wire.cap_path(EPOCH)


@pytest.fixture(scope="module")
def seal() -> Seal:
    return sealed_pages(PAGES, PAGE_SIZE, LEVELS)


@pytest.fixture(scope="module")
def apps(seal: Seal) -> Iterator[tuple[LiveApp, LiveApp]]:
    with LiveApp(seal.pages, seal=seal) as zero, LiveApp(seal.pages, seal=seal, party=1) as one:
        yield zero, one


@pytest.fixture(scope="module")
def app(apps: tuple[LiveApp, LiveApp]) -> LiveApp:
    return apps[0]


def test_the_root_is_stated_as_the_digest_too(app: LiveApp, seal: Seal, http: httpx.Client) -> None:
    described = http.get(app.url + "/epoch").json()
    assert described["root"] == described["digest"] == seal.root.hex()
    assert described["proof_levels"] == LEVELS
    assert described["table"] is None


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
@pytest.mark.parametrize("path", [QUERY_PATH, SINGLE_PATH])
def test_every_answer_states_the_root(
    app: LiveApp, seal: Seal, http: httpx.Client, kind: str, path: str
) -> None:
    query = mg.make_query([1, 2, 3], PAGES)[0]
    keys = [key if kind == MSGPACK else "0x" + key.hex() for key in query.keys]
    body: Any = {"keys": keys} if path == SINGLE_PATH else {"queries": [{"keys": keys}]}
    codec: Any = msgspec.json if kind == JSON else msgspec.msgpack
    response = ask(http, app.url, codec.encode(body), kind, path)
    assert codec.decode(response.content)["digest"] == seal.root.hex()


def test_pages_are_checked_with_the_cap(
    apps: tuple[LiveApp, LiveApp], seal: Seal, http: httpx.Client
) -> None:
    info = wire.decode_info(http.get(apps[0].url + "/epoch").content)
    assert info.proof_levels is not None
    cap = np.frombuffer(http.get(apps[1].url + CAP).content, dtype=np.uint8).reshape(-1, 32)
    root = root_of_cap(cap, info.num_pages, info.page_size, info.proof_levels)
    assert root.hex() == info.root
    rows = random_rows(4, 3, PAGES)
    answers = []
    for app, queries in zip(apps, mg.make_queries(rows, PAGES), strict=True):
        content = ask(http, app.url, wire.encode_request(queries), MSGPACK).content
        answers.append(wire.decode_response(content, MSGPACK, info, 4).pages)
    pages = (answers[0] ^ answers[1]).reshape(-1, PAGE_SIZE)
    assert check_pages(pages, rows.reshape(-1).tolist(), cap, info.proof_levels)
    pages[5, -1] ^= 1
    assert not check_pages(pages, rows.reshape(-1).tolist(), cap, info.proof_levels)


def test_the_cap_comes_whole_and_may_be_kept(app: LiveApp, seal: Seal, http: httpx.Client) -> None:
    got = http.get(app.url + CAP)
    assert got.status_code == 200
    assert got.content == seal.cap.tobytes()
    headers = {name: value for name, value in got.headers.items() if name != "date"}
    assert headers == {
        "content-type": "application/octet-stream",
        "content-length": str(seal.cap.nbytes),
        "cache-control": "public, max-age=31536000, immutable",
        "etag": f'"{seal.root.hex()}"',
    }
    head = http.head(app.url + CAP)
    assert (head.status_code, head.content) == (200, b"")
    assert {**head.headers, "date": ""} == {**got.headers, "date": ""}


@pytest.mark.parametrize("form", ['"{}"', 'W/"{}"', '"other", "{}"', "*", '"a" ,W/"{}",'])
def test_a_cap_that_the_client_has_is_not_sent(
    app: LiveApp, seal: Seal, http: httpx.Client, form: str
) -> None:
    known = {"If-None-Match": form.format(seal.root.hex())}
    for method in ("GET", "HEAD"):
        got = http.request(method, app.url + CAP, headers=known)
        assert (got.status_code, got.content) == (304, b"")
        assert got.headers["ETag"] == f'"{seal.root.hex()}"'
        assert "immutable" in got.headers["Cache-Control"]
    assert http.get(app.url + CAP).content  # the connection is as good as before


@pytest.mark.parametrize("form", ["", '"{}x"', "{}", '"other"', 'W/ "{}"'])
def test_another_cap_that_the_client_has_is_sent_anew(
    app: LiveApp, seal: Seal, http: httpx.Client, form: str
) -> None:
    known = {"If-None-Match": form.format(seal.root.hex())}
    assert http.get(app.url + CAP, headers=known).status_code == 200


@pytest.mark.parametrize("epoch", ["4", "6", "05", "+5", "-5", "5.0", "x", "", "5" * 5000])
def test_no_other_epoch_has_a_cap(app: LiveApp, http: httpx.Client, epoch: str) -> None:
    problem(http.get(app.url + wire.cap_path(epoch)), 404)


def test_pages_that_are_not_authenticated_have_no_cap(http: httpx.Client) -> None:
    with LiveApp(random_pages(PAGES, PAGE_SIZE)) as plain:
        problem(http.get(plain.url + CAP), 404)
        assert not {"root", "proof_levels"} & set(http.get(plain.url + "/epoch").json())
        document = http.get(plain.url + "/schema/openapi.json").json()
    assert not [path for path in document["paths"] if "cap" in path]


def test_the_openapi_document_has_the_cap(app: LiveApp, seal: Seal, http: httpx.Client) -> None:
    document = http.get(app.url + "/schema/openapi.json").json()
    responses = document["paths"][wire.cap_path("{epoch}")]["get"]["responses"]
    assert set(responses) == {"200", "304", "404"}
    assert set(responses["200"]["content"]) == {"application/octet-stream"}
    described = document["paths"]["/epoch"]["get"]["responses"]["200"]["content"][JSON]["schema"]
    assert {"root", "proof_levels"} <= set(described["required"])


def test_requests_for_caps_are_counted_under_one_name(seal: Seal, http: httpx.Client) -> None:
    with LiveApp(seal.pages, seal=seal) as app:
        for path in (CAP, wire.cap_path(4), wire.cap_path("x/y"), CAP + "/z"):
            http.get(app.url + path)
        http.post(app.url + CAP)
        http.get(app.url + "/health")  # on the same connection: what came before is counted
        name = wire.cap_path("{epoch}")
        assert app.metrics.requests[name, "200"] == 1
        assert app.metrics.requests[name, "404"] == 1
        assert app.metrics.requests[name, "405"] == 1
        assert app.metrics.requests["other", "404"] == 2


# What does not belong together


def test_a_root_and_its_cap_go_together(seal: Seal) -> None:
    with open_engine(seal.pages) as engine, mg.MicroBatcher(engine) as batcher:
        info = describe_table(engine, 0, tree=Tree(seal.cap, seal.root))
        plain = describe_table(engine, 0)
        create_app(batcher, info, cap=seal.cap.tobytes())
        with pytest.raises(ValueError, match="need their cap"):
            create_app(batcher, info)
        with pytest.raises(ValueError, match="info has no root"):
            create_app(batcher, plain, cap=seal.cap.tobytes())
        size = seal.cap.nbytes
        for wrong in (b"", seal.cap.tobytes()[:-1], seal.cap.tobytes() + bytes(32)):
            with pytest.raises(ValueError, match=f"has {size} bytes, not {len(wrong)}"):
                create_app(batcher, info, cap=wrong)


def test_a_tree_is_of_these_pages(seal: Seal) -> None:
    with open_engine(seal.pages) as engine:
        with pytest.raises(ValueError, match="over 700 pages has no level of 351 nodes"):
            describe_table(engine, 0, tree=Tree(np.zeros((351, 32), np.uint8), seal.root))
        with pytest.raises(ValueError, match="give one"):
            describe_table(engine, 0, tree=Tree(seal.cap, seal.root), digest="ab" * 32)


@pytest.mark.parametrize(("pages", "most"), [(1, 0), (2, 1), (3, 2), (700, 10), (1024, 10)])
def test_the_cap_tells_the_proof_levels(pages: int, most: int) -> None:
    with open_engine(random_pages(pages, 1)) as engine:
        for levels in range(most + 1):
            cap = np.zeros((-(-pages // 2**levels), 32), np.uint8)
            assert describe_table(engine, 0, tree=Tree(cap, bytes(32))).proof_levels == levels

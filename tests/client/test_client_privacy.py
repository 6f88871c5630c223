"""The servers see nothing of a client that depends on the pages that it reads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from operator import methodcaller
from typing import Any

import msgspec
import pytest

import morphogen.wire as wire
from fake_server import PATIENCE, FakeServer, client, keyword_table, two_servers
from morphogen.client import AsyncClient, Client
from morphogen.errors import MorphogenError, ServerError
from server_faults import altered_pages, dropped, half, instead, problem

Pair = tuple[FakeServer, FakeServer]
TABLE, LAYOUT, ITEMS = keyword_table()


def without_host(headers: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() != "host"]


def shapes(servers: Pair) -> list[list[tuple[Any, ...]]]:
    """The requests to each server, without the bytes of keys and the server's own port.

    Sorted: two messages that are under way at once may overtake each other.
    """
    return [
        sorted(
            (seen.method, seen.path, len(seen.body), *without_host(seen.headers))
            for seen in server.seen
        )
        for server in servers
    ]


def keys(server: FakeServer) -> list[bytes]:
    """All keys that a server got, one by one."""
    return [
        key
        for seen in server.batches
        for query in msgspec.msgpack.decode(seen.body)["queries"]
        for key in query["keys"]
    ]


def seen_of(read: Callable[[Client], Any], spoilt: bool = False) -> list[list[tuple[Any, ...]]]:
    with two_servers(TABLE, layout=LAYOUT) as servers, client(servers) as reader:
        if spoilt:
            servers[0].then(*[altered_pages] * 9)
        read(reader)
        return shapes(servers)


def test_a_lookup_looks_the_same_whatever_the_key() -> None:
    looks = [seen_of(methodcaller("lookup", key)) for key in (*list(ITEMS)[:20], b"", b"none")]
    assert all(look == looks[0] for look in looks)
    assert [[seen[:2] for seen in server] for server in looks[0]] == [
        [("GET", wire.EPOCH_PATH), ("POST", wire.QUERY_PATH)]
    ] * 2


def test_many_lookups_look_the_same_whatever_the_keys() -> None:
    there = list(ITEMS)
    mixes = [there[:35], [b"none"] * 35, [there[0]] * 35, [*there[:34], b"none"]]
    looks = [seen_of(methodcaller("lookup_many", mix)) for mix in mixes]
    assert all(look == looks[0] for look in looks)
    assert [len(server) for server in looks[0]] == [3, 3]


def test_reads_look_the_same_whatever_the_pages() -> None:
    rows = [[0, 0, 0, 0], [0, 1, 2, 3], [9, 9, 9, 9]]
    looks = [seen_of(methodcaller("get", row)) for row in rows]
    assert all(look == looks[0] for look in looks)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_query_is_full_however_few_pages_are_read(count: int) -> None:
    assert seen_of(lambda reader: reader.get([5] * count)) == seen_of(
        lambda reader: reader.get([0, 1, 2])
    )


def test_a_server_that_alters_pages_sees_no_reaction() -> None:
    def read(reader: Client) -> None:
        for key in (b"key 1", b"none", b"key 2"):
            with suppress(MorphogenError):  # the caller may learn of it, the servers must not
                reader.lookup(key)
        reader.lookup_many([b"key %d" % i for i in range(33)])

    assert seen_of(read) == seen_of(read, spoilt=True)


def test_reading_again_sends_fresh_keys_and_as_many() -> None:
    with two_servers(TABLE, layout=LAYOUT) as servers, client(servers) as reader:
        for _ in range(2):
            reader.lookup(b"key 1")
            reader.get([3])
        for server in servers:
            sent = keys(server)
            assert len(sent) == len(set(sent)) == 12
            assert len({seen.shape for seen in server.batches}) == 1


@pytest.mark.parametrize("fault", [dropped, half, instead(problem(429, Retry_After="0"))])
def test_a_retry_sends_the_same_bytes_to_the_same_server(fault: Any) -> None:
    with two_servers() as servers, client(servers) as reader:
        servers[0].then(fault, fault)
        reader.get([4])
        first, *others = servers[0].batches
        assert others == [first, first]
        assert len(servers[1].batches) == 1


def test_no_server_ever_gets_both_halves_of_a_pair() -> None:
    with two_servers() as servers, client(servers) as reader:
        servers[0].then(dropped)
        servers[1].then(instead(problem(409)), half)
        reader.get([4])
        servers[1].then(instead(problem(500)))
        with pytest.raises(ServerError):
            reader.get([5])
        reader.get([6])
        for server in servers:
            assert {key[4] for key in keys(server)} == {server.party}
        # Both halves of a pair have the salt in common.
        salts = [[key[16:32] for key in dict.fromkeys(keys(server))] for server in servers]
        assert all(len(own) == len(set(own)) for own in salts)
        assert set(salts[0]) == set(salts[1])


def test_a_new_epoch_is_asked_with_fresh_keys() -> None:
    with two_servers() as servers, client(servers) as reader:
        for server in servers:
            server.set_table(server.table, epoch=8)
        reader.get([4])
        for server in servers:
            sent = keys(server)
            assert len(sent) == len(set(sent)) == 6


def test_a_server_that_is_gone_is_not_replaced_by_the_other() -> None:
    with two_servers() as servers, client(servers, retries=1) as reader:
        servers[0].close()
        with pytest.raises(ServerError, match=r"connection lost|cannot connect"):
            reader.get([4])
        assert {key[4] for key in keys(servers[1])} == {1}
        assert len(servers[1].batches) == 1


def test_no_cookie_is_kept() -> None:
    with two_servers() as servers, client(servers) as reader:

        def with_cookie(reply: Any) -> Any:
            reply.headers["Set-Cookie"] = "you=1; Path=/"
            return reply

        servers[0].then(with_cookie)
        reader.get([4])
        reader.get([4])
        names = {name.lower() for seen in servers[0].seen for name, _ in seen.headers}
        allowed = {"host", "accept", "accept-encoding", "content-type", "content-length"}
        assert names == allowed


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with two_servers() as servers, client(servers, retries=0) as reader:
        assert (reader.get([4]) == servers[0].table[[4]]).all()


def test_nothing_secret_is_logged_or_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = b"key 1"

    async def read(servers: Pair) -> list[str]:
        errors = []
        async with AsyncClient([s.url for s in servers], timeout=PATIENCE, retries=0) as reader:
            await reader.lookup(key)
            # Servers that repeat what they were sent.
            for fault in (
                instead(problem(400, servers[0].batches[0].body.hex())),
                lambda reply: type(reply)(200, reply.headers, servers[0].batches[0].body),
                lambda reply: type(reply)(200, {"Content-Type": "text/html"}, b""),
            ):
                servers[0].then(fault)
                with pytest.raises(MorphogenError) as failure:
                    await reader.lookup(key)
                errors.append(repr(failure.value) + str(failure.value))
            errors.append(repr(reader))
        return errors

    with two_servers(TABLE, layout=LAYOUT) as servers:
        said = "".join(asyncio.run(read(servers))) + caplog.text
        secrets = [key.decode(), key.hex(), ITEMS[key].decode()]
        for sent in keys(servers[0]) + keys(servers[1]):
            secrets += [sent[32:48].hex(), repr(sent[32:48])[2:-1]]
        assert not [secret for secret in secrets if secret in said]

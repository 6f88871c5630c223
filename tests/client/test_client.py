"""A client reads pages and values from two servers over sockets."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

import morphogen.wire as wire
from fake_server import PATIENCE, FakeServer, client, keyword_table, two_servers
from morphogen.client import AsyncClient, Client
from morphogen.errors import MorphogenError, ServerError, TableMismatchError
from morphogen.keyword import TableLayout
from naive import random_pages
from server_faults import stuck

URLS = ["https://one.example", "https://two.example"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 95, 96, 97, 200])
def test_pages_come_in_the_order_of_the_indices(count: int) -> None:
    wanted = np.random.default_rng(count).integers(0, 50, count)
    with two_servers() as servers, client(servers) as reader:
        assert (reader.get(wanted) == servers[0].table[wanted]).all()


def test_no_indices_are_no_pages_and_no_query() -> None:
    with two_servers() as servers, client(servers) as reader:
        assert reader.get([]).shape == (0, 96)
        assert not servers[0].batches


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([2**63, 1], ValueError, rf"must be in 0\.\.49, not {2**63}$"),
        (np.array([1, 2**64], dtype=object), ValueError, rf"must be in 0\.\.49, not {2**64}$"),
        ([-1], ValueError, r"must be in 0\.\.49, not -1$"),
        ([1.0], TypeError, "^indices must be a sequence of ints: "),
        ([True, False], TypeError, "^indices must be a sequence of ints: "),
    ],
)
def test_indices_that_are_none_ask_for_no_page(
    indices: Any, error: type[Exception], message: str
) -> None:
    with two_servers() as servers, client(servers) as reader:
        with pytest.raises(error, match=message):
            reader.get(indices)
        assert not servers[0].batches


def test_a_table_of_one_page_can_be_read() -> None:
    table = random_pages(1, 5)
    with two_servers(table) as servers, client(servers) as reader:
        assert (reader.get([0, 0]) == table[[0, 0]]).all()


def test_batches_are_cut_at_32_queries() -> None:
    with two_servers() as servers, client(servers) as reader:
        reader.get([3] * 97)
        sizes = {
            len(wire.decode_request(seen.body, wire.MSGPACK, servers[0].info).queries)
            for seen in servers[0].batches
        }
    assert sizes == {32, 1}


def test_each_party_gets_its_keys_whatever_the_order_of_the_urls() -> None:
    with two_servers() as (one, other), client((other, one)) as reader:
        assert reader.info.party == 1
        assert (reader.get([4]) == one.table[[4]]).all()
        for server in (one, other):
            (seen,) = server.batches
            (query,) = wire.decode_request(seen.body, wire.MSGPACK, server.info).queries
            assert {key[4] for key in query.keys} == {server.party}


def test_both_servers_are_asked_at_once() -> None:
    with two_servers() as servers, client(servers) as reader:
        # Each answers only when both were asked.
        servers[0].barrier = servers[1].barrier = threading.Barrier(2)
        assert (reader.get([4]) == servers[0].table[[4]]).all()


def test_threads_may_share_a_client() -> None:
    with two_servers() as servers, client(servers) as reader:
        found: dict[int, Any] = {}

        def read(index: int) -> None:
            found[index] = reader.get([index])[0]

        threads = [threading.Thread(target=read, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert all((found[index] == servers[0].table[index]).all() for index in range(8))


def test_the_async_client_reads_the_same() -> None:
    table, layout, items = keyword_table()

    async def read(urls: list[str]) -> None:
        async with AsyncClient(urls, timeout=PATIENCE) as reader:
            assert reader.info.num_pages == len(table)
            several = await asyncio.gather(*(reader.get([i, 0]) for i in range(3)))
            assert all((pages == table[[i, 0]]).all() for i, pages in enumerate(several))
            assert await reader.lookup(b"key 3") == items[b"key 3"]
            assert await reader.lookup_many([b"absent", b"key 5"]) == [None, items[b"key 5"]]

    with two_servers(table, layout=layout) as servers:
        asyncio.run(read([server.url for server in servers]))


def test_the_async_client_connects_when_it_is_first_used() -> None:
    async def read(servers: tuple[FakeServer, FakeServer]) -> None:
        reader = AsyncClient([server.url for server in servers], timeout=PATIENCE)
        with pytest.raises(MorphogenError, match="connect first"):
            _ = reader.info
        assert (await reader.get([1]) == servers[0].table[[1]]).all()
        await reader.close()

    with two_servers() as servers:
        asyncio.run(read(servers))


def test_keys_are_looked_up() -> None:
    table, layout, items = keyword_table()
    with two_servers(table, layout=layout) as servers, client(servers) as reader:
        assert reader.lookup(b"key 7") == items[b"key 7"]
        assert reader.lookup(b"absent") is None
        keys = [*items, b"absent"] * 2
        assert reader.lookup_many(keys) == [items.get(key) for key in keys]
        assert reader.lookup_many([]) == []


def test_the_layout_is_read_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    from_dict = TableLayout.from_dict

    def counted(data: Any) -> TableLayout:
        read.append(data)
        return from_dict(data)

    monkeypatch.setattr(TableLayout, "from_dict", counted)
    table, layout, items = keyword_table()
    with two_servers(table, layout=layout) as servers, client(servers) as reader:
        for _ in range(3):
            assert reader.lookup(b"key 7") == items[b"key 7"]
        assert len(read) == 1
        for server in servers:
            server.set_table(table, epoch=8)
        for _ in range(3):
            assert reader.lookup(b"key 7") == items[b"key 7"]
        assert reader.info.epoch_id == 8
        assert len(read) == 2


def test_a_lookup_needs_a_keyword_table() -> None:
    with two_servers() as servers, client(servers) as reader:
        with pytest.raises(TableMismatchError, match="pages only"):
            reader.lookup(b"key")
        assert not servers[0].batches


@pytest.mark.parametrize("key", ["text", None, 3, bytearray(b"key")])
def test_a_key_is_bytes(key: Any) -> None:
    table, layout, _ = keyword_table()
    with two_servers(table, layout=layout) as servers, client(servers) as reader:
        with pytest.raises(TypeError, match="a key must be bytes"):
            reader.lookup(key)
        with pytest.raises(TypeError, match="not one bytes"):
            reader.lookup_many(b"key")  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [-1, 50, 2**70])
def test_an_index_beyond_the_table_is_refused_before_anything_is_sent(index: int) -> None:
    with two_servers() as servers, client(servers) as reader:
        with pytest.raises(ValueError, match=rf"must be in 0\.\.49, not {index}"):
            reader.get([0, index])
        with pytest.raises(TypeError, match="ints"):
            reader.get(["3"])  # type: ignore[list-item]
        assert not servers[0].batches


def test_a_closed_client_says_so() -> None:
    with two_servers() as servers:
        reader = client(servers)
        reader.close()
        reader.close()
        with pytest.raises(MorphogenError, match="closed"):
            reader.get([0])


def test_closing_a_client_ends_what_other_threads_wait_for() -> None:
    with two_servers() as servers:
        reader = client(servers)
        servers[0].then(stuck)
        failures: list[Exception] = []

        def read() -> None:
            try:
                reader.get([0])
            except MorphogenError as failure:
                failures.append(failure)

        thread = threading.Thread(target=read)
        thread.start()
        for _ in range(2):  # the epoch, the batch
            assert servers[0].asked.acquire(timeout=PATIENCE)
        reader.close()
        thread.join(PATIENCE)
        assert ["closed meanwhile" in str(failure) for failure in failures] == [True]
        assert len(servers[0].batches) == 1


def test_closing_the_async_client_does_not_send_again() -> None:
    async def read(servers: tuple[FakeServer, FakeServer]) -> None:
        reader = AsyncClient([server.url for server in servers], timeout=PATIENCE, backoff=0.001)
        await reader.connect()
        reading = asyncio.create_task(reader.get([0]))
        for _ in range(2):  # the epoch, the batch
            assert await asyncio.to_thread(servers[0].asked.acquire, timeout=PATIENCE)
        await reader.close()
        with pytest.raises(MorphogenError):
            await reading
        assert len(servers[0].batches) == 1

    with two_servers() as servers:
        servers[0].then(stuck, stuck, stuck)
        asyncio.run(read(servers))


def test_a_client_refuses_to_work_in_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    with two_servers() as servers, client(servers) as reader:
        with monkeypatch.context() as patched:
            patched.setattr(os, "getpid", lambda: -1)
            with pytest.raises(MorphogenError, match="its fork -1"):
                reader.get([0])
            reader.close()  # the parent's connections stay open
        assert (reader.get([4]) == servers[0].table[[4]]).all()


def test_tls_trusts_the_authorities_it_is_given(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    for name, issuer in (("right.pem", authority), ("wrong.pem", stranger)):
        issuer.cert_pem.write_to_path(str(tmp_path / name))
    with two_servers(tls=context) as servers:
        with client(servers, ca_file=tmp_path / "right.pem") as reader:
            assert (reader.get([4]) == servers[0].table[[4]]).all()
        with pytest.raises(MorphogenError, match="certificate is not to be trusted"):
            client(servers, ca_file=tmp_path / "wrong.pem")


def test_a_server_without_tls_is_told_from_one_that_is_away() -> None:
    with two_servers() as servers:
        urls = [server.url.replace("http://", "https://") for server in servers]
        with pytest.raises(ServerError, match="does not speak TLS on this port"):
            Client(urls, timeout=PATIENCE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "timeout must be above 0"),
        ({"timeout": float("nan")}, "timeout must be above 0"),
        ({"retries": -1}, "retries must be 0 or more, not -1"),
        ({"backoff": -1}, "backoff must be 0 or more"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Client(URLS, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": "1"}, "^timeout must be a number of seconds, not str$"),
        ({"retries": 1.5}, "^retries must be an int, not float$"),
    ],
)
def test_options_of_another_type_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Client(URLS, **options)


def test_a_client_is_shown_without_secrets() -> None:
    assert repr(AsyncClient(URLS)) == f"AsyncClient([{URLS[0]!r}, {URLS[1]!r}])"

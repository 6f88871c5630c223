"""A client may be used in one event loop after the other, and says why not in two at once."""

from __future__ import annotations

import asyncio
import gc
import os

import pytest

import morphogen.wire as wire
from fake_server import PATIENCE, FakeServer, keyword_table, two_servers
from morphogen.client import AsyncClient
from morphogen.errors import MorphogenError
from server_faults import stuck

TABLE, LAYOUT, ITEMS = keyword_table()
KEY = b"key 7"


def make_client(servers: tuple[FakeServer, FakeServer]) -> AsyncClient:
    return AsyncClient([server.url for server in servers], timeout=PATIENCE, backoff=0.001)


def test_a_client_is_used_in_one_asyncio_run_after_the_other() -> None:
    with two_servers(TABLE, layout=LAYOUT) as servers:
        reader = make_client(servers)
        for _ in range(4):
            assert asyncio.run(reader.lookup(KEY)) == ITEMS[KEY]
        asyncio.run(reader.close())
        for server in servers:
            # What it knows of the table does not end with a loop.
            assert [seen.path for seen in server.seen] == [wire.EPOCH_PATH, *[wire.QUERY_PATH] * 4]


def test_a_loop_that_ends_takes_its_connections_with_it() -> None:
    async def look_up(reader: AsyncClient) -> None:
        await asyncio.gather(*(reader.lookup(KEY) for _ in range(40)))

    with two_servers(TABLE, layout=LAYOUT) as servers:
        reader = make_client(servers)
        for _ in range(2):
            asyncio.run(look_up(reader))
            gc.collect()  # a socket left open would be a warning here, and warnings are errors
            # The servers see the ends of all their connections.
            for server in servers:
                server.wait_until_idle()
        asyncio.run(reader.close())


def test_a_client_is_used_in_loops_by_turns() -> None:
    with two_servers(TABLE, layout=LAYOUT) as servers:
        reader = make_client(servers)
        with asyncio.Runner() as one, asyncio.Runner() as other:
            for runner in (one, other, one):
                assert runner.run(reader.lookup(KEY)) == ITEMS[KEY]


def test_a_loop_in_which_a_read_was_broken_off_does_not_spoil_the_next() -> None:
    async def give_up(reader: AsyncClient, server: FakeServer) -> None:
        server.then(stuck)
        reading = asyncio.create_task(reader.lookup(KEY))
        for _ in range(2):  # the epoch, the batch
            assert await asyncio.to_thread(server.asked.acquire, timeout=PATIENCE)
        del reading  # asyncio.run cancels it

    with two_servers(TABLE, layout=LAYOUT) as servers:
        reader = make_client(servers)
        asyncio.run(give_up(reader, servers[0]))
        assert asyncio.run(reader.lookup(KEY)) == ITEMS[KEY]
        asyncio.run(reader.close())


def test_two_loops_at_once_are_refused() -> None:
    with two_servers(TABLE, layout=LAYOUT) as servers:
        reader = make_client(servers)

        async def use() -> None:
            await reader.connect()
            failures: list[MorphogenError] = []

            def use_elsewhere() -> None:
                try:
                    asyncio.run(reader.lookup(KEY))
                except MorphogenError as failure:
                    failures.append(failure)

            await asyncio.to_thread(use_elsewhere)
            assert ["another event loop" in str(failure) for failure in failures] == [True]
            assert await reader.lookup(KEY) == ITEMS[KEY]
            await reader.close()

        asyncio.run(use())


def test_a_client_can_be_closed_from_another_loop() -> None:
    with two_servers(TABLE, layout=LAYOUT) as servers:
        reader = make_client(servers)

        async def use() -> None:
            await reader.connect()
            await asyncio.to_thread(asyncio.run, reader.close())
            with pytest.raises(MorphogenError, match="closed"):
                await reader.lookup(KEY)

        asyncio.run(use())


def test_a_client_that_is_dropped_ends_its_connections() -> None:
    async def use(servers: tuple[FakeServer, FakeServer]) -> None:
        reader = make_client(servers)
        await reader.lookup(KEY)
        del reader
        for server in servers:
            await asyncio.to_thread(server.wait_until_idle)

    with two_servers(TABLE, layout=LAYOUT) as servers:
        asyncio.run(use(servers))


def test_a_fork_leaves_the_connections_to_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(reader: AsyncClient) -> None:
        await reader.connect()
        with monkeypatch.context() as patched:
            patched.setattr(os, "getpid", lambda: -1)
            with pytest.raises(MorphogenError, match="its fork -1: make a client in each process"):
                await reader.lookup(KEY)
            await reader.close()
        assert await reader.lookup(KEY) == ITEMS[KEY]
        await reader.close()

    with two_servers(TABLE, layout=LAYOUT) as servers:
        asyncio.run(use(make_client(servers)))


def test_a_client_belongs_to_no_loop_before_it_is_used() -> None:
    with two_servers(TABLE, layout=LAYOUT) as servers:
        reader = make_client(servers)
        asyncio.run(reader.close())
        with pytest.raises(MorphogenError, match="closed"):
            asyncio.run(reader.lookup(KEY))

"""Queries that are asked at once share messages, and what is asked does not show in them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from fake_server import PATIENCE, FakeServer, client, keyword_table, two_servers
from morphogen.client import AsyncClient
from morphogen.errors import MorphogenError, ServerError
from naive import random_pages
from server_faults import Reply, instead, problem

Pair = tuple[FakeServer, FakeServer]
TABLE, LAYOUT, ITEMS = keyword_table()
KEYS = list(ITEMS)


def sizes(server: FakeServer) -> list[int]:
    """The number of queries in each message that a server got.

    Sorted: two messages that are under way at once may overtake each other.
    """
    return sorted(len(msgspec.msgpack.decode(seen.body)["queries"]) for seen in server.batches)


class Gate:
    """Holds the answers of servers to their next messages."""

    def __init__(self, servers: Sequence[FakeServer], messages: int) -> None:
        self._servers = servers
        self._opened = threading.Event()
        for server in servers:
            server.then(*[self._hold] * messages)

    def _hold(self, reply: Reply) -> Reply:
        assert self._opened.wait(PATIENCE)
        return reply

    async def reached(self, messages: int = 1) -> None:
        """Wait until each server has got so many messages more."""
        for server in self._servers:
            for _ in range(messages):
                assert await asyncio.to_thread(server.asked.acquire, timeout=PATIENCE)

    def open(self) -> None:
        self._opened.set()


@asynccontextmanager
async def connected(servers: Pair, **options: Any) -> AsyncIterator[AsyncClient]:
    options = {"timeout": PATIENCE, "backoff": 0.001, **options}
    async with AsyncClient([server.url for server in servers], **options) as reader:
        for server in servers:
            assert server.asked.acquire(timeout=PATIENCE)  # the epoch
        yield reader


async def two_under_way(
    reader: AsyncClient, servers: Pair, keys: Sequence[bytes]
) -> tuple[Gate, list[asyncio.Task[bytes | None]]]:
    """Send a lookup of each of two keys, and hold the answers: what is asked now waits."""
    gate = Gate(servers, 2)
    lookups = []
    for key in keys:
        lookups.append(asyncio.create_task(reader.lookup(key)))
        await gate.reached()
    return gate, lookups


def run(work: Callable[[Pair], Awaitable[Any]], servers: Pair) -> Any:
    async def main() -> Any:
        return await work(servers)

    return asyncio.run(main())


def transcript(keys: list[bytes]) -> list[list[tuple[Any, ...]]]:
    """What each server sees of 72 lookups, of which the first two are under way before the rest."""

    async def look_up(servers: Pair) -> None:
        async with connected(servers) as reader:
            gate, first = await two_under_way(reader, servers, keys[:2])
            rest = [asyncio.create_task(reader.lookup(key)) for key in keys[2:]]
            for _ in range(5):
                await asyncio.sleep(0)
            gate.open()
            assert await asyncio.gather(*first, *rest) == [ITEMS.get(key) for key in keys]

    with two_servers(TABLE, layout=LAYOUT) as servers:
        run(look_up, servers)
        assert sizes(servers[0]) == sizes(servers[1]) == [1, 1, 6, 32, 32]
        return [
            sorted(
                (seen.method, seen.path, len(seen.body), len(seen.headers)) for seen in server.seen
            )
            for server in servers
        ]


def test_what_waits_while_messages_are_under_way_shares_the_next_whatever_it_is() -> None:
    mixes = [KEYS[:72], [b"none"] * 72, [KEYS[0]] * 72, [*KEYS[:36], *[b"none"] * 36]]
    looks = [transcript(mix) for mix in mixes]
    assert all(look == looks[0] for look in looks)


def test_what_is_asked_at_once_shares_messages() -> None:
    async def look_up(servers: Pair) -> None:
        async with connected(servers) as reader:
            found = await asyncio.gather(*(reader.lookup(key) for key in KEYS[:40]))
            assert found == [ITEMS[key] for key in KEYS[:40]]

    with two_servers(TABLE, layout=LAYOUT) as servers:
        run(look_up, servers)
        assert sizes(servers[0]) == sizes(servers[1]) == [8, 32]


def test_reads_and_lookups_share_messages() -> None:
    async def read(servers: Pair) -> None:
        async with connected(servers) as reader:
            pages, value, values = await asyncio.gather(
                reader.get([1, 2, 3, 4]), reader.lookup(KEYS[0]), reader.lookup_many(KEYS[1:4])
            )
            assert (pages == TABLE[[1, 2, 3, 4]]).all()
            assert [value, *values] == [ITEMS[key] for key in KEYS[:4]]

    with two_servers(TABLE, layout=LAYOUT) as servers:
        run(read, servers)
        assert sizes(servers[0]) == sizes(servers[1]) == [6]


def test_two_messages_of_one_read_are_under_way_and_no_third() -> None:
    async def read(servers: Pair) -> None:
        async with connected(servers) as reader:
            gate = Gate(servers, 2)
            reading = asyncio.create_task(reader.lookup_many(KEYS[:130]))
            await gate.reached(2)
            for _ in range(5):
                await asyncio.sleep(0)
            assert sizes(servers[0]) == sizes(servers[1]) == [32, 32]
            gate.open()
            assert await reading == [ITEMS[key] for key in KEYS[:130]]

    with two_servers(TABLE, layout=LAYOUT) as servers:
        run(read, servers)
        assert sizes(servers[0]) == sizes(servers[1]) == [2, 32, 32, 32, 32]


def test_a_long_read_does_not_hold_up_another() -> None:
    async def read(servers: Pair) -> None:
        async with connected(servers) as reader:
            gate = Gate(servers, 2)
            long = asyncio.create_task(reader.lookup_many(KEYS[:64] * 10))
            await gate.reached(2)
            short = asyncio.create_task(reader.lookup(KEYS[0]))
            await asyncio.sleep(0)
            gate.open()
            await short
            assert len(servers[0].batches) <= 6
            assert len(await long) == 640

    with two_servers(TABLE, layout=LAYOUT) as servers:
        run(read, servers)
        assert sum(sizes(servers[0])) == 641


def test_a_fault_of_a_message_reaches_all_that_share_it_and_nobody_else() -> None:
    async def look_up(servers: Pair) -> None:
        async with connected(servers) as reader:
            gate, first = await two_under_way(reader, servers, KEYS[:2])
            servers[1].then(instead(problem(500)))
            rest = [asyncio.create_task(reader.lookup(key)) for key in KEYS[2:12]]
            await asyncio.sleep(0)
            gate.open()
            assert await asyncio.gather(*first) == [ITEMS[key] for key in KEYS[:2]]
            failures = await asyncio.gather(*rest, return_exceptions=True)
            assert {type(failure) for failure in failures} == {ServerError}
            assert len({id(failure) for failure in failures}) == 10
            assert await reader.lookup(KEYS[3]) == ITEMS[KEYS[3]]

    with two_servers(TABLE, layout=LAYOUT) as servers:
        run(look_up, servers)
        assert sizes(servers[0]) == sizes(servers[1]) == [1, 1, 1, 10]


def test_a_lookup_that_is_cancelled_while_it_waits_is_not_sent() -> None:
    async def look_up(servers: Pair) -> None:
        async with connected(servers) as reader:
            gate, first = await two_under_way(reader, servers, KEYS[:2])
            rest = [asyncio.create_task(reader.lookup(key)) for key in KEYS[2:6]]
            await asyncio.sleep(0)
            rest[0].cancel()
            gate.open()
            await asyncio.gather(*first)
            found = await asyncio.gather(*rest, return_exceptions=True)
            assert isinstance(found[0], asyncio.CancelledError)
            assert found[1:] == [ITEMS[key] for key in KEYS[3:6]]

    with two_servers(TABLE, layout=LAYOUT) as servers:
        run(look_up, servers)
        assert sizes(servers[0]) == sizes(servers[1]) == [1, 1, 3]


def test_a_message_all_of_whose_callers_went_away_holds_nobody_up() -> None:
    async def look_up(servers: Pair) -> None:
        async with connected(servers) as reader:
            gate, first = await two_under_way(reader, servers, KEYS[:2])
            for task in first:
                task.cancel()
            assert await reader.lookup(KEYS[5]) == ITEMS[KEYS[5]]  # the gate is shut
            gate.open()

    with two_servers(TABLE, layout=LAYOUT) as servers:
        run(look_up, servers)


def test_a_message_goes_on_while_one_of_its_callers_waits() -> None:
    async def look_up(servers: Pair) -> None:
        async with connected(servers) as reader:
            gate = Gate(servers, 1)
            gone, waiting = (asyncio.create_task(reader.lookup(key)) for key in KEYS[:2])
            await gate.reached()
            gone.cancel()
            gate.open()
            assert await waiting == ITEMS[KEYS[1]]

    with two_servers(TABLE, layout=LAYOUT) as servers:
        run(look_up, servers)
        assert sizes(servers[0]) == [2]


def test_all_that_shared_a_message_follow_a_new_epoch() -> None:
    newer = random_pages(50, 96, seed=1)

    async def read(servers: Pair) -> None:
        async with connected(servers) as reader:
            for server in servers:
                server.set_table(newer, epoch=8)
            found = await asyncio.gather(*(reader.get([page]) for page in range(40)))
            assert all((pages == newer[[page]]).all() for page, pages in enumerate(found))

    with two_servers() as servers:
        run(read, servers)
        for server in servers:
            assert len(server.seen) - len(server.batches) == 2  # each was asked once more


def test_threads_share_messages() -> None:
    with two_servers(TABLE, layout=LAYOUT) as servers, client(servers) as reader:
        gate = Gate(servers, 2)
        threads = [threading.Thread(target=reader.lookup, args=(key,)) for key in KEYS[:20]]
        for thread in threads:
            thread.start()
        for server in servers:
            for _ in range(3):  # the epoch, two messages
                assert server.asked.acquire(timeout=PATIENCE)
        gate.open()
        for thread in threads:
            thread.join(PATIENCE)
        assert sum(sizes(servers[0])) == 20
        assert len(sizes(servers[0])) <= 20


def test_closing_ends_what_waits() -> None:
    async def look_up(servers: Pair) -> None:
        async with connected(servers) as reader:
            gate, tasks = await two_under_way(reader, servers, KEYS[:2])
            tasks += [asyncio.create_task(reader.lookup(key)) for key in KEYS[2:6]]
            await asyncio.sleep(0)
            await reader.close()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(ended, MorphogenError)
                assert "closed" in str(ended)
            with pytest.raises(MorphogenError, match="closed"):
                await reader.lookup(KEYS[0])
            gate.open()

    with two_servers(TABLE, layout=LAYOUT) as servers:
        run(look_up, servers)
        assert sizes(servers[0]) == [1, 1]


@pytest.mark.parametrize("steps", range(12))
def test_lookups_that_are_cancelled_at_any_step_hold_nobody_up(steps: int) -> None:
    async def look_up(servers: Pair) -> None:
        async with connected(servers) as reader:
            for _ in range(3):
                task = asyncio.create_task(reader.lookup(KEYS[0]))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            async with asyncio.timeout(PATIENCE):
                assert await reader.lookup(KEYS[5]) == ITEMS[KEYS[5]]

    with two_servers(TABLE, layout=LAYOUT) as servers:
        run(look_up, servers)

"""Lookups read all fragments of a key at once, in one message, whatever there is of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from fake_server import PATIENCE, FakeServer, client, two_servers
from morphogen.client import AsyncClient
from morphogen.errors import IntegrityError
from sealed_tables import SealedTable, sealed_table
from server_faults import xored_pages

Pair = tuple[FakeServer, FakeServer]


def table_of(fragments: int, proof_levels: int = 2) -> SealedTable:
    """Values of all lengths that so many fragments of 5 bytes have room for."""
    items = {
        b"key %d" % size: bytes((size + at) & 255 for at in range(size))
        for size in range(0, 5 * fragments + 1, max(1, fragments // 2))
    }
    pages = 7 + sum(max(1, -(-len(value) // 5)) for value in items.values()) // 2
    return sealed_table(
        items, num_pages=pages, value_size=5, fragments=fragments, proof_levels=proof_levels
    )


TABLES = {fragments: table_of(fragments) for fragments in (1, 2, 3, 20, 32)}


def served(table: SealedTable) -> Any:
    return two_servers(seal=table.seal, layout=table.layout.as_dict())


def sizes(server: FakeServer) -> list[int]:
    """The number of queries in each message that a server got."""
    return [len(msgspec.msgpack.decode(seen.body)["queries"]) for seen in server.batches]


@pytest.mark.parametrize("fragments", TABLES)
def test_values_of_all_lengths_are_found(fragments: int) -> None:
    table = TABLES[fragments]
    assert max(map(len, table.items.values())) > 5 * (fragments - 1)
    with served(table) as servers, client(servers) as reader:
        assert reader.lookup_many([*table.items, b"none"]) == [*table.items.values(), None]
        assert reader.lookup(b"none") is None
        assert reader.lookup_many([]) == []


@pytest.mark.parametrize("fragments", TABLES)
def test_a_lookup_is_one_message_of_all_fragments_whatever_the_key(fragments: int) -> None:
    table = TABLES[fragments]
    keys = [*list(table.items)[::3], b"none", b""]
    with served(table) as servers, client(servers) as reader:
        for key in keys:
            assert reader.lookup(key) == table.items.get(key)
        for server in servers:
            assert sizes(server) == [fragments] * len(keys)
            assert len({seen.shape for seen in server.batches}) == 1


@pytest.mark.parametrize(
    ("fragments", "keys", "expected"),
    [(1, 33, [1, 32]), (2, 17, [2, 32]), (3, 12, [6, 30]), (20, 3, [20] * 3), (32, 2, [32] * 2)],
)
def test_the_fragments_of_a_key_stay_in_one_message(
    fragments: int, keys: int, expected: list[int]
) -> None:
    table = TABLES[fragments]
    wanted = (list(table.items) * keys)[:keys]
    with served(table) as servers, client(servers) as reader:
        assert reader.lookup_many(wanted) == [table.items[key] for key in wanted]
        assert sorted(sizes(servers[0])) == sorted(sizes(servers[1])) == expected


@pytest.mark.parametrize(
    ("fragments", "expected"),
    [(2, [20]), (3, [29]), (20, [*[20] * 8, 22]), (32, [2, *[32] * 9])],
)
def test_lookups_share_messages_with_others_and_stay_whole(
    fragments: int, expected: list[int]
) -> None:
    table = TABLES[fragments]
    keys = list(table.items)[:9]

    async def read(servers: Pair) -> None:
        urls = [server.url for server in servers]
        async with AsyncClient(urls, timeout=PATIENCE) as reader:
            reading = asyncio.create_task(reader.get(range(5)))
            values = await asyncio.gather(*(reader.lookup(key) for key in keys))
            assert values == [table.items[key] for key in keys]
            assert (await reading == table.seal.pages[:5]).all()

    with served(table) as servers:
        asyncio.run(read(servers))
        assert sorted(sizes(servers[0])) == sorted(sizes(servers[1])) == expected


def seen_of(servers: Pair) -> list[list[tuple[Any, ...]]]:
    return [[seen.shape for seen in server.batches] for server in servers]


@pytest.mark.parametrize("fragments", [2, 3, 20])
def test_a_lie_in_any_fragment_fails_whatever_the_key(fragments: int) -> None:
    table = TABLES[fragments]
    layout = table.layout
    keys = [*list(table.items)[1::5], b"none"]
    outcomes = set()
    with served(table) as servers, client(servers) as reader:
        for fragment in {0, fragments // 2, fragments - 1}:
            for place, byte in ((0, 0), (1, layout.content_size - 1), (2, layout.page_size - 1)):
                errors = np.zeros((fragments, 3, layout.page_size), dtype=np.uint8)
                errors[fragment, place, byte] = 1
                servers[place % 2].then(*[xored_pages(errors)] * len(keys))
                for key in keys:
                    with pytest.raises(IntegrityError) as failure:
                        reader.lookup(key)
                    outcomes.add(repr(failure.value))
        assert len(outcomes) == 1
        assert all(len(set(seen)) == 1 for seen in seen_of(servers))


def mixes(table: SealedTable) -> list[Sequence[bytes]]:
    keys = list(table.items)
    return [keys[:7], [keys[-1]] * 7, [b"none"] * 7, [*keys[:6], b"none"]]


def test_many_lookups_look_the_same_whatever_the_keys() -> None:
    table = TABLES[3]
    looks = []
    for mix in mixes(table):
        with served(table) as servers, client(servers) as reader:
            assert reader.lookup_many(mix) == [table.items.get(key) for key in mix]
            looks.append([[seen[:2] + seen[3:] for seen in each] for each in seen_of(servers)])
    assert all(look == looks[0] for look in looks)


def test_fragments_of_a_table_without_a_root_are_found_too() -> None:
    table = table_of(3, proof_levels=0)
    layout = table.layout.as_dict()
    with two_servers(table.seal.pages, layout=layout) as servers, client(servers) as reader:
        assert reader.lookup_many(table.items) == list(table.items.values())
        assert not reader.authenticated

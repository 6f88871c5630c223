"""A client reads the highest epoch that both servers offer, and never goes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import morphogen.wire as wire
from epoch_servers import TABLES, Pair, assert_reads, keys, publish, servers_of
from fake_server import PATIENCE, FakeServer, client, keyword_table, sealed_pages, two_servers
from morphogen.client import AsyncClient, Client
from morphogen.client.rules import EPOCH_TRIES
from morphogen.errors import EpochMismatchError, IntegrityError, MorphogenError, TableMismatchError
from server_faults import Fault, Reply


@pytest.mark.parametrize(
    ("one", "other", "read"),
    [
        ([7], [7], 7),
        ([7, 8], [7, 8], 8),
        ([7, 8], [7], 7),
        ([7, 8], [8, 9], 8),
        ([5, 6, 7], [7, 8, 9], 7),
        ([5, 7, 9], [5, 6, 7, 8], 7),
        ([8, 5], [5, 8], 8),
    ],
    ids=str,
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_highest_epoch_that_both_offer_is_read(
    one: list[int], other: list[int], read: int, turned: bool
) -> None:
    with servers_of(*((other, one) if turned else (one, other))) as servers:
        with client(servers) as reader:
            assert_reads(reader, read)
        for server in servers:
            (seen,) = server.batches
            assert msgspec.msgpack.decode(seen.body)["epoch_id"] == read


def test_a_server_of_several_epochs_and_one_that_tells_of_one_are_a_pair() -> None:
    with servers_of([7, 8], [7]) as servers:
        servers[1].set_table(TABLES[7], 7)
        assert b"epochs" not in msgspec.json.encode(servers[1].info)
        with client(servers) as reader:
            assert_reads(reader, 7)


@pytest.mark.parametrize(("one", "other"), [([7, 8], [9, 10]), ([8], [7])], ids=str)
def test_servers_without_an_epoch_in_common_are_asked_a_few_times(
    one: list[int], other: list[int]
) -> None:
    with servers_of(one, other) as servers:
        message = f"{servers[0].url} has {one[-1]}.*, {servers[1].url} has {other[-1]}"
        with pytest.raises(EpochMismatchError, match=message):
            client(servers, backoff=0)
        assert [len(server.seen) for server in servers] == [EPOCH_TRIES] * 2


def test_a_client_never_goes_back_to_an_epoch_before_the_one_it_reads() -> None:
    with servers_of([7, 8], [7, 8]) as servers, client(servers, backoff=0) as reader:
        assert_reads(reader, 8)
        for server in servers:
            server.set_table(TABLES[7], 7)
        with pytest.raises(EpochMismatchError, match="up to 7 only, and epoch 8 was read before"):
            reader.get([4])
        publish(servers, 9)
        assert_reads(reader, 9)


def test_an_epoch_that_a_server_holds_no_more_is_read_anew_with_fresh_keys() -> None:
    with servers_of([7], [7]) as servers, client(servers) as reader:

        def switch(reply: Reply) -> Reply:
            publish(servers, 8, keep=1)
            return reply

        servers[0].then(switch)
        wanted = [4] * 960  # ten messages: the table changes when the first is answered
        assert (reader.get(wanted) == TABLES[8][wanted]).all()
        for server in servers:
            sent = keys(server)
            assert len(sent) == len(set(sent))
            by_epoch = [msgspec.msgpack.decode(seen.body)["epoch_id"] for seen in server.batches]
            assert by_epoch.count(8) == 10


def test_a_read_under_way_ends_in_the_epoch_in_which_it_began() -> None:
    with servers_of([7], [7]) as servers, client(servers) as reader:

        def switch(reply: Reply) -> Reply:
            publish(servers, 8)
            return reply

        servers[0].then(switch)
        wanted = [4] * 960
        assert (reader.get(wanted) == TABLES[7][wanted]).all()
        assert [len(server.batches) for server in servers] == [10, 10]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_client_goes_through_switches_of_one_server_after_the_other(
    order: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphogen.client.rules.SECONDS_BETWEEN_NEWS", 0)
    with servers_of([6], [6]) as servers, client(servers) as reader:
        for epoch in (7, 8, 9):
            for party, read in zip(order, (epoch - 1, epoch), strict=True):
                servers[party].publish(TABLES[epoch], epoch)
                reader.get([0])  # the answer tells of it
                assert_reads(reader, read)


# Authenticated tables


SEALS = {epoch: sealed_pages(48 + epoch) for epoch in (7, 8)}


def publish_sealed(servers: Pair, epoch: int, **options: Any) -> None:
    for server in servers:
        server.publish(SEALS[epoch].pages, epoch, seal=SEALS[epoch], **options)


def test_the_cap_of_a_new_epoch_is_taken_before_a_key_of_it_is_sent() -> None:
    with two_servers(seal=SEALS[7]) as servers, client(servers) as reader:
        reader.get([4])
        publish_sealed(servers, 8, keep=1)
        assert (reader.get([54]) == SEALS[8].pages[[54]]).all()
        assert reader.root == SEALS[8].root
        assert [seen.path for seen in servers[0].seen][3:] == [
            wire.QUERY_PATH,  # refused: 409
            wire.EPOCH_PATH,
            wire.cap_path(8),
            wire.QUERY_PATH,
        ]


def test_a_cap_in_the_folder_is_not_asked_for(tmp_path: Any) -> None:
    with two_servers(seal=SEALS[7]) as servers:
        publish_sealed(servers, 8)
        client(servers, cache_dir=tmp_path).close()
        for server in servers:
            server.set_table(SEALS[7].pages, 7, seal=SEALS[7])
        with client(servers, cache_dir=tmp_path) as reader:
            publish_sealed(servers, 8, keep=1)
            assert (reader.get([54]) == SEALS[8].pages[[54]]).all()
        asked = [seen.path for seen in servers[0].seen]
        assert asked.count(wire.cap_path(8)) == 1


def test_pages_of_the_epoch_before_are_refused_in_a_new_one() -> None:
    with two_servers(seal=SEALS[7]) as servers:
        publish_sealed(servers, 8)
        with client(servers) as reader:
            for server in servers:
                server.held[0] = type(server.held[0])(8, SEALS[7].pages, SEALS[8])
                server.said = {"num_pages": len(SEALS[8].pages)}

            def as_before(reply: Reply) -> Reply:
                answer = msgspec.msgpack.decode(reply.body)
                answer["num_pages"] = len(SEALS[8].pages)
                return Reply(reply.status, reply.headers, msgspec.msgpack.encode(answer))

            for server in servers:
                server.lie(as_before)
            with pytest.raises(IntegrityError):
                reader.get([4])


def test_a_pinned_root_is_read_for_as_long_as_both_servers_offer_it() -> None:
    with two_servers(seal=SEALS[7]) as servers:
        publish_sealed(servers, 8)
        with client(servers, root=SEALS[7].root) as reader:
            assert (reader.get([4]) == SEALS[7].pages[[4]]).all()
            assert reader.info.epoch_id == 7
            for server in servers:
                server.held.pop()
            with pytest.raises(TableMismatchError, match="of epoch 8 has another root"):
                reader.get([4])


# What the servers see of a switch


LAYOUT_TABLE, LAYOUT, ITEMS = keyword_table()


def shapes(servers: Pair) -> list[list[tuple[Any, ...]]]:
    return [
        [(seen.method, seen.path, len(seen.body), len(seen.headers)) for seen in server.seen]
        for server in servers
    ]


def seen_through_switches(read: Callable[[Client], Any], order: tuple[int, int], keep: int) -> Any:
    """What both servers see of reads while one and then the other goes on by an epoch."""
    with two_servers(LAYOUT_TABLE, layout=LAYOUT) as servers, client(servers) as reader:
        for epoch in (8, 9, 10):
            for party in order:
                read(reader)
                # While the next message is under way, before it is answered.
                servers[party].then(_publishing(servers[party], epoch, keep))
        read(reader)
        return shapes(servers)


def _publishing(server: FakeServer, epoch: int, keep: int) -> Fault:
    def publish(reply: Reply) -> Reply:
        server.publish(LAYOUT_TABLE, epoch, keep=keep)
        return reply

    return publish


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("keep", [1, 2])
def test_what_the_servers_see_of_a_switch_does_not_depend_on_what_is_asked(
    order: tuple[int, int], keep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphogen.client.rules.SECONDS_BETWEEN_NEWS", 0)
    monkeypatch.setattr("morphogen.client.rules.EPOCH_TRIES", 1)

    def look_up(key: bytes) -> Callable[[Client], Any]:
        def read(reader: Client) -> None:
            try:
                assert reader.lookup(key) == ITEMS.get(key)
            except EpochMismatchError:  # between the two, if one server keeps no older epoch
                assert keep == 1

        return read

    looks = [
        seen_through_switches(look_up(key), order, keep) for key in (*list(ITEMS)[:6], b"", b"none")
    ]
    assert all(look == looks[0] for look in looks)
    assert {path for _, path, *_ in looks[0][0]} == {wire.EPOCH_PATH, wire.QUERY_PATH}


def test_tasks_that_share_a_client_each_end_in_one_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morphogen.client.rules.SECONDS_BETWEEN_NEWS", 0)
    rows = [[index, 7, index, 9] for index in range(40)]

    async def read(servers: Pair) -> None:
        async with AsyncClient(
            [server.url for server in servers], timeout=PATIENCE, backoff=0
        ) as reader:
            for epoch in (7, 8, 9):
                for party in (epoch % 2, 1 - epoch % 2):
                    servers[party].then(_switching(servers[party], epoch))
                    found = await asyncio.gather(*(reader.get(row) for row in rows))
                    for row, pages in zip(rows, found, strict=True):
                        assert any(
                            (pages == TABLES[e][row]).all() for e in (epoch - 2, epoch - 1, epoch)
                        )
            assert (await reader.get([4]) == TABLES[reader.info.epoch_id][[4]]).all()
            assert reader.info.epoch_id >= 8

    with servers_of([6], [6]) as servers:
        asyncio.run(read(servers))


def _switching(server: FakeServer, epoch: int) -> Fault:
    def publish(reply: Reply) -> Reply:
        server.publish(TABLES[epoch], epoch)
        return reply

    return publish


def test_a_mixed_answer_is_never_put_together() -> None:
    with servers_of([7, 8], [7]) as servers, client(servers, backoff=0) as reader:

        def later(reply: Reply) -> Reply:
            """What a server says that takes its newest table, whatever it was asked for."""
            answer = msgspec.msgpack.decode(reply.body)
            answer |= {"epoch_id": 8, "digest": servers[0].held[0].digest}
            return Reply(reply.status, reply.headers, msgspec.msgpack.encode(answer))

        servers[0].lie(later)
        with pytest.raises(EpochMismatchError, match="answered from another epoch than 7"):
            reader.get([4])
        servers[0].lies.clear()
        assert_reads(reader, 7)
    assert issubclass(EpochMismatchError, MorphogenError)

"""Servers that disagree or lie about epochs: what both vouch for is read, or nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import morphogen.wire as wire
from epoch_servers import TABLES, assert_reads, publish, servers_of
from fake_server import FakeServer, client
from morphogen.client.epochs import MAX_EPOCH, MAX_OFFERS
from morphogen.errors import ServerError, TableMismatchError
from server_faults import Reply


def alter(server: FakeServer, *epochs: int) -> None:
    """Let a server hold another table in these epochs."""
    server.held[:] = [
        type(each)(each.epoch, TABLES[10], None) if each.epoch in epochs else each
        for each in server.held
    ]


@pytest.mark.parametrize(("altered", "read"), [(8, 7), (7, 8)])
@pytest.mark.parametrize("party", [0, 1])
def test_an_epoch_about_which_servers_differ_is_passed_over(
    altered: int, read: int, party: int, caplog: pytest.LogCaptureFixture
) -> None:
    with servers_of([7, 8], [7, 8]) as servers:
        alter(servers[party], altered)
        with client(servers) as reader:
            assert_reads(reader, read)
            assert_reads(reader, read)
    told = [record.getMessage() for record in caplog.records]
    if altered > read:
        (message,) = told
        assert "disagree about the table of epoch 8: digest differs" in message
        assert message.endswith("Epoch 7 is read")
    else:
        assert told == []


@pytest.mark.parametrize("party", [0, 1])
def test_servers_that_differ_about_all_epochs_are_refused(party: int) -> None:
    with servers_of([7, 8], [7, 8]) as servers:
        alter(servers[party], 7, 8)
        with pytest.raises(TableMismatchError, match="table of epoch 8: digest differs"):
            client(servers)
        assert [len(server.seen) for server in servers] == [1, 1]


def test_servers_that_differ_about_all_that_was_not_read_before_are_refused() -> None:
    with servers_of([7, 8], [7, 8]) as servers, client(servers) as reader:
        assert_reads(reader, 8)
        for server in servers:
            server.set_table(TABLES[7], 7)
        servers[0].publish(TABLES[9], 9)
        servers[1].publish(TABLES[10], 9)
        with pytest.raises(TableMismatchError, match="table of epoch 9: digest differs"):
            reader.get([4])


@pytest.mark.parametrize("party", [0, 1])
def test_an_epoch_that_changed_is_refused_although_there_is_a_later_one(party: int) -> None:
    with servers_of([7], [7]) as servers, client(servers) as reader:
        assert_reads(reader, 7)
        publish(servers, 8, keep=1)
        old, new = servers[party].info_of(servers[party].current), servers[party].info
        false = msgspec.structs.replace(old, epoch_id=7, digest="0" * 64)
        servers[party].said = {"epochs": wire.with_epochs([new, false]).epochs}
        with pytest.raises(TableMismatchError, match="not its epoch 7: digest differs"):
            reader.get([4])


def test_what_was_refused_is_asked_about_again_and_not_read_around() -> None:
    with servers_of([7], [7]) as servers, client(servers) as reader:
        servers[0].publish(TABLES[8], 8, keep=1)
        servers[1].publish(TABLES[9], 8)
        for _ in range(3):
            with pytest.raises(TableMismatchError, match="table of epoch 8"):
                reader.get([4])
        # One message found out that the epoch is over. No other was sent.
        assert [len(server.batches) for server in servers] == [1, 1]
        servers[1].publish(TABLES[8], 8, keep=1)
        assert_reads(reader, 8)


def epochs_of(server: FakeServer, *changes: dict[str, Any]) -> dict[str, Any]:
    """What a server says if its epochs are changed copies of its current one."""
    infos = [msgspec.structs.replace(server.info, **change) for change in changes]
    return {"epochs": wire.with_epochs(infos).epochs}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], rf"epochs must be 1 to {MAX_OFFERS}, not 0"),
        (
            [{"epoch_id": epoch} for epoch in range(MAX_OFFERS + 1)],
            rf"epochs must be 1 to {MAX_OFFERS}, not {MAX_OFFERS + 1}",
        ),
        ([{}, {}], "epochs has one epoch twice"),
        ([{}, {"epoch_id": 8}, {"epoch_id": 8, "num_pages": 3}], "epochs has one epoch twice"),
        ([{"epoch_id": 8}], "does not have the current epoch as it is described"),
        ([{"digest": "0" * 64}], "does not have the current epoch as it is described"),
        ([{"num_pages": 51}], "does not have the current epoch as it is described"),
        ([{"manifest": "0" * 512}], "does not have the current epoch as it is described"),
        ([{}, {"epoch_id": -1}], r"epoch_id must be in 0\.\.9223372036854775807, not -1"),
        ([{}, {"epoch_id": MAX_EPOCH + 1}], r"epoch_id must be in 0\.\.9223372036854775807$"),
        ([{}, {"epoch_id": 8, "num_pages": 0}], "num_pages must be in"),
        ([{}, {"epoch_id": 8, "page_size": 2**70}], "page_size must be in"),
        ([{}, {"epoch_id": 8, "keys_per_query": 4}], "keys_per_query must be in"),
        ([{}, {"epoch_id": 8, "digest": "x"}], "digest must be 64 hexadecimal digits"),
        ([{}, {"epoch_id": 8, "root": "0" * 64}], "root without proof levels"),
        ([{}, {"epoch_id": 6, "proof_levels": 3}], "root without proof levels, or these without"),
        ([{}, {"epoch_id": 6, "manifest": "0" * 511}], "manifest must be 512 hexadecimal digits"),
        ([{}, {"epoch_id": 6, "manifest": "G" * 512}], "manifest must be 512 hexadecimal digits"),
    ],
)
@pytest.mark.parametrize("party", [0, 1])
def test_epochs_that_cannot_be_are_refused_before_a_key_is_sent(
    changes: list[dict[str, Any]], message: str, party: int
) -> None:
    with servers_of([7], [7]) as servers:
        servers[party].said = epochs_of(servers[party], *changes) if changes else {"epochs": []}
        with pytest.raises(ServerError, match=f"^{servers[party].url}: .*{message}"):
            client(servers)
        assert not servers[0].batches
        assert not servers[1].batches


@pytest.mark.parametrize("value", ["x", {}, 7, [7], [{}], [{"epoch_id": 7}], [None]], ids=str)
def test_epochs_of_another_form_are_refused(value: Any) -> None:
    def altered(reply: Reply) -> Reply:
        body = {**msgspec.json.decode(reply.body), "epochs": value}
        return Reply(reply.status, reply.headers, msgspec.json.encode(body))

    with servers_of([7], [7]) as servers:
        servers[1].then(altered, path=wire.EPOCH_PATH)
        with pytest.raises(ServerError, match="malformed answer about its table"):
            client(servers)


def test_as_many_epochs_as_may_be_are_read() -> None:
    with servers_of([7], [7]) as servers:
        changes = [{"epoch_id": epoch} for epoch in range(MAX_OFFERS)]
        servers[0].said = epochs_of(servers[0], *changes)
        with client(servers) as reader:
            assert_reads(reader, 7)

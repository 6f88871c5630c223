"""A client reads only of a table that has the root it must have, and asks before it sends a key."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
import morphogen.wire as wire
from fake_server import PATIENCE, FakeServer, client, keyword_table, sealed_pages, two_servers
from morphogen.authentication import seal_pages
from morphogen.client import AsyncClient, Client
from morphogen.client.rules import EPOCH_TRIES
from morphogen.errors import (
    EpochMismatchError,
    IntegrityError,
    MorphogenError,
    ServerError,
    TableMismatchError,
)
from sealed_tables import numbered_items, sealed_table
from server_faults import altered_answer, instead, problem, xored_pages

ROOT_FOLDER = Path(__file__).resolve().parents[2]
TABLE = sealed_table(numbered_items())
SEAL = sealed_pages()
ROOT = SEAL.root
OTHER = sealed_pages(51)
URLS = ["https://one.example", "https://two.example"]


def assert_no_key_was_sent(servers: tuple[FakeServer, FakeServer]) -> None:
    assert not servers[0].batches
    assert not servers[1].batches


@pytest.mark.parametrize(
    "root",
    [None, ROOT, ROOT.hex(), ROOT.hex().upper()],
    ids=["none", "bytes", "lower case", "upper case"],
)
@pytest.mark.parametrize("verify", [None, True])
def test_pages_of_a_table_with_a_root_are_checked(root: Any, verify: bool | None) -> None:
    with two_servers(seal=SEAL) as servers, client(servers, root=root, verify=verify) as reader:
        assert reader.authenticated
        assert reader.root == ROOT
        assert (reader.get([4, 49]) == SEAL.pages[[4, 49]]).all()
        servers[1].then(xored_pages(np.ones(96, dtype=np.uint8)))
        with pytest.raises(IntegrityError):
            reader.get([4])


def test_values_are_found_and_misses_proven_in_a_table_with_a_root() -> None:
    with (
        two_servers(seal=TABLE.seal, layout=TABLE.layout.as_dict()) as servers,
        client(servers, root=TABLE.seal.root) as reader,
    ):
        assert reader.authenticated
        assert reader.lookup_many(TABLE.items) == list(TABLE.items.values())
        assert reader.lookup(b"none") is None


def test_the_example_of_the_reference_reads_a_checked_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT_FOLDER / "docs/reference/client.md").read_text(encoding="utf-8")
    (block,) = [
        block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "root=" in block
    ]
    monkeypatch.chdir(tmp_path)
    with two_servers(seal=TABLE.seal, layout=TABLE.layout.as_dict()) as servers:
        names: dict[str, Any] = {
            "mg": mg,
            "urls": [server.url for server in servers],
            "root": TABLE.seal.root,
        }
        exec(block, names)
        with names["client"] as reader:
            assert (names["value"], reader.authenticated) == (b"value 3", True)


def test_pages_of_a_table_without_a_root_are_not_checked() -> None:
    with two_servers() as servers, client(servers) as reader:
        assert not reader.authenticated
        assert reader.root is None
        assert (reader.get([4]) == servers[0].table[[4]]).all()


def test_pages_are_not_checked_if_the_user_wants_none_checked() -> None:
    with two_servers(seal=SEAL) as servers, client(servers, verify=False) as reader:
        assert not reader.authenticated
        assert reader.root is None
        servers[1].then(xored_pages(np.ones(96, dtype=np.uint8)))
        assert (reader.get([4]) == SEAL.pages[[4]] ^ 1).all()
        assert all(server.seen[0].path == wire.EPOCH_PATH for server in servers)
        assert len(servers[0].seen) == len(servers[1].seen) == 2  # no cap was asked for


def test_what_is_checked_is_not_known_before_the_servers_were_asked() -> None:
    reader = AsyncClient(URLS, root=ROOT)
    for name in ("authenticated", "root"):
        with pytest.raises(MorphogenError, match="have not been asked yet"):
            getattr(reader, name)
    asyncio.run(reader.close())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"root": 5}, TypeError, "^root must be bytes or a str, not int$"),
        ({"root": bytearray(32)}, TypeError, "^root must be bytes or a str, not bytearray$"),
        ({"root": bytes(31)}, ValueError, "^root must have 32 bytes, not 31$"),
        ({"root": b""}, ValueError, "^root must have 32 bytes, not 0$"),
        ({"root": "00" * 31}, ValueError, "^root must be 64 hexadecimal digits, not 62$"),
        (
            {"root": "0x" + "00" * 31},
            ValueError,
            "^root must be 64 hexadecimal digits, not 64 characters with 'x' among them$",
        ),
        ({"root": "\N{DIGIT ONE}\N{FULLWIDTH DIGIT ONE}" * 32}, ValueError, "64 hexadecimal"),
        ({"root": "00" * 32 + "\n"}, ValueError, r", not 65 characters with '\\n' among them$"),
        ({"verify": 1}, TypeError, "^verify must be a bool or None, not int$"),
        ({"verify": "yes"}, TypeError, "^verify must be a bool or None, not str$"),
        ({"root": ROOT, "verify": False}, ValueError, "^verify=False checks no page"),
        ({"cache_dir": 5}, TypeError, "not '?int'?$"),
        ({"cache_dir": ""}, ValueError, "^cache_dir must name a folder, not ''$"),
    ],
)
def test_demands_that_are_none_are_refused(
    options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        AsyncClient(URLS, **options)
    with pytest.raises(error, match=message):
        Client(URLS, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": ROOT}, "of epoch 7 has no root"),
        ({"verify": True}, "of epoch 7 has no root"),
    ],
    ids=["root", "verify"],
)
def test_a_table_without_a_root_is_refused_if_it_must_have_one(options: Any, message: str) -> None:
    with two_servers() as servers:
        with pytest.raises(TableMismatchError, match=message):
            client(servers, **options)
        assert_no_key_was_sent(servers)


def test_a_table_of_another_root_than_the_pinned_is_refused() -> None:
    with two_servers(seal=SEAL) as servers:
        with pytest.raises(TableMismatchError, match="of epoch 7 has another root"):
            client(servers, root=OTHER.root)
        assert_no_key_was_sent(servers)
        assert [len(server.seen) for server in servers] == [1, 1]


@pytest.mark.parametrize(
    ("party", "options"),
    [(0, {}), (1, {}), (1, {"verify": True, "root": ROOT})],
    ids=["first", "second", "second, with demands"],
)
@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({"root": None, "proof_levels": None}, TableMismatchError, "stated by one, and left out"),
        ({"root": None}, ServerError, "root without proof levels, or these without"),
        ({"proof_levels": None}, ServerError, "root without proof levels, or these without"),
        ({"root": "0" * 64}, ServerError, "root must be the digest"),
        ({"digest": "0" * 64}, ServerError, "root must be the digest"),
        ({"root": "0" * 64, "digest": "0" * 64}, TableMismatchError, "digest differs"),
        ({"root": "x", "digest": "x"}, ServerError, "digest must be 64"),
        ({"proof_levels": 1}, TableMismatchError, "proof_levels is [12] and [12]"),
        ({"proof_levels": 7}, ServerError, "proof_levels is more than"),
        ({"proof_levels": -1}, ServerError, "proof_levels is more than"),
        ({"proof_levels": 10**30}, ServerError, "proof_levels is more than"),
        ({"proof_levels": 3}, ServerError, "its pages are all proof levels"),
        ({"epoch_id": 8}, EpochMismatchError, "different epochs"),
    ],
    ids=str,
)
def test_servers_that_do_not_state_one_root_are_refused(
    said: dict[str, Any], error: type[MorphogenError], message: str, party: int, options: Any
) -> None:
    with two_servers(seal=SEAL) as servers:
        servers[party].said = said
        with pytest.raises(error, match=message):
            client(servers, **options, backoff=0)
        assert_no_key_was_sent(servers)
        paths = {seen.path for server in servers for seen in server.seen}
        assert paths == {wire.EPOCH_PATH}  # no cap of a table that is refused


def test_a_root_over_a_keyword_layout_without_one_is_refused() -> None:
    table, layout, _ = keyword_table()
    layout = {name: layout[name] for name in layout if name not in ("fragments", "proof_levels")}
    seal = seal_pages(table, table.shape[1], 0)
    with two_servers(seal=seal, layout={**layout, "version": 1}) as servers:
        with pytest.raises(TableMismatchError, match="keyword layout has version 1"):
            client(servers)
        assert_no_key_was_sent(servers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slots_per_page", 3),
        ("value_size", 7),
        ("entries", 19),
        ("fragments", 2),
        ("seed", "0" * 32),
    ],
)
def test_a_keyword_layout_that_the_root_does_not_vouch_for_is_refused(
    name: str, value: Any
) -> None:
    layout = TABLE.layout.as_dict()
    assert layout[name] != value
    with two_servers(seal=TABLE.seal, layout={**layout, name: value}) as servers:
        with pytest.raises(ServerError, match="its cap is not that of the table's root"):
            client(servers)
        assert_no_key_was_sent(servers)


@pytest.mark.parametrize(
    "change", [{"proof_levels": 1}, {"seed": None}, {"num_pages": 12}, {"version": 3}], ids=str
)
def test_a_keyword_layout_that_is_not_of_the_pages_is_refused(change: dict[str, Any]) -> None:
    layout = {**TABLE.layout.as_dict(), **change}
    with two_servers(seal=TABLE.seal, layout=layout) as servers:
        with pytest.raises(TableMismatchError, match="keyword layout"):
            client(servers)
        assert_no_key_was_sent(servers)


def test_the_next_table_is_refused_if_the_root_is_pinned_and_taken_if_not() -> None:
    for options, expected in (
        ({"root": ROOT}, None),
        ({}, OTHER.root),
        ({"verify": True}, OTHER.root),
    ):
        with two_servers(seal=SEAL) as servers, client(servers, **options) as reader:
            reader.get([4])
            for server in servers:
                server.set_table(OTHER.pages, epoch=8, seal=OTHER)
            sent = [len(server.batches) for server in servers]
            if expected is None:
                with pytest.raises(TableMismatchError, match="of epoch 8 has another root"):
                    reader.get([4])
                # One message found out that the epoch is another; no other was sent.
                assert [len(server.batches) for server in servers] == [one + 1 for one in sent]
            else:
                assert (reader.get([4]) == OTHER.pages[[4]]).all()
                assert reader.root == expected


@pytest.mark.parametrize(
    "said",
    [{"num_pages": 10}, {"num_pages": 12}, {"table": {"slots_per_page": 3}}, {"table": None}],
    ids=str,
)
def test_a_next_table_that_the_old_root_does_not_vouch_for_is_refused(
    said: dict[str, Any],
) -> None:
    """Both servers lie: the cap that is in memory says nothing of another shape or layout."""
    layout = TABLE.layout.as_dict()
    with (
        two_servers(seal=TABLE.seal, layout=layout) as servers,
        client(servers, root=TABLE.seal.root) as reader,
    ):
        assert reader.lookup(b"key 3") == b"value 3"
        changed = {name: value for name, value in said.items() if name == "num_pages"}
        for server in servers:
            server.set_table(server.table, epoch=8, seal=server.seal)
            table = said.get("table", {})
            server.said = {
                "epoch_id": 8,
                **said,
                "table": None if table is None else {**layout, **table, **changed},
            }
        with pytest.raises(ServerError, match="its cap is not that of the table's root"):
            reader.lookup(b"key 3")


def test_a_next_table_without_a_root_is_read_unchecked_unless_it_must_have_one() -> None:
    with (
        two_servers(seal=SEAL) as servers,
        client(servers) as one,
        client(servers, verify=True) as other,
    ):
        for server in servers:
            server.set_table(SEAL.pages, epoch=8)
        assert (one.get([4]) == SEAL.pages[[4]]).all()
        assert not one.authenticated
        with pytest.raises(TableMismatchError, match="of epoch 8 has no root"):
            other.get([4])


def test_servers_of_different_epochs_are_asked_a_few_times_and_sent_no_key() -> None:
    with two_servers(seal=SEAL) as servers:
        servers[1].set_table(OTHER.pages, epoch=8, seal=OTHER)
        with pytest.raises(EpochMismatchError, match="different epochs"):
            client(servers, backoff=0)
        assert [len(server.seen) for server in servers] == [EPOCH_TRIES] * 2
        assert_no_key_was_sent(servers)


@pytest.mark.parametrize("party", [0, 1])
def test_an_answer_that_states_another_root_is_refused(party: int) -> None:
    with two_servers(seal=SEAL) as servers, client(servers) as reader:
        servers[party].then(altered_answer(digest=OTHER.root.hex()))
        with pytest.raises(TableMismatchError, match="digest is not that of /epoch"):
            reader.get([4])


def test_a_read_is_checked_against_the_epoch_that_answered_it() -> None:
    async def read(urls: list[str]) -> None:
        async with AsyncClient(urls, timeout=PATIENCE, backoff=0) as reader:
            await reader.get([4])
            for server in servers:
                server.set_table(OTHER.pages, epoch=8, seal=OTHER)
            found = await asyncio.gather(*(reader.get([page]) for page in range(40)))
            assert all((page == OTHER.pages[at]).all() for at, page in enumerate(found))
            assert reader.root == OTHER.root

    with two_servers(seal=SEAL) as servers:
        asyncio.run(read([server.url for server in servers]))
        caps = [seen.path for seen in servers[0].seen if seen.path.endswith("/cap")]
        assert caps == [wire.cap_path(7), wire.cap_path(8)]


def test_a_message_that_one_server_refuses_for_its_epoch_is_read_again_and_checked() -> None:
    with two_servers(seal=SEAL) as servers, client(servers) as reader:
        servers[1].then(instead(problem(409)))
        # What the other answered to the first message is of no account.
        servers[0].then(xored_pages(np.ones(96, dtype=np.uint8)))
        assert (reader.get([4]) == SEAL.pages[[4]]).all()
        assert [len(server.batches) for server in servers] == [2, 2]

"""The epochs of a server are read out of its description as they were written into it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from msgspec.structs import replace

import morphogen.wire as wire
from morphogen.wire import EpochInfo, TableInfo

INFO = TableInfo(
    party=1,
    epoch_id=7,
    num_pages=700,
    page_size=40,
    keys_per_query=3,
    format_version=1,
    digest="ab" * 32,
    device="cuda:0",
)
# What a server may not say is for a client to refuse: here any number and text will do.
NUMBER, TEXT = st.integers(0, 2**63 - 1), st.text(max_size=4)


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


OF_AN_EPOCH: dict[str, st.SearchStrategy[Any]] = {
    "epoch_id": st.integers(0, 5),
    "num_pages": NUMBER,
    "page_size": NUMBER,
    "keys_per_query": NUMBER,
    "digest": TEXT,
    "table": optional(st.dictionaries(TEXT, NUMBER | TEXT, max_size=2)),
    "root": optional(TEXT),
    "proof_levels": optional(NUMBER),
    "manifest": optional(TEXT),
}
OF_A_SERVER: dict[str, st.SearchStrategy[Any]] = {
    "party": NUMBER,
    "format_version": NUMBER,
    "device": TEXT,
}
EPOCHS = st.builds(EpochInfo, **OF_AN_EPOCH)
SERVERS = st.builds(TableInfo, **OF_AN_EPOCH, **OF_A_SERVER, epochs=optional(st.lists(EPOCHS)))


def through_json(info: TableInfo) -> TableInfo:
    return wire.decode_info(msgspec.json.encode(info))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(OF_AN_EPOCH), min_size=1, unique_by=lambda epoch: epoch["epoch_id"]
    )
)
def test_what_was_written_is_offered(epochs: list[dict[str, Any]]) -> None:
    infos = [replace(INFO, **epoch) for epoch in epochs]
    offered = wire.offers(through_json(wire.with_epochs(infos)))
    assert offered == sorted(infos, key=lambda info: info.epoch_id, reverse=True)


@settings(max_examples=40, deadline=None)
@given(SERVERS)
def test_each_epoch_is_offered_once_and_the_highest_first(info: TableInfo) -> None:
    offered = wire.offers(info)
    said = {info.epoch_id, *(epoch.epoch_id for epoch in info.epochs or ())}
    assert [one.epoch_id for one in offered] == sorted(said, reverse=True)
    for one in offered:
        assert one.epochs is None
        assert [getattr(one, name) for name in OF_A_SERVER] == [
            getattr(info, name) for name in OF_A_SERVER
        ]


@settings(max_examples=40, deadline=None)
@given(SERVERS)
def test_the_current_epoch_is_offered_as_the_server_describes_it(info: TableInfo) -> None:
    assert replace(info, epochs=None) in wire.offers(info)


@settings(max_examples=40, deadline=None)
@given(SERVERS)
def test_all_of_an_epoch_is_what_the_server_says_of_it(info: TableInfo) -> None:
    whole = [replace(info, epochs=None), *(info.epochs or ())]
    for one in wire.offers(info):
        first = next(epoch for epoch in whole if epoch.epoch_id == one.epoch_id)
        assert [getattr(one, name) for name in OF_AN_EPOCH] == [
            getattr(first, name) for name in OF_AN_EPOCH
        ]


@settings(max_examples=40, deadline=None)
@given(SERVERS)
def test_a_server_of_one_epoch_offers_that(info: TableInfo) -> None:
    alone = replace(info, epochs=None)
    assert wire.offers(alone) == [alone]
    assert wire.offers(replace(info, epochs=[])) == [alone]


def test_the_json_of_a_description_has_just_the_documented_form() -> None:
    newer = replace(INFO, epoch_id=8, root="cd" * 32, proof_levels=4, manifest="ef" * 256)
    told = msgspec.json.decode(msgspec.json.encode(wire.with_epochs([newer, INFO])))
    epochs = told.pop("epochs")
    assert told == msgspec.json.decode(msgspec.json.encode(newer))
    of_server = {"party", "format_version", "device"}
    assert epochs[0] == {name: value for name, value in told.items() if name not in of_server}
    assert epochs[1] == {
        "epoch_id": 7,
        "num_pages": 700,
        "page_size": 40,
        "keys_per_query": 3,
        "digest": "ab" * 32,
        "table": None,
    }


def test_a_server_without_epochs_says_nothing_of_them() -> None:
    assert not {"epochs", "manifest"} & set(msgspec.json.decode(msgspec.json.encode(INFO)))


# Paths


@pytest.mark.parametrize("name", ["a", "0", "words-7.table", "A_b", "...", "-", "x" * 64])
def test_a_table_has_paths_of_its_own(name: str) -> None:
    assert wire.table_path(name) == f"/t/{name}"


def test_the_table_without_a_name_has_the_plain_paths() -> None:
    assert wire.table_path("") == ""


@pytest.mark.parametrize(
    "name", [".", "..", "x" * 65, "a/b", "a b", "ä", "a\n", "%41", "a?", "{x}", "\x00", "/"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^a table's name must be 1 to 64 of A-Z, a-z, 0-9"):
        wire.table_path(name)

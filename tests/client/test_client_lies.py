"""One server lies about pages, and learns nothing: the client fails whatever it asked for.

A lie changes what is put together by an error that the liar knows. Each wrong way to check pages
has a lie for which the failure would depend on what was asked: these are told here, over sockets,
for every index of a small table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fake_server import PATIENCE, FakeServer, client, sealed_pages, two_servers
from morphogen.authentication import Seal, seal_pages
from morphogen.client import AsyncClient, Client
from morphogen.errors import IntegrityError, MorphogenError, ServerError
from naive import Bytes
from sealed_tables import SealedTable, numbered_items, sealed_table
from server_faults import xored_pages

Pair = tuple[FakeServer, FakeServer]
TABLE = sealed_table(numbered_items())
LAYOUT = TABLE.layout
PAGES = TABLE.seal.pages
COUNT, SIZE = PAGES.shape
EVERY_PAGE = range(COUNT)
# Keys that lie in each of their candidates, and keys that there are not.
KEYS = [*list(TABLE.items)[:9], *(b"none %d" % i for i in range(3))]


def served(table: SealedTable = TABLE) -> Any:
    return two_servers(seal=table.seal, layout=table.layout.as_dict())


def at(place: int, error: Bytes, keys: int = 3) -> Bytes:
    """An error in the page of one key of a query."""
    errors = np.zeros((keys, len(error)), dtype=np.uint8)
    errors[place] = error
    return errors


def bit(byte: int) -> Bytes:
    error = np.zeros(SIZE, dtype=np.uint8)
    error[byte] = 4
    return error


def transcripts(servers: Pair, start: tuple[int, int] = (0, 0)) -> list[list[tuple[Any, ...]]]:
    """The requests that each server saw from one on, without the bytes of keys."""
    return [
        [seen.shape for seen in server.seen[begin:]]
        for server, begin in zip(servers, start, strict=True)
    ]


def outcomes(
    servers: Pair, reader: Client, reads: Iterable[Callable[[Client], object]]
) -> list[tuple[str, Any]]:
    """What became of reads: the error in full, or the word "right", and what the servers saw."""
    found = []
    for read in reads:
        seen = (len(servers[0].seen), len(servers[1].seen))
        try:
            read(reader)
            said = "right"
        except MorphogenError as error:
            said = repr(error)
        found.append((said, transcripts(servers, seen)))
    return found


def gets(count: int = COUNT) -> list[Callable[[Client], object]]:
    return [lambda reader, page=page: reader.get([page]) for page in range(count)]  # type: ignore[misc]


def lookups() -> list[Callable[[Client], object]]:
    return [lambda reader, key=key: reader.lookup(key) for key in KEYS]  # type: ignore[misc]


def assert_the_same_failure(found: list[tuple[str, Any]], honest: list[tuple[str, Any]]) -> None:
    """Whatever was asked, the caller is told the same, and the servers see what they always see."""
    assert {said for said, _ in found} == {repr(IntegrityError(REASON))}
    assert {said for said, _ in honest} == {"right"}
    assert all(seen == honest[0][1] for _, seen in (*found, *honest))


REASON = (
    "a page is not that of the table's root: a server or the way to it altered an answer. Which "
    "page is not said, and nothing is read again"
)


@pytest.mark.parametrize("liar", [0, 1])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_another_page_of_the_table_is_refused_whatever_was_asked(place: int, liar: int) -> None:
    """A check that took the index from the answer would let it pass if the guess was right."""
    with served() as servers, client(servers) as reader:
        honest = outcomes(servers, reader, gets())
        for guess in EVERY_PAGE if place == 0 else [0]:  # page 0 fills a query up
            error = PAGES[guess] ^ PAGES[(guess + 3) % COUNT]
            servers[liar].lie(xored_pages(at(place, error)))
            assert_the_same_failure(outcomes(servers, reader, gets()), honest)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_another_page_is_refused_at_each_candidate_whatever_the_key(place: int) -> None:
    """A check of the candidate that has the key alone would let it pass at the others."""
    assert {TABLE.place(key) for key in KEYS[:9]} == {0, 1, 2}
    with served() as servers, client(servers) as reader:
        honest = outcomes(servers, reader, lookups())
        for guess in EVERY_PAGE:
            error = PAGES[guess] ^ PAGES[(guess + 1) % COUNT]
            servers[0].lie(xored_pages(at(place, error)))
            assert_the_same_failure(outcomes(servers, reader, lookups()), honest)


# Bytes of a page: of its slots, the padding behind them, and each sibling.
CLASSES = {
    "check": 0,
    "length": 16,
    "value": 20,
    "padding": LAYOUT.content_size - 2,
    "last byte of the content": LAYOUT.content_size - 1,
    "first sibling": LAYOUT.content_size,
    "last byte of the first sibling": LAYOUT.content_size + 31,
    "second sibling": LAYOUT.content_size + 32,
    "last byte": SIZE - 1,
}


@pytest.mark.parametrize("byte", CLASSES.values(), ids=CLASSES)
def test_an_altered_byte_is_refused_whatever_was_asked(byte: int) -> None:
    """A byte that is not hashed, for some pages, would tell whether one of those was read."""
    with served() as servers, client(servers) as reader:
        honest = outcomes(servers, reader, gets())
        for place in (0, 2):
            servers[1].lie(xored_pages(at(place, bit(byte))))
            assert_the_same_failure(outcomes(servers, reader, gets()), honest)


def test_each_byte_of_a_page_is_checked() -> None:
    with served() as servers, client(servers) as reader:
        for byte in range(SIZE):
            servers[0].lie(xored_pages(at(byte % 3, bit(byte))))
            with pytest.raises(IntegrityError):
                reader.lookup(KEYS[byte % len(KEYS)])


@pytest.mark.parametrize("byte", CLASSES.values(), ids=CLASSES)
def test_an_altered_byte_is_refused_at_each_candidate_whatever_the_key(byte: int) -> None:
    with served() as servers, client(servers) as reader:
        honest = outcomes(servers, reader, lookups())
        servers[0].lie(xored_pages(at(byte % 3, bit(byte))))
        assert_the_same_failure(outcomes(servers, reader, lookups()), honest)


def newer_table() -> Seal:
    """Other contents on every page."""
    return seal_pages(255 - TABLE.contents, SIZE, LAYOUT.proof_levels, LAYOUT.authenticated_bytes())


def change(newer: Seal, pages: list[int]) -> Bytes:
    """The error that turns pages of a query into those of the epoch before."""
    return newer.pages[pages] ^ PAGES[pages]


@pytest.mark.parametrize("guess", [0, 1])
@pytest.mark.parametrize("with_fillers", [False, True])
def test_a_page_of_the_epoch_before_is_refused_whatever_was_asked(
    guess: int, with_fillers: bool, tmp_path: Path
) -> None:
    """A check that took an old root would let it pass if the guess was right."""
    newer = newer_table()
    with served() as servers, client(servers, cache_dir=tmp_path) as reader:
        reader.get([0])
        for server in servers:
            server.set_table(newer.pages, epoch=8, seal=newer)
        reader.get([0])  # it learns of the epoch
        honest = outcomes(servers, reader, gets())
        found = []
        for page, read in enumerate(gets()):
            error = change(newer, [(page + guess) % COUNT, 0, 0])
            if not with_fillers:
                error[1:] = 0
            servers[1].lie(xored_pages(error))
            found += outcomes(servers, reader, [read])
        assert_the_same_failure(found, honest)


@pytest.mark.parametrize("with_fillers", [False, True])
def test_a_page_of_the_epoch_before_is_refused_in_the_read_that_learns_of_the_new_one(
    with_fillers: bool,
) -> None:
    newer = newer_table()
    seen = []
    for page in EVERY_PAGE:
        with served() as servers, client(servers) as reader:
            reader.get([page])
            for server in servers:
                server.set_table(newer.pages, epoch=8, seal=newer)
            error = change(newer, [page, 0, 0])
            if not with_fillers:
                error[1:] = 0
            lie = xored_pages(error)
            servers[0].lie(lambda reply, lie=lie: reply if reply.status == 409 else lie(reply))  # type: ignore[misc]
            with pytest.raises(IntegrityError):
                reader.get([page])
            # Without the headers: the ports differ.
            seen.append([[one[:2] + one[3:] for one in each] for each in transcripts(servers)])
    assert all(one == seen[0] for one in seen)


def test_all_is_sent_although_the_first_message_was_a_lie() -> None:
    with served() as servers, client(servers) as reader:
        wanted = [5] * 200  # three messages
        honest = outcomes(servers, reader, [lambda reader: reader.get(wanted)])
        for message in range(3):
            for order in range(3):
                servers[0].then(xored_pages(bit(7)) if order == message else lambda reply: reply)
            failed = outcomes(servers, reader, [lambda reader: reader.get(wanted)])
            assert failed[0][0] == repr(IntegrityError(REASON))
            assert sorted(failed[0][1][1]) == sorted(honest[0][1][1])
            assert sorted(failed[0][1][0]) == sorted(honest[0][1][0])


def test_one_wrong_page_among_thousands_is_found() -> None:
    with served() as servers, client(servers) as reader:
        for place in (0, 95):
            errors = np.zeros((32, 3, SIZE), dtype=np.uint8)
            errors[place // 3, place % 3] = bit(3)

            def lie(reply: Any, errors: Bytes = errors) -> Any:
                return xored_pages(errors)(reply)

            servers[1].then(*[lambda reply: reply] * 4, lie)
            with pytest.raises(IntegrityError):
                reader.get([3] * (96 * 7))


def test_a_failure_is_not_a_servers_and_nothing_is_sent_again() -> None:
    with served() as servers, client(servers, retries=5) as reader:
        servers[0].then(xored_pages(bit(0)))
        with pytest.raises(IntegrityError) as failure:
            reader.lookup(b"key 3")
        assert not isinstance(failure.value, ServerError)
        assert str(failure.value) == REASON
        assert failure.value.__cause__ is None
        assert [len(server.batches) for server in servers] == [1, 1]
        # The client is as good as before, and asks for no description again.
        assert reader.lookup(b"key 3") == b"value 3"
        assert [seen.method for seen in servers[1].seen] == ["GET", "POST", "POST"]


@pytest.mark.parametrize("wrong", range(6))
def test_of_reads_that_share_a_message_those_with_a_wrong_page_fail(wrong: int) -> None:
    """Which reads fail is told by the places of the lie, whatever is read there."""

    async def read(servers: Pair, first: int) -> list[bool]:
        urls = [server.url for server in servers]
        async with AsyncClient(urls, timeout=PATIENCE) as reader:
            errors = np.zeros((6, 3, SIZE), dtype=np.uint8)
            errors[wrong, first % 3] = bit(first)
            servers[first % 2].then(xored_pages(errors))
            found = await asyncio.gather(
                reader.get([first]),
                reader.lookup(KEYS[first]),
                reader.get([first, 0, 1, 2, first, 3]),  # two queries
                reader.lookup_many([KEYS[first], b"none"]),
                return_exceptions=True,
            )
            sizes = [
                len(msgspec.msgpack.decode(seen.body)["queries"]) for seen in servers[0].batches
            ]
            assert sizes == [6]
            return [isinstance(one, IntegrityError) for one in found]

    owner = [0, 1, 2, 2, 3, 3][wrong]
    for first in EVERY_PAGE:
        with served() as servers:
            assert asyncio.run(read(servers, first)) == [call == owner for call in range(4)]


def test_plain_pages_are_checked_like_those_of_a_keyword_table() -> None:
    seal = sealed_pages(13, 100, 3)
    with two_servers(seal=seal) as servers, client(servers) as reader:
        assert (reader.get(range(13)) == seal.pages).all()
        for place, byte in ((0, 3), (1, 4), (2, 99)):
            error = np.zeros(100, dtype=np.uint8)
            error[byte] = 1
            servers[0].then(xored_pages(at(place, error)))
            with pytest.raises(IntegrityError):
                reader.get([12])


def test_pages_without_proof_levels_are_checked_too() -> None:
    seal = sealed_pages(13, 40, 0)
    with two_servers(seal=seal) as servers, client(servers) as reader:
        assert (reader.get(range(13)) == seal.pages).all()
        servers[0].then(xored_pages(at(2, seal.pages[0] ^ seal.pages[12])))
        with pytest.raises(IntegrityError):
            reader.get([12])

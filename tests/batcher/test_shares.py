"""Shares: clients take turns, whoever asks for little goes first, and nothing is lost."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from morphogen.batcher.shares import Shares

Item = tuple[str, int, int]  # client, number, keys


class Model:
    """Shares, beside a plain list of what each client has waiting."""

    def __init__(self, width: int = 32, keys: int | None = None) -> None:
        self.width = width
        self.keys = keys  # of a chunk, in place of its width
        self.shares = Shares()
        self.waiting: dict[str, deque[Item]] = {}
        self.numbers = itertools.count()

    def add(self, client: str, count: int = 1, keys: int = 3) -> list[Item]:
        items = [(client, next(self.numbers), keys) for _ in range(count)]
        if items:
            self.shares.add(client, items, self.width_of(items[0]))
        self.waiting.setdefault(client, deque()).extend(items)
        return items

    def width_of(self, item: Item) -> int:
        return self.width if self.keys is None else self.keys // item[2]

    def take(self, claim: bool = True) -> list[Item]:
        keys: list[int] = []

        def fits(item: Item) -> bool:
            return not keys or keys[0] == item[2]

        def take(item: Item) -> bool:
            # Each client's items leave in the order in which they came.
            assert self.waiting[item[0]].popleft() == item
            if claim:
                keys.append(item[2])
            return claim

        chunk = self.shares.take(self.width_of, fits, take)
        assert not chunk or len(chunk) <= self.width_of(chunk[0])
        assert len({item[2] for item in chunk}) <= 1
        self.check()
        return chunk

    def remove(self, item: Item) -> None:
        assert self.shares.remove(item[0], item)
        self.waiting[item[0]].remove(item)
        self.check()

    def check(self) -> None:
        assert len(self.shares) == sum(map(len, self.waiting.values()))
        for client, items in self.waiting.items():
            assert self.shares.count(client) == len(items)


def clients(chunk: list[Item]) -> list[str]:
    return [client for client, _, _ in chunk]


# Turns


def test_a_lone_client_fills_every_chunk_in_order() -> None:
    model = Model()
    items = model.add("a", 70)
    assert [model.take() for _ in range(3)] == [items[:32], items[32:64], items[64:]]


def test_clients_with_much_to_ask_take_turns() -> None:
    model = Model(8)
    for client in "abc":
        model.add(client, 32)
    assert clients(model.take()) == [*"abcabcab"]
    assert clients(model.take()) == [*"cabcabca"]


def test_chunks_are_full_while_clients_with_much_to_ask_compete() -> None:
    model = Model()
    for number in range(200):
        model.add(str(number), 5)
    assert [len(model.take()) for _ in range(32)] == [32] * 31 + [8]


def test_chunks_are_full_while_many_ask_for_little() -> None:
    model = Model()
    for number in range(64):
        model.add(str(number))
    for _ in range(10):
        chunk = model.take()
        assert len(chunk) == 32
        for client in clients(chunk):
            model.add(client)


@pytest.mark.parametrize("greedy", [1, 5, 200])
@pytest.mark.parametrize("width", [2, 4, 32])
def test_whoever_asks_for_little_is_in_the_next_chunk(greedy: int, width: int) -> None:
    model = Model(width)
    for client in range(greedy):
        model.add(str(client), 100)
    model.take()
    for _ in range(5):
        model.add("lone")
        assert clients(model.take())[0] == "lone"


def test_while_one_asks_for_little_now_and_then_the_others_make_short_chunks() -> None:
    model = Model()
    model.add("greedy", 1000)
    assert len(model.take()) == 32
    model.add("lone")
    assert Counter(clients(model.take())) == {"lone": 1, "greedy": 8}
    assert [len(model.take()) for _ in range(5)] == [8, 8, 8, 32, 32]


def test_two_at_a_time_are_no_fewer_beside_one_who_asks_for_little() -> None:
    model = Model(2)
    model.add("greedy", 1000)
    for _ in range(10):
        model.add("lone")
        assert clients(model.take()) == ["lone", "greedy"]
        assert clients(model.take()) == ["greedy", "greedy"]


@pytest.mark.parametrize("width", [1, 2, 3, 32])
def test_whoever_asks_for_much_is_served_beside_any_number_who_ask_for_little(width: int) -> None:
    model = Model(width)
    model.add("greedy", 100)
    model.take()
    served = 0
    for at in range(20 * width):
        model.add(f"{at} a")
        model.add(f"{at} b")
        served += clients(model.take()).count("greedy")
    assert served >= 10


def test_a_client_that_did_not_fit_a_chunk_leads_the_next() -> None:
    model = Model(2)
    model.add("a", 9, keys=1)
    model.take()
    for _ in range(3):
        model.add("b", 1, keys=3)
        assert {keys for _, _, keys in model.take()} == {3}
        model.add("c", 1, keys=3)
        assert clients(model.take())[0] == "a"


def test_a_width_in_keys_takes_more_items_of_fewer_keys() -> None:
    model = Model(keys=96)
    model.add("a", 33, keys=3)
    model.add("b", 97, keys=1)
    model.add("c", 49, keys=2)
    chunks = [model.take() for _ in range(6)]
    assert sorted((len(chunk), chunk[0][2]) for chunk in chunks) == [
        *[(1, 1), (1, 2), (1, 3)],
        *[(32, 3), (48, 2), (96, 1)],
    ]


def test_little_and_short_follow_the_width_in_keys() -> None:
    model = Model(keys=96)
    model.add("greedy", 1000, keys=1)
    assert len(model.take()) == 96
    model.add("some", 12, keys=1)  # an eighth of a chunk
    chunk = Counter(clients(model.take()))
    assert chunk == {"some": 12, "greedy": 24}
    model.add("more", 13, keys=1)
    assert clients(model.take())[0] == "greedy"


def test_a_chunk_whose_first_item_is_gone_has_the_width_of_the_next() -> None:
    shares = Shares()
    gone, there = [[(client, number) for number in range(20)] for client in "ab"]
    shares.add("a", gone, 10)
    shares.add("b", there, 4)
    claimed: list[Any] = []

    def claim(item: Any) -> bool:
        claimed.append(item)
        return item in there

    chunk = shares.take(lambda item: 10 if item in gone else 4, lambda item: True, claim)
    assert claimed == gone + there[:4]
    assert chunk == there[:4]


# Room


def test_the_newest_of_the_longest_share_make_room() -> None:
    model = Model()
    *_, last = model.add("a", 5)
    model.add("b", 3)
    assert model.shares.make_room("c", 1, limit=9) == []
    assert model.shares.make_room("c", 1, limit=8) == [last]
    assert len(model.shares) == 7


def test_no_share_makes_room_for_one_that_would_be_as_long() -> None:
    model = Model()
    model.add("a", 3)
    model.add("b", 2)
    assert model.shares.make_room("b", 1, limit=5) is None
    assert model.shares.make_room("c", 3, limit=5) is None
    assert len(model.shares) == 5


@given(st.lists(st.integers(1, 40), max_size=20), st.integers(0, 40), st.integers(1, 40), st.data())
def test_room_is_made_fairly_or_not_at_all(
    sizes: list[int], own: int, count: int, data: st.DataObject
) -> None:
    model = Model()
    for number, size in enumerate(sizes):
        model.add(str(number), size)
    model.add("own", own)
    total = sum(sizes) + own
    limit = data.draw(st.integers(total, total + 50))
    room = model.shares.has_room("own", count, limit)
    gone = model.shares.make_room("own", count, limit)
    assert room == (gone is not None)
    for item in gone or ():
        assert model.waiting[item[0]].pop() == item
    model.check()
    spare = sum(max(0, size - own - count) for size in sizes)
    assert (gone is None) == (total + count - limit > spare)
    if gone:
        assert len(gone) == total + count - limit
        lengths = [model.shares.count(str(number)) for number in range(len(sizes))]
        assert all(
            length >= min(size, own + count) for length, size in zip(lengths, sizes, strict=True)
        )
        cut = [length for length, size in zip(lengths, sizes, strict=True) if length < size]
        assert max(lengths) - min(cut) <= 1  # the longest were cut, all alike


# Anything


@given(st.data())
@settings(max_examples=300)
def test_nothing_is_lost_and_everybody_is_served_whatever_happens(data: st.DataObject) -> None:
    width = data.draw(st.sampled_from([1, 2, 3, 4, 8, 32]))
    model = Model(width, keys=data.draw(st.sampled_from([None, 3 * width])))
    for _ in range(data.draw(st.integers(0, 30))):
        waiting = [item for items in model.waiting.values() for item in items]
        match data.draw(st.sampled_from(["add", "add", "take", "remove", "drop"])):
            case "add":
                client = data.draw(st.sampled_from("abcdefgh"))
                model.add(client, data.draw(st.integers(1, 40)), data.draw(st.sampled_from([1, 3])))
            case "take":
                assert bool(model.take()) == bool(waiting)
            case "remove" if waiting:
                model.remove(data.draw(st.sampled_from(waiting)))
            case "drop" if data.draw(st.booleans()):
                model.take(claim=False)
    assert not model.shares.remove("a", ("a", -1, 3))
    since: Counter[str] = Counter()
    while len(model.shares):
        chunk = model.take()
        assert chunk
        for client, items in model.waiting.items():
            since[client] = 0 if client in clients(chunk) or not items else since[client] + 1
            assert since[client] <= 16  # eight clients, of two kinds that share no chunk


def test_every_order_of_few_clients_is_served() -> None:
    """All sequences of five arrivals of three clients, with a chunk after each or not."""
    for width in (1, 2, 3):
        for arrivals in itertools.product("abc", [True, False], repeat=4):
            model = Model(width)
            for client, chunk in zip(arrivals[::2], arrivals[1::2], strict=True):
                model.add(str(client), 2)
                if chunk:
                    assert model.take()
            for _ in range(8):
                model.take()
            assert len(model.shares) == 0

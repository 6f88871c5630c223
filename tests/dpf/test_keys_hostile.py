"""Keys and queries from an attacker: the library refuses or evaluates them, and never crashes.

This file also runs under AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import contextlib
import random
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from forged import NUM_PAGES, forged, forged_holding
from morphogen import dpf, planner
from naive import naive_answers, random_pages

PAGE_SIZE = 24
TABLE = random_pages(NUM_PAGES, PAGE_SIZE)
SEEDS_AND_SALT = random.Random(1).randbytes(48)
KEY = dpf.gen(700, NUM_PAGES, entropy=SEEDS_AND_SALT)[1]


@pytest.fixture(scope="module")
def engine() -> Iterator[mg.Engine]:
    with mg.open_engine(mg.PageMatrix(TABLE), device="cpu", threads=2) as opened:
        yield opened


@pytest.fixture(
    params=["parse_key", "eval_full", "eval_at", "Query", "second in Query", "KeyPacker", "engine"]
)
def accept(request: pytest.FixtureRequest, engine: mg.Engine) -> Callable[[Any], Any]:
    """Return each public function that takes a key."""
    doors: dict[str, Callable[[Any], Any]] = {
        "parse_key": dpf.parse_key,
        "eval_full": lambda key: dpf.eval_full(key, NUM_PAGES),
        "eval_at": lambda key: dpf.eval_at(key, 0, NUM_PAGES),
        "Query": lambda key: mg.Query([key]),
        "second in Query": lambda key: mg.Query([KEY, key, KEY]),
        "KeyPacker": lambda key: planner.KeyPacker(NUM_PAGES).pack([forged(key)]),
        "engine": lambda key: engine.answer([forged(KEY), forged(key)]),
    }
    return doors[request.param]


def spliced(offset: int, value: bytes) -> bytes:
    return KEY[:offset] + value + KEY[offset + len(value) :]


def refusal(call: Callable[[Any], Any], key: bytes) -> str:
    """Return the message that refuses a key, and check that it shows no secret of the key."""
    with pytest.raises(mg.InvalidKeyError) as caught:
        call(key)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, mg.MorphogenError)
    message = str(caught.value)
    for secret in (key[i : i + 4] for i in range(16, len(key) - 3)):
        assert secret.hex() not in message
        assert secret.hex(" ") not in message
        assert repr(secret)[2:-1] not in message
    return message


# Each field broken in turn


def test_the_key_itself_is_accepted(accept: Callable[[Any], Any]) -> None:
    accept(KEY)
    accept(bytearray(KEY))


@pytest.mark.parametrize("length", [0, 1, 4, 5, 6, 15, 48, 111])
def test_shorter_than_any_key(accept: Callable[[Any], Any], length: int) -> None:
    message = refusal(accept, KEY[:length])
    assert re.search(rf"at least 112 bytes, this one {length}$", message)


@pytest.mark.parametrize("length", [112, 128, 143, 145, 160, 288, 608, 10_000])
def test_another_length_than_its_n_has(accept: Callable[[Any], Any], length: int) -> None:
    message = refusal(accept, (KEY * 100)[:length])
    assert re.search(rf"n = 11 has 144 bytes, this one {length}$", message)


@pytest.mark.parametrize("n", [0, 1, 8, 9, 10, 12, 13, 39, 40])
def test_another_n_than_its_length_has(accept: Callable[[Any], Any], n: int) -> None:
    size = 112 + 16 * max(0, n - 9)
    message = refusal(accept, spliced(5, bytes([n])))
    assert re.search(rf"n = {n} has {size} bytes, this one 144$", message)


@pytest.mark.parametrize("n", [41, 42, 63, 64, 128, 255])
def test_n_above_the_largest(accept: Callable[[Any], Any], n: int) -> None:
    assert re.search(rf"n is at most 40, this one's {n}$", refusal(accept, spliced(5, bytes([n]))))


@pytest.mark.parametrize("magic", [b"MGK2", b"mgk1", b"\0\0\0\0", b"1KGM", b"\xff\n\0\x1b"])
def test_magic(accept: Callable[[Any], Any], magic: bytes) -> None:
    message = refusal(accept, spliced(0, magic))
    assert "b'MGK1'" in message
    assert message.endswith(repr(magic))


@pytest.mark.parametrize("party", [2, 3, 127, 128, 255])
def test_party(accept: Callable[[Any], Any], party: int) -> None:
    assert re.search(rf"0 or 1, this one's {party}$", refusal(accept, spliced(4, bytes([party]))))


def test_every_reserved_bit(accept: Callable[[Any], Any]) -> None:
    for bit in range(16):
        reserved = struct.pack("<H", 1 << bit)
        message = refusal(accept, spliced(6, reserved))
        assert "00 00" in message
        assert message.endswith(reserved.hex(" "))


@pytest.mark.parametrize("offset", [8, 12])
def test_every_stray_control_bit(accept: Callable[[Any], Any], offset: int) -> None:
    (control,) = struct.unpack_from("<I", KEY, offset)
    assert control < 4
    for bit in range(2, 32):
        key = spliced(offset, struct.pack("<I", control | 1 << bit))
        assert re.search(r"n = 11 .* 2 levels", refusal(accept, key))
    for control in range(4):
        accept(spliced(offset, struct.pack("<I", control)))


def test_stray_control_bits_of_every_domain() -> None:
    for n in range(41):
        depth = max(0, n - 9)
        key = dpf.gen(0, 2**n)[0]
        for offset in (8, 12):
            for bit in range(32):
                other = bytearray(key)
                other[offset + bit // 8] |= 1 << bit % 8
                if bit < depth:
                    mg.Query([other])
                else:
                    refusal(lambda key: mg.Query([key]), bytes(other))


def test_any_salt_seed_and_correction_is_accepted(accept: Callable[[Any], Any]) -> None:
    for fill in (b"\0", b"\xff"):
        accept(KEY[:16] + fill * (len(KEY) - 16))


# A well-formed key for another table


@pytest.mark.parametrize(
    ("n", "pages"),
    [
        (0, "1"),
        (1, "2"),
        (2, "3 to 4"),
        (9, "257 to 512"),
        (10, "513 to 1024"),
        (12, "2049 to 4096"),
        (40, "549755813889 to 1099511627776"),
    ],
)
def test_key_for_another_domain(engine: mg.Engine, n: int, pages: str) -> None:
    key = dpf.gen(0, 2**n)[0]
    query = mg.Query([key])
    for call in (
        lambda: dpf.eval_full(key, NUM_PAGES),
        lambda: dpf.eval_at(key, 0, NUM_PAGES),
        lambda: planner.KeyPacker(NUM_PAGES).pack([query]),
        lambda: engine.answer([query]),
        lambda: engine.answer([forged(KEY), query]),
    ):
        with pytest.raises(mg.KeyDomainError) as caught:
            call()
        assert isinstance(caught.value, mg.DomainMismatchError)
        assert isinstance(caught.value, mg.InvalidKeyError)
        assert f"n = {n}, that is {pages} pages" in str(caught.value)
        assert f"{NUM_PAGES} pages, n = 11" in str(caught.value)


def test_key_for_a_table_of_the_same_n() -> None:
    """A key holds n only. Tables of another size with the same n have another epoch."""
    assert len(dpf.eval_full(dpf.gen(0, 2048)[0], NUM_PAGES)) == -(-NUM_PAGES // 8)


def test_keys_of_one_query_are_for_one_table() -> None:
    other = dpf.gen(0, 5000)[0]
    with pytest.raises(mg.DomainMismatchError, match=r"n = 11, another n = 13$"):
        mg.Query([KEY, other])


# Forged queries


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(None, id="nothing"),
        pytest.param(5, id="a number"),
        pytest.param("MGK1", id="text"),
        pytest.param(KEY, id="a key"),
        pytest.param([KEY], id="a list"),
        pytest.param([], id="an empty list"),
        pytest.param({KEY}, id="a set"),
        pytest.param((None,), id="None"),
        pytest.param((KEY, None), id="None after a key"),
        pytest.param(("MGK1" * 36,), id="text of a key's length"),
        pytest.param(((KEY,),), id="a tuple in the tuple"),
        pytest.param((5,), id="a number in the tuple"),
        pytest.param((KEY, object()), id="an object"),
        pytest.param((b"",), id="no bytes"),
        pytest.param((b"MGK1",), id="the magic alone"),
        pytest.param((KEY, KEY[:-1]), id="a byte too few"),
        pytest.param((KEY, KEY + b"\0"), id="a byte too many"),
        pytest.param((np.zeros((), dtype=np.uint8),), id="a scalar"),
        pytest.param((np.array(["2020-01-01"], dtype="M8[D]"),), id="a date"),
    ],
)
def test_forged_query_is_refused(engine: mg.Engine, keys: Any) -> None:
    good = mg.make_query([1, 2], NUM_PAGES)[0]
    for batch in ([forged_holding(keys)], [good, forged_holding(keys)]):
        with pytest.raises((TypeError, ValueError)):
            planner.KeyPacker(NUM_PAGES).pack(batch)
        with pytest.raises((TypeError, ValueError)):
            engine.answer(batch)
    assert np.array_equal(engine.answer([good]).pages, naive_answers(TABLE, [good]))


def test_query_without_its_keys(engine: mg.Engine) -> None:
    empty = mg.Query.__new__(mg.Query)
    with pytest.raises(TypeError, match=r"must be a Query with its keys, not Query$"):
        engine.answer([empty])


@pytest.mark.parametrize("count", [0, 4, 7, 200])
def test_forged_number_of_keys(engine: mg.Engine, count: int) -> None:
    query = forged(*[KEY] * count)
    for call in (planner.KeyPacker(NUM_PAGES).pack, engine.answer):
        with pytest.raises(ValueError, match=rf"1 to 3 keys, not {count}$"):
            call([query, query])
        with pytest.raises(ValueError, match=rf"queries\[0\] has 1, queries\[1\] has {count}$"):
            call([forged(KEY), query])


def test_forged_keys_of_other_bytes_like_types(engine: mg.Engine) -> None:
    held = bytearray(KEY)
    query = forged(held, memoryview(KEY[::-1])[::-1], np.frombuffer(KEY, dtype=np.uint8))
    expected = naive_answers(TABLE, [forged(KEY, KEY, KEY)])
    assert np.array_equal(engine.answer([query]).pages, expected)
    held[4] = 7
    with pytest.raises(mg.InvalidKeyError):
        engine.answer([query])


class Changing(mg.Query):
    """A query that runs code of its own while its batch is packed."""

    action: Callable[[], object]

    @property
    def keys(self) -> tuple[bytes, ...]:  # type: ignore[override]
        Changing.action()
        return (KEY,)


@pytest.mark.parametrize("position", [0, 1, 15, 31])
@pytest.mark.parametrize("change", ["clear", "grow", "shrink", "replace"])
def test_batch_that_changes_while_it_is_packed(
    engine: mg.Engine, change: str, position: int
) -> None:
    batch: list[Any] = []
    actions: dict[str, Callable[[], object]] = {
        "clear": batch.clear,
        "grow": lambda: batch.extend([forged(KEY)] * 5000),
        "shrink": lambda: batch.__delitem__(slice(2, None)),
        "replace": lambda: batch.__setitem__(slice(2, None), [None] * 30),
    }
    Changing.action = staticmethod(actions[change])
    for pack in (planner.KeyPacker(NUM_PAGES).pack, engine.answer):
        batch[:] = [forged(KEY)] * 32
        batch[position] = Changing.__new__(Changing)
        with contextlib.suppress(TypeError, ValueError):
            pack(batch)
    query = forged(KEY)
    assert np.array_equal(engine.answer([query]).pages, naive_answers(TABLE, [query]))

"""Our BLAKE2b against that of hashlib."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings, strategies as st

from morphogen.keyword.entries import blake2b


def expected(message: bytes, size: int, key: bytes, salt: bytes, person: bytes) -> bytes:
    hashed = hashlib.blake2b(message, digest_size=size, key=key, salt=salt, person=person)
    return hashed.digest()


@pytest.mark.parametrize("key", [b"", b"k", bytes(range(16)), bytes(range(64))], ids=len)
def test_every_length_of_message_from_0_to_300(key: bytes) -> None:
    salt, person = bytes(range(16)), bytes(range(16, 32))
    for length in range(301):
        message = bytes(i * 7 & 255 for i in range(length))
        for size in (1, 40, 64):
            arguments = (message, size, key, salt, person)
            assert blake2b(*arguments) == expected(*arguments)


@given(
    message=st.binary(max_size=700),
    size=st.integers(1, 64),
    key=st.binary(max_size=64),
    salt=st.binary(min_size=16, max_size=16),
    person=st.binary(min_size=16, max_size=16),
)
@settings(max_examples=300, deadline=None)
def test_any_message_key_salt_and_personalisation(
    message: bytes, size: int, key: bytes, salt: bytes, person: bytes
) -> None:
    assert blake2b(message, size, key, salt, person) == expected(message, size, key, salt, person)


def test_a_long_message() -> None:
    message = bytes(range(256)) * 5000
    assert blake2b(message, 40, b"key", bytes(16), bytes(16)) == expected(
        message, 40, b"key", bytes(16), bytes(16)
    )


def test_the_example_of_rfc_7693() -> None:
    assert blake2b(b"abc", 64, b"", bytes(16), bytes(16)).hex() == (
        "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
        "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"
    )


@pytest.mark.parametrize(
    ("size", "key", "salt", "person"),
    [(0, 0, 16, 16), (65, 0, 16, 16), (1, 65, 16, 16), (1, 0, 15, 16), (1, 0, 16, 17)],
)
def test_arguments_out_of_range(size: int, key: int, salt: int, person: int) -> None:
    with pytest.raises(ValueError, match="is out of its range"):
        blake2b(b"", size, bytes(key), bytes(salt), bytes(person))

"""Our SHA-256 against that of hashlib, in each way that this machine has, and hashes of trees."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from authentication_format import hash_leaf, hash_node
from morphogen.authentication import sha256
from morphogen.authentication.hashing import climb
from naive import Bytes, random_pages


@pytest.fixture(scope="module", params=sha256.kernels(), autouse=True)
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    sha256.use_kernel(request.param)
    yield request.param
    sha256.use_kernel()


def leaf(index: int, content: Bytes) -> bytes:
    return hash_leaf(index, content.tobytes())


# The hash


@pytest.mark.parametrize(
    ("message", "digest"),
    [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (
            b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
            b"hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
            "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1",
        ),
        (b"a" * 10**6, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else "",
)
def test_the_examples_of_nist(message: bytes, digest: str) -> None:
    assert sha256.sha256(message).hex() == digest


def test_every_length_of_message_from_0_to_300() -> None:
    for length in range(301):
        message = bytes(i * 7 & 255 for i in range(length))
        assert sha256.sha256(message) == hashlib.sha256(message).digest()


@given(message=st.binary(max_size=700))
@settings(max_examples=200, deadline=None)
def test_any_message(message: bytes) -> None:
    assert sha256.sha256(message) == hashlib.sha256(message).digest()


# Leaves and nodes


def test_leaves_of_every_size_and_number() -> None:
    memory = random_pages(1, 400 * 9 + 1)[0]
    for size in range(301):
        for pages in (1, 2, 3, 4, 5, 9):
            contents = memory[1 : 1 + 400 * pages].reshape(pages, 400)[:, :size]
            leaves = sha256.hash_leaves(contents, 2**40 - 3)
            assert leaves.shape == (pages, 32)
            assert [row.tobytes() for row in leaves] == [
                leaf(index, content) for index, content in enumerate(contents, 2**40 - 3)
            ]


@pytest.mark.parametrize("size", [4_095, 4_096, 65_537, 3_000_001])
def test_leaves_of_long_pages(size: int) -> None:
    contents = random_pages(3, size)
    assert [row.tobytes() for row in sha256.hash_leaves(contents)] == [
        leaf(index, content) for index, content in enumerate(contents)
    ]


def test_contents_may_lie_anywhere_in_memory() -> None:
    contents = random_pages(7, 130)
    expected = sha256.hash_leaves(contents)
    wide = np.repeat(np.repeat(contents, 2, axis=0), 3, axis=1)
    backwards = contents[::-1].copy()[::-1]
    read_only = contents.copy()
    read_only.flags.writeable = False
    for other in (np.asfortranarray(contents), wide[::2, ::3], backwards, read_only):
        np.testing.assert_array_equal(sha256.hash_leaves(other), expected)
    assert sha256.hash_leaves(contents[:0]).shape == (0, 32)
    column = random_pages(5, 9)[:, 4:5]
    np.testing.assert_array_equal(sha256.hash_leaves(column), sha256.hash_leaves(column.copy()))


def test_every_number_of_pairs() -> None:
    for pairs in range(12):
        nodes = random_pages(2 * pairs, 32)
        rows = [row.tobytes() for row in nodes]
        for level in (nodes, np.asfortranarray(nodes)):
            parents = sha256.hash_pairs(level)
            assert parents.shape == (pairs, 32)
            assert [row.tobytes() for row in parents] == [
                hash_node(rows[at], rows[at + 1]) for at in range(0, 2 * pairs, 2)
            ]


def test_a_node_that_covers_no_page_is_zero() -> None:
    for count in range(1, 18):
        level = random_pages(count, 32)
        rows = [row.tobytes() for row in level]
        assert climb(level, 0) is level
        for levels in range(1, 7):
            rows += [bytes(32)] * (len(rows) % 2)
            rows = [hash_node(rows[at], rows[at + 1]) for at in range(0, len(rows), 2)]
            assert [row.tobytes() for row in climb(level, levels)] == rows


# Paths


def path(index: int, page: bytes, content_size: int) -> bytes:
    node = hash_leaf(index, page[:content_size])
    for at in range(content_size, len(page), 32):
        sibling = page[at : at + 32]
        node = hash_node(sibling, node) if index & 1 else hash_node(node, sibling)
        index >>= 1
    return node


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 9, 33, 100])
def test_pages_lead_to_the_cap_exactly_if_all_do(count: int) -> None:
    for levels, content_size in ((0, 1), (1, 31), (3, 40), (5, 4_000), (21, 3)):
        pages = random_pages(count, content_size + 32 * levels)
        asked = [(1 << levels) * place + place * 5 % (1 << levels) for place in range(count)]
        nodes = []
        for index, page in zip(asked, pages, strict=True):
            nodes.append(path(index, page.tobytes(), content_size))
            assert sha256.hash_path(index, page, content_size) == nodes[-1]
        cap = bytearray().join(nodes)
        arguments = pages.reshape(-1).data, pages.shape[1], asked, cap, content_size
        assert sha256.lead_to_cap(*arguments)
        for place in range(count):
            pages[place, -1] ^= 1
            assert not sha256.lead_to_cap(*arguments)
            pages[place, -1] ^= 1
            cap[32 * place + place % 32] ^= 128
            assert not sha256.lead_to_cap(*arguments)
            cap[32 * place + place % 32] ^= 128
        assert sha256.lead_to_cap(*arguments)


# A page that cannot be touched ends the process: so it was hashed.
UNTOUCHABLE = """
import ctypes, mmap, sys
from morphogen.authentication.sha256 import lead_to_cap, use_kernel
use_kernel(sys.argv[1])
size = mmap.PAGESIZE
pages = mmap.mmap(-1, 5 * size)
start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
libc = ctypes.CDLL(None, use_errno=True)
if sys.argv[2] == "protected":
    last = ctypes.c_void_p(start + 4 * size)
    assert libc.mprotect(last, ctypes.c_size_t(size), 0) == 0, ctypes.get_errno()
assert not lead_to_cap(pages, size, range(5), bytes(32 * 5), size)
"""


@pytest.mark.parametrize("memory", ["protected", "open"])
def test_a_wrong_page_does_not_keep_the_others_from_being_hashed(memory: str, kernel: str) -> None:
    command = [sys.executable, "-c", UNTOUCHABLE, kernel, memory]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == (-signal.SIGSEGV if memory == "protected" else 0), run.stderr


# Bad input


@pytest.mark.parametrize(
    ("page_size", "asked", "cap_bytes", "content_size", "message"),
    [
        (40, [0, 1, 2], 96, 8, "3 pages of 40 bytes are not in 80"),
        (2**60, [0] * 16, 96, 2**60, f"16 pages of {2**60} bytes are not in 80"),
        (40, [0, 6], 96, 8, "an index lies outside of the cap"),
        (40, [0, 4], 95, 8, "an index lies outside of the cap"),
        (40, [0], 0, 8, "an index lies outside of the cap"),
        (32 * 64, [2**63], 96, 0, "an index lies outside of the cap"),
        (40, [0], 96, 9, "behind a content of 9 bytes a page of 40 has no whole siblings"),
        (40, [0], 96, 41, "behind a content of 41 bytes a page of 40 has no whole siblings"),
    ],
)
def test_what_cannot_be_checked(
    page_size: int, asked: list[int], cap_bytes: int, content_size: int, message: str
) -> None:
    size = max(80, 32 * 64) if page_size == 32 * 64 else 80
    with pytest.raises(ValueError, match=f"^{message}$"):
        sha256.lead_to_cap(bytes(size), page_size, asked, bytes(cap_bytes), content_size)


def test_numbers_that_are_out_of_range() -> None:
    for asked in ([-1], [2**64]):
        with pytest.raises(OverflowError):
            sha256.lead_to_cap(bytes(80), 40, asked, bytes(96), 8)
    with pytest.raises(OverflowError):
        sha256.hash_path(0, bytes(40), -8)
    with pytest.raises(ValueError, match="has no whole siblings"):
        sha256.hash_path(0, bytes(40), 9)
    with pytest.raises(BufferError):
        sha256.hash_path(0, memoryview(bytes(80))[::2], 8)


@pytest.mark.parametrize("shape", [(3, 32), (2, 31), (2, 33)])
def test_what_has_no_parents(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"^level must have an even number of 32 bytes, not "):
        sha256.hash_pairs(np.zeros(shape, dtype=np.uint8))
    if shape[1] != 32:
        with pytest.raises(ValueError, match=r"^level must have shape \(nodes, 32\), not "):
            climb(np.zeros(shape, dtype=np.uint8), 1)


def test_another_kernel() -> None:
    with pytest.raises(ValueError, match=r"^a kernel must be one of .*'portable'.* not 'md5'$"):
        sha256.use_kernel("md5")

"""The hashes of leaves and of nodes, and the levels of a tree above others."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

HASH_BYTES = 32
_NODE_HEAD = b"morphogen/node/1" + bytes(16)
_LEAF = struct.Struct("<16sQQ")  # name, index, bytes of content


def hash_path(index: int, page: memoryview, content_size: int) -> bytes:
    """Return the node that a page leads to, by its content and by each sibling behind that."""
    hashed = sha256(_LEAF.pack(b"morphogen/leaf/1", index, content_size))
    hashed.update(page[:content_size])
    node, siblings = hashed.digest(), page[content_size:].tobytes()
    for at in range(0, len(siblings), HASH_BYTES):
        sibling = siblings[at : at + HASH_BYTES]
        pair = sibling + node if index & 1 else node + sibling
        node = sha256(_NODE_HEAD + pair).digest()
        index >>= 1
    return node


def lead_to_cap(
    pages: memoryview, page_size: int, asked: Sequence[int], cap: memoryview, content_size: int
) -> bool:
    """Tell whether all pages lead to their nodes of a cap; nothing is checked but the hashes.

    Without checks of its arguments, which would take a client as long as the hashes: after a wait
    for servers nothing of this process is in the processor's caches.
    """
    right = True
    levels = (page_size - content_size) // HASH_BYTES
    for number, index in enumerate(asked):
        page = pages[number * page_size : (number + 1) * page_size]
        at = HASH_BYTES * (index >> levels)
        right &= hash_path(index, page, content_size) == cap[at : at + HASH_BYTES]
    return right


def hash_leaves(contents: Bytes, first: int = 0) -> Bytes:
    """Return the leaves of pages from the index ``first`` on: uint8 (pages, 32)."""
    hashes, size = [], contents.shape[1]
    for index, content in enumerate(contents, first):
        hashed = sha256(_LEAF.pack(b"morphogen/leaf/1", index, size))
        hashed.update(content)  # where it lies, without a copy
        hashes.append(hashed.digest())
    return _joined(hashes)


def hash_pairs(level: Bytes) -> Bytes:
    """Return the parents of an even number of nodes: uint8 (nodes / 2, 32)."""
    nodes, pair = level.tobytes(), 2 * HASH_BYTES
    starts = range(0, len(nodes), pair)
    return _joined([sha256(_NODE_HEAD + nodes[at : at + pair]).digest() for at in starts])


def _joined(hashes: list[bytes]) -> Bytes:
    return np.frombuffer(bytearray().join(hashes), dtype=np.uint8).reshape(-1, HASH_BYTES)


def even(level: Bytes) -> Bytes:
    """Return a level with an even number of nodes: one that covers no page is zero."""
    return level if len(level) % 2 == 0 else np.pad(level, ((0, 1), (0, 0)))


def climb(level: Bytes, levels: int) -> Bytes:
    """Return the nodes so many levels above."""
    for _ in range(levels):
        level = hash_pairs(even(level))
    return level

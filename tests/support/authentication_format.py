"""Section 13 of docs/protocol.md in plain Python: slow, short and independent of the library."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

NOTHING = bytes(32)


def number(value: int) -> bytes:
    return value.to_bytes(8, "little")


def hash_leaf(index: int, content: bytes) -> bytes:
    head = b"morphogen/leaf/1" + number(index) + number(len(content))
    return sha256(head + content).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    return sha256(b"morphogen/node/1" + bytes(16) + left + right).digest()


@dataclass(frozen=True)
class Table:
    """A table of contents of equal length, and its tree."""

    contents: tuple[bytes, ...]
    proof_levels: int
    layout: bytes = b""

    @property
    def page_size(self) -> int:
        return len(self.contents[0]) + 32 * self.proof_levels

    @property
    def height(self) -> int:
        height = 0
        while 2**height < len(self.contents):
            height += 1
        return height

    def node(self, level: int, at: int) -> bytes:
        """The node that covers the pages at * 2^level and after, found from its children."""
        if at * 2**level >= len(self.contents):
            return NOTHING
        if level == 0:
            return hash_leaf(at, self.contents[at])
        return hash_node(*(self.node(level - 1, 2 * at + side) for side in (0, 1)))

    def page(self, at: int) -> bytes:
        siblings = (self.node(level, (at >> level) ^ 1) for level in range(self.proof_levels))
        return self.contents[at] + b"".join(siblings)

    def cap(self) -> list[bytes]:
        nodes = -(-len(self.contents) // 2**self.proof_levels)
        return [self.node(self.proof_levels, at) for at in range(nodes)]

    def root(self) -> bytes:
        shape = (len(self.contents), self.page_size, self.proof_levels)
        layout = sha256(self.layout).digest()
        top = self.node(self.height, 0)
        head = b"morphogen/root/1" + b"".join(map(number, shape))
        return sha256(head + layout + top).digest()

"""Section 12 of docs/protocol.md in plain Python: slow, short and independent of the library."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from authentication_format import Table

CHECK, HEAD, HEADER = 16, 20, 4096


@dataclass(frozen=True)
class Format:
    """The layout of a table."""

    num_pages: int
    page_size: int
    slots_per_page: int
    value_size: int
    seed: bytes
    entries: int
    fragments: int = 1
    proof_levels: int = 0

    def digest(self, key: bytes, fragment: int = 0) -> bytes:
        person = bytes.fromhex("6d6f7270686f67656e2f6b772f763100")
        salt = bytes([fragment]) + bytes(15)
        digest = hashlib.blake2b(key, digest_size=40, key=self.seed, salt=salt, person=person)
        return digest.digest()

    def candidates(self, key: bytes) -> tuple[int, ...]:
        words: list[int] = []
        for fragment in range(self.fragments):
            words += struct.unpack_from("<3Q", self.digest(key, fragment))
        return tuple(word * self.num_pages // 2**64 for word in words)

    def check(self, key: bytes, fragment: int = 0) -> bytes:
        return self.digest(key, fragment)[24:]

    def authenticated(self) -> bytes:
        numbers = (self.slots_per_page, self.value_size, self.entries)
        return struct.pack("<3Q", *numbers) + self.seed + struct.pack("<Q", self.fragments)

    def slots(self, page: bytes) -> list[bytes]:
        size = HEAD + self.value_size
        return [page[at * size : (at + 1) * size] for at in range(self.slots_per_page)]

    def find(self, key: bytes, pages: list[bytes]) -> bytes | None:
        """Return the value that pages hold, which are those of the candidates."""
        left, value = self.fragment(key, 0, pages[:3])
        if left is None:
            return None
        number = 1
        while len(value) < left:
            rest, more = self.fragment(key, number, pages[3 * number : 3 * number + 3])
            if rest is None or rest + len(value) != left:
                return None
            value += more
            number += 1
        return value

    def fragment(self, key: bytes, number: int, pages: list[bytes]) -> tuple[int | None, bytes]:
        """Return how many bytes are left at a fragment, and those in it."""
        for page in pages:
            for slot in self.slots(page):
                (stored,) = struct.unpack_from("<I", slot, CHECK)
                most = (self.fragments - number) * self.value_size + 1
                if slot[:CHECK] == self.check(key, number) and 1 <= stored <= most:
                    return stored - 1, slot[HEAD:][: stored - 1]
        return None, b""

    def fill(self, items: dict[bytes, bytes]) -> list[bytes]:
        """Return contents with each fragment in the first of its pages that has room."""
        contents = [b""] * self.num_pages
        for key, value in items.items():
            places = self.candidates(key)
            for number in range(max(1, -(-len(value) // max(1, self.value_size)))):
                rest = value[number * self.value_size :]
                slot = self.check(key, number) + struct.pack("<I", len(rest) + 1)
                slot += rest[: self.value_size].ljust(self.value_size, b"\0")
                full = self.slots_per_page * len(slot)
                at = next(p for p in places[3 * number :][:3] if len(contents[p]) < full)
                contents[at] += slot
        size = self.page_size - 32 * self.proof_levels
        return [content.ljust(size, b"\0") for content in contents]


def entries_of(table: Format, pages: list[bytes]) -> dict[bytes, tuple[int, bytes]]:
    """Return each check with its page and value; all other bytes must be zero."""
    found: dict[bytes, tuple[int, bytes]] = {}
    for number, page in enumerate(pages):
        used = table.slots_per_page * (HEAD + table.value_size)
        assert not any(page[used:])
        for slot in table.slots(page):
            (stored,) = struct.unpack_from("<I", slot, CHECK)
            if stored == 0:
                assert not any(slot)
                continue
            assert not any(slot[HEAD + stored - 1 :])
            assert slot[:CHECK] not in found
            found[slot[:CHECK]] = (number, slot[HEAD : HEAD + stored - 1])
    return found


def table_file(table: Format, pages: list[bytes]) -> bytes:
    """Return the bytes of a table's file."""
    body = b"".join(pages)
    head = b"MGKWT\r\n\x1a" + struct.pack("<II", 1, HEADER)
    head += struct.pack(
        "<5Q",
        table.num_pages,
        table.page_size,
        table.slots_per_page,
        table.value_size,
        table.entries,
    )
    head += table.seed + hashlib.sha256(body).digest()
    head = head.ljust(HEADER - 32, b"\0")
    return head + hashlib.sha256(head).digest() + body


def sealed_file(table: Format | None, contents: list[bytes], proof_levels: int) -> bytes:
    """Return the bytes of a file of version 2, of a table's contents or of pages without keys."""
    layout = b"" if table is None else table.authenticated()
    tree = Table(tuple(contents), proof_levels, layout)
    pages = [tree.page(at) for at in range(len(contents))]
    body = b"".join(pages)
    head = b"MGKWT\r\n\x1a" + struct.pack("<II", 2, HEADER)
    head += struct.pack("<2Q", len(pages), len(pages[0]))
    keys = layout[:40] or bytes(40)  # slots, size of values, entries, seed
    head += keys + hashlib.sha256(body).digest()
    head += struct.pack("<Q", proof_levels) + (layout[40:] or bytes(8)) + tree.root()
    head = head.ljust(HEADER - 32, b"\0")
    return head + hashlib.sha256(head).digest() + body + b"".join(tree.cap())

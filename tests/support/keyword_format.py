"""Section 12 of docs/protocol.md in plain Python: slow, short and independent of the library."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

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

    def digest(self, key: bytes) -> bytes:
        person = bytes.fromhex("6d6f7270686f67656e2f6b772f763100")
        return hashlib.blake2b(key, digest_size=40, key=self.seed, person=person).digest()

    def candidates(self, key: bytes) -> tuple[int, ...]:
        words = struct.unpack_from("<3Q", self.digest(key))
        return tuple(word * self.num_pages // 2**64 for word in words)

    def check(self, key: bytes) -> bytes:
        return self.digest(key)[24:]

    def slots(self, page: bytes) -> list[bytes]:
        size = HEAD + self.value_size
        return [page[at * size : (at + 1) * size] for at in range(self.slots_per_page)]

    def find(self, key: bytes, pages: list[bytes]) -> bytes | None:
        for page in pages:
            for slot in self.slots(page):
                (stored,) = struct.unpack_from("<I", slot, CHECK)
                if slot[:CHECK] == self.check(key) and 1 <= stored <= self.value_size + 1:
                    return slot[HEAD : HEAD + stored - 1]
        return None


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

"""Small authenticated keyword tables, made without the builder: every slot is written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from morphogen.authentication import Seal, seal_pages
from morphogen.authentication.hashing import HASH_BYTES
from morphogen.keyword.layout import HEAD_BYTES, TableLayout, hash_key
from naive import Bytes

SEED = bytes(range(16))


@dataclass(frozen=True)
class SealedTable:
    """A table, its layout and its entries."""

    seal: Seal
    layout: TableLayout
    items: dict[bytes, bytes]

    @property
    def contents(self) -> Bytes:
        return self.seal.pages[:, : self.layout.content_size]

    def place(self, key: bytes) -> int:
        """Which of the candidates of a key's first fragment has it."""
        check = hash_key(key, SEED, self.layout.num_pages)[1]
        for place, page in enumerate(self.layout.candidates(key)[:3]):
            if check in self.contents[page].tobytes():
                return place
        raise KeyError(key)


def sealed_table(
    items: Mapping[bytes, bytes],
    *,
    num_pages: int = 11,
    slots_per_page: int = 4,
    value_size: int = 8,
    fragments: int = 1,
    proof_levels: int = 2,
    padding: int = 3,
) -> SealedTable:
    """Put entries into candidates by turns, the first that has room, and seal the pages.

    Pages end with padding, which is no slot. The number of pages is no power of two, so that some
    siblings cover no page.
    """
    slot_size = HEAD_BYTES + value_size
    contents = np.zeros((num_pages, slots_per_page * slot_size + padding), dtype=np.uint8)
    used = [0] * num_pages
    entries = 0
    for key, value in items.items():
        for fragment in range(max(1, -(-len(value) // value_size))):
            places, check = hash_key(key, SEED, num_pages, fragment)
            turn = entries % 3
            page = next(
                page for page in places[turn:] + places[:turn] if used[page] < slots_per_page
            )
            rest = value[fragment * value_size :]
            slot = check + (len(rest) + 1).to_bytes(4, "little") + rest[:value_size]
            start = used[page] * slot_size
            contents[page, start : start + len(slot)] = np.frombuffer(slot, dtype=np.uint8)
            used[page] += 1
            entries += 1
    layout = TableLayout(
        num_pages=num_pages,
        page_size=contents.shape[1] + HASH_BYTES * proof_levels,
        slots_per_page=slots_per_page,
        value_size=value_size,
        seed=SEED,
        entries=entries,
        fragments=fragments,
        proof_levels=proof_levels,
    )
    seal = seal_pages(contents, layout.page_size, proof_levels, layout.authenticated_bytes())
    return SealedTable(seal, layout, dict(items))


def numbered_items(count: int = 20) -> dict[bytes, bytes]:
    return {b"key %d" % i: b"value %d" % i for i in range(count)}

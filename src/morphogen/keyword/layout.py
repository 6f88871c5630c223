"""The layout of a keyword table, and the lookup of a key.

Section 12 of docs/protocol.md defines every byte. A page is a bucket of equal slots, a key lies in
one of three pages, and a client that reads all three knows whether the table has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

import morphogen.dpf as dpf
from morphogen.checks import check_range
from morphogen.pages import MAX_PAGE_SIZE, check_array

Bytes = npt.NDArray[np.uint8]

VERSION = 1
CANDIDATES = 3
SEED_BYTES = 16
CHECK_BYTES = 16
HEAD_BYTES = CHECK_BYTES + 4  # of a slot: the check and the length
MAX_VALUE_SIZE = 2**32 - 2  # its length plus 1 has 4 bytes
_PERSON = b"morphogen/kw/v1\0"
_DIGEST_BYTES = 8 * CANDIDATES + CHECK_BYTES
_HEX = "0123456789abcdef"


@dataclass(frozen=True, slots=True)
class TableLayout:
    """The layout of a keyword table: all that a client needs to look a key up.

    Parameters
    ----------
    num_pages : int
        1 to 2**40.
    page_size : int
        Bytes a page, 1 to 2**40.
    slots_per_page : int
        Entries that a page has room for, 1 or more: they must fit a page.
    value_size : int
        Bytes of the largest value that a slot has room for, 0 to 2**32 - 2.
    seed : bytes
        16 bytes that choose the pages of each key. They are public.
    entries : int
        Keys in the table, 1 to num_pages * slots_per_page.

    Raises
    ------
    TypeError
        If a number is not an int, or seed is not bytes.
    ValueError
        If a field is out of its range: the message begins with its name.
    """

    num_pages: int
    page_size: int
    slots_per_page: int
    value_size: int
    seed: bytes
    entries: int

    def __post_init__(self) -> None:
        for field in fields(self):
            expected = bytes if field.name == "seed" else int
            value = getattr(self, field.name)
            # True is an int, but no number here.
            if not isinstance(value, expected) or isinstance(value, bool):
                raise TypeError(
                    f"{field.name} must be {expected.__name__}, not {type(value).__name__}"
                )
        check_range("num_pages", self.num_pages, 1, dpf.MAX_PAGES)
        check_range("page_size", self.page_size, 1, MAX_PAGE_SIZE)
        check_range("value_size", self.value_size, 0, MAX_VALUE_SIZE)
        check_range("slots_per_page", self.slots_per_page, 1, MAX_PAGE_SIZE)
        if self.slots_per_page * self.slot_size > self.page_size:
            raise ValueError(
                f"slots_per_page must be at most {self.page_size // self.slot_size}, as many slots "
                f"of {self.slot_size} bytes as a page of {self.page_size} bytes has room for, not "
                f"{self.slots_per_page}"
            )
        check_range("entries", self.entries, 1, self.num_pages * self.slots_per_page)
        if len(self.seed) != SEED_BYTES:
            raise ValueError(f"seed must have {SEED_BYTES} bytes, not {len(self.seed)}")

    @property
    def slot_size(self) -> int:
        """Bytes a slot."""
        return HEAD_BYTES + self.value_size

    @property
    def load(self) -> float:
        """Entries for each slot."""
        return self.entries / (self.num_pages * self.slots_per_page)

    def candidates(self, key: bytes) -> tuple[int, int, int]:
        """The pages that a key may lie in: always three, of which some may coincide.

        Parameters
        ----------
        key : bytes
            The key, whether or not the table has it.

        Returns
        -------
        tuple of (int, int, int)
            Each 0 <= index < num_pages.

        Raises
        ------
        TypeError
            If key is not bytes.

        Notes
        -----
        By BLAKE2b (RFC 7693) keyed with the seed: section 12 of docs/protocol.md.
        """
        first, second, third = hash_key(key, self.seed, self.num_pages)[0]
        return first, second, third

    def find(self, key: bytes, pages: Bytes) -> bytes | None:
        """Look a key up in its candidates.

        Parameters
        ----------
        key : bytes
            The key to look for.
        pages : numpy.ndarray
            uint8 of shape (3, page_size): the pages that `candidates` names, in any order.

        Returns
        -------
        bytes or None
            The key's value, which may be empty; None if the table does not have the key.

        Raises
        ------
        TypeError
            If key is not bytes, or pages is not an array of uint8.
        ValueError
            If pages has another shape.

        Notes
        -----
        The contents of the pages raise no error and do not change which comparisons are made: a
        server that spoils a page must not see it in the client's behaviour.
        """
        check_array("pages", pages, (CANDIDATES, self.page_size))
        check = hash_key(key, self.seed, self.num_pages)[1]
        used = pages[:, : self.slots_per_page * self.slot_size]
        slots = np.ascontiguousarray(used).reshape(-1, self.slot_size)
        same = (slots[:, :CHECK_BYTES] == np.frombuffer(check, dtype=np.uint8)).all(axis=1)
        stored = np.ascontiguousarray(slots[:, CHECK_BYTES:HEAD_BYTES]).view("<u4")[:, 0]
        # An empty slot is no entry, nor is one whose length is above that of a value.
        matches = np.flatnonzero(same & (stored >= 1) & (stored <= self.value_size + 1))
        if not matches.size:
            return None
        found = int(matches[0])
        length = int(stored[found]) - 1
        return slots[found, HEAD_BYTES : HEAD_BYTES + length].tobytes()

    def as_dict(self) -> dict[str, Any]:
        """The layout for JSON and MessagePack: numbers, and the seed in hexadecimal.

        Returns
        -------
        dict
            The fields that `from_dict` takes.
        """
        values: dict[str, Any] = {"version": VERSION}
        values |= {field.name: getattr(self, field.name) for field in fields(self)}
        values["seed"] = self.seed.hex()
        return values

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TableLayout:
        """Read what `as_dict` gave, and check all of it.

        Parameters
        ----------
        data : mapping
            Exactly the fields of `as_dict`.

        Returns
        -------
        TableLayout
            As it was when `as_dict` was called.

        Raises
        ------
        ValueError
            If a field is missing, unknown, of another type or out of its range: the message
            begins with its name.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"a table's layout must be a mapping, not {type(data).__name__}")
        names = [field.name for field in fields(cls)]
        for name in ("version", *names):
            if name not in data:
                raise ValueError(f"{name} is missing from the table's layout")
        unknown = len(data) - 1 - len(names)
        if unknown:
            raise ValueError(f"a table's layout has {unknown} fields that are unknown")
        if type(data["version"]) is not int or data["version"] != VERSION:
            raise ValueError(f"version must be {VERSION}: this table's layout is of another")
        values = {name: data[name] for name in names}
        seed = values["seed"]
        # bytes.fromhex takes spaces and capitals too: one layout has one form.
        if not isinstance(seed, str) or len(seed) != 2 * SEED_BYTES or seed.strip(_HEX):
            raise ValueError(f"seed must be {2 * SEED_BYTES} lower-case hexadecimal digits")
        values["seed"] = bytes.fromhex(seed)
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from None


def hash_key(key: bytes, seed: bytes, num_pages: int) -> tuple[list[int], bytes]:
    """A key's candidates and its check.

    Parameters
    ----------
    key : bytes
        Of any length.
    seed : bytes
        16 bytes, the table's.
    num_pages : int
        Pages in the table.

    Returns
    -------
    candidates : list of int
        Three pages, of which some may coincide.
    check : bytes
        16 bytes.

    Raises
    ------
    TypeError
        If key is not bytes.
    """
    if not isinstance(key, bytes):
        raise TypeError(f"key must be bytes, not {type(key).__name__}")
    digest = blake2b(key, key=seed, person=_PERSON, digest_size=_DIGEST_BYTES).digest()
    words = (int.from_bytes(digest[at : at + 8], "little") for at in range(0, 8 * CANDIDATES, 8))
    return [word * num_pages >> 64 for word in words], digest[8 * CANDIDATES :]

"""The layout of a keyword table, and the lookup of a key.

Section 12 of docs/protocol.md defines every byte. A page is a bucket of equal slots, a key lies in
one of three pages, and a client that reads all three knows whether the table has it. A value longer
than a slot has room for lies in several: its fragments, each in one of three pages of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

import morphogen.dpf as dpf
from morphogen.authentication.hashing import HASH_BYTES
from morphogen.authentication.shape import tree_height
from morphogen.checks import check_range
from morphogen.pages import MAX_PAGE_SIZE, check_array

Bytes = npt.NDArray[np.uint8]

VERSIONS = (1, 2)
CANDIDATES = 3
SEED_BYTES = 16
CHECK_BYTES = 16
HEAD_BYTES = CHECK_BYTES + 4  # of a slot: the check and the length
MAX_VALUE_SIZE = 2**32 - 2  # its length plus 1 has 4 bytes
MAX_FRAGMENTS = 32
_PERSON = b"morphogen/kw/v1\0"
_DIGEST_BYTES = 8 * CANDIDATES + CHECK_BYTES
_SALTS = tuple(number.to_bytes(16, "little") for number in range(MAX_FRAGMENTS))
_HEX = "0123456789abcdef"
_AUTHENTICATED = struct.Struct("<3Q16sQ")
_ADDED = ("fragments", "proof_levels")  # by version 2


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
        Bytes of a value that a slot has room for, 0 to 2**32 - 2.
    seed : bytes
        16 bytes that choose the pages of each key. They are public.
    entries : int
        Slots in use, 1 to num_pages * slots_per_page: a key has one for each fragment of its value.
    fragments : int, optional
        Slots that a value may take, 1 to 32: every lookup reads the pages of so many. The largest
        value has at most fragments * value_size bytes.
    proof_levels : int, optional
        Siblings at the end of each page, by which it proves itself: 0 to ceil(log2(num_pages)).
    version : int, optional
        1 or 2: of the table's format. Version 1 has one fragment and no proof levels.

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
    fragments: int = 1
    proof_levels: int = 0
    version: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            expected = bytes if field.name == "seed" else int
            value = getattr(self, field.name)
            # True is an int, but no number here.
            if not isinstance(value, expected) or isinstance(value, bool):
                raise TypeError(
                    f"{field.name} must be {expected.__name__}, not {type(value).__name__}"
                )
        check_version(self.version)
        if self.version == 1 and (self.fragments, self.proof_levels) != (1, 0):
            raise ValueError(
                "version must be 2 for a table of more than one fragment or of proof levels, not 1"
            )
        check_range("num_pages", self.num_pages, 1, dpf.MAX_PAGES)
        check_range("page_size", self.page_size, 1, MAX_PAGE_SIZE)
        check_range("value_size", self.value_size, 0, MAX_VALUE_SIZE)
        # An empty slot has no room for a second fragment, however many there are.
        most = min(MAX_FRAGMENTS, max(1, MAX_VALUE_SIZE // max(1, self.value_size)))
        check_range("fragments", self.fragments, 1, most if self.value_size else 1)
        check_range("proof_levels", self.proof_levels, 0, tree_height(self.num_pages))
        if self.content_size < 1:
            raise ValueError(
                f"proof_levels must be at most {(self.page_size - 1) // HASH_BYTES}, so that pages "
                f"of {self.page_size} bytes have room for content, not {self.proof_levels}"
            )
        check_range("slots_per_page", self.slots_per_page, 1, MAX_PAGE_SIZE)
        if self.slots_per_page * self.slot_size > self.content_size:
            raise ValueError(
                f"slots_per_page must be at most {self.content_size // self.slot_size}, as many "
                f"slots of {self.slot_size} bytes as {self._place} has room for, not "
                f"{self.slots_per_page}"
            )
        check_range("entries", self.entries, 1, self.num_pages * self.slots_per_page)
        if len(self.seed) != SEED_BYTES:
            raise ValueError(f"seed must have {SEED_BYTES} bytes, not {len(self.seed)}")

    @property
    def _place(self) -> str:
        page = f"a page of {self.page_size} bytes"
        return f"{page} with {self.proof_levels} proof levels" if self.proof_levels else page

    @property
    def content_size(self) -> int:
        """Bytes a page without its siblings."""
        return self.page_size - HASH_BYTES * self.proof_levels

    @property
    def max_value_size(self) -> int:
        """Bytes of the largest value that the table has room for."""
        return self.fragments * self.value_size

    @property
    def slot_size(self) -> int:
        """Bytes a slot."""
        return HEAD_BYTES + self.value_size

    @property
    def load(self) -> float:
        """Entries for each slot."""
        return self.entries / (self.num_pages * self.slots_per_page)

    def candidates(self, key: bytes) -> tuple[int, ...]:
        """The pages that a key may lie in: three for each fragment, of which some may coincide.

        Parameters
        ----------
        key : bytes
            The key, whether or not the table has it.

        Returns
        -------
        tuple of int
            3 * fragments, fragment by fragment; each 0 <= index < num_pages.

        Raises
        ------
        TypeError
            If key is not bytes.

        Notes
        -----
        By BLAKE2b (RFC 7693) keyed with the seed: section 12 of docs/protocol.md.
        """
        pages: list[int] = []
        for fragment in range(self.fragments):
            pages += hash_key(key, self.seed, self.num_pages, fragment)[0]
        return tuple(pages)

    def find(self, key: bytes, pages: Bytes) -> bytes | None:
        """Look a key up in its candidates.

        Parameters
        ----------
        key : bytes
            The key to look for.
        pages : numpy.ndarray
            uint8 of shape (3 * fragments, page_size): the pages that `candidates` names, those of
            one fragment in any order.

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
        check_array("pages", pages, (CANDIDATES * self.fragments, self.page_size))
        used = pages[:, : self.slots_per_page * self.slot_size]
        slots = np.ascontiguousarray(used).reshape(self.fragments, -1, self.slot_size)
        parts = [self._find(key, fragment, slots[fragment]) for fragment in range(self.fragments)]
        first = parts[0]
        if first is None:
            return None
        length = first[0]
        # Fragment f says how many bytes are left from its own on.
        needed = parts[: max(1, -(-length // max(1, self.value_size)))]
        left = range(length, -1, -max(1, self.value_size))
        value = b""
        for part, rest in zip(needed, left, strict=False):
            if part is None or part[0] != rest:
                return None
            value += part[1]
        return value

    def _find(self, key: bytes, fragment: int, slots: Bytes) -> tuple[int, bytes] | None:
        """The bytes of a value that are left at a fragment, and those in it."""
        check = hash_key(key, self.seed, self.num_pages, fragment)[1]
        same = (slots[:, :CHECK_BYTES] == np.frombuffer(check, dtype=np.uint8)).all(axis=1)
        stored = np.ascontiguousarray(slots[:, CHECK_BYTES:HEAD_BYTES]).view("<u4")[:, 0]
        # An empty slot is no entry, nor is one whose length is above that of a value.
        most = (self.fragments - fragment) * self.value_size
        matches = np.flatnonzero(same & (stored >= 1) & (stored <= most + 1))
        if not matches.size:
            return None
        found = int(matches[0])
        left = int(stored[found]) - 1
        held = min(left, self.value_size)
        return left, slots[found, HEAD_BYTES : HEAD_BYTES + held].tobytes()

    def authenticated_bytes(self) -> bytes:
        """What the root of the table's pages vouches for beside them and their shape.

        Returns
        -------
        bytes
            48 bytes, the ``layout`` of `morphogen.authentication`.

        Raises
        ------
        ValueError
            If the table is of version 1, which has no root.
        """
        if self.version == 1:
            raise ValueError("version must be 2 for a table with a root, not 1")
        return _AUTHENTICATED.pack(
            self.slots_per_page, self.value_size, self.entries, self.seed, self.fragments
        )

    def as_dict(self) -> dict[str, Any]:
        """The layout for JSON and MessagePack: numbers, and the seed in hexadecimal.

        Returns
        -------
        dict
            The fields that `from_dict` takes.
        """
        values = {name: getattr(self, name) for name in ("version", *_names(self.version))}
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
        if "version" not in data:
            raise ValueError("version is missing from the table's layout")
        check_version(data["version"])
        names = _names(data["version"])
        for name in names:
            if name not in data:
                raise ValueError(f"{name} is missing from the table's layout")
        unknown = len(data) - 1 - len(names)
        if unknown:
            raise ValueError(f"a table's layout has {unknown} fields that are unknown")
        values = {name: data[name] for name in names}
        seed = values["seed"]
        # bytes.fromhex takes spaces and capitals too: one layout has one form.
        if not isinstance(seed, str) or len(seed) != 2 * SEED_BYTES or seed.strip(_HEX):
            raise ValueError(f"seed must be {2 * SEED_BYTES} lower-case hexadecimal digits")
        values["seed"] = bytes.fromhex(seed)
        try:
            return cls(**values, version=data["version"])
        except TypeError as error:
            raise ValueError(str(error)) from None


def check_version(version: object) -> None:
    """Refuse a version of the format that this release does not know.

    Raises
    ------
    ValueError
        If it is not 1 or 2.
    """
    if type(version) is not int or version not in VERSIONS:
        # A server may have sent it: anything else could be as long as a key, and be one.
        given = f", not {version}" if type(version) is int and abs(version) < 2**32 else ""
        raise ValueError(f"version must be 1 or 2{given}: this table's layout is of another")


def _names(version: int) -> list[str]:
    names = [field.name for field in fields(TableLayout) if field.name != "version"]
    return [name for name in names if version > 1 or name not in _ADDED]


def hash_key(key: bytes, seed: bytes, num_pages: int, fragment: int = 0) -> tuple[list[int], bytes]:
    """A key's candidates and its check.

    Parameters
    ----------
    key : bytes
        Of any length.
    seed : bytes
        16 bytes, the table's.
    num_pages : int
        Pages in the table.
    fragment : int, optional
        Of the key's value, 0 to 31.

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
    digest = blake2b(
        key, key=seed, salt=_SALTS[fragment], person=_PERSON, digest_size=_DIGEST_BYTES
    ).digest()
    words = (int.from_bytes(digest[at : at + 8], "little") for at in range(0, 8 * CANDIDATES, 8))
    return [word * num_pages >> 64 for word in words], digest[8 * CANDIDATES :]

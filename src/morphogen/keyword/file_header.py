"""What the headers of tables and of deltas have in common: 4096 bytes that end with their SHA-256.

Sections 12.4 and 15 of docs/protocol.md define every byte.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from morphogen.errors import MorphogenError

HEADER_BYTES = 4096
_SEAL_BYTES = 32
_VERSION = struct.Struct("<II")  # behind the magic: version, bytes of the header


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file that begins with such a header.

    Parameters
    ----------
    name : str
        For messages: "keyword table".
    magic : bytes
        The first bytes.
    field_bytes : mapping of int to int
        Bytes of the fields behind the version, in each version of the format. All others are zero.
    error : type
        Of the errors, made of a message.
    """

    name: str
    magic: bytes
    field_bytes: Mapping[int, int]
    error: type[MorphogenError]

    def pack(self, version: int, fields: bytes) -> bytes:
        """Write a header: 4096 bytes.

        Parameters
        ----------
        version : int
            Of the format.
        fields : bytes
            Those behind the version.
        """
        head = self.magic + _VERSION.pack(version, HEADER_BYTES) + fields
        sealed = head.ljust(HEADER_BYTES - _SEAL_BYTES, b"\0")
        return sealed + sha256(sealed).digest()

    def unpack(self, head: bytes, path: str | os.PathLike[str]) -> tuple[int, bytes]:
        """Check a header as a whole.

        Parameters
        ----------
        head : bytes
            The first 4096 bytes of the file, or as many as it has.
        path : path-like
            Of the file, for messages.

        Returns
        -------
        version : int
        fields : bytes
            Those behind the version.

        Raises
        ------
        MorphogenError
            Of the kind, if it is none, was altered, or is of a version that nobody here reads.
        """
        name, start = os.fspath(path), len(self.magic)
        if head[:start] != self.magic:
            raise self.error(f"{name} is not a {self.name}: it begins otherwise")
        if len(head) < HEADER_BYTES:
            raise self.error(
                f"{name} is truncated: a {self.name} has a header of {HEADER_BYTES} bytes, this "
                f"file has {len(head)} in all"
            )
        if not any(head[start:]):
            raise self.error(f"{name} was not written to its end")
        sealed, seal = head[:-_SEAL_BYTES], head[-_SEAL_BYTES:]
        if sha256(sealed).digest() != seal:
            raise self.altered(path, "its header does not have the SHA-256 that it says")
        # From here on nothing was altered by accident, but the writer may be another one.
        version, header_bytes = _VERSION.unpack_from(sealed, start)
        if version not in self.field_bytes or header_bytes != HEADER_BYTES:
            known = "version " if len(self.field_bytes) == 1 else "versions "
            known += " and ".join(map(str, self.field_bytes))
            raise self.error(
                f"{name} has version {version} of the format and a header of {header_bytes} bytes; "
                f"this release reads {known}, and {HEADER_BYTES}"
            )
        fields, size = sealed[start + _VERSION.size :], self.field_bytes[version]
        if any(fields[size:]):
            raise self.error(f"{name} has a header whose unused bytes are not zero")
        return version, fields[:size]

    def check_size(self, length: int, expected: int, path: str | os.PathLike[str]) -> None:
        """Compare the bytes of a file with those that its header says.

        Raises
        ------
        MorphogenError
            Of the kind, if they differ.
        """
        if length != expected:
            what = "truncated" if length < expected else "too long"
            raise self.error(f"{os.fspath(path)} is {what}: {length} bytes instead of {expected}")

    def altered(self, path: str | os.PathLike[str], why: str) -> MorphogenError:
        """The error of a file that is not as it was written."""
        return self.error(f"{os.fspath(path)} was altered: {why}")

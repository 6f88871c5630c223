"""Section 15 of docs/protocol.md in plain Python: the bytes of a delta file."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from hashlib import sha256

HEADER = 4096


def delta_file(
    changes: Mapping[int, bytes],
    *,
    epochs: tuple[int, int],
    shape: tuple[int, int, int],
    roots: tuple[bytes, bytes],
    layout: bytes = b"",
) -> bytes:
    """Return the delta that gives pages new contents; a shape is pages, page size, proof levels."""
    numbers = b"".join(struct.pack("<Q", number) for number in sorted(changes))
    numbers += bytes(-len(numbers) % 4096)
    body = numbers + b"".join(changes[number] for number in sorted(changes))
    head = bytes.fromhex("4d474b444c0d0a1a") + struct.pack("<II", 1, HEADER)
    head += struct.pack("<6Q", *epochs, *shape, len(changes))
    head += roots[0] + roots[1] + layout.ljust(48, b"\0") + sha256(body).digest()
    return sealed(head.ljust(HEADER, b"\0")) + body


def sealed(raw: bytes) -> bytes:
    """Return the same with a header that says its own SHA-256, by somebody who knows how."""
    return raw[: HEADER - 32] + sha256(raw[: HEADER - 32]).digest() + raw[HEADER:]


def resealed(raw: bytes) -> bytes:
    """Return the same with a header that says both SHA-256."""
    return sealed(raw[:176] + sha256(raw[HEADER:]).digest() + raw[208:])

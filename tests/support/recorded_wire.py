"""The recorded bytes of the wire format, version 1, and the pages that they were made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from naive import Bytes

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
RECORD: dict[str, Any] = json.loads((VECTORS / "wire_v1.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Exchange:
    """A request and its answer."""

    name: str
    party: int
    path: str
    kind: str
    request: bytes
    status: int
    answered_kind: str
    response: bytes


def _body(kind: str, text: str) -> bytes:
    return text.encode() if "json" in kind else bytes.fromhex(text)


EXCHANGES = [
    Exchange(
        name=f"{entry['name']}, party {entry['party']}",
        party=entry["party"],
        path=entry["path"],
        kind=entry["type"],
        request=_body(entry["type"], entry["request"]),
        status=entry["status"],
        answered_kind=entry["answered_type"],
        response=_body(entry["answered_type"], entry["response"]),
    )
    for entry in RECORD["exchanges"]
]
# Parties 0 and 1 over the pages below, and party 1 over keyword_v1.table.
EPOCHS = [text.encode() for text in RECORD["epoch"]]
KEYS = [[[bytes.fromhex(key) for key in keys] for keys in half] for half in RECORD["keys"]]


def recorded_pages() -> Bytes:
    """The table that answered: each page is the beginning of its number's SHA-256."""
    size = RECORD["page_size"]
    pages = (sha256(f"page {i}".encode()).digest()[:size] for i in range(RECORD["num_pages"]))
    return np.frombuffer(b"".join(pages), dtype=np.uint8).reshape(-1, size)

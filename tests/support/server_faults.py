"""What a fake server does wrong: its replies, altered, cut and held back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from naive import Bytes


@dataclass(frozen=True)
class Reply:
    """A response that the server will send.

    Attributes
    ----------
    cut : int or None
        Bytes of the body after which the server closes the connection; -1 to close it at once.
    held : bool
        Whether the server keeps the rest until it closes.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    held: bool = False


Fault = Callable[[Reply], Reply]


def problem(status: int, where: str = "", **headers: str) -> Reply:
    """Return a response with a problem document."""
    body = json.dumps({"title": "no", "status": status, "detail": "no", "field": where}).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"Content-Type": "application/problem+json", **names}, body)


def instead(reply: Reply) -> Fault:
    """Send this response instead."""
    return lambda _: reply


def dropped(reply: Reply) -> Reply:
    """Close the connection without a response."""
    return replace(reply, cut=-1)


def half(reply: Reply) -> Reply:
    """Close the connection in the middle of the body."""
    return replace(reply, cut=len(reply.body) // 2)


def stuck(reply: Reply) -> Reply:
    """Send half of the body, then nothing."""
    return replace(reply, cut=len(reply.body) // 2, held=True)


def altered_answer(**changes: Any) -> Fault:
    """Replace fields of the answer by false ones."""

    def alter(reply: Reply) -> Reply:
        answer = msgspec.msgpack.decode(reply.body)
        assert set(changes) <= set(answer)
        return replace(reply, body=msgspec.msgpack.encode({**answer, **changes}))

    return alter


def altered_pages(reply: Reply) -> Reply:
    """Spoil every page of the answer."""
    answer = msgspec.msgpack.decode(reply.body)
    for result in answer["results"]:
        result["pages"] = [bytes(255 - byte for byte in page) for page in result["pages"]]
    return replace(reply, body=msgspec.msgpack.encode(answer))


def xored_pages(error: Bytes) -> Fault:
    """Lie: XOR every page of an answer, or those at its keys, with an error.

    The error's shape is (page_size,), (keys, page_size) or (queries, keys, page_size).
    """

    def alter(reply: Reply) -> Reply:
        answer = msgspec.msgpack.decode(reply.body)
        for at, result in enumerate(answer["results"]):
            pages = np.array([np.frombuffer(page, np.uint8) for page in result["pages"]])
            pages ^= error[at] if error.ndim == 3 else error
            result["pages"] = [page.tobytes() for page in pages]
        return replace(reply, body=msgspec.msgpack.encode(answer))

    return alter


def flipped_byte(at: int) -> Fault:
    """Flip every bit of one byte of the body, such as of a cap."""

    def alter(reply: Reply) -> Reply:
        body = bytearray(reply.body)
        body[at] ^= 0xFF
        return replace(reply, body=bytes(body))

    return alter

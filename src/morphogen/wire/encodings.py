"""The two encodings: which one a body has, what their readers refuse, bytes as text."""

from __future__ import annotations

import re

import msgspec

from morphogen.errors import WireError
from morphogen.wire.forms import JSON, MSGPACK

_MESSAGE = re.compile(r"(?P<text>.*?)(?: - at `\$\.?(?P<field>.*)`)?", re.DOTALL)


def media_type(content_type: str) -> str:
    """The encoding that a Content-Type header names.

    Parameters
    ----------
    content_type : str
        The header's value, with or without parameters.

    Returns
    -------
    str
        `JSON` or `MSGPACK`.

    Raises
    ------
    WireError
        If it is neither.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in (JSON, MSGPACK):
        raise WireError(f"the content type must be {JSON} or {MSGPACK}", "Content-Type")
    return kind


def as_wire_error(error: Exception) -> WireError:
    """The error of a reader, without what the sender wrote."""
    if not isinstance(error, msgspec.MsgspecError):
        return WireError("the body is malformed")
    match = _MESSAGE.fullmatch(str(error))
    assert match is not None
    text, field = match["text"], match["field"] or ""
    if "unknown field" in text:
        text = "there is a field that is not known"  # the sender chose its name
    if not text.startswith(("JSON", "MessagePack")):
        text = text[:1].lower() + text[1:]
    return WireError(text, field)


def write_hex(data: bytes | memoryview) -> str:
    """Bytes as JSON has them."""
    return "0x" + data.hex()


def read_bytes(item: str | bytes | memoryview, field: str) -> bytes | memoryview:
    """Bytes of either encoding.

    Raises
    ------
    WireError
        If a text is not just 0x and an even number of hexadecimal digits.
    """
    if not isinstance(item, str):
        return item
    try:
        data = bytes.fromhex(item[2:])
    except ValueError:
        data = None
    # fromhex skips white space, which no other reader of these messages need do.
    if data is None or item[:2] != "0x" or 2 * len(data) != len(item) - 2:
        raise WireError("must be 0x and an even number of hexadecimal digits", field)
    return data

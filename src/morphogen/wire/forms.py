"""The forms of requests and answers, each once for both encodings."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

import msgspec

# Bounded, since a refusal says the number: whatever a client sends could come back in it.
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Item = TypeVar("Item", str, bytes)  # a key or a page: hexadecimal in JSON, binary in MessagePack


class QueryBody(msgspec.Struct, Generic[Item], forbid_unknown_fields=True, omit_defaults=True):
    """A query within a request."""

    keys: list[Item]


class BatchBody(msgspec.Struct, Generic[Item], forbid_unknown_fields=True, omit_defaults=True):
    """The body of a request of 1 to 32 queries."""

    queries: list[QueryBody[Item]]
    epoch_id: Number | None = None
    num_pages: Number | None = None


class SingleBody(msgspec.Struct, Generic[Item], forbid_unknown_fields=True, omit_defaults=True):
    """The body of a request of one query."""

    keys: list[Item]
    epoch_id: Number | None = None
    num_pages: Number | None = None


class ResultBody(msgspec.Struct, Generic[Item]):
    """One query's pages within an answer."""

    pages: list[Item]


class BatchResponseBody(msgspec.Struct, Generic[Item]):
    """The body of an answer to a batch."""

    epoch_id: int
    results: list[ResultBody[Item]]
    num_pages: int
    digest: str


class SingleResponseBody(msgspec.Struct, Generic[Item]):
    """The body of an answer to one query."""

    epoch_id: int
    pages: list[Item]
    num_pages: int
    digest: str

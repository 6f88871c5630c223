"""The messages between a client and a server, and the parts that they are read as.

Keys and pages are read as hexadecimal from JSON and as bytes from MessagePack. Messages are written
from plain mappings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from morphogen.query import Query

JSON, MSGPACK = "application/json", "application/msgpack"
MAX_QUERIES = 32

# Bounded, since a refusal says the number: a longer one could repeat secrets of the client.
MAX_NUMBER = 2**63 - 1
Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]
Item = TypeVar("Item", str, bytes, memoryview)  # a key or a page

if TYPE_CHECKING:
    import typing_extensions  # for the defaults, which Python has from 3.13 on

    Queries = typing_extensions.TypeVar("Queries", default=list[Query])
    Pages = typing_extensions.TypeVar("Pages", default=npt.NDArray[np.uint8])
else:
    Queries, Pages = TypeVar("Queries"), TypeVar("Pages")


class EpochInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the epochs that a server answers for: each member is as in `TableInfo`.

    Attributes
    ----------
    epoch_id, num_pages, page_size, keys_per_query : int
    digest : str
    table : dict or None
    root : str or None
    proof_levels : int or None
    manifest : str or None
    """

    epoch_id: int
    num_pages: int
    page_size: int
    keys_per_query: int
    digest: str
    # Not a default to msgspec, which would leave it out: a table without a layout says null.
    table: dict[str, Any] | None = msgspec.field(default_factory=lambda: None)
    root: str | None = None
    proof_levels: int | None = None
    manifest: str | None = None


class TableInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer of ``GET /epoch``: the description of a server and its pages.

    Attributes
    ----------
    party : int
        0 or 1: it answers the keys of this party.
    epoch_id, num_pages, page_size, keys_per_query : int
        The version of the pages, their number, the bytes of each, and the keys that a query must
        have. A server of several epochs tells of its current one here.
    format_version : int
        Of the keys and of these messages, 1.
    digest : str
        SHA-256 of all pages one after the other, in hexadecimal. Of authenticated pages it is the
        root.
    device : str
        The device that answers: "cpu", "cuda:0".
    table : dict or None
        The layout of a keyword table, its seed included (`TableLayout.as_dict`).
    root : str or None
        Of authenticated pages: the root of their tree, 32 bytes in hexadecimal.
    proof_levels : int or None
        Of authenticated pages: the siblings in each. The cap is at `cap_path`.
    manifest : str or None
        What the table's owner signed of it, 256 bytes in hexadecimal.
    epochs : list of EpochInfo or None
        All epochs that the server answers for, the current one among them. `offers` reads them.
    """

    party: int
    epoch_id: int
    num_pages: int
    page_size: int
    keys_per_query: int
    format_version: int
    digest: str
    device: str
    table: dict[str, Any] | None = msgspec.field(default_factory=lambda: None)  # null, too
    root: str | None = None
    proof_levels: int | None = None
    manifest: str | None = None
    epochs: list[EpochInfo] | None = None


class BatchRequest(msgspec.Struct, Generic[Queries], frozen=True, forbid_unknown_fields=True):
    """A request that was found well-formed and for these pages.

    Attributes
    ----------
    queries : list of Query
    epoch_id, num_pages : int or None
        The epoch and the number of pages that the client expects, if it says so.
    """

    queries: Queries
    epoch_id: Number | None = None
    num_pages: Number | None = None


class BatchResponse(
    msgspec.Struct, Generic[Pages], frozen=True, eq=False, rename={"pages": "results"}
):
    """An answer.

    Attributes
    ----------
    epoch_id, num_pages : int
        Of the pages that answered.
    digest : str
        As in `TableInfo`.
    pages : numpy.ndarray
        uint8 of shape (queries, keys per query, page_size).
    """

    epoch_id: int
    num_pages: int
    digest: str
    pages: Pages


class QueryForm(msgspec.Struct, Generic[Item], forbid_unknown_fields=True):
    """A query as a request has it."""

    keys: list[Item]


class SingleForm(QueryForm[Item], Generic[Item], forbid_unknown_fields=True):
    """A request of one query."""

    epoch_id: Number | None = None
    num_pages: Number | None = None


RequestForm = BatchRequest[list[QueryForm[Any]]] | SingleForm[Any]  #: A request, its keys unread.


class ResultForm(msgspec.Struct, Generic[Item]):
    """The pages of one query as an answer has them."""

    pages: list[Item]

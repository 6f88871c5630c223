"""The bytes of requests and answers, in JSON and in MessagePack.

docs/protocol.md, section 11, defines every body. Errors name fields and sizes, never the
bytes of a key or of a page.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

import morphogen.dpf as dpf
import morphogen.wire.forms as forms
from morphogen.checks import as_int, check_range
from morphogen.errors import InvalidKeyError, WireError
from morphogen.query import Query, query_of_checked_keys
from morphogen.wire.encodings import (
    as_wire_error,
    media_type as media_type,
    read_bytes,
    write_hex,
)
from morphogen.wire.forms import (
    MAX_NUMBER,
    BatchRequest as BatchRequest,
    BatchResponse as BatchResponse,
    EpochInfo as EpochInfo,
    QueryForm,
    RequestForm as RequestForm,
    ResultForm,
    SingleForm,
    TableInfo as TableInfo,
)
from morphogen.wire.offers import offers as offers, with_epochs as with_epochs
from morphogen.wire.paths import (
    EPOCH_HEADER as EPOCH_HEADER,
    EPOCH_PATH as EPOCH_PATH,
    QUERY_PATH as QUERY_PATH,
    SINGLE_PATH as SINGLE_PATH,
    cap_path as cap_path,
    table_path as table_path,
)
from morphogen.wire.sizes import (
    fewest_queries as fewest_queries,
    max_body_bytes as max_body_bytes,
)

JSON = forms.JSON  #: Content type of JSON bodies.
MSGPACK = forms.MSGPACK  #: Content type of MessagePack bodies.
OCTETS = "application/octet-stream"  #: Content type of a cap.
FORMAT_VERSION = 1  #: Of the keys and of these messages.
MAX_QUERIES = forms.MAX_QUERIES  #: The most queries in one request.


class WireTooManyError(WireError):
    """A request has more queries than one request may have."""


class WireConflictError(WireError):
    """A well-formed request is for the other party, for other pages or for another epoch."""


_REQUESTS = {
    JSON: msgspec.json.Decoder(BatchRequest[list[QueryForm[str]]]),
    MSGPACK: msgspec.msgpack.Decoder(BatchRequest[list[QueryForm[bytes]]]),
}
_SINGLE_REQUESTS = {
    JSON: msgspec.json.Decoder(SingleForm[str]),
    MSGPACK: msgspec.msgpack.Decoder(SingleForm[bytes]),
}
_RESPONSES = {
    JSON: msgspec.json.Decoder(BatchResponse[list[ResultForm[str]]]),
    # Pages are read where they lie in the body.
    MSGPACK: msgspec.msgpack.Decoder(BatchResponse[list[ResultForm[memoryview]]]),
}


def decode_request(
    body: bytes, content_type: str, info: TableInfo, *, single: bool = False
) -> BatchRequest:
    """Read a request, and check all of it against the description of the pages.

    Parameters
    ----------
    body : bytes
        The body that was received.
    content_type : str
        `JSON` or `MSGPACK`.
    info : TableInfo
        Of this server.
    single : bool, optional
        Whether it is the body for one query.

    Returns
    -------
    BatchRequest
        Well-formed, and for these pages.

    Raises
    ------
    WireTooManyError
        If it has more than `MAX_QUERIES` queries.
    WireConflictError
        If a key is of the other party or for another number of pages, or epoch_id or num_pages are
        not this server's.
    WireError
        If anything else is wrong. Every error names the field.
    """
    return check_request(read_request(body, content_type, single=single), info)


def read_request(body: bytes, content_type: str, *, single: bool = False) -> RequestForm:
    """Read a request's form, and leave its keys for `check_request`.

    Parameters
    ----------
    body : bytes
        The body that was received.
    content_type : str
        `JSON` or `MSGPACK`.
    single : bool, optional
        Whether it is the body for one query.

    Returns
    -------
    RequestForm
        Its epoch_id tells which of several epochs it is for.

    Raises
    ------
    WireTooManyError
        If it has more than `MAX_QUERIES` queries.
    WireError
        If it does not have the form of a request. Every error names the field.
    """
    form: RequestForm = _decode(body, content_type, _SINGLE_REQUESTS if single else _REQUESTS)
    if isinstance(form, SingleForm):
        return form
    if not form.queries:
        raise WireError(f"there must be 1 to {MAX_QUERIES} queries, not 0", "queries")
    if len(form.queries) > MAX_QUERIES:
        raise WireTooManyError(
            f"there may be at most {MAX_QUERIES} queries, not {len(form.queries)}", "queries"
        )
    return form


def check_request(form: RequestForm, info: TableInfo) -> BatchRequest:
    """Check a request and its keys against the description of the pages.

    Parameters
    ----------
    form : RequestForm
        From `read_request`.
    info : TableInfo
        Of this server, in the epoch that the request is for.

    Returns
    -------
    BatchRequest
        Well-formed, and for these pages.

    Raises
    ------
    WireConflictError, WireError
        As from `decode_request`.
    """
    for name, ours in (("epoch_id", info.epoch_id), ("num_pages", info.num_pages)):
        theirs = getattr(form, name)
        if theirs is not None and theirs != ours:
            raise WireConflictError(f"the table's {name} is {ours}, not {theirs}", name)
    if isinstance(form, SingleForm):
        fields = [("keys", form.keys)]
    else:
        fields = [(f"queries[{at}].keys", query.keys) for at, query in enumerate(form.queries)]
    queries = [_read_query(keys, field, info) for field, keys in fields]
    return BatchRequest(queries, form.epoch_id, form.num_pages)


def _read_query(keys: list[Any], field: str, info: TableInfo) -> Query:
    if len(keys) != info.keys_per_query:
        raise WireError(f"a query has {info.keys_per_query} keys here, not {len(keys)}", field)
    read = []
    log_pages = (info.num_pages - 1).bit_length()
    for at, item in enumerate(keys):
        where = f"{field}[{at}]"
        try:
            key, party, n = dpf.parse_key(read_bytes(item, where))
        except InvalidKeyError as error:
            # Without the given bytes: bytes of a key are not for logs.
            raise WireError(str(error).partition(", this one")[0], where) from None
        if n != log_pages:
            raise WireConflictError(
                f"the key is for a table of another size: its n is {n}, the table's {log_pages}",
                where,
            )
        if party != info.party:
            raise WireConflictError(
                f"the key is party {party}'s, and this server is party {info.party}", where
            )
        read.append(key)
    return query_of_checked_keys(tuple(read), log_pages)


def encode_request(
    queries: list[Query],
    *,
    epoch_id: int | None = None,
    num_pages: int | None = None,
    content_type: str = MSGPACK,
) -> bytes:
    """Write a request.

    Parameters
    ----------
    queries : list of Query
        One party's.
    epoch_id, num_pages : int, optional
        The epoch and the number of pages that they are for. The server compares them.
    content_type : str, optional
        `JSON` or, by default, `MSGPACK`.

    Returns
    -------
    bytes
        The body.

    Raises
    ------
    TypeError, ValueError
        If a number is no int, or not in 0..2**63 - 1.
    """
    lists: list[Any] = [query.keys for query in queries]
    if content_type == JSON:
        lists = [[write_hex(key) for key in keys] for keys in lists]
    body: dict[str, Any] = {"queries": [{"keys": keys} for keys in lists]}
    for name, number in (("epoch_id", epoch_id), ("num_pages", num_pages)):
        if number is not None:
            body[name] = as_int(name, number)
            check_range(name, body[name], 0, MAX_NUMBER)
    return _encode(body, content_type)


def encode_response(
    response: BatchResponse[Any], content_type: str, *, single: bool = False
) -> bytes:
    """Write an answer.

    Parameters
    ----------
    response : BatchResponse
        The answer. Its pages may also be a list with the pages of each query.
    content_type : str
        `JSON` or `MSGPACK`.
    single : bool, optional
        Whether it answers one query's request.

    Returns
    -------
    bytes
        The body.
    """
    lists: list[Any] = [
        [np.ascontiguousarray(page).data for page in pages] for pages in response.pages
    ]
    if content_type == JSON:
        lists = [[write_hex(page) for page in pages] for pages in lists]
    results = [{"pages": pages} for pages in lists]
    body: dict[str, Any] = {"epoch_id": response.epoch_id}
    body |= results[0] if single else {"results": results}
    body |= {"num_pages": response.num_pages, "digest": response.digest}
    return _encode(body, content_type)


def decode_response(
    body: bytes | bytearray, content_type: str, info: TableInfo, expected_queries: int
) -> BatchResponse:
    """Read the answer to a batch.

    Parameters
    ----------
    body : bytes or bytearray
        The body that was received.
    content_type : str
        `JSON` or `MSGPACK`.
    info : TableInfo
        Of the server that answered. Epoch, num_pages and digest are left to the caller to compare.
    expected_queries : int
        The number of queries in the request.

    Returns
    -------
    BatchResponse
        Well-formed, and for that many queries.

    Raises
    ------
    WireError
        If it does not have the form of an answer to that many queries of these pages.
    """
    raw = _decode(body, content_type, _RESPONSES)
    if len(raw.pages) != expected_queries:
        raise WireError(f"expected {expected_queries} results, not {len(raw.pages)}", "results")
    pages = np.empty((expected_queries, info.keys_per_query, info.page_size), dtype=np.uint8)
    for at, result in enumerate(raw.pages):
        field = f"results[{at}].pages"
        if len(result.pages) != info.keys_per_query:
            raise WireError(f"expected {info.keys_per_query} pages, not {len(result.pages)}", field)
        for position, item in enumerate(result.pages):
            page = read_bytes(item, f"{field}[{position}]")
            if len(page) != info.page_size:
                raise WireError(
                    f"expected a page of {info.page_size} bytes, not {len(page)}",
                    f"{field}[{position}]",
                )
            pages[at, position] = np.frombuffer(page, dtype=np.uint8)
    return BatchResponse(raw.epoch_id, raw.num_pages, raw.digest, pages)


def decode_info(body: bytes | bytearray) -> TableInfo:
    """Read the answer of ``GET /epoch``.

    Parameters
    ----------
    body : bytes or bytearray
        JSON.

    Returns
    -------
    TableInfo
        As the server says it, whether or not it is possible.

    Raises
    ------
    WireError
        If it is something else.
    """
    try:
        return msgspec.json.decode(body, type=TableInfo)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise as_wire_error(error) from None


def _decode(body: bytes | bytearray, content_type: str, decoders: dict[str, Any]) -> Any:
    try:
        return decoders[media_type(content_type)].decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise as_wire_error(error) from None


def _encode(body: dict[str, Any], content_type: str) -> bytes:
    return msgspec.json.encode(body) if content_type == JSON else msgspec.msgpack.encode(body)

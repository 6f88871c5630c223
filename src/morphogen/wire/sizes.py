"""Sizes of bodies: the most bytes that a request needs, and the fewest queries that it has."""

from __future__ import annotations

import morphogen.dpf as dpf
from morphogen.planner import MAX_KEYS_PER_QUERY
from morphogen.wire.forms import JSON, MAX_QUERIES, TableInfo

# Beside keys in a body: names, brackets, and the white space of somebody who indents his JSON.
_BYTES_A_BODY, _BYTES_A_QUERY, _BYTES_A_KEY = 4096, 128, 64
# MessagePack has no white space: the longest forms of the same.
_PACKED_BODY, _PACKED_QUERY, _PACKED_KEY = 128, 24, 8


def max_body_bytes(info: TableInfo) -> int:
    """The most bytes that a request can need, in either encoding.

    Parameters
    ----------
    info : TableInfo
        The description of the pages.

    Returns
    -------
    int
        Bytes.
    """
    a_key = 2 * dpf.key_size(info.num_pages) + _BYTES_A_KEY  # hexadecimal is the larger
    return _BYTES_A_BODY + MAX_QUERIES * (_BYTES_A_QUERY + MAX_KEYS_PER_QUERY * a_key)


def fewest_queries(length: int, content_type: str, info: TableInfo) -> int:
    """The fewest queries that a request's body has, by its length.

    Parameters
    ----------
    length : int
        Of the body, in bytes.
    content_type : str
        `JSON` or `MSGPACK`.
    info : TableInfo
        The description of the pages.

    Returns
    -------
    int
        1 to `MAX_QUERIES`; too many only if the body is longer than it has to be.
    """
    size = dpf.key_size(info.num_pages)
    if content_type == JSON:
        rest, a_query = length - _BYTES_A_BODY, _BYTES_A_QUERY
        a_query += info.keys_per_query * (2 * size + _BYTES_A_KEY)
    else:
        rest, a_query = length - _PACKED_BODY, _PACKED_QUERY
        a_query += info.keys_per_query * (size + _PACKED_KEY)
    return min(max(1, -(-rest // a_query)), MAX_QUERIES)

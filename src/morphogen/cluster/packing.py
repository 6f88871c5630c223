"""Passes, their parts and errors as bytes, for the way between the router and a shard's process.

Passes and parts are sent as numbers and bytes, for which pickle takes a tenth of the time that it
takes for objects. Both ends run code that the other sends: each has proved that it has the secret
that the shard told the router through Ray, which does the same.
"""

from __future__ import annotations

import pickle

import numpy as np

from morphogen.engine.shards.transport import Part, Pass
from morphogen.errors import ShardUnavailableError
from morphogen.sharding import ShardRange

Bytes = bytes | memoryview
Packed = tuple[bytes, Bytes]  # a head, and the bytes that it tells of
PING: Packed = b"", b""  # asks for a sign of life


def pack_pass(job: Pass, held: ShardRange) -> Packed:
    """Pack a call of `morphogen.cluster.host_shard.HostShard.answer`.

    Parameters
    ----------
    job : Pass
        The pass.
    held : ShardRange
        The pages that must answer.

    Returns
    -------
    head : bytes
    keys : bytes
        Those of the pass.
    """
    plain = (job.number, job.epoch, job.root, job.queries, job.keys_per_query)
    return pickle.dumps((*plain, held.first, held.count), pickle.HIGHEST_PROTOCOL), job.keys


def unpack_pass(head: Bytes, keys: Bytes) -> tuple[Pass, ShardRange]:
    """The pass, and the pages that must answer.

    Parameters
    ----------
    head, keys : bytes-like
        As `pack_pass` made them.

    Returns
    -------
    job : Pass
    held : ShardRange
    """
    number, epoch, root, queries, keys_per_query, first, count = pickle.loads(head)
    job = Pass(number, epoch, root, bytes(keys), queries, keys_per_query)
    return job, ShardRange(first, count)


def pack_outcome(outcome: Part | Exception) -> Packed:
    """Pack what came of a pass.

    Parameters
    ----------
    outcome : Part or Exception
        The part, or what went wrong.

    Returns
    -------
    head : bytes
    pages : memoryview
        Those of the part, as one row of bytes; none of an error.
    """
    if isinstance(outcome, Exception):
        return _pack_error(outcome), b""
    held, pages = outcome.range, np.ascontiguousarray(outcome.pages)
    plain = (outcome.number, outcome.epoch, outcome.root, held.first, held.count, pages.shape)
    return pickle.dumps(plain, pickle.HIGHEST_PROTOCOL), pages.reshape(-1).data


def pack_life(process: int) -> Packed:
    """Pack a sign of life.

    Parameters
    ----------
    process : int
        The number of the process.

    Returns
    -------
    head : bytes
    nothing : bytes
    """
    return pickle.dumps(process, pickle.HIGHEST_PROTOCOL), b""


def unpack_outcome(head: Bytes, pages: Bytes) -> Part | Exception | int:
    """What came of a pass, or a sign of life.

    Parameters
    ----------
    head, pages : bytes-like
        As `pack_outcome` or `pack_life` made them.

    Returns
    -------
    Part, Exception or int
        A part's array lies on the bytes that were given.
    """
    told = pickle.loads(head)
    if isinstance(told, Exception | int):
        return told
    number, epoch, root, first, count, shape = told
    array = np.frombuffer(pages, np.uint8).reshape(shape)
    return Part(number, ShardRange(first, count), epoch, root, array)


def _pack_error(error: Exception) -> bytes:
    try:
        packed = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
        pickle.loads(packed)
    except Exception:  # an error of a library's may be of a class that cannot be sent
        packed = pickle.dumps(ShardUnavailableError(f"{type(error).__name__}: {error}"))
    return packed

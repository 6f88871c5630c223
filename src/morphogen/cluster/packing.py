"""What the router and a shard's process send each other, as bytes.

Ray takes bytes as they are, which spares the router much of its time. Nearly all calls are passes:
these and their parts are sent as numbers and bytes, for which pickle takes a tenth of the time that
it takes for objects.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from morphogen.engine.shards.transport import Part, Pass
from morphogen.sharding import ShardRange

_ANSWER = "answer"


def pack_call(method: str, arguments: tuple[Any, ...]) -> bytes:
    """Pack a call of a method of `morphogen.cluster.host_shard.HostShard`.

    Parameters
    ----------
    method : str
        Its name.
    arguments : tuple
        Its arguments.

    Returns
    -------
    bytes
        For `unpack_call`.
    """
    if method == _ANSWER:
        job, held = arguments
        plain = (job.number, job.epoch, job.root, job.keys, job.queries, job.keys_per_query)
        arguments = (plain, held.first, held.count)
    return pickle.dumps((method, arguments), pickle.HIGHEST_PROTOCOL)


def unpack_call(packed: bytes) -> tuple[str, tuple[Any, ...]]:
    """The name of a method, and its arguments.

    Parameters
    ----------
    packed : bytes
        As `pack_call` made them.

    Returns
    -------
    method : str
    arguments : tuple
    """
    method, arguments = pickle.loads(packed)
    if method == _ANSWER:
        job, first, count = arguments
        arguments = (Pass(*job), ShardRange(first, count))
    return method, arguments


def pack_result(result: object) -> bytes:
    """Pack what a method returned.

    Parameters
    ----------
    result : object
        The result.

    Returns
    -------
    bytes
        For `unpack_result`.
    """
    if not isinstance(result, Part):
        return pickle.dumps((result,), pickle.HIGHEST_PROTOCOL)
    held, pages = result.range, result.pages
    plain = (result.number, result.epoch, result.root, held.first, held.count, pages.shape)
    return pickle.dumps((*plain, pages.tobytes()), pickle.HIGHEST_PROTOCOL)


def unpack_result(packed: bytes) -> Any:
    """What a method returned.

    Parameters
    ----------
    packed : bytes
        As `pack_result` made them.

    Returns
    -------
    object
        The result. The array of a part is read-only.
    """
    first, *others = pickle.loads(packed)
    if not others:
        return first
    epoch, root, *held, shape, pages = others
    array = np.frombuffer(pages, np.uint8).reshape(shape)
    return Part(first, ShardRange(*held), epoch, root, array)

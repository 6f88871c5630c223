"""The cap of a table's authenticated pages, which each client takes once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream

import morphogen.wire as wire
from morphogen.service.generations import Generations
from morphogen.service.openapi import cap_operation

# A client that reads slowly has no more of the cap than this in memory of its own; under TLS, whose
# transport takes more before it says that it is full, no more than the second.
PIECE_BYTES = 1 << 18
UNREAD_BYTES = 1 << 20
# For a year, the longest that caches know: one epoch's cap never changes.
_KEPT = "public, max-age=31536000, immutable"


def cap_handler(generations: Generations, prefix: str) -> HTTPRouteHandler:
    """Make the handler of `wire.cap_path`.

    Parameters
    ----------
    generations : Generations
        Of authenticated pages.
    prefix : str
        What stands before all paths of the table.

    Returns
    -------
    litestar.handlers.HTTPRouteHandler
    """
    path = prefix + wire.cap_path("{epoch:str}")

    @get(path, sync_to_thread=False, operation_class=cap_operation())
    def epoch_cap(request: Request[Any, Any, Any]) -> Response[Any]:
        return answer_cap(request, generations)

    return epoch_cap


def answer_cap(request: Request[Any, Any, Any], generations: Generations) -> Response[Any]:
    """Answer a request for the cap of the epoch that its path names.

    Parameters
    ----------
    request : litestar.Request
    generations : Generations
        Of authenticated pages.

    Returns
    -------
    litestar.Response
        The cap; 304 if the client has it.

    Raises
    ------
    NotFoundException
        If it is an epoch that is not held.
    """
    asked = request.path_params["epoch"]
    for generation in generations.held:
        if str(generation.info.epoch_id) == asked and generation.cap is not None:
            break
    else:
        raise NotFoundException
    tag = f'"{generation.info.root}"'
    headers = {"ETag": tag, "Cache-Control": _KEPT}
    if _is_known(tag, request.headers.getall("if-none-match", [])):
        return Response(None, status_code=304, headers=headers)
    headers["Content-Length"] = str(generation.cap.nbytes)
    return Stream(_pieces(generation.cap), media_type=wire.OCTETS, headers=headers)


def _is_known(tag: str, lines: list[str]) -> bool:
    tags = {one.strip().removeprefix("W/") for line in lines for one in line.split(",")}
    return bool(tags & {tag, "*"})


async def _pieces(nodes: memoryview) -> AsyncIterator[bytes]:
    for start in range(0, nodes.nbytes, PIECE_BYTES):
        yield bytes(nodes[start : start + PIECE_BYTES])

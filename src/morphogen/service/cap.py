"""The cap of a table's authenticated pages, which each client takes once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream

import morphogen.wire as wire
from morphogen.authentication import num_cap_nodes
from morphogen.authentication.hashing import HASH_BYTES
from morphogen.service.openapi import cap_operation

# A client that reads slowly has no more of the cap than this in memory of its own; under TLS, whose
# transport takes more before it says that it is full, no more than the second.
PIECE_BYTES = 1 << 18
UNREAD_BYTES = 1 << 20
# For a year, the longest that caches know: one epoch's cap never changes.
_KEPT = "public, max-age=31536000, immutable"


def cap_handler(cap: bytes | memoryview, info: wire.TableInfo) -> HTTPRouteHandler:
    """Make the handler of `wire.cap_path`.

    Parameters
    ----------
    cap : bytes-like
        Its nodes, one after the other.
    info : TableInfo
        The table's description.

    Returns
    -------
    litestar.handlers.HTTPRouteHandler

    Raises
    ------
    ValueError
        If the table is not authenticated, or its cap has another length.
    """
    kept = Cap(cap, info)
    path = wire.cap_path("{epoch:str}")

    @get(path, sync_to_thread=False, operation_class=cap_operation(info))
    def epoch_cap(request: Request[Any, Any, Any]) -> Response[Any]:
        return kept.answer(request)

    return epoch_cap


class Cap:
    """The cap, and the answers to requests for it. All of them read one buffer.

    Parameters
    ----------
    cap : bytes-like
        Its nodes, one after the other.
    info : TableInfo
        The table's description.

    Raises
    ------
    ValueError
        If the table is not authenticated, or its cap has another length.
    """

    def __init__(self, cap: bytes | memoryview, info: wire.TableInfo) -> None:
        if info.root is None or info.proof_levels is None:
            raise ValueError("a cap belongs to authenticated pages: info has no root")
        self._nodes = memoryview(cap).cast("B")
        expected = HASH_BYTES * num_cap_nodes(info.num_pages, info.proof_levels)
        if self._nodes.nbytes != expected:
            raise ValueError(
                f"the cap of these pages has {expected} bytes, not {self._nodes.nbytes}"
            )
        self._epoch = str(info.epoch_id)
        self._tag = f'"{info.root}"'
        self._headers = {"ETag": self._tag, "Cache-Control": _KEPT}

    def answer(self, request: Request[Any, Any, Any]) -> Response[Any]:
        """Answer a request for the cap of the epoch that its path names.

        Parameters
        ----------
        request : litestar.Request

        Returns
        -------
        litestar.Response
            The cap; 304 if the client has it.

        Raises
        ------
        NotFoundException
            If it is another epoch.
        """
        if request.path_params["epoch"] != self._epoch:
            raise NotFoundException
        if self._is_known(request.headers.getall("if-none-match", [])):
            return Response(None, status_code=304, headers=self._headers)
        headers = {**self._headers, "Content-Length": str(self._nodes.nbytes)}
        return Stream(self._pieces(), media_type=wire.OCTETS, headers=headers)

    def _is_known(self, lines: list[str]) -> bool:
        tags = {tag.strip().removeprefix("W/") for line in lines for tag in line.split(",")}
        return bool(tags & {self._tag, "*"})

    async def _pieces(self) -> AsyncIterator[bytes]:
        for start in range(0, self._nodes.nbytes, PIECE_BYTES):
            yield bytes(self._nodes[start : start + PIECE_BYTES])

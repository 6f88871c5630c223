"""What a table's paths answer: pages, descriptions, and whether queries are taken."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from time import perf_counter
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

import morphogen.wire as wire
from morphogen.errors import BatcherClosedError, EngineClosedError, OverloadedError
from morphogen.query import Answer
from morphogen.service.clients import client_of
from morphogen.service.generations import Generation, Generations
from morphogen.service.metrics import Metrics
from morphogen.service.middleware import count_queries

# Of one address so many requests may be held before each is held for longer, up to so many times:
# else two hundred connections that come back every second would cost others a tenth of a core.
_HELD_TOGETHER, _LONGEST_HOLD = 16, 4.0


class Holds:
    """Waits before clients are told that there is no room.

    Who comes back at once costs others no more than who waits; nor do all come together.

    Parameters
    ----------
    seconds : float
        How long, on average; up to four times as long for a crowd of one address.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._held: Counter[str] = Counter()  # requests that are about to be refused, by client

    async def hold(self, client: str) -> None:
        """Wait before a client is told so."""
        self._held[client] += 1
        try:
            times = min(max(1.0, self._held[client] / _HELD_TOGETHER), _LONGEST_HOLD)
            await asyncio.sleep(times * self._seconds * random.uniform(0.5, 1.5))
        finally:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]


class TableService:
    """One table, which its handlers share.

    Parameters
    ----------
    generations : Generations
        Of the table.
    max_wait : float
        Seconds that a query may wait for its chunk.
    metrics : Metrics
        Counted in.
    holds : Holds
        Of all tables.
    """

    def __init__(
        self, generations: Generations, max_wait: float, metrics: Metrics, holds: Holds
    ) -> None:
        self.generations = generations
        self._max_wait = max_wait
        self._metrics = metrics
        self._holds = holds
        self._described: tuple[Generation, ...] = ()
        self._description = b""

    async def answer(self, request: Request[Any, Any, Any], *, single: bool) -> Response[bytes]:
        """Decode, answer and encode one request.

        Parameters
        ----------
        request : litestar.Request
            Of a batch, or of one query.
        single : bool
            Whether the body is for one query.

        Returns
        -------
        litestar.Response
            In the encoding of the request.

        Raises
        ------
        MorphogenError
            If the request is wrong, or its answer fails: each error has its status.
        RequestEntityTooLarge
            If its body is larger than one can be.
        """
        kind = wire.media_type(request.headers.get("content-type", ""))
        client = client_of(request.scope)
        length = request.headers.get("content-length", "")
        try:
            if length.isdecimal():
                # Before it is read and decoded, which costs more than all else of a refusal.
                self._check_room(1 if single else self._fewest_queries(int(length), kind), client)
            body = await self._read(request)
            started = perf_counter()
            form = wire.read_request(body, kind, single=single)
            generation, answers = await self._answer(request, form, client, started)
        except OverloadedError:
            await self._holds.hold(client)
            raise
        started = perf_counter()
        response = wire.BatchResponse(
            epoch_id=generation.info.epoch_id,
            num_pages=generation.info.num_pages,
            digest=generation.info.digest,
            pages=[answer.pages[0] for answer in answers],
        )
        encoded = wire.encode_response(response, kind, single=single)
        self._metrics.phases["encode"].observe(perf_counter() - started)
        headers = {wire.EPOCH_HEADER: str(self.generations.current.info.epoch_id)}
        return Response(encoded, media_type=kind, status_code=200, headers=headers)

    async def _answer(
        self,
        request: Request[Any, Any, Any],
        form: wire.RequestForm,
        client: str,
        started: float,
    ) -> tuple[Generation, list[Answer]]:
        """Have the generation that a request asks for answer it."""
        phases = self._metrics.phases
        while True:
            generation = self.generations.pick(form.epoch_id)
            decoded = wire.check_request(form, generation.info)
            phases["decode"].observe(perf_counter() - started)
            count_queries(request.scope, len(decoded.queries))
            started = perf_counter()
            try:
                answers = await generation.batcher.answer_many(
                    decoded.queries, timeout=self._max_wait, client=client
                )
            except (BatcherClosedError, EngineClosedError):
                if generation in self.generations.held:
                    raise  # the service is shutting down, or the engine has failed
                # It fell out since it was picked: the current one may do, or there is a conflict.
            else:
                phases["answer"].observe(perf_counter() - started)
                return generation, answers

    def _check_room(self, count: int, client: str) -> None:
        """Refuse what the current epoch has no room for: nearly all requests are for that."""
        generation = self.generations.current
        try:
            generation.batcher.check_room(count, client)
        except BatcherClosedError:
            if generation in self.generations.held:
                raise

    def _fewest_queries(self, length: int, kind: str) -> int:
        """The fewest queries in a body, whichever epoch it is for."""
        return min(
            wire.fewest_queries(length, kind, generation.info)
            for generation in self.generations.held
        )

    def max_body_bytes(self) -> int:
        """The most bytes that a request can need, whichever epoch it is for.

        Returns
        -------
        int
        """
        return max(wire.max_body_bytes(generation.info) for generation in self.generations.held)

    async def _read(self, request: Request[Any, Any, Any]) -> bytes:
        """Read a body, no more of it than one can need."""
        limit = self.max_body_bytes()
        if (request.content_length or 0) > limit:
            raise RequestEntityTooLarge
        pieces, size = [], 0
        async for piece in request.stream():
            size += len(piece)
            if size > limit:
                raise RequestEntityTooLarge
            pieces.append(piece)
        return b"".join(pieces)

    def epoch(self) -> Response[bytes]:
        """Describe the pages.

        Returns
        -------
        litestar.Response
            The `TableInfo`, as JSON.
        """
        held = self.generations.held
        if held is not self._described:
            infos = [generation.info for generation in held]
            self._description = msgspec.json.encode(wire.with_epochs(infos))
            self._described = held
        return Response(self._description, media_type=wire.JSON)

    def check_usable(self) -> None:
        """Refuse, as every query of the current epoch is refused, if none are taken any more.

        Raises
        ------
        BatcherClosedError, EngineClosedError
            As from `MicroBatcher.check_usable`.
        """
        self.generations.current.batcher.check_usable()

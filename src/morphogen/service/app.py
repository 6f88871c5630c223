"""The service of one party over HTTP: an ASGI application that answers by a `MicroBatcher`.

docs/protocol.md, section 11, defines paths, bodies and statuses.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from time import perf_counter
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, get, post
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.types import ASGIApp

import morphogen
import morphogen.wire as wire
from morphogen.batcher import MicroBatcher
from morphogen.errors import MorphogenError, OverloadedError
from morphogen.service.cap import cap_handler
from morphogen.service.clients import Proxies, client_of
from morphogen.service.metrics import Metrics
from morphogen.service.middleware import DRAIN_SECONDS, count_queries, outermost
from morphogen.service.openapi import (
    batch_operation,
    epoch_operation,
    health_operation,
    single_operation,
)
from morphogen.service.problems import describe_error

MAX_WAIT_SECONDS = 30.0
HOLD_SECONDS = 1.0
# Of one address so many requests may be held before each is held for longer, up to so many times:
# else two hundred connections that come back every second would cost others a tenth of a core.
_HELD_TOGETHER, _LONGEST_HOLD = 16, 4.0


class Service:
    """One party's service, which the handlers share.

    Parameters
    ----------
    batcher : MicroBatcher
        Closed, with everything answered, when the application shuts down.
    info : TableInfo
        From `describe_table`.
    max_wait : float
        Seconds that a query may wait for its chunk.
    metrics : Metrics
        Counted in.
    hold_seconds : float
        As for `create_app`.
    """

    def __init__(
        self,
        batcher: MicroBatcher,
        info: wire.TableInfo,
        max_wait: float,
        metrics: Metrics,
        hold_seconds: float,
    ) -> None:
        self.batcher = batcher
        self.max_wait = max_wait
        self.hold_seconds = hold_seconds
        self.info = info
        self.metrics: Metrics = metrics
        self._info_body = msgspec.json.encode(info)
        self._held: Counter[str] = Counter()  # requests that are about to be refused, by client

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
        """
        kind = wire.media_type(request.headers.get("content-type", ""))
        client = client_of(request.scope)
        length = request.headers.get("content-length", "")
        if length.isdecimal():
            # Before it is read and decoded, which costs more than all else of a refusal.
            fewest = 1 if single else wire.fewest_queries(int(length), kind, self.info)
            try:
                self.batcher.check_room(fewest, client)
            except OverloadedError:
                await self._hold(client)
                raise
        body = await request.body()
        phases = self.metrics.phases
        started = perf_counter()
        decoded = wire.decode_request(body, kind, self.info, single=single)
        phases["decode"].observe(perf_counter() - started)
        count_queries(request.scope, len(decoded.queries))
        started = perf_counter()
        try:
            answers = await self.batcher.answer_many(
                decoded.queries, timeout=self.max_wait, client=client
            )
        except OverloadedError:
            await self._hold(client)
            raise
        phases["answer"].observe(perf_counter() - started)
        started = perf_counter()
        response = wire.BatchResponse(
            epoch_id=self.info.epoch_id,
            num_pages=self.info.num_pages,
            digest=self.info.digest,
            pages=[answer.pages[0] for answer in answers],
        )
        encoded = wire.encode_response(response, kind, single=single)
        phases["encode"].observe(perf_counter() - started)
        return Response(encoded, media_type=kind, status_code=200)

    async def _hold(self, client: str) -> None:
        """Wait before a client is told that there is no room.

        Who comes back at once costs others no more than who waits; nor do all come together.
        """
        self._held[client] += 1
        try:
            times = min(max(1.0, self._held[client] / _HELD_TOGETHER), _LONGEST_HOLD)
            await asyncio.sleep(times * self.hold_seconds * random.uniform(0.5, 1.5))
        finally:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]

    def epoch(self) -> Response[bytes]:
        """Describe the pages.

        Returns
        -------
        litestar.Response
            The `TableInfo`, as JSON.
        """
        return Response(self._info_body, media_type=wire.JSON)

    def health(self, *names: str) -> Response[dict[str, bool | str]]:
        """Whether the process lives, and whether it takes queries.

        Parameters
        ----------
        *names : str
            The members of the answer: "live", "ready".

        Returns
        -------
        litestar.Response
            200; or 503 and the reason if it takes none.
        """
        told: dict[str, bool | str] = dict.fromkeys(names, True)
        try:
            self.batcher.check_usable()
        except MorphogenError as error:
            return Response({**told, "ready": False, "reason": str(error)}, status_code=503)
        return Response(told)


def create_app(
    batcher: MicroBatcher,
    info: wire.TableInfo,
    *,
    cap: bytes | memoryview | None = None,
    max_wait: float = MAX_WAIT_SECONDS,
    drain_seconds: float = DRAIN_SECONDS,
    metrics: Metrics | None = None,
    trusted_proxies: Iterable[str] = (),
    hold_seconds: float = HOLD_SECONDS,
) -> ASGIApp:
    """Make the ASGI application.

    Parameters
    ----------
    batcher : MicroBatcher
        It is closed, with everything answered, when the application shuts down.
    info : TableInfo
        From `describe_table`.
    cap : bytes-like, optional
        Of authenticated pages: the nodes of their tree's cap, one after the other. It is not
        copied, however many clients take it.
    max_wait : float, optional
        Seconds that a query may wait for its chunk: most clients have gone by then.
    drain_seconds : float, optional
        Seconds that a client whose request is refused before its end may go on sending. After that
        the connection ends, which may take the answer from a client that still sends.
    metrics : Metrics, optional
        Counts requests, for `metrics_app`. This application shows none: they tell of every client.
    trusted_proxies : iterable of str, optional
        Addresses and networks of proxies whose ``X-Forwarded-For`` tells the client. Each client's
        address has a share of the batcher's queue.
    hold_seconds : float, optional
        Seconds, on average, until a client is told that the queue has no room; up to four times as
        many if a crowd of one address is told so.

    Returns
    -------
    ASGI application
        For uvicorn, or any other server of ASGI applications.

    Raises
    ------
    ValueError
        If the pages are authenticated and there is no cap, or the other way round, or the cap has
        another length.

    Examples
    --------
    >>> import numpy as np
    >>> import morphogen as mg
    >>> from morphogen.service import create_app, describe_table
    >>> engine = mg.open_engine(mg.PageMatrix(np.zeros((1000, 64), dtype=np.uint8)), device="cpu")
    >>> app = create_app(mg.MicroBatcher(engine), describe_table(engine, party=0))
    """
    if cap is None and info.root is not None:
        raise ValueError("authenticated pages need their cap: info has a root")
    service = Service(batcher, info, max_wait, metrics or Metrics(batcher, info), hold_seconds)

    @post(wire.QUERY_PATH, status_code=200, operation_class=batch_operation(info))
    async def query_batch(request: Request[Any, Any, Any]) -> Response[bytes]:
        return await service.answer(request, single=False)

    @post(wire.SINGLE_PATH, status_code=200, operation_class=single_operation(info))
    async def query_single(request: Request[Any, Any, Any]) -> Response[bytes]:
        return await service.answer(request, single=True)

    @get(wire.EPOCH_PATH, sync_to_thread=False, operation_class=epoch_operation(info))
    def epoch() -> Response[bytes]:
        return service.epoch()

    @get("/health", sync_to_thread=False, operation_class=health_operation("live", "ready"))
    def health() -> Response[dict[str, bool | str]]:
        return service.health("live", "ready")

    @get("/health/live", sync_to_thread=False, operation_class=health_operation("live"))
    def live() -> dict[str, bool]:
        return {"live": True}

    @get("/health/ready", sync_to_thread=False, operation_class=health_operation("ready"))
    def ready() -> Response[dict[str, bool | str]]:
        return service.health("ready")

    async def drain() -> None:
        await asyncio.to_thread(batcher.close)

    handlers = [query_batch, query_single, epoch, health, live, ready]
    if cap is not None:
        handlers.append(cap_handler(cap, info))
    app = Litestar(
        handlers,
        request_max_body_size=wire.max_body_bytes(info),
        exception_handlers={Exception: describe_error},
        on_shutdown=[drain],
        # The environment could ask for these two.
        debug=False,
        pdb_on_exception=False,
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="morphogen",
            version=morphogen.__version__,
            description="One server of two-server private page retrieval.",
            path="/schema",
            render_plugins=[JsonRenderPlugin()],
        ),
    )
    surrounded = outermost(
        app,
        service.metrics.requests,
        {route.path_format for route in app.routes},
        drain_bytes=wire.max_body_bytes(info),
        drain_seconds=drain_seconds,
    )
    return Proxies(trusted_proxies).before(surrounded)

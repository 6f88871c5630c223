"""The service of one party over HTTP: an ASGI application that answers for tables.

docs/protocol.md, section 11, defines paths, bodies and statuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from litestar.types import ASGIApp

import morphogen.wire as wire
from morphogen.batcher import MicroBatcher
from morphogen.service.answering import Holds, TableService
from morphogen.service.clients import Proxies
from morphogen.service.generations import Generation, Generations
from morphogen.service.handlers import CurrentDocument, bare_app
from morphogen.service.metrics import Metrics
from morphogen.service.middleware import DRAIN_SECONDS, outermost
from morphogen.service.problems import describe_error

MAX_WAIT_SECONDS = 30.0
HOLD_SECONDS = 1.0


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
    """Make the ASGI application of one table that stays as it is.

    Parameters
    ----------
    batcher : MicroBatcher
        It is closed, with everything answered, when the application shuts down. Its engine stays
        the caller's.
    info : TableInfo
        From `describe_table`.
    cap : bytes-like, optional
        Of authenticated pages: the nodes of their tree's cap, one after the other. It is not
        copied, however many clients take it.
    max_wait, drain_seconds, metrics, trusted_proxies, hold_seconds : optional
        As for `create_tables_app`.

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
    return create_tables_app(
        {"": Generations(Generation(info, None, batcher, cap))},
        max_wait=max_wait,
        drain_seconds=drain_seconds,
        metrics=metrics,
        trusted_proxies=trusted_proxies,
        hold_seconds=hold_seconds,
    )


def create_tables_app(
    tables: Mapping[str, Generations],
    *,
    max_wait: float = MAX_WAIT_SECONDS,
    drain_seconds: float = DRAIN_SECONDS,
    metrics: Metrics | None = None,
    trusted_proxies: Iterable[str] = (),
    hold_seconds: float = HOLD_SECONDS,
) -> ASGIApp:
    """Make the ASGI application of tables, each of which may get new epochs while it is served.

    Parameters
    ----------
    tables : mapping of str to Generations
        By name, at least one. The paths of the table named "" are the plain ones; those of others
        begin with ``/t/NAME``. All are closed, with everything answered, when the application
        shuts down.
    max_wait : float, optional
        Seconds that a query may wait for its chunk: most clients have gone by then.
    drain_seconds : float, optional
        Seconds that a client whose request is refused before its end may go on sending. After that
        the connection ends, which may take the answer from a client that still sends.
    metrics : Metrics, optional
        Counts requests, for `metrics_app`. This application shows none: they tell of every client.
    trusted_proxies : iterable of str, optional
        Addresses and networks of proxies whose ``X-Forwarded-For`` tells the client. Each client's
        address has a share of the queue of each table.
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
        If there is no table, or one has a name that no path can have.
    """
    if not tables:
        raise ValueError("there must be at least one table, not 0")
    tables = dict(tables)
    metrics = metrics or Metrics()
    metrics.tables = tables
    holds = Holds(hold_seconds)
    services = {
        name: TableService(generations, max_wait, metrics, holds)
        for name, generations in tables.items()
    }

    def close() -> None:
        # None takes more queries while the others answer theirs.
        for generations in tables.values():
            generations.shut()
        for generations in tables.values():
            generations.close()

    async def drain() -> None:
        await asyncio.to_thread(close)

    def max_body_bytes() -> int:
        return max(service.max_body_bytes() for service in services.values())

    app = bare_app(
        services,
        CurrentDocument(services).config,
        exception_handlers={Exception: describe_error},
        on_shutdown=[drain],
    )
    surrounded = outermost(
        app,
        metrics.requests,
        {route.path_format for route in app.routes},
        drain_bytes=max_body_bytes,
        drain_seconds=drain_seconds,
    )
    return Proxies(trusted_proxies).before(surrounded)

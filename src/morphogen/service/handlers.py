"""The handlers of all paths, and the OpenAPI document of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litestar import Litestar, Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

import morphogen
import morphogen.dpf as dpf
import morphogen.wire as wire
from morphogen.errors import MorphogenError
from morphogen.service.answering import TableService
from morphogen.service.cap import cap_handler
from morphogen.service.openapi import (
    batch_operation,
    epoch_operation,
    health_operation,
    single_operation,
)


def all_handlers(services: Mapping[str, TableService]) -> list[HTTPRouteHandler]:
    """Make the handlers of tables, which describe the current epochs to the OpenAPI document.

    Parameters
    ----------
    services : mapping of str to TableService
        By the table's name.

    Returns
    -------
    list of litestar.handlers.HTTPRouteHandler

    Raises
    ------
    ValueError
        If a table has a name that no path can have.
    """
    handlers = health_handlers(services, "")
    for name, service in services.items():
        prefix = wire.table_path(name)
        handlers += table_handlers(service, prefix)
        if prefix:
            handlers += health_handlers({name: service}, prefix)
    return handlers


def bare_app(
    services: Mapping[str, TableService], document: OpenAPIConfig, **options: Any
) -> Litestar:
    """Make the application of tables, without what surrounds it.

    Parameters
    ----------
    services : mapping of str to TableService
        By the table's name.
    document : litestar.openapi.config.OpenAPIConfig
        How they are described.
    **options
        Of Litestar, more of them.

    Returns
    -------
    litestar.Litestar

    Raises
    ------
    ValueError
        If a table has a name that no path can have.
    """
    return Litestar(
        all_handlers(services),
        openapi_config=document,
        request_max_body_size=None,  # a table's own, which its epochs change
        # The environment could ask for these two.
        debug=False,
        pdb_on_exception=False,
        logging_config=None,
        **options,
    )


def table_handlers(service: TableService, prefix: str) -> list[HTTPRouteHandler]:
    """Make the handlers of one table.

    Parameters
    ----------
    service : TableService
        The table's.
    prefix : str
        What stands before its paths.

    Returns
    -------
    list of litestar.handlers.HTTPRouteHandler
    """
    info = service.generations.current.info

    @post(prefix + wire.QUERY_PATH, status_code=200, operation_class=batch_operation(info))
    async def query_batch(request: Request[Any, Any, Any]) -> Response[bytes]:
        return await service.answer(request, single=False)

    @post(prefix + wire.SINGLE_PATH, status_code=200, operation_class=single_operation(info))
    async def query_single(request: Request[Any, Any, Any]) -> Response[bytes]:
        return await service.answer(request, single=True)

    @get(prefix + wire.EPOCH_PATH, sync_to_thread=False, operation_class=epoch_operation(info))
    def epoch() -> Response[bytes]:
        return service.epoch()

    handlers: list[HTTPRouteHandler] = [query_batch, query_single, epoch]
    if info.root is not None:
        handlers.append(cap_handler(service.generations, prefix))
    return handlers


def health_handlers(services: Mapping[str, TableService], prefix: str) -> list[HTTPRouteHandler]:
    """Make the handlers that say whether these tables take queries.

    Parameters
    ----------
    services : mapping of str to TableService
        By the table's name. All must, or they do not.
    prefix : str
        What stands before the paths.

    Returns
    -------
    list of litestar.handlers.HTTPRouteHandler
    """

    def answer(*names: str) -> Response[dict[str, bool | str]]:
        told: dict[str, bool | str] = dict.fromkeys(names, True)
        for name, service in services.items():
            try:
                service.check_usable()
            except MorphogenError as error:
                reason = str(error) if len(services) == 1 else f"table {name!r}: {error}"
                return Response({**told, "ready": False, "reason": reason}, status_code=503)
        return Response(told)

    @get(
        f"{prefix}/health", sync_to_thread=False, operation_class=health_operation("live", "ready")
    )
    def health() -> Response[dict[str, bool | str]]:
        return answer("live", "ready")

    @get(f"{prefix}/health/live", sync_to_thread=False, operation_class=health_operation("live"))
    def live() -> dict[str, bool]:
        return {"live": True}

    @get(f"{prefix}/health/ready", sync_to_thread=False, operation_class=health_operation("ready"))
    def ready() -> Response[dict[str, bool | str]]:
        return answer("ready")

    return [health, live, ready]


class CurrentDocument(JsonRenderPlugin):
    """The OpenAPI document of the current epochs, whose keys may be longer than of those before.

    Parameters
    ----------
    services : mapping of str to TableService
        By the table's name.

    Attributes
    ----------
    config : litestar.openapi.config.OpenAPIConfig
        For an application that shows it.
    """

    def __init__(self, services: Mapping[str, TableService]) -> None:
        super().__init__()
        self._services = services
        self._described: list[int] = []  # the bytes of each table's keys
        self._body = b""
        self.config: OpenAPIConfig = _describe(self)

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Write the document.

        Parameters
        ----------
        request : litestar.Request
        openapi_schema : dict
            Of the epochs that were current when the application was made.

        Returns
        -------
        bytes
        """
        infos = [service.generations.current.info for service in self._services.values()]
        # All else that is described stays from epoch to epoch.
        sizes = [dpf.key_size(info.num_pages) for info in infos]
        if sizes != self._described:
            # Litestar describes the handlers of an application: they are made anew, for this alone.
            app = bare_app(self._services, _describe(JsonRenderPlugin()))
            self._body = self.render_json(request, app.openapi_schema.to_schema())
            self._described = sizes
        return self._body


def _describe(plugin: JsonRenderPlugin) -> OpenAPIConfig:
    return OpenAPIConfig(
        title="morphogen",
        version=morphogen.__version__,
        description="One server of two-server private page retrieval.",
        path="/schema",
        render_plugins=[plugin],
    )

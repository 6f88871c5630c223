"""Two-server private page retrieval: a page is read, and neither server learns which.

Every name below is imported when it is first used, so that ``import morphogen`` costs next to
nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import morphogen.dpf as dpf
    import morphogen.instruction_set as instruction_set
    import morphogen.planner as planner
    from morphogen.batcher import MicroBatcher as MicroBatcher
    from morphogen.batcher.statistics import BatcherStatistics as BatcherStatistics
    from morphogen.client import Client as Client
    from morphogen.client.aio import AsyncClient as AsyncClient
    from morphogen.engine import open_engine as open_engine
    from morphogen.engine.base import Engine as Engine
    from morphogen.engine.cuda.status import (
        DeviceStatus as DeviceStatus,
        DriverStatus as DriverStatus,
        driver_status as driver_status,
    )
    from morphogen.errors import (
        BatcherClosedError as BatcherClosedError,
        DeadlineError as DeadlineError,
        DeltaError as DeltaError,
        DeviceError as DeviceError,
        DeviceOutOfMemoryError as DeviceOutOfMemoryError,
        DeviceUnavailableError as DeviceUnavailableError,
        DomainMismatchError as DomainMismatchError,
        EngineClosedError as EngineClosedError,
        EpochMismatchError as EpochMismatchError,
        IntegrityError as IntegrityError,
        InvalidKeyError as InvalidKeyError,
        KeyDomainError as KeyDomainError,
        ManifestError as ManifestError,
        MorphogenError as MorphogenError,
        OverloadedError as OverloadedError,
        ServerError as ServerError,
        ShardMismatchError as ShardMismatchError,
        ShardUnavailableError as ShardUnavailableError,
        SourceError as SourceError,
        TableBuildError as TableBuildError,
        TableFileError as TableFileError,
        TableMismatchError as TableMismatchError,
        WireError as WireError,
    )
    from morphogen.pages import PageMatrix as PageMatrix, TableShape as TableShape
    from morphogen.query import (
        Answer as Answer,
        Query as Query,
        make_queries as make_queries,
        make_query as make_query,
        reconstruct as reconstruct,
    )

__version__ = "0.1.0"

_MODULES = ("dpf", "instruction_set", "planner")
_NAMES = {
    "client.aio": ("AsyncClient",),
    "batcher": ("MicroBatcher",),
    "batcher.statistics": ("BatcherStatistics",),
    "client": ("Client",),
    "engine": ("open_engine",),
    "engine.base": ("Engine",),
    "engine.cuda.status": ("DeviceStatus", "DriverStatus", "driver_status"),
    "errors": (
        "BatcherClosedError",
        "DeadlineError",
        "DeltaError",
        "DeviceError",
        "DeviceOutOfMemoryError",
        "DeviceUnavailableError",
        "DomainMismatchError",
        "EngineClosedError",
        "EpochMismatchError",
        "IntegrityError",
        "InvalidKeyError",
        "KeyDomainError",
        "ManifestError",
        "MorphogenError",
        "OverloadedError",
        "ServerError",
        "ShardMismatchError",
        "ShardUnavailableError",
        "SourceError",
        "TableBuildError",
        "TableFileError",
        "TableMismatchError",
        "WireError",
    ),
    "pages": ("PageMatrix", "TableShape"),
    "query": ("Answer", "Query", "make_queries", "make_query", "reconstruct"),
}
_CLIENTS = ("AsyncClient", "Client")
_CLIENT_EXTRA = ("certifi", "h11", "idna", "msgspec")  # of the extra "client"
_HOMES = {name: home for home, names in _NAMES.items() for name in names}

__all__ = [
    "Answer",
    "AsyncClient",
    "BatcherClosedError",
    "BatcherStatistics",
    "Client",
    "DeadlineError",
    "DeltaError",
    "DeviceError",
    "DeviceOutOfMemoryError",
    "DeviceStatus",
    "DeviceUnavailableError",
    "DomainMismatchError",
    "DriverStatus",
    "Engine",
    "EngineClosedError",
    "EpochMismatchError",
    "IntegrityError",
    "InvalidKeyError",
    "KeyDomainError",
    "ManifestError",
    "MicroBatcher",
    "MorphogenError",
    "OverloadedError",
    "PageMatrix",
    "Query",
    "ServerError",
    "ShardMismatchError",
    "ShardUnavailableError",
    "SourceError",
    "TableBuildError",
    "TableFileError",
    "TableMismatchError",
    "TableShape",
    "WireError",
    "dpf",
    "driver_status",
    "instruction_set",
    "make_queries",
    "make_query",
    "open_engine",
    "planner",
    "reconstruct",
]


if not TYPE_CHECKING:
    # A type checker would take every name for one of these, and reads the list above.
    _LISTED = __all__
    del __all__  # __getattr__ gives it

    def __getattr__(name: str) -> Any:
        if name == "__all__":
            # ``from morphogen import *`` takes every listed name, and gives up where one raises.
            missing = _without_extra()
            return [listed for listed in _LISTED if listed not in missing]
        if name in _MODULES:
            return importlib.import_module(f"morphogen.{name}")
        if name in _HOMES:
            value = getattr(_import(f"morphogen.{_HOMES[name]}", name), name)
            globals()[name] = value
            return value
        raise AttributeError(f"module 'morphogen' has no attribute {name!r}")

    def __dir__() -> list[str]:
        # Completion and help() get what the list has, not what this module itself imported.
        hidden = {"Any", "TYPE_CHECKING", "annotations", "importlib", *_without_extra()}
        return sorted({*globals(), "__all__", *_LISTED} - hidden)

    def _import(home: str, name: str) -> Any:
        if name not in _CLIENTS:
            return importlib.import_module(home)
        from morphogen.checks import needs_extra

        with needs_extra("client", f"morphogen.{name}"):
            return importlib.import_module(home)

    def _without_extra() -> tuple[str, ...]:
        """The names whose extra is missing."""
        from importlib.util import find_spec

        return () if all(map(find_spec, _CLIENT_EXTRA)) else _CLIENTS

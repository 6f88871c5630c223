"""Errors as problem documents (RFC 9457), which tell the client nothing new."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

import morphogen.wire as wire
from morphogen.errors import (
    BatcherClosedError,
    DeadlineError,
    DeviceError,
    EngineClosedError,
    OverloadedError,
    ShardMismatchError,
    ShardUnavailableError,
    WireError,
)
from morphogen.service.logs import log

PROBLEM = "application/problem+json"
RETRY_AFTER_SECONDS = 1

_TITLES = {
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def describe_error(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The problem document of an error, and its status."""
    field = ""
    headers = {}
    detail = str(error)
    match error:
        case wire.WireTooManyError():
            status, field = 413, error.field
        case wire.WireConflictError():
            status, field = 409, error.field
        case WireError():
            status, field = 415 if error.field == "Content-Type" else 400, error.field
        case OverloadedError():
            status = 429
            headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        case DeadlineError():
            status, detail = 503, "the queries waited for too long"
            headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        case ShardUnavailableError() | ShardMismatchError():
            status, detail = 503, "a part of the table cannot answer now"
            headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        case BatcherClosedError() | EngineClosedError():
            status, detail = 503, f"the server takes no queries: {detail}"
        case DeviceError():
            status, detail = 503, "the device failed"
        case HTTPException():
            status = error.status_code
            detail = _TITLES.get(status, "Error")
            headers = dict(error.headers or {})
        case _:
            status, detail = 500, "the server failed"
    if status >= 500 and not isinstance(error, HTTPException):
        # The kind only: a message may quote the request.
        log("error", logging.ERROR, error=type(error).__name__, status=status)
    problem = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
    }
    if field:
        problem["field"] = field
    return Response(
        msgspec.json.encode(problem), media_type=PROBLEM, status_code=status, headers=headers
    )

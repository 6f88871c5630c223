"""The OpenAPI description of all paths. `morphogen.wire` reads and writes their bodies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from litestar.openapi.spec import (
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
)

import morphogen.dpf as dpf
import morphogen.wire as wire
from morphogen.service.problems import PROBLEM
from morphogen.wire import TableInfo

_ERRORS = {
    "400": "The body is wrong; the problem document names the field.",
    "409": "A key is of the other party or another domain, or the epoch is not answered for.",
    "413": "Too many queries, or too large a body.",
    "415": "Another content type.",
    "429": "Too many queries wait; see Retry-After.",
    "503": "The server is shutting down, its device failed, or the queries waited too long.",
}

_INTEGER, _TEXT = Schema(type=OpenAPIType.INTEGER), Schema(type=OpenAPIType.STRING)
_SHA256 = Schema(type=OpenAPIType.STRING, pattern="^[0-9a-f]{64}$")
_NUMBER = Schema(type=OpenAPIType.INTEGER, minimum=0, maximum=2**63 - 1)
_EPOCH = OpenAPIHeader(description="The current epoch.", schema=_NUMBER, required=True)


def batch_operation(info: TableInfo) -> type[Operation]:
    """The operation of `wire.QUERY_PATH`."""
    keys, pages = _hex_list(info, key=True), _hex_list(info, key=False)
    queries = Schema(
        type=OpenAPIType.ARRAY,
        items=_record({"keys": keys}),
        min_items=1,
        max_items=wire.MAX_QUERIES,
    )
    results = Schema(type=OpenAPIType.ARRAY, items=_record({"pages": pages}, closed=False))
    return _operation({"queries": queries}, {"results": results})


def single_operation(info: TableInfo) -> type[Operation]:
    """The operation of `wire.SINGLE_PATH`."""
    return _operation({"keys": _hex_list(info, key=True)}, {"pages": _hex_list(info, key=False)})


def _hex_list(info: TableInfo, *, key: bool) -> Schema:
    size = dpf.key_size(info.num_pages) if key else info.page_size
    return Schema(
        type=OpenAPIType.ARRAY,
        items=Schema(
            type=OpenAPIType.STRING,
            pattern="^0x([0-9a-fA-F]{2})*$",
            min_length=2 + 2 * size,
            max_length=2 + 2 * size,
        ),
        min_items=info.keys_per_query,
        max_items=info.keys_per_query,
    )


def _record(
    properties: dict[str, Schema], *, closed: bool = True, also: tuple[str, ...] = ()
) -> Schema:
    optional = {name: Schema(one_of=[_NUMBER, Schema(type=OpenAPIType.NULL)]) for name in also}
    return Schema(
        type=OpenAPIType.OBJECT,
        properties={**properties, **optional},
        required=list(properties),
        additional_properties=False if closed else None,
    )


def _operation(body: dict[str, Schema], answer: dict[str, Schema]) -> type[Operation]:
    request = _record(body, also=("epoch_id", "num_pages"))
    response = _record(
        {"epoch_id": _INTEGER, **answer, "num_pages": _INTEGER, "digest": _TEXT}, closed=False
    )

    def media(schema: Schema) -> dict[str, OpenAPIMediaType]:
        packed = Schema(description="The same map in MessagePack, keys and pages binary.")
        return {
            wire.JSON: OpenAPIMediaType(schema=schema),
            wire.MSGPACK: OpenAPIMediaType(schema=packed),
        }

    return _class(
        {
            "200": OpenAPIResponse(
                description="The pages.",
                headers={wire.EPOCH_HEADER: _EPOCH},
                content=media(response),
            ),
            **{status: _problem(text) for status, text in _ERRORS.items()},
        },
        RequestBody(content=media(request), required=True),
    )


def epoch_operation(info: TableInfo) -> type[Operation]:
    """The operation of `wire.EPOCH_PATH`."""
    numbers = ("party", "epoch_id", "num_pages", "page_size", "keys_per_query", "format_version")
    table = Schema(type=[OpenAPIType.OBJECT, OpenAPIType.NULL])
    of_server = dict.fromkeys(numbers, _INTEGER) | {"device": _TEXT}
    of_epoch = dict.fromkeys(numbers[1:5], _INTEGER) | {"digest": _SHA256, "table": table}
    if info.root is not None:
        of_epoch |= {"root": _SHA256, "proof_levels": _INTEGER}
    epochs = Schema(type=OpenAPIType.ARRAY, items=_record(of_epoch, closed=False), min_items=1)
    fields = of_server | of_epoch | {"epochs": epochs}
    return _class({"200": _json("What the table is.", _record(fields, closed=False))})


def cap_operation() -> type[Operation]:
    """The operation of `wire.cap_path`."""
    octets = OpenAPIMediaType(schema=Schema(content_media_type=wire.OCTETS))
    tag = OpenAPIHeader(
        description="The root of the epoch.",
        schema=Schema(type=OpenAPIType.STRING, pattern='^"[0-9a-f]{64}"$'),
    )
    return _class(
        {
            "200": OpenAPIResponse(
                description="The cap's nodes, 32 bytes each.",
                headers={"ETag": tag},
                content={wire.OCTETS: octets},
            ),
            "304": OpenAPIResponse(description="The client has it.", headers={"ETag": tag}),
            "404": _problem("There is none of this epoch."),
        }
    )


def health_operation(*names: str) -> type[Operation]:
    """The operation of a path that says whether these hold."""
    state = _record({name: Schema(type=OpenAPIType.BOOLEAN) for name in names}, closed=False)
    answers = {"200": _json("All is well.", state)}
    if "ready" in names:
        unready = {name: Schema(type=OpenAPIType.BOOLEAN) for name in names} | {"reason": _TEXT}
        answers["503"] = _json("It takes no queries.", _record(unready, closed=False))
    return _class(answers)


def _problem(description: str) -> OpenAPIResponse:
    fields = {"type": _TEXT, "title": _TEXT, "status": _INTEGER, "detail": _TEXT}
    content = {PROBLEM: OpenAPIMediaType(schema=_record(fields, closed=False))}
    return OpenAPIResponse(description=description, content=content)


def _json(description: str, schema: Schema) -> OpenAPIResponse:
    content = {wire.JSON: OpenAPIMediaType(schema=schema)}
    return OpenAPIResponse(description=description, content=content)


def _class(
    answers: Mapping[str, OpenAPIResponse], body: RequestBody | None = None
) -> type[Operation]:
    """An operation, as Litestar wants it: a class that sets what it would else infer."""

    @dataclass
    class Described(Operation):
        def __post_init__(self) -> None:
            self.request_body = body
            self.responses = dict(answers)

    return Described

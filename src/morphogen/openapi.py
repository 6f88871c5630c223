"""The OpenAPI description of the query paths, whose bodies are decoded by `morphogen.wire`."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.openapi.spec import (
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
)

from morphogen import dpf, wire
from morphogen.wire import TableInfo

_ERRORS = {
    "400": "The body is wrong; the problem document names the field.",
    "409": "A key is of the other party or another domain, or the table is not that one.",
    "413": "Too many queries, or too large a body.",
    "415": "Another content type.",
    "429": "Too many queries wait; see Retry-After.",
    "503": "The server is shutting down, its device failed, or the queries waited too long.",
}


def batch_operation(info: TableInfo) -> type[Operation]:
    """The operation of `wire.QUERY_PATH` for a table."""
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
    """The operation of `wire.SINGLE_PATH` for a table."""
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
    optional = {name: Schema(type=OpenAPIType.INTEGER) for name in also}
    return Schema(
        type=OpenAPIType.OBJECT,
        properties={**properties, **optional},
        required=list(properties),
        additional_properties=False if closed else None,
    )


def _operation(body: dict[str, Schema], answer: dict[str, Schema]) -> type[Operation]:
    request = _record(body, also=("epoch_id", "num_pages"))
    integer, text = Schema(type=OpenAPIType.INTEGER), Schema(type=OpenAPIType.STRING)
    response = _record(
        {"epoch_id": integer, **answer, "num_pages": integer, "digest": text}, closed=False
    )
    problem = OpenAPIMediaType(
        schema=_record(
            {"type": text, "title": text, "status": integer, "detail": text}, closed=False
        )
    )

    def media(schema: Schema) -> dict[str, OpenAPIMediaType]:
        packed = Schema(description="The same map in MessagePack, keys and pages binary.")
        return {
            wire.JSON: OpenAPIMediaType(schema=schema),
            wire.MSGPACK: OpenAPIMediaType(schema=packed),
        }

    @dataclass
    class QueryOperation(Operation):
        def __post_init__(self) -> None:
            self.request_body = RequestBody(content=media(request), required=True)
            self.responses = {
                "200": OpenAPIResponse(description="The pages.", content=media(response)),
                **{
                    status: OpenAPIResponse(
                        description=text, content={"application/problem+json": problem}
                    )
                    for status, text in _ERRORS.items()
                },
            }

    return QueryOperation

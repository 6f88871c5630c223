"""Calls of all that a server's OpenAPI document allows."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings


def call_all(url: str) -> set[str]:
    """Call all that the document at a server allows, and return the operations."""
    schema = schemathesis.openapi.from_url(url + "/schema/openapi.json")
    operations: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]

    for operation in operations:

        @settings(
            max_examples=10,
            deadline=None,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def call(case: Any) -> None:
            case.call_and_validate(
                checks=[
                    schemathesis.checks.not_a_server_error,
                    schemathesis.checks.status_code_conformance,
                    schemathesis.checks.response_headers_conformance,
                ]
            )

        call()
    return {operation.label for operation in operations}

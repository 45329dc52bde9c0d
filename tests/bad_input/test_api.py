"""The service as its OpenAPI document describes it, tried by schemathesis: every route, also those of tomorrow.

`make verify-api` tries each of them many times more.
"""

from __future__ import annotations

import os
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from lifecycle_engine.api.app import document
from tests.bad_input.door import Door
from tests.processes import API_KEY

EXAMPLES = int(os.environ.get("LIFECYCLE_TEST_API_EXAMPLES", "3"))
"""Random requests of each kind to each route, besides those that are made from the examples and limits it states."""

schema = schemathesis.openapi.from_dict(document())

BEYOND_THE_DOCUMENT = {
    "invalid_cursor": "only those that were given out",
    "in_the_future": "not after the clock",
    "in_the_past": "not before the clock",
    "invalid_time": "not before 1900; ends after it begins",
    "invalid_definition": "a language of its own, in a text",
}
"""Codes of refusals for which JSON Schema has no words, and why it lacks them."""


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_each_route_is_as_described(sqlite_door: Door, case: schemathesis.Case[Any]) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    response = case.call(sqlite_door.service.url, headers=headers, timeout=10)
    is_beyond = response.status_code in (400, 422) and code_of(response) in BEYOND_THE_DOCUMENT
    case.validate_response(
        response,
        excluded_checks=[positive_data_acceptance] if is_beyond else [],
        headers=headers,
        transport_kwargs={"timeout": 10},
    )


def code_of(response: schemathesis.Response) -> str:
    return str(response.json().get("code"))

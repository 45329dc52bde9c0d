"""The service as its OpenAPI document describes it, tried by schemathesis: every route, also those of tomorrow.

`make verify-api` tries each of them many times more.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config._checks import NEGATIVE_DATA_REJECTION_EXPECTED_STATUSES
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from lifecycle_engine.api.app import document
from tests.bad_input.door import Door
from tests.processes import API_KEY

EXAMPLES = int(os.environ.get("LIFECYCLE_TEST_API_EXAMPLES", "2"))
"""Random requests of each kind to each route, besides those that are made from the examples and limits it states."""
SECONDS = 20
"""An answer that takes longer counts as none. A stream of events never ends, and is not asked for here."""

IS_LONG = EXAMPLES > 10
schema = schemathesis.openapi.from_dict(
    document(),
    # By default not taken for a refusal: 413, for what has more items or bytes than a request may.
    config=schemathesis.Config.from_dict(
        {
            "checks": {
                "negative_data_rejection": {"expected-statuses": [*NEGATIVE_DATA_REJECTION_EXPECTED_STATUSES, "413"]}
            },
            # Each limit of each field, and each method: hundreds of requests to a route.
            "phases": {"coverage": {"enabled": IS_LONG}},
        }
    ),
)

BEYOND_THE_DOCUMENT = {
    "invalid_cursor": "only those that were given out are taken",
    "in_the_future": "JSON Schema does not know what time it is",
    "in_the_past": "JSON Schema does not know what time it is",
    "invalid_time": "formats know years before 1900, and not which instant must come after which",
    "invalid_definition": "a definition is a language of its own",
    "invalid_url": "where a host leads, a resolver says",
    "invalid_filter": "a filter is a language of its own",
    "too_long_ago": "JSON Schema does not know what time it is",
    "unknown_stage": "a stage is one of those that the lifecycle has",
    "superfluous_subject": "whether there are subjects is for the lifecycle to say",
    "missing_subject": "whether there are subjects is for the lifecycle to say",
    "merged_into_itself": "JSON Schema cannot compare the body with the path",
    "invalid_character": "JSON Schema has no words for what lies in the depths of properties",
    "number_out_of_range": "JSON Schema has no words for what lies in the depths of properties",
    "too_deep": "JSON Schema has no words for what lies in the depths of properties",
    "idempotency_key_reused": "whether a key came before with another request is not in the document",
    "duplicate_name": "after JSON is read, nobody knows",
}
"""Codes with which what the document allows may be refused all the same, and why it cannot be said there."""


BEYOND_THE_DOCUMENT_OF = {
    ("post_events", "application/json"): {
        "unsupported_media_type": "in binary mode headers are required that elsewhere are not",
        "missing_field": "in binary mode headers are required that elsewhere are not",
        "no_customer": "in binary mode headers are required that elsewhere are not",
        "wrong_length": "of headers, the limits are given with the event",
        "unsupported_version": "of headers, the limits are given with the event",
        "reserved_type": "of headers, the limits are given with the event",
        "control_character": "of headers, the limits are given with the event",
        "malformed": "what a header is once its percent signs are decoded, UTF-8 or not, JSON Schema cannot say",
    },
    ("post_events", "application/cloudevents+json"): {
        "malformed": "what data in Base64 stand for must be JSON, and JSON Schema does not look into them",
    },
}
"""The same for bodies of one operation."""

NO_INTEGER = "Input should be a valid integer"


@schemathesis.serializer("application/x-ndjson")
def lines(_: schemathesis.SerializationContext, value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_each_route_is_as_described(sqlite_door: Door, case: schemathesis.Case[Any]) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    response = case.call(sqlite_door.service.url, headers=headers, timeout=SECONDS)
    excluded: list[schemathesis.CheckFunction] = []
    if is_beyond_the_document(case, response):
        excluded.append(positive_data_acceptance)
    if is_verdict(response) or has_unread_headers(case) or is_not_all_in_the_address(case):
        excluded.append(negative_data_rejection)
    case.validate_response(response, excluded_checks=excluded, headers=headers, transport_kwargs={"timeout": SECONDS})


def is_beyond_the_document(case: schemathesis.Case[Any], response: schemathesis.Response) -> bool:
    if response.status_code not in (400, 415, 422):
        return False
    problem = response.json()
    if problem["code"] == "invalid_request":
        # Where it is about no one parameter or field, it is a rule that joins several. And for JSON Schema 1.0 is an
        # integer, which it is not for a service that tells 1 and 1.0 apart in what it stores.
        return all(one["pointer"] == "" or one["message"] == NO_INTEGER for one in problem["problems"])
    operation = case.operation.definition.raw["operationId"]
    return problem["code"] in BEYOND_THE_DOCUMENT | BEYOND_THE_DOCUMENT_OF.get((operation, case.media_type or ""), {})


def has_unread_headers(case: schemathesis.Case[Any]) -> bool:
    """Whether only headers are wrong that are read in another mode of CloudEvents."""
    is_structured = (case.media_type or "").startswith("application/cloudevents")
    return is_structured and any(name.lower().startswith("ce-") for name in case.headers or ())


def is_not_all_in_the_address(case: schemathesis.Case[Any]) -> bool:
    """Whether a parameter is an empty list or object: nothing of it is sent, and so nothing that is wrong of it."""
    return any(value in ([], {}) for value in (case.query or {}).values())


def is_verdict(response: schemathesis.Response) -> bool:
    """Whether it refuses, though its status does not say so: item by item, or as the answer to what was asked."""
    if response.status_code not in (200, 207):
        return False
    try:
        answer = response.json()
    except ValueError:
        return False
    return isinstance(answer, dict) and bool(
        answer.get("errors")
        or answer.get("valid") is False
        or ("items" in answer and answer.get("summary", {}).get("rejected"))
    )


def test_every_exclusion_says_why() -> None:
    tables = (BEYOND_THE_DOCUMENT, *BEYOND_THE_DOCUMENT_OF.values())
    assert all(len(reason) > 10 for table in tables for reason in table.values())


def test_all_checks_are_on() -> None:
    """None is switched off for good; above, two of them are passed over for single answers."""
    names = {check.__name__ for check in schemathesis.checks.CHECKS.get_all()}
    if missing := {"negative_data_rejection", "positive_data_acceptance", "ignored_auth"} - names:
        pytest.fail(f"schemathesis no longer has {missing}")

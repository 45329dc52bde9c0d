"""The OpenAPI document: what FastAPI knows of its routes, and the rest of what is served."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from lifecycle_engine.api import ingest
from lifecycle_engine.api.problems import MEDIA_TYPE, Problem
from lifecycle_engine.log.message import Submission

_KEY = "key"
_REF = "#/components/schemas/"
_TAGS = [
    {"name": "touchpoints", "description": "Post what happened, and ask what became of it."},
    {"name": "customers", "description": "Where a customer stands, stood, and why."},
    {"name": "identities", "description": "Who is who: links, merges, and what is known of somebody."},
    {"name": "lifecycles", "description": "Definitions: posted, numbered, activated."},
    {"name": "changes", "description": "Every change, in an order that never changes."},
    {"name": "operate", "description": "Is the process alive, can it do its work, and how far has that come?"},
]


def install(app: FastAPI) -> None:
    """Makes the app serve the whole document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    openapi_version=app.openapi_version,
                    summary=app.summary,
                    routes=app.routes,
                    tags=_TAGS,
                )
            )
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    (results, acknowledgement, _), found = msgspec.json.schema_components(
        [ingest.ItemResults, ingest.Acknowledgement, Submission], ref_template=_REF + "{name}"
    )
    schemas.update(found)
    schemas["Touchpoint"] = _described(schemas.pop("Submission"))
    schemas["Problem"] = Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {
        _KEY: {"type": "http", "scheme": "bearer", "description": "An API key; each has scopes."}
    }
    document["paths"].setdefault(ingest.PATH, {})["post"] = _post_touchpoints(results, acknowledgement)
    for operations in document["paths"].values():
        for operation in operations.values():
            _complete(operation)
    document["components"] = {name: dict(sorted(part.items())) for name, part in sorted(components.items())}
    return document


def _complete(operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    # `requires` of authentication.py names its scheme after its scopes.
    scopes = [scope for scheme in operation.get("security", ()) for name in scheme for scope in name.split()]
    if scopes:
        operation["security"] = [{_KEY: [scope]} for scope in scopes]
        answers["500"] = _problem("Something went wrong on our side")
    for status, answer in answers.items():
        headers = answer.setdefault("headers", {})
        headers["Request-Id"] = {"schema": {"type": "string"}, "description": "As sent, or made by the server."}
        if status == "503" and scopes:
            headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "Seconds."}
        content = answer.get("content", {})
        if status == "422" and content.get("application/json", {}).get("schema", {}).get("$ref", "").endswith("Error"):
            answers[status] = {**_problem("Something in the request is not as it must be"), "headers": headers}
        elif MEDIA_TYPE in content:
            content.pop("application/json", None)


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {MEDIA_TYPE: {"schema": {"$ref": f"{_REF}Problem"}}}}


def _described(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a touchpoint with what its types cannot say."""
    descriptions = {
        "type": "What happened. Types that begin with `$` are reserved.",
        "id": "Unique within the source (the name of the API key), for ever: the same id takes effect once. "
        "Absent: the server makes a UUIDv7, and the request is not safe to repeat.",
        "customer_id": "Whom it is about. At least one of `customer_id` and `anonymous_id` is needed.",
        "anonymous_id": "Whom it is about, as long as it is not known who that is.",
        "occurred_at": "RFC 3339 with an offset; digits finer than microseconds are cut. Absent: when it arrives. "
        "Not before 1900, and not more than the configured skew ahead of the clock.",
        "properties": "What else is to be said of it: finite numbers, integers within 64 bits, no NUL, at most 32 "
        "levels deep.",
        "context": "Where it came from: channel, campaign, source …; the same limits.",
        "muted": "It makes history, but nobody is told of what it alone causes (an import).",
    }
    for name, description in descriptions.items():
        schema["properties"][name]["description"] = description
    schema["properties"]["occurred_at"]["anyOf"][0]["format"] = "date-time"
    schema["title"] = "Touchpoint"
    schema["description"] = "One immutable fact about a customer, of at most 256 KiB. Null counts as absent."
    return schema


_PURCHASE = {
    "id": "order-1001",
    "type": "purchase",
    "customer_id": "42",
    "occurred_at": "2026-03-01T12:30:00Z",
    "properties": {"amount": 49.9},
    "context": {"channel": "web"},
}
_VISIT = {"id": "visit-7", "type": "product_view", "anonymous_id": "3f1c", "occurred_at": "2026-03-01T12:29:00Z"}


def _post_touchpoints(results: dict[str, Any], acknowledgement: dict[str, Any]) -> dict[str, Any]:
    touchpoint = {"$ref": f"{_REF}Touchpoint"}
    done = {
        "summary": {"accepted": 1, "rejected": 1, "unknown": 0},
        "items": [
            {"index": 0, "id": "order-1001", "status": "accepted"},
            {
                "index": 1,
                "id": "visit-7",
                "status": "rejected",
                "problem": {"status": 422, "code": "missing_field", "detail": "is required", "pointer": "/type"},
            },
        ],
    }
    return {
        "tags": ["touchpoints"],
        "security": [{ingest.SCOPE: []}],
        "operationId": "post_touchpoints",
        "summary": "Post one touchpoint, or many",
        "description": "An object is answered with 202, an array of up to 10,000 with 207 and what became of each. "
        "Accepted means durable in the log. An invalid item does not spoil its neighbours. After a 503, or no answer, "
        "nobody knows: send the same ids again, which is always safe.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"oneOf": [touchpoint, {"type": "array", "maxItems": 10_000, "items": touchpoint}]},
                    "examples": {
                        "one": {"summary": "One touchpoint", "value": _PURCHASE},
                        "many": {"summary": "Many touchpoints", "value": [_PURCHASE, _VISIT]},
                    },
                }
            },
        },
        "responses": {
            "202": {
                "description": "The touchpoint is durable",
                "content": {
                    "application/json": {
                        "schema": acknowledgement,
                        "example": {"id": "order-1001", "status": "accepted"},
                    }
                },
            },
            "207": {
                "description": "What became of each touchpoint of the array",
                "content": {"application/json": {"schema": results, "example": done}},
            },
            "400": _problem("Not JSON"),
            "401": _problem("No key, or one that is unknown, expired or revoked"),
            "403": _problem("The key lacks the scope `ingest:write`"),
            "413": _problem("More than 10 MiB, 10,000 touchpoints, or 256 KiB in one"),
            "415": _problem("Not application/json in UTF-8, or with a content encoding"),
            "422": _problem("Something in the touchpoint is not as it must be; `pointer` says where"),
            "503": _problem("The log took nothing (`log_unavailable`), or did not say so in time (`outcome_unknown`)"),
        },
    }

"""What the OpenAPI document says of the ways in, whose routes FastAPI does not know."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from lifecycle_engine.api import ingest
from lifecycle_engine.api.problems import MEDIA_TYPE
from lifecycle_engine.log.message import Submission

_REF = "#/components/schemas/"


def described() -> tuple[dict[str, Any], dict[str, Any]]:
    """The operation of each path, all of them POST, and the schemas that they refer to."""
    _, schemas = msgspec.json.schema_components(
        [ingest.ItemResults, ingest.Acknowledgement, Submission], ref_template=_REF + "{name}"
    )
    schemas["Touchpoint"] = _touchpoint(schemas.pop("Submission"))
    return {ingest.PATH: _post_touchpoints(), ingest.VALIDATE_PATH: _validate_touchpoints()}, schemas


def problem(description: str) -> dict[str, Any]:
    """An answer that is a problem."""
    return {"description": description, "content": {MEDIA_TYPE: {"schema": {"$ref": f"{_REF}Problem"}}}}


def _touchpoint(schema: dict[str, Any]) -> dict[str, Any]:
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
_ACCEPTED = {"id": "order-1001", "status": "accepted"}
_RESULTS = {
    "summary": {"accepted": 1, "rejected": 1, "unknown": 0},
    "items": [
        {"index": 0, **_ACCEPTED},
        {
            "index": 1,
            "id": "visit-7",
            "status": "rejected",
            "problem": {"status": 422, "code": "missing_field", "detail": "is required", "pointer": "/type"},
        },
    ],
}
_LINES = "\n".join(json.dumps(touchpoint) for touchpoint in (_PURCHASE, _VISIT)) + "\n"


def _post_touchpoints() -> dict[str, Any]:
    return {
        "tags": ["touchpoints"],
        "security": [{ingest.SCOPE: []}],
        "operationId": "post_touchpoints",
        "summary": "Post one touchpoint, or many",
        "description": "An object is answered with 202; an array or lines, of up to 10,000, with 207 and what became "
        "of each. Accepted means durable in the log. An invalid item does not spoil its neighbours. An array that "
        "isn't JSON is refused as a whole, a line that isn't JSON alone. After a 503, or no answer, nobody knows: send "
        f"the same ids again, which is always safe. {_ENCODED}",
        "requestBody": _touchpoints_body(),
        "responses": {
            "202": _answer("The touchpoint is durable", "Acknowledgement", _ACCEPTED),
            "207": _answer("What became of each touchpoint", "ItemResults", _RESULTS),
            **_refusals(),
            "422": problem("Something in the touchpoint is not as it must be; `pointer` says where"),
            "503": problem("The log took nothing (`log_unavailable`), or did not say so in time (`outcome_unknown`)"),
        },
    }


def _validate_touchpoints() -> dict[str, Any]:
    return {
        "tags": ["touchpoints"],
        "security": [{ingest.SCOPE: []}],
        "operationId": "validate_touchpoints",
        "summary": "See what would be accepted",
        "description": "Takes the same bodies, answers item by item, and changes nothing: `accepted` means would be. "
        "Whether an id is taken is not looked at.",
        "requestBody": _touchpoints_body(),
        "responses": {
            "200": _answer("What would become of each touchpoint", "ItemResults", _RESULTS),
            **_refusals(),
            "503": problem("The keys could not be read yet (`keys_unavailable`)"),
        },
    }


_ENCODED = "Bodies may be encoded (`Content-Encoding`: gzip, deflate, zstd); the limits hold for what they stand for."


def _touchpoints_body() -> dict[str, Any]:
    touchpoint = {"$ref": f"{_REF}Touchpoint"}
    lines = {"schema": {"type": "string"}, "examples": {"many": {"summary": "One a line", "value": _LINES}}}
    return {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"oneOf": [touchpoint, {"type": "array", "maxItems": 10_000, "items": touchpoint}]},
                "examples": {
                    "one": {"summary": "One touchpoint", "value": _PURCHASE},
                    "many": {"summary": "Many touchpoints", "value": [_PURCHASE, _VISIT]},
                },
            },
            "application/x-ndjson": lines,
        },
    }


def _answer(description: str, schema: str, example: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF + schema}, "example": example}}
    return {"description": description, "content": content}


def _refusals() -> dict[str, Any]:
    return {
        "400": problem("Not JSON, or not what the Content-Encoding says"),
        "401": problem("No key, or one that is unknown, expired or revoked"),
        "403": problem(f"The key lacks the scope `{ingest.SCOPE}`"),
        "413": problem("More than 10 MiB, 10,000 items, or 256 KiB in one"),
        "415": problem("A Content-Type or a Content-Encoding that is not one of these"),
    }

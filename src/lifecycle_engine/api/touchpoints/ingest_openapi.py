"""What the OpenAPI document says of the ways in, whose routes FastAPI does not know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from lifecycle_engine.api.door.paths import PRINTABLE
from lifecycle_engine.api.problems import MEDIA_TYPE
from lifecycle_engine.api.touchpoints import events, ingest, tracking
from lifecycle_engine.ingest.formats.cloudevents import BATCHED, STRUCTURED
from lifecycle_engine.ingest.formats.tracking import CALLS
from lifecycle_engine.log.message import Submission

_REF = "#/components/schemas/"
_TYPE = PRINTABLE.replace("^", "^(?!\\$)", 1)
"""What the type of a touchpoint looks like."""


def described() -> tuple[dict[str, Any], dict[str, Any]]:
    """The operation of each path, all of them POST, and the schemas that they refer to."""
    models = [ingest.ItemResults, ingest.Acknowledgement, tracking.Tracked, Submission]
    _, schemas = msgspec.json.schema_components(models, ref_template=_REF + "{name}")
    schemas["Touchpoint"] = _touchpoint(schemas.pop("Submission"))
    schemas |= {"CloudEvent": _CLOUD_EVENT, "Call": _CALL, "Batch": _BATCH}
    paths = {
        ingest.PATH: _post_touchpoints(),
        ingest.VALIDATE_PATH: _validate_touchpoints(),
        events.PATH: _post_events(),
        **{path: _post_calls(kind) for kind, path in tracking.PATHS.items()},
    }
    return paths, schemas


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
    schema["properties"]["type"]["pattern"] = _TYPE
    for name in ("id", "customer_id", "anonymous_id"):
        schema["properties"][name]["anyOf"][0]["pattern"] = PRINTABLE
    schema["anyOf"] = [
        {"required": [name], "properties": {name: {"type": "string"}}} for name in ("customer_id", "anonymous_id")
    ]
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
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`wait=N`, N at most 30: answer when what was accepted is applied, one with 200 and its receipt, "
    "many with 207; after N seconds as without it. Other preferences are let pass.",
    "schema": {"type": "string"},
    "example": "wait=5",
}
_APPLIED = {
    "Preference-Applied": {
        "schema": {"type": "string"},
        "description": "`wait=N`: everything that was accepted was applied in that time.",
    }
}
_ENCODED = "Bodies may be encoded (`Content-Encoding`: gzip, deflate, zstd); the limits hold for what they stand for."
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
        "parameters": [_PREFER],
        "requestBody": _touchpoints_body(),
        "responses": {
            "200": _receipt(),
            "202": _answer("The touchpoint is durable", "Acknowledgement", _ACCEPTED),
            "207": _answer("What became of each touchpoint", "ItemResults", _RESULTS, _APPLIED),
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


_EVENT: Mapping[str, Any] = {
    "specversion": "1.0",
    "id": "1001",
    "source": "/shop/orders",
    "type": "Order Completed",
    "time": "2026-03-01T12:30:00Z",
    "subject": "42",
    "data": {"revenue": 49.9},
}
_TEXT_OR_NULL: Mapping[str, Any] = {"type": ["string", "null"], "minLength": 1}
_NAME: Mapping[str, Any] = {**_TEXT_OR_NULL, "maxLength": 256, "pattern": PRINTABLE}
_CLOUD_EVENT: Mapping[str, Any] = {
    "type": "object",
    "title": "CloudEvent",
    "description": "An event of CloudEvents 1.0. Its other extension attributes become the touchpoint's context. Null "
    "counts as absent.",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"type": "string", "const": "1.0"},
        "id": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": PRINTABLE},
        "source": {
            "type": "string",
            "minLength": 1,
            "maxLength": 128,
            "pattern": PRINTABLE,
            "description": "With the id it identifies it.",
        },
        "type": {
            "type": "string",
            "minLength": 1,
            "maxLength": 128,
            "pattern": _TYPE,
            "description": "Of the touchpoint, or mapped to one.",
        },
        "time": {"type": ["string", "null"], "format": "date-time", "description": "When it occurred."},
        "subject": {
            **_TEXT_OR_NULL,
            "description": "The customer_id, where neither `customerid` nor `anonymousid` names anybody.",
        },
        "customerid": _NAME,
        "anonymousid": _NAME,
        "datacontenttype": _TEXT_OR_NULL,
        "data": {"description": "The properties; what is no object becomes the property `data`."},
        "data_base64": {
            "type": ["string", "null"],
            "contentEncoding": "base64",
            "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
            "description": "The data, where they are bytes. Not beside `data`.",
        },
    },
    "propertyNames": {"pattern": "^([a-z0-9]{1,64}|data_base64)$"},
    "additionalProperties": {"type": ["string", "integer", "boolean", "null"], "minLength": 1},
    "not": {"required": ["data", "data_base64"], "properties": {"data_base64": {"type": "string"}}},
    "anyOf": [
        {"required": ["customerid"], "properties": {"customerid": {"type": "string"}}},
        {"required": ["anonymousid"], "properties": {"anonymousid": {"type": "string"}}},
        {
            "required": ["subject"],
            "properties": {"subject": {"type": "string", "maxLength": 256, "pattern": PRINTABLE}},
        },
    ],
}
_TRACK: Mapping[str, Any] = {
    "messageId": "ajs-1f0c",
    "userId": "42",
    "event": "Order Completed",
    "properties": {"revenue": 49.9},
    "timestamp": "2026-03-01T12:30:00Z",
    "sentAt": "2026-03-01T12:30:02Z",
}
_ID: Mapping[str, Any] = {"type": ["string", "integer", "null"], "maxLength": 256}
_CALL: Mapping[str, Any] = {
    "type": "object",
    "title": "Call",
    "description": "A call of Segment's tracking API, of at most 32 KiB; other members are let pass. It names a "
    "`userId`, an `anonymousId`, or both.",
    "properties": {
        "type": {"type": ["string", "null"], "description": f"In a batch: {', '.join(CALLS)}."},
        "messageId": {"type": ["string", "null"], "maxLength": 128, "description": "The touchpoint's id."},
        "userId": {**_ID, "description": "The customer_id."},
        "anonymousId": {**_ID, "description": "The anonymous_id."},
        "event": {"type": ["string", "null"], "maxLength": 128, "description": "What was tracked."},
        "groupId": {**_ID, "description": "Of a group."},
        "previousId": {**_ID, "description": "Of an alias: the anonymous_id that is linked to the userId."},
        "name": {"type": ["string", "null"], "description": "Of a page or a screen."},
        "category": {"type": ["string", "null"], "description": "Of a page or a screen."},
        "properties": {"type": ["object", "null"]},
        "traits": {"type": ["object", "null"]},
        "context": {"type": ["object", "null"]},
        "integrations": {"type": ["object", "null"]},
        "timestamp": {"type": ["string", "null"], "description": "RFC 3339 with an offset, by the sender's clock."},
        "originalTimestamp": {"type": ["string", "null"], "description": "The same, where there is no `timestamp`."},
        "sentAt": {
            "type": ["string", "null"],
            "description": "When the request was sent by the same clock, which is corrected by it.",
        },
        "writeKey": {"type": ["string", "null"], "description": "The API key, where no header has it."},
    },
}
_BATCH = {
    "type": "object",
    "title": "Batch",
    "description": "Calls, at most 2,500 and 500 KiB. `context` and `integrations` are merged into those of each call.",
    "required": ["batch"],
    "properties": {
        "batch": {"type": "array", "items": {"$ref": f"{_REF}Call"}},
        **{name: _CALL["properties"][name] for name in ("context", "integrations", "sentAt", "writeKey")},
    },
}


def _post_events() -> dict[str, Any]:
    headers = ("specversion", "id", "source", "type", "time", "subject", "customerid", "anonymousid")
    event = {"$ref": f"{_REF}CloudEvent"}
    return {
        "tags": ["touchpoints"],
        "security": [{ingest.SCOPE: []}],
        "operationId": "post_events",
        "summary": "Post CloudEvents",
        "description": "CloudEvents 1.0 over HTTP: one in `ce-` headers with its data as the body (binary), one as "
        "JSON (structured), or several (batched, also none). The answers are those of touchpoints. `source` and `id` "
        f"of the event identify it, whatever key it was posted with. {_ENCODED}",
        "parameters": [
            _PREFER,
            *(
                {
                    "name": f"ce-{name}",
                    "in": "header",
                    "required": False,
                    "description": "In binary mode, percent-encoded; its limits are those of the event.",
                    "schema": {"type": "string"},
                }
                for name in headers
            ),
        ],
        "requestBody": {
            "required": True,
            "content": {
                STRUCTURED: {"schema": event, "examples": {"one": {"summary": "Structured", "value": _EVENT}}},
                BATCHED: {
                    "schema": {"type": "array", "maxItems": 10_000, "items": event},
                    "examples": {"many": {"summary": "Batched", "value": [_EVENT]}},
                },
                "application/json": {
                    "schema": {},
                    "examples": {"data": {"summary": "Binary: the data alone", "value": _EVENT["data"]}},
                },
            },
        },
        "responses": {
            "200": _receipt(),
            "202": _answer("The event is durable", "Acknowledgement", {"id": "1001", "status": "accepted"}),
            "207": _answer("What became of each event", "ItemResults", _RESULTS, _APPLIED),
            **_refusals(),
            "422": problem("Something in the event is not as it must be; `pointer` names the attribute"),
            "503": problem("The log took nothing (`log_unavailable`), or did not say so in time (`outcome_unknown`)"),
        },
    }


def _post_calls(kind: str) -> dict[str, Any]:
    is_batch = kind == tracking.BATCH
    call = {"batch": [{"type": "track", **_TRACK}], "sentAt": _TRACK["sentAt"]} if is_batch else _CALLED[kind]
    errors = [
        {"index": 0, "messageId": "ajs-1f0c", "code": "missing_field", "message": "/event is required of a track"}
    ]
    return {
        "tags": ["touchpoints"],
        "security": [{ingest.SCOPE: []}],
        "operationId": f"post_{kind}",
        "summary": "Post a batch of Segment's calls" if is_batch else f"Post Segment's {kind}",
        "description": "As Segment's libraries send it: the API key is the name in Basic authentication, a token, or "
        "`writeKey` in the body. 200 means that every call is durable but for the `errors`; with `X-Strict-Mode: 1` "
        f"nothing is taken where there would be errors, and the answer is 400. {_ENCODED}",
        "parameters": [
            {
                "name": "X-Strict-Mode",
                "in": "header",
                "required": False,
                "description": "1: all or nothing.",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": f"{_REF}{'Batch' if is_batch else 'Call'}"},
                    "examples": {kind: {"summary": kind.capitalize(), "value": call}},
                }
            },
        },
        "responses": {
            "200": _answer("Taken, but for the errors", "Tracked", {"success": True, "errors": errors}),
            **{status: answer for status, answer in _refusals().items() if status != "413"},
            "400": problem("Not JSON, too large (32 KiB, or 500 KiB for a batch), or errors in strict mode"),
            "503": problem("The log took nothing (`log_unavailable`), or did not say so in time (`outcome_unknown`)"),
        },
    }


_CALLED: Mapping[str, Any] = {
    "track": _TRACK,
    "identify": {"messageId": "ajs-2", "userId": "42", "anonymousId": "3f1c", "traits": {"plan": "pro"}},
    "alias": {"messageId": "ajs-3", "userId": "42", "previousId": "3f1c"},
    "group": {"messageId": "ajs-4", "userId": "42", "groupId": "acme", "traits": {"employees": 80}},
    "page": {"messageId": "ajs-5", "anonymousId": "3f1c", "name": "Prices"},
    "screen": {"messageId": "ajs-6", "anonymousId": "3f1c", "name": "Prices"},
}


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


def _receipt() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"{_REF}Receipt"}}}
    return {"description": "Applied, as was waited for: the receipt", "content": content, "headers": dict(_APPLIED)}


def _answer(description: str, schema: str, example: Any, headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF + schema}, "example": example}}
    return {"description": description, "content": content, "headers": dict(headers or {})}


def _refusals() -> dict[str, Any]:
    return {
        "400": problem("Not JSON, or not what the Content-Encoding says"),
        "401": problem("No key, or one that is unknown, expired or revoked"),
        "403": problem(f"The key lacks the scope `{ingest.SCOPE}`"),
        "413": problem("More than 10 MiB, 10,000 items, or 256 KiB in one"),
        "415": problem("A Content-Type or a Content-Encoding that is not one of these"),
    }

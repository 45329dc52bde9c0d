"""What is sent: the body of each message, and what is told of endpoints. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from lifecycle_engine.lifecycle.instants import format_instant

DISABLED, FAILING, EXHAUSTED, RECOVERED = (
    "endpoint.disabled",
    "endpoint.failing",
    "endpoint.exhausted",
    "endpoint.recovered",
)
TEST = "endpoint.test"
"""Sent to one endpoint, when somebody asks for it; no filter names it."""
_ABOUT_ENDPOINTS = "endpoint."

_encode = msgspec.json.Encoder().encode


class Cause(NamedTuple):
    """The delivery that brought it about: its message, the type of that, and what came of the last attempt."""

    message: str
    type: str
    attempts: int
    status_code: int | None
    failure: str | None


class Alert(NamedTuple):
    """Something to tell of an endpoint; `at` is in microseconds since the epoch. `reason` goes with `DISABLED`."""

    type: str
    endpoint: str
    at: int
    cause: Cause | None
    reason: str | None = None


def is_about_an_endpoint(type_: str) -> bool:
    """Whether an event of this type tells of an endpoint."""
    return type_.startswith(_ABOUT_ENDPOINTS)


def body(type_: str, at: int, data: bytes) -> bytes:
    """The bytes that are sent: `data` is JSON, `at` when that was recorded (microseconds since the epoch)."""
    return b'{"type":"%b","timestamp":"%b","data":%b}' % (type_.encode(), format_instant(at).encode(), data)


def alert_body(alert: Alert) -> bytes:
    """The bytes that are sent where an endpoint is told of."""
    data: dict[str, Any] = {"endpoint_id": alert.endpoint}
    if alert.type == DISABLED:
        data["reason"] = alert.reason
    cause = alert.cause
    data["message"] = cause and {
        "id": cause.message,
        "type": cause.type,
        "attempts": cause.attempts,
        "status_code": cause.status_code,
        "failure": cause.failure,
    }
    return body(alert.type, alert.at, _encode(data))


def test_body(endpoint: str, at: int) -> bytes:
    """The bytes that are sent to see whether they arrive."""
    return body(TEST, at, _encode({"endpoint_id": endpoint}))

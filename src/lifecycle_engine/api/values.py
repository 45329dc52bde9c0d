"""Values that answers and questions have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from lifecycle_engine.api.paths import without_nul
from lifecycle_engine.lifecycle.instants import format_instant, parse_instant

_INSTANT = {"type": "string", "format": "date-time", "examples": ["2026-03-01T12:30:00Z"]}

Instant = Annotated[int, PlainSerializer(format_instant, return_type=str), WithJsonSchema(_INSTANT)]
"""An instant in an answer: microseconds since the epoch inside, RFC 3339 UTC outside."""


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_instant(value)
    except ValueError as error:
        # An offset's plus sign that was not encoded has arrived as a space.
        raise ValueError(f"{error}; write its plus sign as %2B" if " " in value else str(error)) from None


InstantParameter = Annotated[int, BeforeValidator(_parsed), WithJsonSchema(_INSTANT)]
"""An instant in a question: RFC 3339 with an offset outside, microseconds since the epoch inside."""

Text = Annotated[str, AfterValidator(without_nul)]

Kind = Literal["customer_id", "anonymous_id"]

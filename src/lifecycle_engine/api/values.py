"""Values that answers and questions have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from lifecycle_engine.api.door.paths import WITHOUT_NUL, without_nul
from lifecycle_engine.lifecycle.instants import format_instant, parse_instant

_INSTANT = {"type": "string", "format": "date-time", "examples": ["2026-03-01T12:30:00Z"]}

Instant = Annotated[int, PlainSerializer(format_instant, return_type=str), WithJsonSchema(_INSTANT)]
"""An instant in an answer: microseconds since the epoch inside, RFC 3339 UTC outside."""


def _parsed(value: Any) -> int:
    if not isinstance(value, str):
        raise ValueError("must be a text: RFC 3339 with an offset, such as 2026-03-01T12:30:00Z")
    try:
        return parse_instant(value)
    except ValueError as error:
        # An offset's plus sign that was not encoded has arrived as a space.
        is_encoded = value[-6:-5] != " "
        raise ValueError(str(error) if is_encoded else f"{error}; write its plus sign as %2B") from None


InstantParameter = Annotated[int, BeforeValidator(_parsed), WithJsonSchema(_INSTANT)]
"""An instant in a question: RFC 3339 with an offset outside, microseconds since the epoch inside."""

Text = Annotated[str, AfterValidator(without_nul), Field(json_schema_extra={"pattern": WITHOUT_NUL})]


def split(value: Any) -> Any:
    """`include=a,b` and `include=a&include=b` say the same."""
    return [part for text in value for part in text.split(",")] if isinstance(value, list) else value


Kind = Literal["customer_id", "anonymous_id"]

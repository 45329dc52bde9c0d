"""Instants: an `int` of microseconds since 1970-01-01T00:00:00Z inside, RFC 3339 text outside."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1)
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
).fullmatch
_LONGEST = 64
_FIRST = -62_135_596_800_000_000
_LAST = 253_402_300_799_999_999


def parse_instant(text: str) -> int:
    """RFC 3339 with its offset, to microseconds since the epoch; digits finer than microseconds are cut.

    Raises ValueError, with a text for whoever wrote it. There are no leap seconds.
    """
    if len(text) > _LONGEST or _RFC_3339(text) is None:
        raise ValueError("must be RFC 3339 with an offset, such as 2026-03-01T12:30:00Z")
    if text[-1] == "z":
        text = text[:-1] + "Z"
    try:
        since = datetime.fromisoformat(text) - _EPOCH_UTC
    except ValueError as error:
        raise ValueError(f"is not a time that exists: {error}") from None
    instant = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if not _FIRST <= instant <= _LAST:
        raise ValueError("is not within the years 1 to 9999 in UTC")
    return instant


def format_instant(instant: int) -> str:
    """Microseconds since the epoch, of the years 1 to 9999, as `2026-03-01T12:30:00Z`, with six digits if need be."""
    return (_EPOCH + timedelta(microseconds=instant)).isoformat() + "Z"

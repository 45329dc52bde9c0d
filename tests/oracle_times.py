"""How the oracle reads texts that say when and how long, and what an instant is in a guard."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_SHORT = re.compile(r"([0-9]+)([wdhms])")
_ISO = re.compile(
    r"P(?=.)(?:(?P<w>[0-9]+)W|(?:(?P<d>[0-9]+)D)?"
    r"(?:T(?=.)(?:(?P<h>[0-9]+)H)?(?:(?P<m>[0-9]+)M)?(?:(?P<s>[0-9]+)S)?)?)"
)


def duration(text: str) -> int:
    """`14d`, `6h`, `30m`, `45s`, `2w` or ISO 8601 without months and years, in microseconds.

    Raises ValueError for anything else, and for less than a second or more than 36,500 days.
    """
    if short := _SHORT.fullmatch(text):
        parts: dict[str, str | None] = {short[2]: short[1]}
    elif iso := _ISO.fullmatch(text):
        parts = iso.groupdict()
    else:
        raise ValueError(f"{text!r} is no duration")
    seconds = sum(_SECONDS[unit] * int(number) for unit, number in parts.items() if number)
    if not 1 <= seconds <= 36_500 * _SECONDS["d"]:
        raise ValueError(f"{text!r} is not from a second to 36,500 days")
    return seconds * 1_000_000


def microseconds(text: str) -> int:
    """An RFC 3339 instant, in microseconds since the epoch; finer digits are cut."""
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def instant(microseconds: int) -> datetime:
    """What a guard sees of an instant in microseconds since the epoch."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)

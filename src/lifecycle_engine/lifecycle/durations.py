"""Durations as definitions write them: `14d`, `6h`, or ISO 8601 such as `P1DT6H`.

A day is 86,400 seconds and a week seven days, in UTC: no zone, no summer time. A month or a year has no fixed length,
so neither is taken.
"""

from __future__ import annotations

import re

SHORTEST = 1_000_000
"""One second, in microseconds."""
LONGEST = 36_500 * 86_400_000_000
"""A hundred years, in microseconds."""

_UNITS = {"w": 7 * 86_400_000_000, "d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000}
_SHORT = re.compile(r"([0-9]{1,10})([wdhms])")
_ISO = re.compile(
    r"P(?=.)(?:([0-9]{1,10})W)?(?:([0-9]{1,10})D)?(?:T(?=.)(?:([0-9]{1,10})H)?(?:([0-9]{1,10})M)?(?:([0-9]{1,10})S)?)?"
)
_CALENDAR = re.compile(r"P[^T]*[YM].*|[0-9]+ ?(y|yr|years?|mo|mon|months?|M)", re.IGNORECASE)


def parse_duration(text: object) -> int:
    """Microseconds, from one second to a hundred years. Raises ValueError, which says what is taken instead."""
    if not isinstance(text, str):
        raise ValueError("a duration is a text such as 14d, 6h or P1DT6H")
    if short := _SHORT.fullmatch(text):
        microseconds = int(short[1]) * _UNITS[short[2]]
    elif iso := _ISO.fullmatch(text):
        microseconds = sum(int(part or 0) * unit for part, unit in zip(iso.groups(), _UNITS.values(), strict=True))
    elif _CALENDAR.fullmatch(text):
        raise ValueError(f"{text[:40]!r}: months and years have no fixed length; say it in days, such as 30d or 365d")
    else:
        raise ValueError(f"{text[:40]!r} is no duration; write 14d, 6h, 30m, 45s, 2w, or ISO 8601 such as P1DT6H")
    if not SHORTEST <= microseconds <= LONGEST:
        raise ValueError(f"{text[:40]!r} is not between 1s and 36500d")
    return microseconds


def format_duration(microseconds: int) -> str:
    """The shortest writing in one unit: `14d`, `90m`. Whole seconds only."""
    units = ((letter, unit) for letter, unit in _UNITS.items() if letter != "w" and microseconds % unit == 0)
    letter, unit = next(units)
    return f"{microseconds // unit}{letter}"

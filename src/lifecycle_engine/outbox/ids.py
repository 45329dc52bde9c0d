"""Ids of endpoints and messages: a prefix and a ULID, which sorts by the time at which it was made."""

from __future__ import annotations

import secrets

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32."""
_RANDOM_BITS = 80


def new_id(prefix: str, now: int) -> str:
    """An id for an instant in microseconds since the epoch: `new_id("ep_", now)`."""
    return new_ids(prefix, now, 1)[0]


def new_ids(prefix: str, now: int, count: int) -> list[str]:
    """Ids for one instant, in ascending order: the first is drawn, each of the others is one more."""
    # The upper half is left free for counting, so that it cannot run over into the time.
    first = (now // 1000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS - 1)
    return [prefix + _base32(first + n) for n in range(count)]


def _base32(number: int) -> str:
    return "".join(_DIGITS[number >> shift & 31] for shift in range(125, -1, -5))

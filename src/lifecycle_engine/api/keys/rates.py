"""How many requests a key may make, by the generic cell rate algorithm (ITU-T I.371): one number a key is all it takes.

That number is when the key will have its whole quota back. Each request moves it on by the seconds that one request
costs; it never lies more than the whole period ahead. Pure: time is an argument, in microseconds.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_POLICY = "default"
_WRITTEN = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,4})").fullmatch


class Rate(NamedTuple):
    """So many requests in so many seconds; all of them may come at once, and then the quota grows back evenly."""

    requests: int
    seconds: int


class Verdict(NamedTuple):
    """What a request met: whether it may pass, and what is left."""

    whole_at: int
    """When the whole quota is there again, in microseconds since the epoch: what is remembered of the key."""
    passes: bool
    remaining: int
    reset: int
    """Seconds until the whole quota is there again."""
    retry_after: int
    """Seconds until the next request may pass, at least 1; 0 where this one does."""


def parse_rate(text: str) -> Rate | None:
    """The rate that REQUESTS/SECONDS stands for; None for an empty text. Raises ValueError."""
    if not text:
        return None
    found = _WRITTEN(text)
    if found is None:
        raise ValueError("must be REQUESTS/SECONDS, such as 6000/60, or empty")
    return Rate(int(found[1]), int(found[2]))


def judge(rate: Rate, whole_at: int | None, now: int) -> Verdict:
    """Judges one request at `now`; `whole_at` is what the last verdict said, None for a key that asks at first.

    A request that may not pass costs nothing.
    """
    period = rate.seconds * 1_000_000
    start = now if whole_at is None else max(whole_at, now)
    after = start + period // rate.requests
    if after > now + period:
        wait = after - now - period
        return Verdict(start, False, 0, _seconds(start - now), max(1, _seconds(wait)))
    return Verdict(after, True, (now + period - after) * rate.requests // period, _seconds(after - now), 0)


def policy_fields(rate: Rate, verdict: Verdict) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """The header fields `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11)."""
    policy = b'"%s";q=%d;w=%d' % (_POLICY.encode(), rate.requests, rate.seconds)
    left = b'"%s";r=%d;t=%d' % (_POLICY.encode(), verdict.remaining, verdict.reset)
    return (b"ratelimit-policy", policy), (b"ratelimit", left)


def _seconds(microseconds: int) -> int:
    return -(-microseconds // 1_000_000)

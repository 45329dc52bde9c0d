"""When attempts may begin where they are limited to a rate. Pure.

The generic cell rate algorithm (ITU-T I.371, annex A) without a burst: each attempt has an instant of its own, one
interval after the one before it, whoever makes it.
"""

from __future__ import annotations

SECOND = 1_000_000


def begins(rate: int, throttled_until: int | None, now: int, horizon: int) -> list[int]:
    """The instants, from now on and before `horizon`, at which attempts may begin; all in microseconds.

    `throttled_until` is where the last that were given out have left it: the first instant that is free.
    """
    at = max(throttled_until or 0, now)
    interval = -(-SECOND // rate)
    return list(range(at, horizon, interval))


def taken(rate: int, last: int) -> int:
    """The first instant that is free, when the last that was taken is `last`."""
    return last + -(-SECOND // rate)

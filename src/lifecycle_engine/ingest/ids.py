"""Ids for touchpoints that come without one."""

from __future__ import annotations

import secrets
import uuid


def uuid7(now: int) -> str:
    """A UUID of version 7 (RFC 9562, section 5.7) for an instant in microseconds since the epoch."""
    milliseconds = (now // 1000) & ((1 << 48) - 1)
    random = secrets.randbits(74)
    number = milliseconds << 80 | 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | random & ((1 << 62) - 1)
    return str(uuid.UUID(int=number))

"""What was sent, and what was answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.rows import insert
from lifecycle_engine.store.tables import webhook_attempt

SUCCEEDED, FAILED = "succeeded", "failed"


class AttemptRow(NamedTuple):
    """One attempt; `at` is when it began, in microseconds since the epoch.

    `number` counts from 1 within the delivery; 0 where the attempt counts for nothing. Without an answer there is a
    `failure` and no `status_code`.
    """

    delivery: int
    number: int
    endpoint: str
    message: str
    type: str
    trigger: str
    at: int
    milliseconds: int
    status: str
    status_code: int | None
    failure: str | None
    response: bytes | None


_ADD = insert(webhook_attempt, AttemptRow._fields)


async def add_attempts(connection: AsyncConnection, rows: Sequence[AttemptRow]) -> None:
    await _ADD(connection, rows)

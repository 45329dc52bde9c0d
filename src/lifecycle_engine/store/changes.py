"""What others are to be told, written in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.rows import insert
from lifecycle_engine.store.tables import change


class ChangeRow(NamedTuple):
    """One event to tell; `body` is the JSON of its data, `sequence` is set on `stage.changed` only.

    `lifecycle` is None where it is about the customer as a whole.
    """

    customer: int
    type: str
    lifecycle: str | None
    subject: str | None
    sequence: int | None
    muted: bool
    recorded_at: int
    body: bytes


_ADD = insert(change, ChangeRow._fields)


async def add_changes(connection: AsyncConnection, rows: Sequence[ChangeRow]) -> None:
    await _ADD(connection, rows)

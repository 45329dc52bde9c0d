"""Records that could not be processed, kept with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.rows import Statement
from lifecycle_engine.store.tables import dead_letter


class DeadLetter(NamedTuple):
    """One record set aside; `source` and `id` where they could be read."""

    log: str
    partition: int
    position: int
    key: bytes | None
    value: bytes | None
    source: str | None
    id: str | None
    code: str
    reason: str
    recorded_at: int


_ADD = Statement(
    "INSERT INTO dead_letter ({names}) SELECT {names} FROM {given} WHERE true ON CONFLICT DO NOTHING",
    dead_letter,
    DeadLetter._fields,
)


async def add_dead_letters(connection: AsyncConnection, rows: Sequence[DeadLetter]) -> None:
    await _ADD(connection, rows)

"""Records that could not be processed, kept with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select, tuple_
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


class LetterFilter(NamedTuple):
    """Which dead letters are asked for; None asks for any."""

    code: str | None = None
    source: str | None = None
    id: str | None = None


_ORDER = (dead_letter.c.recorded_at, dead_letter.c.partition, dead_letter.c.position)


async def newest_dead_letters(
    connection: AsyncConnection, log: str, wanted: LetterFilter, before: tuple[int, int, int] | None, limit: int
) -> list[DeadLetter]:
    """The newest first, from one before a (recorded_at, partition, position) on."""
    query = select(dead_letter).where(dead_letter.c.log == log).order_by(*(name.desc() for name in _ORDER)).limit(limit)
    for name, value in wanted._asdict().items():
        if value is not None:
            query = query.where(dead_letter.c[name] == value)
    if before is not None:
        query = query.where(tuple_(*_ORDER) < tuple_(*before))
    return [DeadLetter(*row) for row in await connection.execute(query)]


async def find_dead_letter(connection: AsyncConnection, log: str, partition: int, position: int) -> DeadLetter | None:
    query = select(dead_letter).where(
        dead_letter.c.log == log, dead_letter.c.partition == partition, dead_letter.c.position == position
    )
    row = (await connection.execute(query)).first()
    return DeadLetter(*row) if row else None


async def add_dead_letters(connection: AsyncConnection, rows: Sequence[DeadLetter]) -> None:
    await _ADD(connection, rows)

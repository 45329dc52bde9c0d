"""Whether the workers of a log have stopped before a flood of dead letters, and wait for somebody to look at it."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.rows import Statement
from lifecycle_engine.store.tables import halt


class Halt(NamedTuple):
    """The record before which a worker stopped, and why it would have been set aside as well; in microseconds since
    the epoch, UTC, when that was."""

    log: str
    partition: int
    position: int
    code: str
    reason: str
    halted_at: int


_ADD = Statement(
    "INSERT INTO halt ({names}) SELECT {names} FROM {given} WHERE true ON CONFLICT DO NOTHING", halt, Halt._fields
)


async def add_halt(connection: AsyncConnection, one: Halt) -> None:
    """Stops all workers of the log; where one has done so already, its word stands."""
    await _ADD(connection, [one])


async def find_halt(connection: AsyncConnection, log: str) -> Halt | None:
    """Why the workers of a log stand still; None while they do not."""
    row = (await connection.execute(select(halt).where(halt.c.log == log))).first()
    return Halt(*row) if row else None


async def end_halt(connection: AsyncConnection, log: str) -> bool:
    """Lets the workers of a log go on; whether they stood still."""
    return (await connection.execute(delete(halt).where(halt.c.log == log))).rowcount > 0

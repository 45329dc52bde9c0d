"""Where the feed ends: one row, whose lock is the right to give positions."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.tables import feed


async def take_lead(connection: AsyncConnection) -> int | None:
    """The next position, and the lock that lets this transaction give it; None while somebody else holds it."""
    return (await connection.execute(select(feed.c.next).with_for_update(skip_locked=True))).scalar()


async def move_end(connection: AsyncConnection, next_: int) -> None:
    """The positions before `next_` are given now. The caller holds the lead."""
    await connection.execute(update(feed).values(next=next_))


async def last_position(connection: AsyncConnection) -> int:
    """The last position that was given; 0 where there is none yet."""
    return int((await connection.execute(select(feed.c.next))).scalar_one()) - 1

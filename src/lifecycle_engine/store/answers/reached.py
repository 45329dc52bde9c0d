"""How far a customer's history had got, as it was known."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.aggregates import KNOWN_AT, Aggregate, visible
from lifecycle_engine.store.tables import history

_LAST = select(func.max(history.c.at)).where(visible(history, KNOWN_AT))


async def last_instant(connection: AsyncConnection, aggregate: Aggregate, known_at: int) -> int | None:
    """The instant of the last line that stood; None where there was none."""
    query = _LAST.where(history.c.customer == aggregate.id)
    at = (await connection.execute(query, {"known_at": known_at})).scalar()
    return None if at is None else int(at)

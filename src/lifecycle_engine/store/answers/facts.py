"""The touchpoints of a customer, and what became of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.lifecycle.touchpoints import Place
from lifecycle_engine.store.aggregates import Aggregate
from lifecycle_engine.store.customers import Identity
from lifecycle_engine.store.tables import customer, dead_letter, touchpoint
from lifecycle_engine.store.touchpoints import StoredFact, is_touchpoint


class StoredTouchpoint(NamedTuple):
    """An accepted fact under the identity that it named first, if any; `body` None once it is pruned.

    Of type ABSENT it is none yet: something was retracted before it came.
    """

    source: str
    id: str
    identity: Identity | None
    anonymous_id: str | None
    type: str
    occurred_at: int
    received_at: int
    recorded_at: int
    body: bytes | None
    muted: bool
    late: bool
    duplicates: int
    conflicts: int
    retracted_at: int | None

    @property
    def place(self) -> Place:
        return Place(self.occurred_at, self.id, self.source)


class SetAside(NamedTuple):
    """Why a record could not be processed, and when it was set aside."""

    code: str
    reason: str
    recorded_at: int


_TOUCHPOINT = select(
    touchpoint.c.source,
    touchpoint.c.id,
    customer.c.kind,
    customer.c.value,
    touchpoint.c.anonymous_id,
    touchpoint.c.type,
    touchpoint.c.occurred_at,
    touchpoint.c.received_at,
    touchpoint.c.recorded_at,
    touchpoint.c.body,
    touchpoint.c.muted,
    touchpoint.c.late,
    touchpoint.c.duplicates,
    touchpoint.c.conflicts,
    touchpoint.c.retracted_at,
).join_from(touchpoint, customer, customer.c.id == touchpoint.c.customer, isouter=True)
_PLACE = (touchpoint.c.occurred_at, touchpoint.c.id, touchpoint.c.source)


async def newest_touchpoints(
    connection: AsyncConnection, members: Sequence[int], before: Place | None, limit: int, *, facts: bool
) -> list[StoredTouchpoint]:
    """The touchpoints stored under these rows, from the last place back, or from before a place.

    With `facts` also what is no touchpoint.
    """
    query = _TOUCHPOINT.where(touchpoint.c.customer.in_(members))
    if not facts:
        query = query.where(is_touchpoint(touchpoint))
    if before is not None:
        query = query.where(touchpoint.c.occurred_at <= before.occurred_at, tuple_(*_PLACE) < tuple_(*before))
    query = query.order_by(*(column.desc() for column in _PLACE)).limit(limit)
    return [_stored(row) for row in await connection.execute(query)]


async def facts_of(connection: AsyncConnection, aggregate: Aggregate, known_at: int) -> list[StoredFact]:
    """Everything that counted as accepted of a customer, as known then, in the order of the fold."""
    query = (
        select(*(touchpoint.c[name] for name in StoredFact._fields))
        .where(
            touchpoint.c.customer.in_(aggregate.members),
            touchpoint.c.recorded_at <= known_at,
            or_(touchpoint.c.retracted_at.is_(None), touchpoint.c.retracted_at > known_at),
        )
        .order_by(*_PLACE)
    )
    return [StoredFact(*row) for row in await connection.execute(query)]


async def find_touchpoint(connection: AsyncConnection, source: str, id_: str) -> StoredTouchpoint | None:
    """The fact that was accepted under an id of a source."""
    query = _TOUCHPOINT.where(touchpoint.c.source == source, touchpoint.c.id == id_)
    row = (await connection.execute(query)).first()
    return _stored(row) if row else None


async def find_set_aside(connection: AsyncConnection, source: str, id_: str) -> SetAside | None:
    """The last record of an id of a source that was set aside."""
    query = (
        select(dead_letter.c.code, dead_letter.c.reason, dead_letter.c.recorded_at)
        .where(dead_letter.c.source == source, dead_letter.c.id == id_)
        .order_by(dead_letter.c.recorded_at.desc())
        .limit(1)
    )
    row = (await connection.execute(query)).first()
    return SetAside(*row) if row else None


def _stored(row: Sequence[Any]) -> StoredTouchpoint:
    source, id_, kind, value, *rest = row
    return StoredTouchpoint(source, id_, None if kind is None else Identity(kind, value), *rest)

"""A customer as it stands now."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.lifecycle.journeys import CustomerState
from lifecycle_engine.store.aggregates import LATEST, MEMBERS, OWNS, Aggregate
from lifecycle_engine.store.customers import Identity
from lifecycle_engine.store.states import Sequences, decode_sequences, decode_state
from lifecycle_engine.store.tables import customer, touchpoint
from lifecycle_engine.store.touchpoints import is_touchpoint


class Overview(NamedTuple):
    """A customer, its state, and when its first and last touchpoints occurred; None where it has none that counts.

    `state` None: there is none in a format of today, until its next touchpoint or the next activation.
    """

    aggregate: Aggregate
    state: CustomerState | None
    sequences: Sequences
    first_touchpoint_at: int | None
    last_touchpoint_at: int | None


def _occurred_at(newest: bool) -> ColumnElement[int]:
    at = touchpoint.c.occurred_at
    return (
        select(at)
        .where(touchpoint.c.customer == customer.c.id, touchpoint.c.retracted_at.is_(None), is_touchpoint(touchpoint))
        .order_by(at.desc() if newest else at)
        .limit(1)
        .scalar_subquery()
    )


_OVERVIEW = (
    select(
        customer.c.id,
        customer.c.kind,
        customer.c.value,
        customer.c.state,
        customer.c.sequences,
        OWNS,
        exists().where(touchpoint.c.customer == customer.c.id).label("known"),
        _occurred_at(newest=False).label("first"),
        _occurred_at(newest=True).label("last"),
    )
    .select_from(MEMBERS)
    .order_by(customer.c.kind, customer.c.value)
)


async def find_overview(connection: AsyncConnection, identity: Identity) -> Overview | None:
    """The customer to whom an identity belongs; None where nothing was ever accepted of it."""
    rows = (await connection.execute(_OVERVIEW, {**identity._asdict(), "known_at": LATEST})).all()
    if not any(row.known for row in rows):
        return None
    owner = next(row for row in rows if row.owns)
    aggregate = Aggregate(
        owner.id,
        Identity(owner.kind, owner.value),
        tuple(row.id for row in rows),
        tuple(Identity(row.kind, row.value) for row in rows),
    )
    return Overview(
        aggregate,
        decode_state(owner.state),
        decode_sequences(owner.sequences),
        min((row.first for row in rows if row.first is not None), default=None),
        max((row.last for row in rows if row.last is not None), default=None),
    )

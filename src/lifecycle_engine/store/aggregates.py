"""Who belongs to a customer, as it was known; and how a question about the past waits for what could still touch it.

An identity that `ownership` does not name is a customer of its own; an owner is never owned itself. A customer's
history stands under its own row, its touchpoints under the rows of all identities that belong to it.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import BigInteger, ColumnElement, bindparam, exists, func, or_, select, text, tuple_, union
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import FromClause

from lifecycle_engine.store.customers import Identity
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.lifecycles import hold_definitions
from lifecycle_engine.store.tables import customer, ownership, touchpoint

LATEST = (1 << 62) - 1
"""An instant after all others. As `known_at` it means all that is known now, as `as_of` the last that is known."""


class Aggregate(NamedTuple):
    """A customer: the row that its history is under, its name, and all rows and names that belong to it, in order."""

    id: int
    identity: Identity
    members: tuple[int, ...]
    identities: tuple[Identity, ...]


class KnownIdentity(NamedTuple):
    """A name of a customer, and since when it is known to belong to it; None for the customer's own."""

    identity: Identity
    recorded_at: int | None


def visible(lines: FromClause, known_at: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether lines with `recorded_at` and `superseded_at` stand, as it was known at an instant."""
    return (lines.c.recorded_at <= known_at) & or_(lines.c.superseded_at.is_(None), lines.c.superseded_at > known_at)


KNOWN_AT: ColumnElement[int] = bindparam("known_at", type_=BigInteger)

_NAMED = (
    select(customer.c.id)
    .where(customer.c.kind == bindparam("kind"), customer.c.value == bindparam("value"))
    .cte("named")
)
_OWNED_BY = (
    select(ownership.c.owner).where(ownership.c.identity == _NAMED.c.id, visible(ownership, KNOWN_AT)).scalar_subquery()
)
OWNER = select(func.coalesce(_OWNED_BY, _NAMED.c.id).label("id")).cte("owner")
"""The customer's row (`id`) to whom the identity (`kind`, `value`) belongs, as known at `known_at`."""
MEMBER = union(
    select(OWNER.c.id),
    select(ownership.c.identity).where(ownership.c.owner == OWNER.c.id, visible(ownership, KNOWN_AT)),
).cte("member")
"""The rows (`id`) of all identities that belong to that customer."""
MEMBERS = MEMBER.join(customer, customer.c.id == MEMBER.c.id)
OWNS = (customer.c.id == select(OWNER.c.id).scalar_subquery()).label("owns")

_AGGREGATE = (
    select(
        customer.c.id,
        customer.c.kind,
        customer.c.value,
        OWNS,
        exists().where(touchpoint.c.customer == customer.c.id, touchpoint.c.recorded_at <= KNOWN_AT).label("known"),
    )
    .select_from(MEMBERS)
    .order_by(customer.c.kind, customer.c.value)
)
_IDENTITIES = (
    select(customer.c.kind, customer.c.value, ownership.c.recorded_at)
    .select_from(MEMBERS.outerjoin(ownership, (ownership.c.identity == customer.c.id) & visible(ownership, KNOWN_AT)))
    .order_by(customer.c.kind, customer.c.value)
)
_ROWS = select(customer.c.id).select_from(MEMBERS).order_by(customer.c.kind, customer.c.value)
_HOLD = _ROWS.with_for_update(read=True, of=customer)
_RESERVE = text(
    "INSERT INTO customer (kind, value, definitions, recorded_at) VALUES (:kind, :value, 0, 0) "
    "ON CONFLICT DO NOTHING RETURNING id"
)


async def find_aggregate(connection: AsyncConnection, identity: Identity, known_at: int) -> Aggregate | None:
    """The customer to whom an identity belonged, as known then; None where no touchpoint of it was known."""
    rows = (await connection.execute(_AGGREGATE, {**identity._asdict(), "known_at": known_at})).all()
    if not any(row.known for row in rows):
        return None
    names = tuple(Identity(row.kind, row.value) for row in rows)
    ids = tuple(row.id for row in rows)
    owner = next(index for index, row in enumerate(rows) if row.owns)
    return Aggregate(ids[owner], names[owner], ids, names)


async def identities_of(
    connection: AsyncConnection, identity: Identity, known_at: int, after: Identity | None, limit: int
) -> list[KnownIdentity]:
    """The names of the customer to whom an identity belonged, as known then, in order, from after one of them on."""
    query = _IDENTITIES.limit(limit)
    if after is not None:
        query = query.where(tuple_(customer.c.kind, customer.c.value) > tuple_(*after))
    rows = await connection.execute(query, {**identity._asdict(), "known_at": known_at})
    return [KnownIdentity(Identity(kind, value), recorded_at) for kind, value, recorded_at in rows]


async def settle(database: Database, connection: AsyncConnection, identity: Identity) -> int:
    """Waits for every transaction that could still record something about a customer, and reads the clock.

    What is known before the instant that this gives (microseconds since the epoch) will never change: the customer's
    rows are held until this transaction ends, so whoever records something about it reads the clock later. The same
    goes for which lifecycles there are. A customer without a row is waited for by its name.
    """
    await hold_definitions(connection)
    named = {**identity._asdict(), "known_at": LATEST}
    while True:
        async with connection.begin_nested() as attempt:
            held = set((await connection.execute(_HOLD, named)).scalars())
            if held:
                # A link that was waited for may have added rows. They are held in their order, so all are let go first.
                is_settled = held.issuperset((await connection.execute(_ROWS, named)).scalars())
            else:
                # Whoever is making this customer has to end first; whoever comes later waits until the clock is read.
                is_settled = (await connection.execute(_RESERVE, identity._asdict())).first() is not None
            now = await database.clock(connection) if is_settled else 0
            if not (held and is_settled):
                await attempt.rollback()
        if is_settled:
            return now

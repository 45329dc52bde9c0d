"""Requests with an Idempotency-Key: who works on the first answer, and what that was."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, delete, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.tables import idempotency


class Place(NamedTuple):
    """What an Idempotency-Key is unique within, and the key."""

    caller: str
    route: str
    key: str


class Standing(NamedTuple):
    """What is known of a request; times in microseconds since the epoch. `status` is None while there is no answer."""

    fingerprint: bytes
    lease: int
    leased_until: int
    created_at: int
    status: int | None
    headers: bytes | None
    body: bytes | None


_ADD = text(
    "INSERT INTO idempotency (caller, route, key, fingerprint, lease, leased_until, created_at) "
    "VALUES (:caller, :route, :key, :fingerprint, :lease, :leased_until, :created_at) "
    "ON CONFLICT DO NOTHING"
)


async def begin(
    connection: AsyncConnection, place: Place, fingerprint: bytes, lease: int, now: int, until: int
) -> bool:
    """Takes a lease on the first answer; False where the request is known already."""
    values = {"fingerprint": fingerprint, "lease": lease, "leased_until": until, "created_at": now}
    return (await connection.execute(_ADD, place._asdict() | values)).rowcount == 1


async def find_standing(connection: AsyncConnection, place: Place) -> Standing | None:
    """What is known of a request; its row is locked."""
    table = idempotency.c
    columns = (
        table.fingerprint,
        table.lease,
        table.leased_until,
        table.created_at,
        table.status,
        table.headers,
        table.body,
    )
    row = (await connection.execute(select(*columns).where(_at(place)).with_for_update())).one_or_none()
    return None if row is None else Standing(*row)


async def take_over(connection: AsyncConnection, place: Place, lease: int, until: int) -> None:
    """Takes the lease of whoever had it; the row is locked by the caller."""
    await connection.execute(update(idempotency).where(_at(place)).values(lease=lease, leased_until=until))


async def finish(
    connection: AsyncConnection, place: Place, lease: int, status: int, headers: bytes, body: bytes | None
) -> None:
    """Keeps the first answer, if the lease is still ours."""
    await connection.execute(
        update(idempotency)
        .where(_at(place), idempotency.c.lease == lease, idempotency.c.status.is_(None))
        .values(status=status, headers=headers, body=body)
    )


async def let_go(connection: AsyncConnection, place: Place, lease: int, at: int) -> None:
    """Ends our lease with nothing known, so that the same request may try again."""
    await connection.execute(
        update(idempotency)
        .where(_at(place), idempotency.c.lease == lease, idempotency.c.status.is_(None))
        .values(leased_until=at)
    )


async def forget(connection: AsyncConnection, place: Place, lease: int) -> None:
    """Forgets a request under our lease that had no effect."""
    await connection.execute(
        delete(idempotency).where(_at(place), idempotency.c.lease == lease, idempotency.c.status.is_(None))
    )


async def forget_place(connection: AsyncConnection, place: Place) -> None:
    """Forgets a request that is too old to count; the row is locked by the caller."""
    await connection.execute(delete(idempotency).where(_at(place)))


async def forget_before(connection: AsyncConnection, instant: int) -> int:
    """Forgets what was asked before an instant; how many requests that were."""
    return int((await connection.execute(delete(idempotency).where(idempotency.c.created_at < instant))).rowcount)


def _at(place: Place) -> ColumnElement[bool]:
    table = idempotency.c
    return and_(table.caller == place.caller, table.route == place.route, table.key == place.key)

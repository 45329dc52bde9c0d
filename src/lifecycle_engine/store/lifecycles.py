"""The versions of the definitions, which of them judges from when on, and the number of the set that is active."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, bindparam, func, insert, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.database import Database
from lifecycle_engine.store.rows import ask
from lifecycle_engine.store.tables import activation, customer, definition_set, lifecycle

RETIRED = 0
"""In place of a version: from then on the lifecycle is retired, and nobody judges by it."""
_SET_LOCK = 0x6C696665
"""Key of the advisory lock that every transaction of the engine shares and an activation takes alone."""


class Version(NamedTuple):
    """One version of a lifecycle; times in microseconds since the epoch, `activated_at` None while it never was."""

    key: str
    version: int
    document: str
    media_type: str
    created_at: int
    activated_at: int | None = None


class Switch(NamedTuple):
    """From `since` on (None: from the beginning of time) a version judges; times in microseconds since the epoch.

    With RETIRED for a version, none does.

    `number` is that of the set of definitions which the activation made. `customers` had to be folded anew for it
    (None until they are counted), and were by `finished_at`.
    """

    number: int
    key: str
    version: int
    since: int | None
    activated_at: int
    customers: int | None = None
    finished_at: int | None = None


class Summary(NamedTuple):
    """A lifecycle: its newest version, the one in force (None while there is none), and when it was first posted."""

    key: str
    newest_version: int
    active_version: int | None
    created_at: int


async def hold_definitions(connection: AsyncConnection) -> None:
    """Keeps the set of active definitions as it is until this transaction ends."""
    if connection.dialect.name == "postgresql":
        await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock_shared({_SET_LOCK})")


async def lock_definitions(connection: AsyncConnection) -> None:
    """Waits until nobody holds the definitions, and keeps them to itself until this transaction ends."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({_SET_LOCK})"))


async def definition_number(connection: AsyncConnection) -> int:
    """The number of the active set."""
    return int((await connection.execute(select(definition_set.c.number))).scalar_one())


async def clock_and_definitions(database: Database, connection: AsyncConnection) -> tuple[int, int]:
    """The database's clock now, and the number of the active set, in one question."""
    query = f"SELECT {database.clock_expression} AS now, number FROM definition_set"
    ((now, number),) = await ask(connection, query)
    return now, number


async def switches(connection: AsyncConnection, key: str | None = None) -> list[Switch]:
    """Every activation there was, of one lifecycle or of all, in their order."""
    query = select(activation).order_by(activation.c.number)
    rows = await connection.execute(query if key is None else query.where(activation.c.key == key))
    return [Switch(*row) for row in rows]


def in_force(made: Sequence[Switch]) -> list[Switch]:
    """Of the activations of one lifecycle, those that judge some time, in the order of time.

    One that was made later takes the place of those that would only have taken effect at or after it. Where the version
    before it is the same, that goes on as if nothing had been scheduled.
    """
    standing: list[Switch] = []
    for switch in made:
        standing = [one for one in standing if one.since is None or one.since < (switch.since or one.since)]
        if not standing or standing[-1].version != switch.version:
            standing.append(switch)
    return standing


_ACTIVATED_AT = (
    select(func.min(activation.c.activated_at))
    .where(activation.c.key == lifecycle.c.key, activation.c.version == lifecycle.c.version)
    .scalar_subquery()
)
_VERSION = select(*lifecycle.c, _ACTIVATED_AT)


async def find_version(connection: AsyncConnection, key: str, version: int) -> Version | None:
    """One version of a lifecycle."""
    query = _VERSION.where(lifecycle.c.key == key, lifecycle.c.version == version)
    row = (await connection.execute(query)).first()
    return Version._make(row) if row else None


async def newest_versions(connection: AsyncConnection, key: str, before: int | None, limit: int) -> list[Version]:
    """The versions of a lifecycle, the newest first, from one before a version on."""
    query = _VERSION.where(lifecycle.c.key == key).order_by(lifecycle.c.version.desc()).limit(limit)
    if before is not None:
        query = query.where(lifecycle.c.version < before)
    return [Version._make(row) for row in await connection.execute(query)]


# What was made later than the last activation that has taken effect has not done so yet.
_SUMMARY = (
    select(
        lifecycle.c.key,
        func.max(lifecycle.c.version),
        select(activation.c.version)
        .where(
            activation.c.key == lifecycle.c.key,
            or_(activation.c.since.is_(None), activation.c.since <= bindparam("now", type_=BigInteger)),
        )
        .order_by(activation.c.number.desc())
        .limit(1)
        .scalar_subquery(),
        func.min(lifecycle.c.created_at),
    )
    .group_by(lifecycle.c.key)
    .order_by(lifecycle.c.key)
)


async def summaries(connection: AsyncConnection, after: str, limit: int, now: int) -> list[Summary]:
    """The lifecycles whose keys come after a text, in the order of their keys, as they are in force now."""
    rows = await connection.execute(_SUMMARY.where(lifecycle.c.key > after).limit(limit), {"now": now})
    return [_summary(row) for row in rows]


async def find_summary(connection: AsyncConnection, key: str, now: int) -> Summary | None:
    """One lifecycle, as it is in force now."""
    row = (await connection.execute(_SUMMARY.where(lifecycle.c.key == key), {"now": now})).first()
    return _summary(row) if row else None


def _summary(row: Any) -> Summary:
    key, newest, active, created_at = row
    return Summary(key, newest, active or None, created_at)


async def add_version(connection: AsyncConnection, key: str, document: str, media_type: str, now: int) -> Version:
    """Stores a new version, numbered by the server from 1 on."""
    await lock_definitions(connection)
    last = (await connection.execute(select(func.max(lifecycle.c.version)).where(lifecycle.c.key == key))).scalar()
    version = Version(key, (last or 0) + 1, document, media_type, now)
    await connection.execute(insert(lifecycle).values(dict(zip(lifecycle.c.keys(), version, strict=False))))
    return version


async def activate_version(
    connection: AsyncConnection, key: str, version: int, now: int, since: int | None = None
) -> Switch:
    """Lets a version judge from an instant on, under a new set of definitions, once running transactions have ended.

    The first activation of a lifecycle holds from the beginning of time, whatever `since` says; without it, a later one
    holds from `now` on.
    """
    await lock_definitions(connection)
    is_first = (await connection.execute(select(activation.c.number).where(activation.c.key == key))).first() is None
    number = await definition_number(connection) + 1
    switch = Switch(number, key, version, None if is_first else now if since is None else since, now)
    await connection.execute(insert(activation).values(switch._asdict()))
    await connection.execute(update(definition_set).values(number=number))
    return switch


async def find_switch(connection: AsyncConnection, number: int) -> Switch | None:
    """The activation that made a set of definitions."""
    row = (await connection.execute(select(activation).where(activation.c.number == number))).first()
    return Switch(*row) if row else None


async def newest_switches(connection: AsyncConnection, before: int | None, limit: int) -> list[Switch]:
    """The activations, the newest first, from one before a number on."""
    query = select(activation).order_by(activation.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(activation.c.number < before)
    return [Switch(*row) for row in await connection.execute(query)]


async def customers_behind_set(connection: AsyncConnection, number: int) -> int:
    """How many customers have not been folded under a set of definitions or a newer one."""
    query = select(func.count()).select_from(customer).where(customer.c.definitions < number)
    return int((await connection.execute(query)).scalar_one())


async def count_customers(connection: AsyncConnection, number: int) -> None:
    """Notes, once, how many customers each activation up to a set has to reach."""
    behind = await customers_behind_set(connection, number)
    await connection.execute(
        update(activation)
        .where(activation.c.number <= number, activation.c.customers.is_(None))
        .values(customers=behind)
    )


async def finish_switches(connection: AsyncConnection, number: int, now: int) -> None:
    """Notes that every customer stands under a set of definitions."""
    await connection.execute(
        update(activation)
        .where(activation.c.number <= number, activation.c.finished_at.is_(None))
        .values(finished_at=now)
    )

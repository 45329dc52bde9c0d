"""The versions of the definitions, and the number of the set that is active."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.database import Database
from lifecycle_engine.store.tables import definition_set, lifecycle

_SET_LOCK = 0x6C696665
"""Key of the advisory lock that every transaction of the engine shares and an activation takes alone."""


class Version(NamedTuple):
    """One version of a lifecycle; times in microseconds since the epoch, `activated_…` None while it never was."""

    key: str
    version: int
    document: str
    media_type: str
    created_at: int
    activated_at: int | None
    activated_in: int | None


class Summary(NamedTuple):
    """A lifecycle: its newest version, the active one (None while there is none), and when it was first posted."""

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
    row: Any = (await connection.exec_driver_sql(query)).one()
    return row.now, row.number


async def active_versions(connection: AsyncConnection) -> list[Version]:
    """The active version of each lifecycle: the one that was activated last."""
    rows = await connection.execute(
        select(lifecycle)
        .where(lifecycle.c.activated_at.is_not(None))
        .order_by(lifecycle.c.key, lifecycle.c.activated_at)
    )
    return list({row.key: Version(*row) for row in rows}.values())


async def versions(connection: AsyncConnection, key: str | None = None) -> list[Version]:
    """All versions, of one lifecycle or of all, in the order of key and version."""
    query = select(lifecycle).order_by(lifecycle.c.key, lifecycle.c.version)
    rows = await connection.execute(query if key is None else query.where(lifecycle.c.key == key))
    return [Version(*row) for row in rows]


async def find_version(connection: AsyncConnection, key: str, version: int) -> Version | None:
    """One version of a lifecycle."""
    query = select(lifecycle).where(lifecycle.c.key == key, lifecycle.c.version == version)
    row = (await connection.execute(query)).first()
    return Version(*row) if row else None


async def newest_versions(connection: AsyncConnection, key: str, before: int | None, limit: int) -> list[Version]:
    """The versions of a lifecycle, the newest first, from one before a version on."""
    query = select(lifecycle).where(lifecycle.c.key == key).order_by(lifecycle.c.version.desc()).limit(limit)
    if before is not None:
        query = query.where(lifecycle.c.version < before)
    return [Version(*row) for row in await connection.execute(query)]


_OTHER = lifecycle.alias("other")
_SUMMARY = (
    select(
        lifecycle.c.key,
        func.max(lifecycle.c.version),
        select(_OTHER.c.version)
        .where(_OTHER.c.key == lifecycle.c.key, _OTHER.c.activated_at.is_not(None))
        .order_by(_OTHER.c.activated_at.desc())
        .limit(1)
        .scalar_subquery(),
        func.min(lifecycle.c.created_at),
    )
    .group_by(lifecycle.c.key)
    .order_by(lifecycle.c.key)
)


async def summaries(connection: AsyncConnection, after: str, limit: int) -> list[Summary]:
    """The lifecycles whose keys come after a text, in the order of their keys."""
    rows = await connection.execute(_SUMMARY.where(lifecycle.c.key > after).limit(limit))
    return [Summary(*row) for row in rows]


async def find_summary(connection: AsyncConnection, key: str) -> Summary | None:
    """One lifecycle."""
    row = (await connection.execute(_SUMMARY.where(lifecycle.c.key == key))).first()
    return Summary(*row) if row else None


async def add_version(connection: AsyncConnection, key: str, document: str, media_type: str, now: int) -> Version:
    """Stores a new version, numbered by the server from 1 on."""
    await lock_definitions(connection)
    last = (await connection.execute(select(func.max(lifecycle.c.version)).where(lifecycle.c.key == key))).scalar()
    version = Version(key, (last or 0) + 1, document, media_type, now, None, None)
    await connection.execute(insert(lifecycle).values(version._asdict()))
    return version


async def activate_version(connection: AsyncConnection, key: str, version: int, now: int) -> int:
    """Makes a version the active one, once the running transactions have ended; gives the new set's number."""
    await lock_definitions(connection)
    number = await definition_number(connection) + 1
    await connection.execute(
        update(lifecycle)
        .where(lifecycle.c.key == key, lifecycle.c.version == version)
        .values(activated_at=now, activated_in=number)
    )
    await connection.execute(update(definition_set).values(number=number))
    return number

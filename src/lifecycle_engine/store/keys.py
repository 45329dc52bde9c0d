"""The API keys as they are stored: a SHA-256 of each, never the key itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Row, exists, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.tables import api_key


class KeyRow(NamedTuple):
    """One key. `source` is that of what is posted with it, times are in microseconds since the epoch.

    `rate_requests` in `rate_seconds` is what it may do; both None where the setting decides.
    """

    id: str
    name: str
    source: str
    hash: bytes
    scopes: frozenset[str]
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    rate_requests: int | None = None
    rate_seconds: int | None = None
    replaces: str | None = None
    last_used_at: int | None = None


async def keys_in_force(connection: AsyncConnection, now: int) -> list[KeyRow]:
    """Every key that is neither revoked nor expired."""
    rows = await connection.execute(
        select(api_key).where(
            api_key.c.revoked_at.is_(None), or_(api_key.c.expires_at.is_(None), api_key.c.expires_at > now)
        )
    )
    return [_row(row) for row in rows]


async def any_key(connection: AsyncConnection) -> bool:
    """Whether there is a key, or ever was one."""
    return bool((await connection.execute(select(exists(select(api_key))))).scalar_one())


async def newest_keys(connection: AsyncConnection, before: tuple[int, str] | None, limit: int) -> list[KeyRow]:
    """Keys, the newest first, the revoked ones too, after the one created then and of this id."""
    query = select(api_key).order_by(api_key.c.created_at.desc(), api_key.c.id.desc()).limit(limit)
    if before is not None:
        created_at, id_ = before
        query = query.where(
            or_(api_key.c.created_at < created_at, (api_key.c.created_at == created_at) & (api_key.c.id < id_))
        )
    return [_row(row) for row in await connection.execute(query)]


async def find_key(connection: AsyncConnection, id_: str, *, lock: bool = False) -> KeyRow | None:
    """The key of this id, revoked or not."""
    query = select(api_key).where(api_key.c.id == id_)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    return None if row is None else _row(row)


async def add_key(connection: AsyncConnection, key: KeyRow) -> None:
    """Stores a new key. Raises IntegrityError where its id is taken."""
    await connection.execute(insert(api_key).values(key._asdict() | {"scopes": " ".join(sorted(key.scopes))}))


async def revoke_key(connection: AsyncConnection, id_: str, at: int) -> None:
    """Revokes a key for good; one that is revoked stays as it is."""
    await connection.execute(
        update(api_key).where(api_key.c.id == id_, api_key.c.revoked_at.is_(None)).values(revoked_at=at)
    )


async def limit_key(connection: AsyncConnection, id_: str, expires_at: int) -> None:
    """Lets a key expire then."""
    await connection.execute(update(api_key).where(api_key.c.id == id_).values(expires_at=expires_at))


async def note_uses(connection: AsyncConnection, used: Mapping[str, int]) -> None:
    """Notes when keys were last used, by their ids."""
    for id_, at in sorted(used.items()):
        await connection.execute(
            update(api_key)
            .where(api_key.c.id == id_, or_(api_key.c.last_used_at.is_(None), api_key.c.last_used_at < at))
            .values(last_used_at=at)
        )


def _row(row: Row[Any]) -> KeyRow:
    return KeyRow(**(row._asdict() | {"scopes": frozenset(row.scopes.split())}))

"""The API keys as they are stored: a SHA-256 of each, never the key itself."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.tables import api_key


class KeyRow(NamedTuple):
    """One key; `name` is the source of what is posted with it, times are in microseconds since the epoch."""

    name: str
    prefix: str
    hash: bytes
    scopes: frozenset[str]
    created_at: int
    expires_at: int | None
    revoked_at: int | None


async def all_keys(connection: AsyncConnection) -> list[KeyRow]:
    """Every key, the revoked ones too."""
    rows = await connection.execute(select(api_key))
    return [
        KeyRow(
            row.name,
            row.prefix,
            row.hash,
            frozenset(row.scopes.split()),
            row.created_at,
            row.expires_at,
            row.revoked_at,
        )
        for row in rows
    ]


async def add_key(connection: AsyncConnection, key: KeyRow) -> None:
    """Stores a new key."""
    await connection.execute(insert(api_key).values(key._asdict() | {"scopes": " ".join(sorted(key.scopes))}))

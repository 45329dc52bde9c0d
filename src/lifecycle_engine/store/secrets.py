"""What deliveries are signed with, as it is stored: encrypted, and each with the id of the key for that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.tables import webhook_secret


class SecretRow(NamedTuple):
    """One secret of an endpoint; times are in microseconds since the epoch, `expires_at` None for the current one."""

    id: int
    endpoint: str
    kind: str
    key_id: str
    ciphertext: bytes
    created_at: int
    expires_at: int | None


_table = webhook_secret.c
_COLUMNS = [_table[name] for name in SecretRow._fields]


async def add_secret(
    connection: AsyncConnection, endpoint: str, kind: str, key_id: str, ciphertext: bytes, now: int
) -> None:
    """Adds a secret, which is the current one of its kind from now on."""
    row = {"endpoint": endpoint, "kind": kind, "key_id": key_id, "ciphertext": ciphertext, "created_at": now}
    await connection.execute(insert(webhook_secret).values(row))


async def valid_secrets(connection: AsyncConnection, endpoints: Iterable[str], now: int) -> list[SecretRow]:
    """The secrets of endpoints that have not expired, each endpoint's newest first."""
    query = (
        select(*_COLUMNS)
        .where(_table.endpoint.in_(sorted(set(endpoints))), or_(_table.expires_at.is_(None), _table.expires_at > now))
        .order_by(_table.endpoint, _table.id.desc())
    )
    return [SecretRow(*row) for row in await connection.execute(query)]


async def expire_secrets(connection: AsyncConnection, endpoint: str, kind: str, at: int) -> None:
    """Lets the secrets of an endpoint expire at an instant, unless they do so before."""
    await connection.execute(
        update(webhook_secret)
        .where(
            _table.endpoint == endpoint,
            _table.kind == kind,
            or_(_table.expires_at.is_(None), _table.expires_at > at),
        )
        .values(expires_at=at)
    )


async def secrets_not_under(connection: AsyncConnection, key_id: str, after: int, limit: int) -> list[SecretRow]:
    """Secrets that are encrypted under another key, in the order of their ids, from one after an id on."""
    query = select(*_COLUMNS).where(_table.key_id != key_id, _table.id > after).order_by(_table.id).limit(limit)
    return [SecretRow(*row) for row in await connection.execute(query)]


async def replace_ciphertext(connection: AsyncConnection, id_: int, key_id: str, ciphertext: bytes) -> None:
    """Stores a secret as it is encrypted under another key."""
    await connection.execute(
        update(webhook_secret).where(_table.id == id_).values(key_id=key_id, ciphertext=ciphertext)
    )


async def drop_expired_secrets(connection: AsyncConnection, before: int) -> int:
    """Removes what expired before an instant; how many there were."""
    result = await connection.execute(delete(webhook_secret).where(_table.expires_at < before))
    return int(result.rowcount)

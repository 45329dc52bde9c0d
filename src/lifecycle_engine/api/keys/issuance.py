"""Keys made, rotated and revoked, over HTTP or on the command line alike."""

from __future__ import annotations

from typing import Literal, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.api.keys.rates import Rate
from lifecycle_engine.api.keys.scopes import ADMIN, SCOPES
from lifecycle_engine.api.keys.texts import digest, generate_key, key_id
from lifecycle_engine.store.keys import KeyRow, add_key, find_key, limit_key, revoke_key

DEFAULT_GRACE = 86_400
MAX_GRACE = 7 * 86_400
"""Seconds that a rotated key goes on being accepted."""


class KeyStateError(Exception):
    """The key cannot be rotated, since it is revoked or has expired; the text says which."""


class IssuedKey(NamedTuple):
    """A key and its text, which is known here for the only time."""

    row: KeyRow
    text: str


def scopes_of(row: KeyRow) -> frozenset[str]:
    """What the key may do, spelled out."""
    return frozenset(SCOPES) if ADMIN in row.scopes else row.scopes


async def issue_key(
    connection: AsyncConnection,
    now: int,
    *,
    name: str,
    source: str | None,
    scopes: frozenset[str],
    expires_at: int | None = None,
    rate: Rate | None = None,
) -> IssuedKey:
    """Makes a key; without a source of its own, what it posts has its name for a source."""
    text = generate_key()
    row = KeyRow(
        id=key_id(text),
        name=name,
        source=name if source is None else source,
        hash=digest(text.encode()),
        scopes=frozenset([ADMIN]) if ADMIN in scopes else scopes,
        created_at=now,
        expires_at=expires_at,
        rate_requests=None if rate is None else rate.requests,
        rate_seconds=None if rate is None else rate.seconds,
    )
    await add_key(connection, row)
    return IssuedKey(row, text)


async def rotate_key(
    connection: AsyncConnection, row: KeyRow, now: int, grace: int, expires_at: int | None = None
) -> IssuedKey:
    """Makes a key in the place of another one, which goes on for `grace` seconds and then expires.

    The new one may do the same and posts for the same source. Without an end of its own it lives as long as the old one
    was made to. Raises KeyStateError.
    """
    if row.revoked_at is not None:
        raise KeyStateError(f"the key {row.id} is revoked; make a new one")
    if row.expires_at is not None and row.expires_at <= now:
        raise KeyStateError(f"the key {row.id} has expired; make a new one")
    if expires_at is None and row.expires_at is not None:
        expires_at = now + row.expires_at - row.created_at
    text = generate_key()
    new = row._replace(
        id=key_id(text),
        hash=digest(text.encode()),
        created_at=now,
        expires_at=expires_at,
        replaces=row.id,
        last_used_at=None,
    )
    await add_key(connection, new)
    until = now + grace * 1_000_000
    if row.expires_at is None or until < row.expires_at:
        await limit_key(connection, row.id, until)
    return IssuedKey(new, text)


async def revoke(connection: AsyncConnection, id_: str, now: int) -> KeyRow | None:
    """Revokes a key for good, at once; None where there is none. Doing so again changes nothing."""
    row = await find_key(connection, id_, lock=True)
    if row is not None and row.revoked_at is None:
        await revoke_key(connection, id_, now)
    return row


def status_of(row: KeyRow, now: int) -> Literal["active", "expired", "revoked"]:
    """Whether a key is accepted at `now`, and if not, why."""
    if row.revoked_at is not None:
        return "revoked"
    return "active" if row.expires_at is None or row.expires_at > now else "expired"

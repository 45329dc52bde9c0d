"""The secrets of endpoints: made, replaced with an overlap, and read for signing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.outbox.vault import Sealed, Vault, VaultError
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.secrets import (
    SecretRow,
    add_secret,
    expire_secrets,
    replace_ciphertext,
    secrets_not_under,
    valid_secrets,
)
from lifecycle_engine.webhook.signing import Kind, Secret, generate_secret, parse_secret

MAX_OLD = 5
"""Old secrets of one kind that may be accepted beside the current one."""
KEPT = 10_000
"""Secrets that a process keeps ready for signing."""
STEP = 100
"""Secrets that one transaction encrypts anew."""


logger = logging.getLogger(__name__)


class TooManySecretsError(Exception):
    """As many old secrets as there may be have not expired yet."""


class StoredSecret(NamedTuple):
    """A secret, ready for signing, and for how long; times are in microseconds since the epoch."""

    secret: Secret
    created_at: int
    expires_at: int | None


async def create_secret(connection: AsyncConnection, vault: Vault, endpoint: str, kind: Kind, now: int) -> str:
    """Makes a secret and gives its text, which is never given again. Raises VaultError."""
    text = generate_secret(kind)
    await add_secret(connection, endpoint, kind, *vault.seal(text, _place(endpoint, kind)), now)
    return text


async def rotate_secret(
    connection: AsyncConnection, vault: Vault, endpoint: str, kind: Kind, now: int, grace: int
) -> str:
    """Makes a new secret; what was accepted till now is so for `grace` microseconds more, where it doesn't end before.

    The caller holds the endpoint's row. Raises VaultError, TooManySecretsError.
    """
    await expire_secrets(connection, endpoint, kind, now + grace)
    old = [row for row in await valid_secrets(connection, [endpoint], now) if row.kind == kind]
    if len(old) > MAX_OLD:
        raise TooManySecretsError
    return await create_secret(connection, vault, endpoint, kind, now)


async def stored_secrets(
    connection: AsyncConnection, vault: Vault, endpoints: Iterable[str], now: int
) -> Mapping[str, Sequence[StoredSecret]]:
    """What is signed with now for each endpoint, the newest first. Raises VaultError."""
    found: dict[str, list[StoredSecret]] = {}
    for row in await valid_secrets(connection, endpoints, now):
        found.setdefault(row.endpoint, []).append(
            StoredSecret(parse_secret(_unsealed(vault, row)), row.created_at, row.expires_at)
        )
    return found


class Keyring:
    """Reads what deliveries are signed with. An endpoint with a secret that cannot be decrypted is left out."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._read: dict[bytes, Secret] = {}

    async def __call__(
        self, connection: AsyncConnection, endpoints: Iterable[str], now: int
    ) -> Mapping[str, Sequence[Secret]]:
        """The secrets of each endpoint, the newest first; `now` in microseconds since the epoch."""
        found: dict[str, list[Secret]] = {}
        unreadable: set[str] = set()
        for row in await valid_secrets(connection, endpoints, now):
            try:
                found.setdefault(row.endpoint, []).append(self._secret(row))
            except VaultError as error:
                logger.error("nothing is sent to %s: %s", row.endpoint, error)
                unreadable.add(row.endpoint)
        return {endpoint: secrets for endpoint, secrets in found.items() if endpoint not in unreadable}

    def _secret(self, row: SecretRow) -> Secret:
        """Decrypted and parsed once for as long as the row stands as it is."""
        secret = self._read.get(row.ciphertext)
        if secret is None:
            if len(self._read) >= KEPT:
                self._read.clear()
            secret = self._read[row.ciphertext] = parse_secret(_unsealed(self._vault, row))
        return secret


async def reencrypt(database: Database, vault: Vault) -> int:
    """Encrypts every secret under the first master key; how many were under another one. Raises VaultError.

    Can be stopped anywhere and run again, also while the service runs: what it has not got to can still be read.
    """
    count, after = 0, 0
    while True:
        async with database.transaction() as connection:
            rows = await secrets_not_under(connection, vault.key_id, after, STEP)
            for row in rows:
                sealed = vault.seal(_unsealed(vault, row), _place(row.endpoint, row.kind))
                await replace_ciphertext(connection, row.id, *sealed)
        count += len(rows)
        if len(rows) < STEP:
            return count
        after = rows[-1].id


def _unsealed(vault: Vault, row: SecretRow) -> str:
    return vault.unseal(Sealed(row.key_id, row.ciphertext), _place(row.endpoint, row.kind))


def _place(endpoint: str, kind: str) -> str:
    return f"{endpoint}/{kind}"

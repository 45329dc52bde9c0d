"""API keys: made, checked in memory, and read anew from the database every two seconds.

A key is `le_<8>_<32><6>`: a prefix to recognise it by, a secret, and a CRC-32 of all before it, so that a scanner can
tell a key from a lookalike. Only its SHA-256 is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import string
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase
from starlette.requests import Request
from starlette.types import Scope

from lifecycle_engine.api.problems import ProblemError
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.keys import KeyRow, add_key, all_keys

SCOPES = (
    "ingest:write",
    "customers:read",
    "customers:write",
    "lifecycles:read",
    "lifecycles:write",
    "changes:read",
    "dead-letters:read",
    "dead-letters:write",
    "metrics:read",
)
"""Everything that a key can be allowed."""
FIRST = "default"
"""The name of the first key, and so the source of what is posted with it."""
MAX_KEY_BYTES = 256
REFRESH = 2.0
"""Seconds between two looks at the table of keys."""

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase

logger = logging.getLogger(__name__)


class Key(NamedTuple):
    """Who is asking: `name` is the source of what it posts."""

    name: str
    scopes: frozenset[str]
    expires_at: int | None


class Keys:
    """The keys that are accepted now."""

    def __init__(self, database: Database, first_key: str | None) -> None:
        self._database = database
        self._given = {_hash(first_key): Key(FIRST, frozenset(SCOPES), None)} if first_key else {}
        self._keys: dict[bytes, Key] = dict(self._given)
        self.loaded = False
        self._looked = asyncio.Event()

    async def ready(self) -> bool:
        """Whether keys can be checked: all of them, or the first one while the table could not be read yet."""
        return bool(self.loaded or self._given)

    async def refresh(self) -> None:
        """Reads the table of keys."""
        async with self._database.transaction() as connection:
            rows = await all_keys(connection)
        stored = {row.hash: Key(row.name, row.scopes, row.expires_at) for row in rows if row.revoked_at is None}
        self._keys = {**stored, **self._given}
        self.loaded = True

    @contextlib.asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator[None]:
        """Reads the table again and again for as long as the block lasts; a database that is away changes nothing.

        The block begins once it was read, or after a second.
        """
        task = asyncio.create_task(self._keep_fresh(), name="keys")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._looked.wait()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def make_first(self) -> str | None:
        """Stores a first key with every scope and gives it, to be shown once; None where there is a key already."""
        text, now = generate_key(), time.time_ns() // 1000
        async with self._database.transaction() as connection:
            if await all_keys(connection):
                return None
            await add_key(
                connection,
                KeyRow(FIRST, text[3:11], _hash(text), frozenset(SCOPES), now, expires_at=None, revoked_at=None),
            )
        await self.refresh()
        return text

    async def exist(self) -> bool:
        """Whether there is any key at all."""
        await self.refresh()
        return bool(self._keys)

    def find(self, text: bytes, now: int) -> Key | None:
        """The key with this text, unless it has expired."""
        if len(text) > MAX_KEY_BYTES:
            return None
        # Looked up by its digest, so that the time that it takes tells nothing about the keys that there are.
        key = self._keys.get(hashlib.sha256(text).digest())
        if key is None or (key.expires_at is not None and key.expires_at <= now):
            return None
        return key

    async def _keep_fresh(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception as error:
                logger.warning("the keys were not read: %s", type(error).__name__)
            self._looked.set()
            await asyncio.sleep(REFRESH)


def generate_key() -> str:
    """A new key's text."""
    body = f"le_{_random(8)}_{_random(32)}"
    return body + _base62(zlib.crc32(body.encode()), 6)


def authorization(scope: Scope) -> bytes | None:
    """The `Authorization` header of a request; with several of them, none."""
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    return found[0] if len(found) == 1 else None


def authenticate(keys: Keys, now: Callable[[], int], header: bytes | None, scopes: Iterable[str]) -> Key:
    """The key in an `Authorization` header, which must have one of these scopes. Raises ProblemError 401, 403, 503."""
    scheme, _, text = (header or b"").partition(b" ")
    if scheme.lower() != b"bearer" or not text.strip():
        raise ProblemError(
            401, "key_missing", "send an API key: Authorization: Bearer …", headers={"WWW-Authenticate": "Bearer"}
        )
    key = keys.find(text.strip(), now())
    if key is None:
        if not keys.loaded:
            raise ProblemError(
                503, "keys_unavailable", "the keys could not be read yet; try again", headers={"Retry-After": "1"}
            )
        raise ProblemError(
            401, "key_unknown", "this API key is unknown, expired or revoked", headers={"WWW-Authenticate": "Bearer"}
        )
    if key.scopes.isdisjoint(scopes):
        raise ProblemError(403, "scope_missing", f"this API key lacks the scope {' or '.join(scopes)}")
    return key


def requires(*scopes: str) -> Callable[[Request], Awaitable[Key]]:
    """A route's dependency: a key that has one of these scopes."""
    return _Requires(scopes)


class _Requires(SecurityBase):
    """FastAPI describes it under `scheme_name`, which openapi.py takes apart again."""

    def __init__(self, scopes: Sequence[str]) -> None:
        self._scopes = tuple(scopes)
        self.scheme_name = " ".join(scopes)
        self.model = HTTPBearerModel()

    async def __call__(self, request: Request) -> Key:
        services = request.app.state.services
        return authenticate(services.keys, services.clock, authorization(request.scope), self._scopes)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))

"""API keys: checked in memory, and read anew from the database every two seconds.

A key that was revoked is so refused everywhere within moments, and no request waits for a question to the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.types import Scope

from lifecycle_engine.api.keys.rates import Rate, judge, policy_fields
from lifecycle_engine.api.keys.scopes import ADMIN, SCOPES
from lifecycle_engine.api.keys.texts import MAX_BYTES, digest, generate_key, key_id, may_be_key
from lifecycle_engine.api.problems import ProblemError
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.keys import KeyRow, add_key, any_key, keys_in_force, note_uses

FIRST = "default"
"""The name of the first key, and the source of what is posted with it."""
REFRESH = 2.0
"""Seconds between two looks at the table of keys."""
NOTED = 60_000_000
"""Microseconds by which a key's last use may be behind, so that it costs one statement a minute and key at most."""

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"

logger = logging.getLogger(__name__)


class Key(NamedTuple):
    """Who is asking: `source` is that of what it posts."""

    id: str
    source: str
    scopes: frozenset[str]
    expires_at: int | None
    rate: Rate | None


class Keys:
    """The keys that are accepted now. `rate` is what a key may do that has no rate of its own; None: whatever it likes.

    Requests are counted by each process for itself.
    """

    def __init__(self, database: Database, first_key: str | None, rate: Rate | None = None) -> None:
        self._database = database
        self._rate = rate
        given = Key("first", FIRST, frozenset(SCOPES), None, rate)
        self._given = {digest(first_key.encode()): given} if first_key else {}
        self._keys: dict[bytes, Key] = dict(self._given)
        self._quotas: dict[str, int] = {}
        self._used: dict[str, int] = {}
        self._noted: dict[str, int] = {}
        self.loaded = False
        self._looked = asyncio.Event()

    async def ready(self) -> bool:
        """Whether keys can be checked: all of them, or the first one while the table could not be read yet."""
        return bool(self.loaded or self._given)

    async def refresh(self) -> None:
        """Reads the table of keys."""
        async with self._database.transaction() as connection:
            rows = await keys_in_force(connection, _now())
        stored = {row.hash: self._key(row) for row in rows}
        self._keys = {**stored, **self._given}
        ids = {key.id for key in self._keys.values()}
        self._quotas = {id_: whole_at for id_, whole_at in self._quotas.items() if id_ in ids}
        self._noted = {row.id: row.last_used_at or 0 for row in rows}
        self.loaded = True

    async def catch_up(self) -> None:
        """Reads the table after a change that stands already; where that fails, the next look tells."""
        with contextlib.suppress(SQLAlchemyError, OSError):
            await self.refresh()

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
        text = generate_key()
        async with self._database.transaction() as connection:
            if await any_key(connection):
                return None
            row = KeyRow(key_id(text), FIRST, FIRST, digest(text.encode()), frozenset([ADMIN]), _now())
            await add_key(connection, row)
        await self.refresh()
        return text

    async def exist(self) -> bool:
        """Whether there is any key at all; a revoked one counts, since whoever revoked it did not ask for a new one."""
        await self.refresh()
        async with self._database.transaction() as connection:
            return bool(self._keys) or await any_key(connection)

    def find(self, text: bytes, now: int) -> Key | None:
        """The key with this text, unless it has expired."""
        if len(text) > MAX_BYTES:
            return None
        key = self._keys.get(digest(text))
        if key is None or (key.expires_at is not None and key.expires_at <= now):
            return None
        return key

    def charge(self, key: Key, now: int) -> tuple[tuple[bytes, bytes], ...]:
        """Notes that a key is used, and gives the header fields that tell what is left. Raises ProblemError 429."""
        self._used[key.id] = now
        if key.rate is None:
            return ()
        verdict = judge(key.rate, self._quotas.get(key.id), now)
        self._quotas[key.id] = verdict.whole_at
        fields = policy_fields(key.rate, verdict)
        if not verdict.passes:
            requests, seconds = key.rate
            raise ProblemError(
                429,
                "rate_limited",
                f"this API key may make {requests} requests in {seconds} s; wait {verdict.retry_after} s",
                headers={
                    "Retry-After": str(verdict.retry_after),
                    **{name.decode(): value.decode() for name, value in fields},
                },
                more={"violated-policies": ["default"]},
                type=QUOTA_EXCEEDED,
            )
        return fields

    def _key(self, row: KeyRow) -> Key:
        scopes = frozenset(SCOPES) if ADMIN in row.scopes else row.scopes
        own = None if row.rate_requests is None or row.rate_seconds is None else (row.rate_requests, row.rate_seconds)
        return Key(row.id, row.source, scopes, row.expires_at, self._rate if own is None else Rate(*own))

    async def _keep_fresh(self) -> None:
        while True:
            try:
                await self._note_uses()
                await self.refresh()
            except Exception as error:
                logger.warning("the keys were not read: %s", type(error).__name__)
            self._looked.set()
            await asyncio.sleep(REFRESH)

    async def _note_uses(self) -> None:
        """Writes when keys were last used, where that is news."""
        news = {id_: at for id_, at in self._used.items() if at - self._noted.get(id_, at) >= NOTED}
        if not news:
            return
        async with self._database.transaction() as connection:
            await note_uses(connection, news)


def authorization(scope: Scope) -> bytes | None:
    """The `Authorization` header of a request; with several of them, none."""
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    return found[0] if len(found) == 1 else None


def authenticate(scope: Scope, scopes: Iterable[str], header: bytes | None = None) -> Key:
    """The key in the `Authorization` header of a request, or in `header`, which must have one of these scopes.

    The request counts against the key's rate. Raises ProblemError 401, 403, 429, 503.
    """
    services = scope["app"].state.services
    now = services.clock()
    key = recognise(services.keys, now, authorization(scope) if header is None else header, scopes)
    scope["rate_limit"] = services.keys.charge(key, now)
    return key


def recognise(keys: Keys, now: int, header: bytes | None, scopes: Iterable[str]) -> Key:
    """The same, without counting a request. Raises ProblemError 401, 403, 503."""
    scheme, _, text = (header or b"").partition(b" ")
    if scheme.lower() != b"bearer" or not (text := text.strip()):
        raise ProblemError(
            401, "key_missing", "send an API key: Authorization: Bearer …", headers={"WWW-Authenticate": "Bearer"}
        )
    key = keys.find(text, now)
    if key is None:
        raise _unrecognised(keys, text)
    if key.scopes.isdisjoint(scopes):
        raise ProblemError(403, "scope_missing", f"this API key lacks the scope {' or '.join(scopes)}")
    return key


def requires(*scopes: str) -> Callable[[Request], Awaitable[Key]]:
    """A route's dependency: a key that has one of these scopes."""
    return Requires(scopes)


class Requires(SecurityBase):
    """FastAPI describes it under `scheme_name`, which openapi.py takes apart again."""

    def __init__(self, scopes: Sequence[str]) -> None:
        self.scopes = tuple(scopes)
        self.scheme_name = " ".join(scopes)
        self.model = HTTPBearerModel()

    async def __call__(self, request: Request) -> Key:
        # A route may have been asked before its dependencies are: a request counts once.
        key: Key | None = request.scope.get("key")
        if key is None or key.scopes.isdisjoint(self.scopes):
            key = request.scope["key"] = authenticate(request.scope, self.scopes)
        return key


def _unrecognised(keys: Keys, text: bytes) -> ProblemError:
    if not may_be_key(text):
        # Whatever the table holds, it is not this.
        detail = "this is no API key: it is mistyped, cut off, or was made elsewhere"
    elif not keys.loaded:
        return ProblemError(
            503, "keys_unavailable", "the keys could not be read yet; try again", headers={"Retry-After": "1"}
        )
    else:
        detail = "this API key is unknown, expired or revoked"
    return ProblemError(401, "key_unknown", detail, headers={"WWW-Authenticate": "Bearer"})


def _now() -> int:
    return time.time_ns() // 1000

"""The connection to the database, and the only module that knows that there are two of them.

SQLite is opened through one connection for the whole process, with WAL, a full sync at each commit and
`BEGIN IMMEDIATE`: nothing is ever read in a transaction that cannot also write, so no update is lost, and the
corruption that several writers could cause in SQLite 3.7 to 3.51.2 cannot happen. Whoever holds that connection must
not wait for anything but the database.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

_RETRYABLE_STATES = frozenset({"25P03", "40001", "40P01", "55P03"})
_STALLED_MS = 30_000
"""A process that stands still in the middle of a transaction must not hold its rows from whoever replaces it."""
_SQLITE_MAY_PASS = ("database is locked", "database or disk is full", "disk I/O error")
_BY_KEY_ONLY = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}


class Database:
    """One database, PostgreSQL or SQLite; opened lazily, closed once.

    `by_key_only` is for a user whose every statement finds its rows by a key, such as the engine: plans that
    PostgreSQL cached while the tables were small would otherwise turn into sequential scans as they grow. A statement
    that PostgreSQL has not answered after `statement_seconds` fails.
    """

    def __init__(
        self, url: str, *, pool_size: int = 10, by_key_only: bool = False, statement_seconds: float = 60
    ) -> None:
        self.is_sqlite = url.startswith("sqlite")
        if self.is_sqlite:
            self.engine = _sqlite(url)
        else:
            self.engine = _postgresql(url, pool_size, _BY_KEY_ONLY if by_key_only else {}, statement_seconds)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction; commits at the end of the block, rolls back when it raises."""
        async with self.engine.begin() as connection:
            yield connection

    async def clock(self, connection: AsyncConnection) -> int:
        """The database's clock now (not when the transaction began), in microseconds since the epoch."""
        return int((await connection.exec_driver_sql(f"SELECT {self.clock_expression}")).scalar_one())

    @property
    def clock_expression(self) -> str:
        """SQL for the same. SQLite has no clock of its own that is as fine; it is the process's clock there."""
        if self.is_sqlite:
            return str(time.time_ns() // 1000)
        return "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"

    async def answers(self) -> bool:
        """Whether it answers now."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        return True

    async def close(self) -> None:
        await self.engine.dispose()


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction may succeed when it is tried again: a deadlock, a lost connection, a restart."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, OSError | PoolTimeoutError)
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None) or ""
    if state in _RETRYABLE_STATES or state.startswith(("08", "57P", "53")):
        return True
    return any(words in str(error.orig) for words in _SQLITE_MAY_PASS)


def _sqlite(url: str) -> AsyncEngine:
    engine = create_async_engine(url, poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0, pool_timeout=60)

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql(url: str, pool_size: int, planning: Mapping[str, str], statement_seconds: float) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=False,
        connect_args={
            "timeout": 5,
            "command_timeout": statement_seconds,
            "server_settings": {
                "application_name": "lifecycle-engine",
                "jit": "off",
                "idle_in_transaction_session_timeout": str(_STALLED_MS),
                **planning,
            },
        },
    )

"""Rows that are appended: as they were given, only if the transaction commits; a lost connection is told as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from lifecycle_engine.lifecycle.journeys import Event
from lifecycle_engine.store.changes import ChangeRow, add_changes
from lifecycle_engine.store.database import Database, is_transient
from lifecycle_engine.store.history import Line, append_lines
from tests.record import record

ROWS = [
    ChangeRow(1, "stage.changed", "retail", "bööks, “all”\t\\N", 1, False, 1_700_000_000_000_001, b"\x00\xff\n\\."),
    ChangeRow(2, "history.corrected", None, None, None, True, -1, b""),
]
_END = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'lifecycle-engine'"
)
_HELD = "SELECT customer, type, lifecycle, subject, sequence, muted, recorded_at, body FROM change ORDER BY customer"


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    async with record(url) as database:
        yield database


@pytest.fixture
async def on_postgresql(postgres_url: str) -> AsyncIterator[Database]:
    async with record(postgres_url) as database:
        yield database


async def _append(database: Database, rows: list[ChangeRow] = ROWS, *, fails: bool = False) -> None:
    async with database.transaction() as connection:
        await database.clock(connection)
        await add_changes(connection, rows)
        if fails:
            raise RuntimeError


async def _held(database: Database) -> list[ChangeRow]:
    async with database.transaction() as connection:
        return [ChangeRow._make(row) for row in await connection.exec_driver_sql(_HELD)]


async def test_rows_are_appended_as_they_were_given(database: Database) -> None:
    await _append(database)
    await _append(database, [])
    assert await _held(database) == ROWS


async def test_rows_of_a_transaction_that_fails_are_not_there(database: Database) -> None:
    with pytest.raises(RuntimeError):
        await _append(database, fails=True)
    assert await _held(database) == []


async def test_to_append_what_is_there_fails_for_good(database: Database) -> None:
    event = Event("retail", None, 1, "a", None, "start", (), "touchpoint", None, "t", "s", 1)

    async def append() -> None:
        async with database.transaction() as connection:
            await database.clock(connection)
            await append_lines(connection, [Line(1, 2, 3, event)])

    await append()
    with pytest.raises(Exception, match=r"(?i)unique") as raised:
        await append()
    assert not is_transient(raised.value)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_connection_that_is_lost_is_told_as_such(on_postgresql: Database, when: str) -> None:
    await _append(on_postgresql)
    url = on_postgresql.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    other = await asyncpg.connect(url)
    try:
        with pytest.raises(DBAPIError) as ended:
            await _lose(on_postgresql, other, when)
        assert is_transient(ended.value)
    finally:
        await other.close()
    await _append(on_postgresql)
    assert await _held(on_postgresql) == sorted(ROWS * 2)


async def _lose(database: Database, other: asyncpg.Connection, when: str) -> None:
    async with database.transaction() as connection, other.transaction():
        await database.clock(connection)
        if when == "meanwhile":
            await other.execute("LOCK TABLE change")
            appending = asyncio.create_task(add_changes(connection, ROWS))
            await asyncio.sleep(0.1)
            await other.execute(_END)
        else:
            await other.execute(_END)
            await asyncio.sleep(0.1)
            appending = asyncio.create_task(add_changes(connection, ROWS))
        with pytest.raises(DBAPIError) as lost:
            await appending
        assert is_transient(lost.value)
        raise lost.value

"""Many rows as one parameter: each statement of the hot path is written once and takes all rows of a batch at once.

PostgreSQL gets one array for each column (`unnest`), SQLite a list of values; both see a table named `given`. Rows
that nothing can be in the way of go into their table by PostgreSQL's COPY, which costs a third of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, SmallInteger, String, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

_ARRAYS: tuple[tuple[type, str], ...] = (
    (Boolean, "boolean"),
    (SmallInteger, "smallint"),
    (BigInteger, "bigint"),
    (Integer, "integer"),
    (LargeBinary, "bytea"),
    (String, "text"),
)
_SQLITE_VARIABLES = 30_000
_DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError)


class Statement:
    """A statement with `{given}` where its rows come in, and `{lock}` where PostgreSQL locks the rows that it reads.

    `{lock_free}` locks those of them that nobody else holds, and leaves out the others.

    `columns` are names of the table's columns, or pairs of another name and the column whose type it has.
    """

    def __init__(self, sql: str, table: Table, columns: Sequence[str | tuple[str, str]]) -> None:
        pairs = [(column, column) if isinstance(column, str) else column for column in columns]
        self._names = ", ".join(name for name, _ in pairs)
        self._width = len(pairs)
        arrays = (f"CAST(${n} AS {_array(table.c[like])}[])" for n, (_, like) in enumerate(pairs, 1))
        self._postgresql = sql.format(
            given=f"unnest({', '.join(arrays)}) AS given({self._names})",
            lock="FOR UPDATE OF locked",
            lock_free="FOR UPDATE OF locked SKIP LOCKED",
            names=self._names,
        )
        aliases = ", ".join(f"column{n} AS {name}" for n, (name, _) in enumerate(pairs, 1))
        self._sqlite = sql.format(
            given=f"(SELECT {aliases} FROM (VALUES {{values}})) AS given", lock="", lock_free="", names=self._names
        )
        self._values = f"({', '.join('?' * self._width)})"

    async def __call__(self, connection: AsyncConnection, rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        """Runs it over the rows (none at all is no statement) and gives what it returned."""
        if not rows:
            return []
        if connection.dialect.name == "postgresql":
            columns = tuple(list(column) for column in zip(*rows, strict=True))
            return await ask(connection, self._postgresql, columns)
        returned: list[Sequence[Any]] = []
        most = max(1, _SQLITE_VARIABLES // self._width)
        for start in range(0, len(rows), most):
            part = rows[start : start + most]
            sql = self._sqlite.format(values=", ".join([self._values] * len(part)))
            parameters = tuple(value for row in part for value in row)
            returned += await ask(connection, sql, parameters)
        return returned


def insert(table: Table, columns: Sequence[str]) -> Statement:
    """Plain rows into a table."""
    names = ", ".join(columns)
    return Statement(f"INSERT INTO {table.name} ({names}) SELECT {names} FROM {{given}}", table, columns)


class Append:
    """Plain rows into a table, none of which is there: one that is makes it fail."""

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        self._table = table.name
        self._columns = list(columns)
        self._insert = insert(table, columns)

    async def __call__(self, connection: AsyncConnection, rows: Sequence[Sequence[Any]]) -> None:
        if not rows or (driver := driver_of(connection)) is None:
            await self._insert(connection, rows)
            return
        try:
            await driver.copy_records_to_table(self._table, records=rows, columns=self._columns)
        except _DRIVER_ERRORS as error:
            raise _told(error, driver, f"COPY {self._table}") from error


async def ask(connection: AsyncConnection, sql: str, parameters: tuple[Any, ...] = ()) -> list[Sequence[Any]]:
    """Runs one statement, as the database's driver takes it, and gives the rows it returned, to be read by place."""
    if (driver := driver_of(connection)) is None:
        result = await connection.exec_driver_sql(sql, parameters)
        return list(result.all()) if result.returns_rows else []
    try:
        return list(await driver.fetch(sql, *parameters))
    except _DRIVER_ERRORS as error:
        raise _told(error, driver, sql) from error


def driver_of(connection: AsyncConnection) -> asyncpg.Connection | None:
    """PostgreSQL's driver itself: SQLAlchemy costs as much again for each statement, and does not know COPY.

    None on SQLite, and before the first statement of a transaction: SQLAlchemy begins it with that.
    """
    if connection.dialect.name != "postgresql" or connection.sync_connection is None:
        return None
    driver: asyncpg.Connection = connection.sync_connection.connection.driver_connection
    return driver if driver.is_in_transaction() else None


def _told(error: Exception, driver: asyncpg.Connection, sql: str) -> DBAPIError:
    """What the driver raises, as SQLAlchemy tells it."""
    return DBAPIError(sql, None, error, connection_invalidated=driver.is_closed())


def _array(column: Column[Any]) -> str:
    return next(name for type_, name in _ARRAYS if isinstance(column.type, type_))

"""The migrations lead from nothing to the tables that the program knows, and from each earlier schema on."""

from __future__ import annotations

from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from lifecycle_engine import schema
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.tables import metadata


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"empty_{request.param}_url"))


def differences(connection: Connection) -> list[Any]:
    return list(compare_metadata(MigrationContext.configure(connection), metadata))


async def test_the_migrations_make_the_tables(url: str) -> None:
    database = Database(url)
    try:
        async with database.transaction() as connection:
            await connection.run_sync(schema.upgrade)
            assert await connection.run_sync(differences) == []
    finally:
        await database.close()


async def test_an_activation_outlives_the_migration(url: str) -> None:
    """Where the first schema kept it beside the version."""
    database = Database(url)
    try:
        async with database.transaction() as connection:
            await connection.run_sync(lambda sync: upgrade_to(sync, "0001"))
            await connection.execute(
                text(
                    "INSERT INTO lifecycle "
                    "(key, version, document, media_type, created_at, activated_at, activated_in) "
                    "VALUES ('shop', 1, '{}', 'application/json', 5, 7, 1), "
                    "('shop', 2, '{}', 'application/json', 6, NULL, NULL)"
                )
            )
            await connection.run_sync(schema.upgrade)
            rows = await connection.execute(text("SELECT number, key, version, since, activated_at FROM activation"))
            assert [tuple(row) for row in rows] == [(1, "shop", 1, None, 7)]
            assert await connection.run_sync(differences) == []
    finally:
        await database.close()


def upgrade_to(connection: Connection, revision: str) -> None:
    config = schema.configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)

"""Runs the migrations against the database of the settings, or the one that the caller hands in."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection

from lifecycle_engine.settings import load_settings
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.tables import metadata

LOCK = 0x6D696772
"""Key of the advisory lock under which one migration runs at a time."""


def migrate(connection: Connection) -> None:
    """Migrates in the transaction of this connection."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET lock_timeout = '5s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


async def migrate_settings() -> None:
    """Migrates the database that the settings name."""
    database = Database(load_settings().database_url)
    try:
        async with database.transaction() as connection:
            await connection.run_sync(migrate)
    finally:
        await database.close()


if (handed_in := context.config.attributes.get("connection")) is not None:
    migrate(handed_in)
else:
    asyncio.run(migrate_settings())

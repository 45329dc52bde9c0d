"""The database's schema, brought up to date; and what a first start finds in it."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from lifecycle_engine.catalog.builtin import builtin_documents
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.lifecycles import (
    activate_version,
    add_version,
    definition_number,
    find_summary,
    lock_definitions,
    summaries,
)

FIRST_LIFECYCLE = "five-stages"
"""The built-in lifecycle that is active on a first start."""


class SchemaError(Exception):
    """The database's schema is not the one of this program; the text says what to do."""


async def migrate(database: Database) -> None:
    """Runs the missing migrations; adds the built-in lifecycles whose keys nobody has used, to be activated at will.

    On a first start, when the database has seen no lifecycle yet, the first one becomes active.
    """
    async with database.transaction() as connection:
        await connection.run_sync(upgrade)
    async with database.transaction() as connection:
        await lock_definitions(connection)
        now = await database.clock(connection)
        is_first_start = not await summaries(connection, "", 1, now) and not await definition_number(connection)
        for key, document in builtin_documents().items():
            if await find_summary(connection, key, now) is None:
                await add_version(connection, key, document, "application/yaml", now)
        if is_first_start:
            await activate_version(connection, FIRST_LIFECYCLE, 1, now)


async def check_schema(database: Database) -> None:
    """Raises SchemaError unless every migration has been run."""
    async with database.transaction() as connection:
        current = await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())
    head = ScriptDirectory.from_config(configuration()).get_current_head()
    if current != head:
        state = "has no tables yet" if current is None else f"is at migration {current}, this program at {head}"
        raise SchemaError(f"the database {state}; run: lifecycle-engine migrate")


def upgrade(connection: Connection) -> None:
    """Runs the missing migrations in the transaction of this connection."""
    config = configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def configuration() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _migrations() -> Path:
    """Beside the package in a wheel; at the top of the repository in a checkout."""
    packaged = Path(__file__).with_name("migrations")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "migrations"

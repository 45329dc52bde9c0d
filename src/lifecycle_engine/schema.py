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
from lifecycle_engine.store.lifecycles import activate_version, add_version, definition_number, versions

FIRST_LIFECYCLE = "five-stages"
"""The built-in lifecycle that is active on a first start."""


class SchemaError(Exception):
    """The database's schema is not the one of this program; the text says what to do."""


async def migrate(database: Database) -> None:
    """Runs the missing migrations; a database that has seen no lifecycle yet gets the first one, active."""
    async with database.transaction() as connection:
        await connection.run_sync(upgrade)
    async with database.transaction() as connection:
        if await versions(connection) or await definition_number(connection):
            return
        now = await database.clock(connection)
        document = builtin_documents()[FIRST_LIFECYCLE]
        added = await add_version(connection, FIRST_LIFECYCLE, document, "application/yaml", now)
        await activate_version(connection, added.key, added.version, now)


async def check_schema(database: Database) -> None:
    """Raises SchemaError unless every migration has been run."""
    async with database.transaction() as connection:
        current = await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if current != head:
        state = "has no tables yet" if current is None else f"is at migration {current}, this program at {head}"
        raise SchemaError(f"the database {state}; run: lifecycle-engine migrate")


def upgrade(connection: Connection) -> None:
    """Runs the missing migrations in the transaction of this connection."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _migrations() -> Path:
    """Beside the package in a wheel; at the top of the repository in a checkout."""
    packaged = Path(__file__).with_name("migrations")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "migrations"

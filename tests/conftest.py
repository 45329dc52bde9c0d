"""The real servers that tests run on: each is started once a run, when the first test asks for it.

`LIFECYCLE_TEST_DATABASE_URL` (`postgresql+asyncpg://…/database`, of a user who may create databases) and
`LIFECYCLE_TEST_KAFKA` (bootstrap servers) name running ones to use instead.
"""

import asyncio
import os
import shutil
import uuid
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from lifecycle_engine.schema import migrate, upgrade
from lifecycle_engine.store.database import Database
from tools.services import Kafka, KafkaCluster, Postgres, PostgresServer, temporary_directory

Fill = Callable[[Database], Coroutine[Any, Any, None]]

# `--hypothesis-profile=laws` looks for counterexamples in earnest. Machines under load are slow, not wrong.
settings.register_profile("default", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("laws", settings.get_profile("default"), max_examples=10_000)
settings.load_profile("default")


@pytest.fixture(scope="session")
def services_directory() -> Iterator[Path]:
    with temporary_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """PostgreSQL for the whole run. A test that kills or restarts a server starts one of its own."""
    if named := os.environ.get("LIFECYCLE_TEST_DATABASE_URL"):
        yield PostgresServer(named)
    else:
        with Postgres(request.getfixturevalue("services_directory"), is_durable=False) as started:
            yield started


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[KafkaCluster]:
    """Apache Kafka for the whole run. A test that kills or restarts a broker starts one of its own."""
    if named := os.environ.get("LIFECYCLE_TEST_KAFKA"):
        yield KafkaCluster(named)
    else:
        with Kafka(request.getfixturevalue("services_directory")) as started:
            yield started


@pytest.fixture(scope="session")
def migrated_postgres(postgres: PostgresServer) -> Iterator[str]:
    """The name of a database with tables and nothing in them, to make copies of: quicker than migrating each."""
    yield from _template(postgres, _make_tables)


@pytest.fixture(scope="session")
def installed_postgres(postgres: PostgresServer) -> Iterator[str]:
    """The same as `lifecycle-engine migrate` leaves it, with the built-in lifecycles."""
    yield from _template(postgres, migrate)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with tables and nothing in them, to make copies of."""
    return _file(tmp_path_factory.mktemp("migrated"), _make_tables)


@pytest.fixture(scope="session")
def installed_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as `lifecycle-engine migrate` leaves it, with the built-in lifecycles."""
    return _file(tmp_path_factory.mktemp("installed"), migrate)


@pytest.fixture
def postgres_url(postgres: PostgresServer, migrated_postgres: str) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database with nothing in it, dropped afterwards."""
    yield from _database(postgres, migrated_postgres)


@pytest.fixture
def installed_postgres_url(postgres: PostgresServer, installed_postgres: str) -> Iterator[str]:
    """The URL of a PostgreSQL database to start the service on, dropped afterwards."""
    yield from _database(postgres, installed_postgres)


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """The URL of a migrated SQLite database with nothing in it."""
    return _sqlite_url(shutil.copy(migrated_sqlite, tmp_path / "lifecycle.db"))


@pytest.fixture
def installed_sqlite_url(installed_sqlite: Path, tmp_path: Path) -> str:
    """The URL of a SQLite database to start the service on."""
    return _sqlite_url(shutil.copy(installed_sqlite, tmp_path / "lifecycle.db"))


@pytest.fixture
def empty_postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a PostgreSQL database without tables, dropped afterwards."""
    yield from _database(postgres, "template1")


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite database that does not exist yet."""
    return _sqlite_url(tmp_path / "lifecycle.db")


def _database(postgres: PostgresServer, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    postgres.create_database(name, template)
    yield postgres.url(name)
    postgres.drop_database(name)


def _sqlite_url(path: str | Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def _template(postgres: PostgresServer, fill: Fill) -> Iterator[str]:
    name = f"template_{uuid.uuid4().hex}"
    postgres.create_database(name)
    _filled(postgres.url(name), fill)
    yield name
    postgres.drop_database(name)


def _file(directory: Path, fill: Fill) -> Path:
    path = directory / "lifecycle.db"
    _filled(_sqlite_url(path), fill)
    return path


def _filled(url: str, fill: Fill) -> None:
    async def run() -> None:
        database = Database(url)
        try:
            await fill(database)
        finally:
            await database.close()

    # In a thread, since where an asynchronous fixture has asked a loop runs in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, run()).result()


async def _make_tables(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.run_sync(upgrade)


@pytest.fixture
def topic(request: pytest.FixtureRequest, kafka: KafkaCluster) -> Iterator[str]:
    """A fresh topic of four partitions, or as many as `parametrize("topic", [n], indirect=True)` asks for."""
    name = f"test-{uuid.uuid4().hex}"
    kafka.create_topic(name, partitions=getattr(request, "param", 4))
    yield name
    kafka.delete_topic(name)

"""The real servers that tests run on: each is started once a run, when the first test asks for it.

`LIFECYCLE_TEST_DATABASE_URL` (`postgresql+asyncpg://…/database`, of a user who may create databases) and
`LIFECYCLE_TEST_KAFKA` (bootstrap servers) name running ones to use instead.
"""

import asyncio
import os
import shutil
import uuid
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from lifecycle_engine.schema import upgrade
from lifecycle_engine.store.database import Database
from tools.services import Kafka, KafkaCluster, Postgres, PostgresServer, temporary_directory

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
        with Postgres(request.getfixturevalue("services_directory")) as started:
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
    name = f"migrated_{uuid.uuid4().hex}"
    postgres.create_database(name)
    _in_a_loop_of_its_own(_migrate(postgres.url(name)))
    yield name
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file."""
    path = tmp_path_factory.mktemp("migrated") / "lifecycle.db"
    _in_a_loop_of_its_own(_migrate(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture
def postgres_url(postgres: PostgresServer, migrated_postgres: str) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database with nothing in it, dropped afterwards."""
    yield from _database(postgres, migrated_postgres)


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """The URL of a migrated SQLite database with nothing in it."""
    return f"sqlite+aiosqlite:///{shutil.copy(migrated_sqlite, tmp_path / 'lifecycle.db')}"


@pytest.fixture
def empty_postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a PostgreSQL database without tables, dropped afterwards."""
    yield from _database(postgres, "template1")


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite database that does not exist yet."""
    return f"sqlite+aiosqlite:///{tmp_path / 'lifecycle.db'}"


def _database(postgres: PostgresServer, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    postgres.create_database(name, template)
    yield postgres.url(name)
    postgres.drop_database(name)


def _in_a_loop_of_its_own(work: Coroutine[Any, Any, None]) -> None:
    """Runs it to its end, also where an asynchronous fixture has asked, and so a loop runs in this thread."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


async def _migrate(url: str) -> None:
    database = Database(url)
    try:
        async with database.transaction() as connection:
            await connection.run_sync(upgrade)
    finally:
        await database.close()


@pytest.fixture
def topic(request: pytest.FixtureRequest, kafka: KafkaCluster) -> Iterator[str]:
    """A fresh topic of four partitions, or as many as `parametrize("topic", [n], indirect=True)` asks for."""
    name = f"test-{uuid.uuid4().hex}"
    kafka.create_topic(name, partitions=getattr(request, "param", 4))
    yield name
    kafka.delete_topic(name)

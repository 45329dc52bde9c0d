"""The real servers that tests run on: each is started once a run, when the first test asks for it.

`LIFECYCLE_TEST_DATABASE_URL` (`postgresql+asyncpg://…/database`, of a user who may create databases) and
`LIFECYCLE_TEST_KAFKA` (bootstrap servers) name running ones to use instead.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty PostgreSQL database, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    postgres.create_database(name)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite database that does not exist yet."""
    return f"sqlite+aiosqlite:///{tmp_path / 'lifecycle.db'}"


@pytest.fixture
def topic(request: pytest.FixtureRequest, kafka: KafkaCluster) -> Iterator[str]:
    """A fresh topic of four partitions, or as many as `parametrize("topic", [n], indirect=True)` asks for."""
    name = f"test-{uuid.uuid4().hex}"
    kafka.create_topic(name, partitions=getattr(request, "param", 4))
    yield name
    kafka.delete_topic(name)

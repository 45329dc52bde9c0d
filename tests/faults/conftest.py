"""One broker and one database server for all faults that leave them alone; a fresh topic and database for each test."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.deployment import Deployment
from tests.processes import Service, migrate, settings_for
from tools.services import KafkaCluster, PostgresServer


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a database that was migrated and is in no use, to be copied."""
    name = f"test_{uuid.uuid4().hex}"
    postgres.create_database(name)
    asyncio.run(migrate(settings_for(postgres.url(name)), tmp_path_factory.mktemp("migrated")))
    yield name
    postgres.drop_database(name)


@pytest.fixture
def database_url(postgres: PostgresServer, migrated: str) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    postgres.create_database(name, migrated)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def deployment(database_url: str, kafka: KafkaCluster, topic: str, tmp_path: Path) -> Deployment:
    """On PostgreSQL and Kafka, nothing of it started."""
    settings = settings_for(database_url, kafka.bootstrap_servers, topic)
    return Deployment(Service(["api"], settings, tmp_path), settings, tmp_path)

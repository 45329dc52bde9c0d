"""One broker and one database server for all faults that leave them alone; a fresh topic and database for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.deployment import Deployment
from tests.processes import Service, settings_for
from tools.services import KafkaCluster


@pytest.fixture
def deployment(installed_postgres_url: str, kafka: KafkaCluster, topic: str, tmp_path: Path) -> Deployment:
    """On PostgreSQL and Kafka, nothing of it started."""
    settings = settings_for(installed_postgres_url, kafka.bootstrap_servers, topic)
    return Deployment(Service(["api"], settings, tmp_path), settings, tmp_path)

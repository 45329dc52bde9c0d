"""A broker or a database that dies under load: what was accepted takes effect, and once."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

from tests.faults.deployment import Deployment, running
from tests.processes import Service, migrate, settings_for
from tools.services import Kafka, KafkaCluster, Postgres, temporary_directory


async def test_a_broker_killed(installed_postgres_url: str, tmp_path: Path) -> None:
    """Posting goes on, is told that nobody knows, and sends the same again; within 5 s each time."""
    with temporary_directory() as directory, Kafka(directory) as kafka:
        topic = f"test-{uuid.uuid4().hex}"
        kafka.create_topic(topic)
        settings = settings_for(installed_postgres_url, kafka.bootstrap_servers, topic)
        deployment = Deployment(Service(["api"], settings, tmp_path), settings, tmp_path)
        rival, worker = deployment.worker("rival"), deployment.worker("one")
        async with running(deployment.api, rival, worker), deployment.driven() as drive:
            await drive.accepts(400)
            await asyncio.to_thread(kafka.kill)
            await asyncio.to_thread(kafka.start)
            await drive.accepts(400)
            assert await rival.stop() == 0
            await drive.accepts(200)
            figures = await drive.verify()
            assert figures["unknown"] > 0
            assert figures["slowest_answer_seconds"] < 5.5


async def test_a_database_away(kafka: KafkaCluster, topic: str, tmp_path: Path) -> None:
    """Restarted and then killed: posting goes on without it, and the workers go on by themselves once it is back."""
    with temporary_directory() as directory, Postgres(directory) as postgres:
        postgres.create_database("lifecycle")
        settings = settings_for(postgres.url("lifecycle"), kafka.bootstrap_servers, topic)
        await migrate(settings, tmp_path)
        deployment = Deployment(Service(["api"], settings, tmp_path), settings, tmp_path)
        rival, worker = deployment.worker("rival"), deployment.worker("one")
        async with running(deployment.api, rival, worker), deployment.driven() as drive:
            for end in (postgres.stop, postgres.kill):
                await drive.accepts(300)
                await asyncio.to_thread(end)
                await drive.accepts(300)
                await asyncio.to_thread(postgres.start)
            await drive.accepts(200)
            assert await rival.stop() == 0
            figures = await drive.verify()
            assert figures["unknown"] == 0

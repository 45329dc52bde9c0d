"""Processes of one role: how they say whether they are well, and how they refuse to start."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from lifecycle_engine.store.database import Database
from tests.processes import Service, settings_for, wait_until
from tools.services import KafkaCluster, ServiceError, free_port


async def test_a_worker_tells_of_its_health(installed_sqlite_url: str, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    settings = settings_for(installed_sqlite_url) | {"LIFECYCLE_HEALTH_LISTEN": address}
    async with Service(["worker"], settings, tmp_path), httpx.AsyncClient(trust_env=False) as client:
        ready = await client.get(f"http://{address}/readyz")
        assert (ready.status_code, ready.json()["checks"]) == (200, {"worker": True, "not_stopping": True})
        assert (await client.get(f"http://{address}/livez")).status_code == 200
        assert (await client.get(f"http://{address}/v1/customers/ada")).status_code == 404


@pytest.mark.parametrize("log", ["database", "kafka"])
async def test_timers_alone_tell_of_their_health_and_end_when_they_fail(
    request: pytest.FixtureRequest, installed_postgres_url: str, tmp_path: Path, log: str
) -> None:
    address = f"127.0.0.1:{free_port()}"
    settings = settings_for(installed_postgres_url)
    if log == "kafka":
        kafka: KafkaCluster = request.getfixturevalue("kafka")
        settings = settings_for(installed_postgres_url, kafka.bootstrap_servers, request.getfixturevalue("topic"))
    timers = Service(["timers"], settings | {"LIFECYCLE_HEALTH_LISTEN": address}, tmp_path)
    async with timers, httpx.AsyncClient(trust_env=False) as client:
        ready = await client.get(f"http://{address}/readyz")
        assert (ready.status_code, ready.json()["checks"]) == (200, {"timers": True, "not_stopping": True})
        assert await timers.stop() == 0
        await timers.start()
        database = Database(installed_postgres_url)
        async with database.transaction() as connection:
            await connection.execute(text("DROP TABLE wake"))
        await database.close()
        assert await timers.wait() == 1
    assert "the process ends because of this" in timers.output()


async def test_timers_wait_for_their_database(tmp_path: Path) -> None:
    timers = Service(["timers"], settings_for(f"postgresql+asyncpg://nobody@127.0.0.1:{free_port()}/none"), tmp_path)

    async def waits() -> bool:
        return "waiting for the database" in timers.output()

    await timers.launch()
    await wait_until(waits, "the timers wait")
    assert await timers.stop() == 0


async def test_an_address_in_use_is_named(installed_sqlite_url: str, tmp_path: Path) -> None:
    settings = settings_for(installed_sqlite_url)
    async with Service(["api", "worker"], settings, tmp_path) as first:
        second = Service(["api"], settings, tmp_path)
        second.settings["LIFECYCLE_LISTEN"] = first.settings["LIFECYCLE_LISTEN"]
        await second.launch()
        assert await second.wait() == 1
        assert "LIFECYCLE_LISTEN: " in second.output()
        assert "Traceback" not in second.output()


async def test_a_database_without_tables_is_told_what_to_do(empty_sqlite_url: str, tmp_path: Path) -> None:
    service = Service(["api"], settings_for(empty_sqlite_url), tmp_path)
    with pytest.raises(ServiceError, match="run: lifecycle-engine migrate"):
        await service.start()

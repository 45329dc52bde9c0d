"""Processes of one role: how they say whether they are well, and how they refuse to start."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.processes import Service, migrate, settings_for
from tools.services import ServiceError, free_port


async def test_a_worker_tells_of_its_health(sqlite_url: str, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    settings = settings_for(sqlite_url) | {"LIFECYCLE_HEALTH_LISTEN": address}
    await migrate(settings, tmp_path)
    async with Service(["worker"], settings, tmp_path), httpx.AsyncClient(trust_env=False) as client:
        ready = await client.get(f"http://{address}/readyz")
        assert (ready.status_code, ready.json()["checks"]) == (200, {"worker": True, "not_stopping": True})
        assert (await client.get(f"http://{address}/livez")).status_code == 200
        assert (await client.get(f"http://{address}/v1/customers/ada")).status_code == 404


async def test_an_address_in_use_is_named(sqlite_url: str, tmp_path: Path) -> None:
    settings = settings_for(sqlite_url)
    await migrate(settings, tmp_path)
    async with Service(["api", "worker"], settings, tmp_path) as first:
        second = Service(["api"], settings, tmp_path)
        second.settings["LIFECYCLE_LISTEN"] = first.settings["LIFECYCLE_LISTEN"]
        await second.launch()
        assert await second.wait() == 1
        assert "LIFECYCLE_LISTEN: " in second.output()
        assert "Traceback" not in second.output()


async def test_a_database_without_tables_is_told_what_to_do(sqlite_url: str, tmp_path: Path) -> None:
    service = Service(["api"], settings_for(sqlite_url), tmp_path)
    with pytest.raises(ServiceError, match="run: lifecycle-engine migrate"):
        await service.start()

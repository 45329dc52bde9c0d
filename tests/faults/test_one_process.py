"""Everything in one process on SQLite, killed under load and started again."""

from __future__ import annotations

from pathlib import Path

from tests.faults.deployment import KILLED, Deployment
from tests.processes import Service, settings_for


async def test_killed_again_and_again(installed_sqlite_url: str, tmp_path: Path) -> None:
    settings = settings_for(installed_sqlite_url)
    async with Service(["api", "worker"], settings, tmp_path) as service:
        async with Deployment(service, settings, tmp_path).driven() as drive:
            for _ in range(3):
                await drive.accepts(300)
                service.kill()
                assert await service.wait() == KILLED
                await service.start()
            await drive.accepts(200)
            figures = await drive.verify()
            assert figures["unknown"] > 0

"""Workers that are killed in the middle, or lose their partitions: everything takes effect, and once."""

from __future__ import annotations

import pytest

from tests.faults.deployment import KILLED, Deployment


@pytest.mark.parametrize("point", ["W2", "W3", "W4", "W5"])
async def test_a_worker_killed_in_its_transaction(deployment: Deployment, point: str) -> None:
    """Whether it died before or after the commit, its successor goes on exactly there."""
    async with (
        deployment.api,
        deployment.worker("doomed", killed_at=point, hit=8) as doomed,
        deployment.worker("rival") as rival,
        deployment.driven(scattered=1) as drive,
    ):
        assert await drive.death(doomed) == KILLED
        assert await rival.stop() == 0
        async with deployment.worker("successor"):
            await drive.accepts(200)
            print(await drive.verify())

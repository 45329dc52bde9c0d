"""SIGTERM under load: each process is out within 10 s, with exit code 0, and nothing is lost."""

from __future__ import annotations

from tests.faults.deployment import Deployment, running


async def test_told_to_end(deployment: Deployment) -> None:
    """Whoever is being answered is answered; whoever is not sends again, to the next process."""
    api, rival, worker = deployment.api, deployment.worker("rival"), deployment.worker("one")
    async with running(api, rival, worker), deployment.driven() as drive:
        await drive.accepts(300)
        assert await worker.stop() == 0
        await worker.start()
        for _ in range(2):
            await drive.accepts(300)
            assert await api.stop() == 0
            await api.start()
        assert await rival.stop() == 0
        await drive.accepts(200)
        figures = await drive.verify()
        assert figures["unknown"] > 0

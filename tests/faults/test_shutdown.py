"""SIGTERM under load: each process is out within 10 s, with exit code 0, and nothing is lost."""

from __future__ import annotations

from tests.faults.deployment import Deployment, running


async def test_a_worker_told_to_end(deployment: Deployment) -> None:
    rival, worker = deployment.worker("rival"), deployment.worker("one")
    async with running(deployment.api, rival, worker), deployment.driven() as drive:
        await drive.accepts(400)
        assert await worker.stop() == 0
        assert await rival.stop() == 0
        await worker.start()
        await drive.accepts(200)
        await drive.verify()


async def test_an_api_told_to_end(deployment: Deployment) -> None:
    """Whoever is being answered is answered; whoever is not sends again, to the next process."""
    api, rival = deployment.api, deployment.worker("rival")
    async with running(api, rival, deployment.worker("one")), deployment.driven() as drive:
        for _ in range(2):
            await drive.accepts(300)
            assert await api.stop() == 0
            await api.start()
        assert await rival.stop() == 0
        await drive.accepts(200)
        figures = await drive.verify()
        assert figures["unknown"] > 0

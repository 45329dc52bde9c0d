"""Workers that are killed in the middle, lose their partitions, or write the same customers at the same time."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.faults.deployment import KILLED, Deployment, running
from tests.processes import Service, wait_until


@pytest.mark.parametrize("point", ["W2", "W3", "W4", "W5"])
async def test_killed_in_a_transaction(deployment: Deployment, point: str) -> None:
    """Whether it died before or after the commit, its successor goes on from what is committed."""
    rival, doomed = deployment.worker("rival"), deployment.worker("doomed", at=point, hit=20)
    async with running(deployment.api, rival, doomed), deployment.driven() as drive:
        await drive.accepts(400)
        assert await rival.stop() == 0
        assert await drive.death(doomed) == KILLED
        async with deployment.worker("successor"):
            await drive.accepts(200)
            await drive.verify()


async def test_rebalances(deployment: Deployment) -> None:
    """One joins the group, one leaves it, another joins, one is killed: each time the partitions change hands."""
    first, second, third = (deployment.worker("crew", at="never") for _ in range(3))
    rival = deployment.worker("rival")
    async with running(deployment.api, rival, first), deployment.driven() as drive:
        await drive.accepts(300)
        async with second:
            await drive.accepts(200)
            assert await first.stop() == 0
            assert await rival.stop() == 0
            async with third:
                await drive.accepts(200)
                second.kill()
                assert await second.wait() == KILLED
                await drive.accepts(200)
                await drive.verify()


async def test_killed_in_a_rebalance(deployment: Deployment) -> None:
    """The one that is to give partitions away dies with batches in its hands, before it has heard of it."""
    rival, doomed = deployment.worker("rival"), deployment.worker("crew", at="W6")
    async with running(deployment.api, rival, doomed), deployment.driven() as drive:
        await drive.accepts(400)
        assert await rival.stop() == 0
        async with deployment.worker("crew", at="never"):
            assert await drive.death(doomed) == KILLED
            await drive.accepts(200)
            await drive.verify()


@pytest.mark.parametrize("point", ["W3", "W5"])
async def test_frozen_until_it_was_replaced(deployment: Deployment, point: str) -> None:
    """A worker that stood still goes on with what it had in its hands, as if it still had its partitions.

    Standing still in a transaction (W3), it does not hold up whoever has them now.
    """
    frozen = deployment.worker("crew", at=point, hit=20, by=signal.SIGSTOP, lanes=1)
    async with running(deployment.api, frozen), deployment.driven() as drive:
        await wait_until(lambda: is_stopped(frozen), "the worker stands still")
        before = await deployment.position()
        async with deployment.worker("crew", at="never"):
            await wait_until(lambda: has_passed(deployment, before + 500), "another has its partitions")
            frozen.signal(signal.SIGCONT)
            await drive.accepts(400)
            await drive.verify()
            assert frozen.running


async def test_writers_of_the_same_customers(deployment: Deployment) -> None:
    """Each customer's touchpoints are scattered over all partitions, and six lanes of three workers apply them."""
    workers = [deployment.worker(group) for group in ("crew", "crew", "rival")]
    async with running(deployment.api, *workers), deployment.driven(scattered=3, customers=10, rate=800) as drive:
        await drive.accepts(1_500)
        assert all(worker.running for worker in workers)
        await drive.verify()


async def is_stopped(service: Service) -> bool:
    return psutil.Process(service.pid).status() == psutil.STATUS_STOPPED


async def has_passed(deployment: Deployment, position: int) -> bool:
    return await deployment.position() > position

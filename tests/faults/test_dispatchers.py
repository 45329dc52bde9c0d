"""Dispatchers that are killed with deliveries in their hands: everything arrives all the same, and nothing else.

`LIFECYCLE_TEST_HOOK_TOUCHPOINTS` and `LIFECYCLE_TEST_HOOK_KILLS` make it larger (`make verify-deliveries`).
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults.deployment import KILLED, MASTER_KEY, Deployment, running
from tests.faults.hooks import Kind
from tests.processes import Service, settings_for, wait_until
from tools.services import KafkaCluster

TOUCHPOINTS = int(os.environ.get("LIFECYCLE_TEST_HOOK_TOUCHPOINTS", "500"))
KILLS = int(os.environ.get("LIFECYCLE_TEST_HOOK_KILLS", "1"))
"""At each point."""
HITS = {"D1": 4, "D2": 10, "D3": 40, "D4": 4}
"""Late enough that each has done some work, early enough that none outlives what there is to do."""
HOOKS: list[tuple[Kind, Mapping[str, Any]]] = [
    (Kind.HEALTHY, {}),
    (Kind.HEALTHY, {"ordering": "per_customer"}),
    (Kind.HEALTHY, {"filter": {"event_types": ["stage.changed"]}}),
    (Kind.HEALTHY, {"filter": {"event_types": ["history.*"]}}),
    (Kind.HEALTHY, {"filter": {"lifecycle": ["ladder"], "move": ["back"]}}),
    (Kind.HEALTHY, {"filter": {"to": ["buyer", "owner"]}, "max_in_flight": 8}),
    (Kind.HEALTHY, {"filter": {"from": ["known"], "lifecycle": ["ladder"]}, "ordering": "per_customer"}),
    (Kind.HEALTHY, {"filter": {"lifecycle": ["lines"]}, "throttle_rate": 400}),
    (Kind.SLOW, {}),
    (Kind.SLOW, {"filter": {"event_types": ["stage.changed"], "move": ["skip"]}}),
    (Kind.SLOW, {"filter": {"lifecycle": ["lines"]}}),
    (Kind.HALF, {}),
    (Kind.HALF, {"filter": {"lifecycle": ["lines"]}}),
    (Kind.HALF, {"filter": {"move": ["back"]}, "ordering": "per_customer"}),
    (Kind.DEAD, {}),
    (Kind.DEAD, {}),
    (Kind.OVERLOADED, {}),
    (Kind.OVERLOADED, {"ordering": "per_customer"}),
    (Kind.GONE, {}),
    (Kind.GONE, {"filter": {"lifecycle": ["lines"]}}),
]


def with_hooks(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings with which webhooks may go to loopback."""
    return {
        **settings,
        "LIFECYCLE_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
        "LIFECYCLE_MASTER_KEYS": f"{MASTER_KEY.id}:{b64encode(MASTER_KEY.key).decode()}",
    }


@pytest.mark.timeout(3600)
async def test_killed_while_delivering(
    installed_postgres_url: str, kafka: KafkaCluster, topic: str, tmp_path: Path
) -> None:
    """Twenty endpoints and five dispatchers, of which four die, each at another point, and are replaced."""
    settings = with_hooks(settings_for(installed_postgres_url, kafka.bootstrap_servers, topic))
    deployment = Deployment(Service(["api"], settings, tmp_path), settings, tmp_path)
    rounds = [[deployment.dispatcher(at=point, hit=hit + n) for point, hit in HITS.items()] for n in range(KILLS)]
    survivor = deployment.dispatcher()
    async with deployment.receiving(HOOKS):
        async with running(deployment.api, deployment.worker("crew"), *rounds[0]):
            pace = {"rate": TOUCHPOINTS / (10 * KILLS), "seconds": 60 + 60 * KILLS}
            async with deployment.driven(least=TOUCHPOINTS, most=TOUCHPOINTS, customers=40, **pace) as drive:
                for services in rounds:
                    for service in services:
                        if services is not rounds[0]:
                            await service.start()
                    for service in services:
                        await wait_until(partial(is_over, service), "it has killed itself", 120)
                        assert await service.wait() == KILLED
                async with survivor:
                    figures = await drive.verify()
    assert figures["told"] < figures["changes"]
    assert figures["failed_requests"] > 0
    assert figures["repeated_requests"] > 0


async def is_over(service: Service) -> bool:
    return not service.running


async def test_one_process_killed_while_delivering(installed_sqlite_url: str, tmp_path: Path) -> None:
    """All roles on SQLite, killed and started again; ten endpoints."""
    settings = with_hooks(settings_for(installed_sqlite_url))
    program_of_one = Deployment(Service(["api"], settings, tmp_path), settings, tmp_path).dispatcher()
    everything = Service(["api", "worker", "dispatcher"], settings, tmp_path, program=program_of_one._program)
    deployment = Deployment(everything, settings, tmp_path)
    async with deployment.receiving(HOOKS[::2]), everything:
        async with deployment.driven(least=200, rate=100, customers=40) as drive:
            for _ in range(2):
                await drive.accepts(80)
                everything.kill()
                assert await everything.wait() == KILLED
                await everything.start()
            figures = await drive.verify()
    assert figures["failed_requests"] > 0

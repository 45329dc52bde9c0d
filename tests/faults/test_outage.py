"""A broker that is away while many connections are posting: told soon, at no cost in memory, and made good afterwards.

`LIFECYCLE_TEST_OUTAGE_SECONDS` makes it last longer (`make verify-outage`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from tests.faults.deployment import Deployment, running
from tests.faults.journal import read_journal
from tests.processes import Service, settings_for
from tools.services import Kafka, temporary_directory

SECONDS = float(os.environ.get("LIFECYCLE_TEST_OUTAGE_SECONDS", "8"))
LANES = 100
"""Each with a connection of its own, and a request under way or about to be sent again."""
SIZES = [1, 1, 1, 10, 100]
ANSWER_SECONDS = 5.0
"""As the driver sees it, which shares the machine with all the others."""
RETURN_SECONDS = 10.0
"""From the broker's return until touchpoints are accepted again."""
SETTLED_SECONDS = 5.5
"""From the broker's death until everything that was waiting for it has been answered."""
GROWTH = 30 * 1024 * 1024
"""Bytes by which the process may grow from then on, however long it lasts."""
WAITING = 160 * 1024 * 1024
"""Bytes that it may take for what waits until then."""
MANY = 20
"""Requests a second that there must at least have been for it to be a load."""

logger = logging.getLogger(__name__)


class Memory:
    """What a process has resident, looked at again and again: when, by the monotonic clock, and bytes."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._seen: list[tuple[float, int]] = []

    def peak(self, begin: float, end: float) -> int:
        return max(bytes_ for at, bytes_ in self._seen if begin <= at < end)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        watching = asyncio.create_task(self._watch())
        yield
        watching.cancel()

    async def _watch(self) -> None:
        while True:
            self._seen.append((time.monotonic(), self._process.memory_info().rss))
            await asyncio.sleep(0.2)


async def test_a_broker_away_at_full_load(
    installed_postgres_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "httpx")  # so that the figures can be seen
    with temporary_directory() as directory, Kafka(directory) as kafka:
        topic = f"test-{uuid.uuid4().hex}"
        kafka.create_topic(topic)
        settings = settings_for(installed_postgres_url, kafka.bootstrap_servers, topic)
        deployment = Deployment(Service(["api"], settings, tmp_path), settings, tmp_path)
        driven = deployment.driven(
            lanes=LANES, sizes=SIZES, rate=2000, scattered=0, customers=200, seconds=SECONDS + 200
        )
        async with running(deployment.api, deployment.worker("one")), driven as drive:
            memory = Memory(deployment.api.pid)
            async with memory.watched():
                began = time.monotonic()
                await drive.accepts(1500)
                await asyncio.to_thread(kafka.kill)
                fell = time.monotonic()
                await asyncio.sleep(SECONDS)
                async with deployment.api.client() as client:
                    assert (await client.get("/readyz")).status_code == 503
                    assert (await client.get("/livez")).status_code == 200
                rose = time.monotonic()
                await asyncio.to_thread(kafka.start)
                back = time.monotonic()
                await drive.accepts(1500)
            figures = await drive.verify()
        record = read_journal(drive.journal)
        assert record is not None

    during = [answer for answer in record.answers if fell < answer.at - answer.seconds and answer.at < rose]
    accepted = min(answer.at for answer in record.answers if answer.accepted and answer.at > rose)
    before = memory.peak(began, fell)
    waiting = memory.peak(fell, fell + SETTLED_SECONDS)
    settled = memory.peak(fell + SETTLED_SECONDS, rose)
    logger.info(
        "away for %.1f s: %d answers (%s), the slowest of all within %.2f s; accepted again %.2f s after the return; "
        "MiB resident: %.1f before, %.1f at most while appends waited, %.1f at most then; verified: %s",
        *(back - fell, len(during), dict(Counter(answer.status for answer in during)), record.slowest, accepted - back),
        *(before / 2**20, waiting / 2**20, settled / 2**20, figures),
    )
    assert {answer.status for answer in during} == {"503"}
    assert len(during) > MANY * SECONDS
    assert record.slowest < ANSWER_SECONDS
    assert accepted - back < RETURN_SECONDS
    assert waiting - before < WAITING
    assert settled - waiting < GROWTH
    assert figures["unknown"] > 0

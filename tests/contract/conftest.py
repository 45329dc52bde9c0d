"""The log that a test of the contract is run on: each adapter in turn, on its real parts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contract.logs import DatabaseLog, KafkaLog, Log
from tools.services import KafkaCluster


@pytest.fixture(params=["sqlite", "postgresql", "kafka"])
async def log(request: pytest.FixtureRequest) -> AsyncIterator[Log]:
    opened: Log
    if request.param == "kafka":
        kafka: KafkaCluster = request.getfixturevalue("kafka")
        opened = KafkaLog(kafka.bootstrap_servers, request.getfixturevalue("topic"))
    else:
        url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
        opened = await DatabaseLog(url).open()
    yield opened
    await opened.close()

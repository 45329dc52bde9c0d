"""The way in over each log, and over the table, which is the quicker one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lifecycle_engine.store.database import Database
from tests.contract.logs import DatabaseLog, KafkaLog, Log, until
from tests.integration.apps import Way, running
from tools.services import KafkaCluster


@pytest.fixture(params=["sqlite", "kafka"])
async def way(request: pytest.FixtureRequest, installed_sqlite_url: str) -> AsyncIterator[Way]:
    database = Database(installed_sqlite_url)
    log: Log
    if request.param == "kafka":
        kafka: KafkaCluster = request.getfixturevalue("kafka")
        log = KafkaLog(kafka.bootstrap_servers, request.getfixturevalue("topic"))
    else:
        log = DatabaseLog(installed_sqlite_url, database)
    async with running(log.new_appender(), database) as app:
        await until(app.services.appender.ready)
        yield Way(app, log)
    await database.close()


@pytest.fixture
async def sqlite_way(installed_sqlite_url: str) -> AsyncIterator[Way]:
    database = Database(installed_sqlite_url)
    log = DatabaseLog(installed_sqlite_url, database)
    async with running(log.new_appender(), database) as app:
        yield Way(app, log)
    await database.close()

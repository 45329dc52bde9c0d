"""An outage tells nobody what is untrue: timers wait for what stands in the log and is not applied yet.

The worker is away while touchpoints are appended and deadlines pass. Where the log is a table, its rows say that all of
this was hours ago; on Kafka, which stamps them by itself, it takes the seconds that it takes.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import insert, update

from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.engine.horizon import Horizon
from lifecycle_engine.engine.timers import Timers
from lifecycle_engine.engine.worker import Worker
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.log.database import DatabaseBacklog, DatabaseReader
from lifecycle_engine.log.kafka import KafkaAppender, KafkaBacklog, KafkaReader
from lifecycle_engine.log.port import Backlog, Positions, Reader, Record
from lifecycle_engine.roles.parts import KAFKA_MARGIN
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.tables import customer, log_record, wake
from tests.processes import wait_until
from tests.record import changes, message, record
from tools.services import KafkaCluster

SECOND = 1_000_000


class Log(ABC):
    """A log in which records are appended at instants of the test's choosing; `unit` is in microseconds."""

    name: str
    margin: int
    unit: int

    @abstractmethod
    async def append(self, at: int, values: Sequence[bytes]) -> None:
        """Appends records at an instant, or waits until then."""

    @abstractmethod
    async def was_applied(self, at: int) -> None:
        """What was appended and is applied now was applied at an instant, as far as the database knows."""

    @abstractmethod
    def reader(self, positions: Positions) -> Reader: ...

    @abstractmethod
    def backlog(self) -> Backlog: ...


class TableLog(Log):
    name, margin, unit = "database", 0, 1800 * SECOND

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, at: int, values: Sequence[bytes]) -> None:
        async with self._database.transaction() as connection:
            for value in values:
                await connection.execute(insert(log_record).values(key=b"c", value=value, appended_at=at))

    async def was_applied(self, at: int) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(update(customer).values(recorded_at=at, wake=at))
            await connection.execute(update(wake).values(at=at))

    def reader(self, positions: Positions) -> Reader:
        return DatabaseReader(self._database, positions, asyncio.Event())

    def backlog(self) -> Backlog:
        return DatabaseBacklog(self._database)


class KafkaLog(Log):
    margin, unit = KAFKA_MARGIN, SECOND

    def __init__(self, database: Database, kafka: KafkaCluster, topic: str) -> None:
        self._database = database
        self._servers = kafka.bootstrap_servers
        self.name = topic

    async def append(self, at: int, values: Sequence[bytes]) -> None:
        await asyncio.sleep((at - await clock(self._database)) / SECOND)
        appender = KafkaAppender(self._servers, self.name, partitions=4)
        await appender.start()
        await wait_until(appender.ready, "Kafka takes records")
        assert await appender.append([Record(value, value) for value in values]) == [True] * len(values)
        await appender.stop()

    async def was_applied(self, at: int) -> None:
        assert await clock(self._database) < at + self.unit, "it was just now"

    def reader(self, positions: Positions) -> Reader:
        return KafkaReader(self._servers, self.name, self.name, positions, lanes=2, partitions=4)

    def backlog(self) -> Backlog:
        return KafkaBacklog(self._servers, self.name, partitions=4)


async def clock(database: Database) -> int:
    async with database.transaction() as connection:
        return await database.clock(connection)


async def _is_ready(worker: Worker) -> bool:
    return await worker.ready() is True


@asynccontextmanager
async def working(database: Database, log: Log) -> AsyncIterator[Worker]:
    worker = Worker(database, Definitions(database, Cel()), log.name, quiet=0)
    worker.reader = log.reader(worker.positions)
    async with _running(worker):
        await wait_until(lambda: _is_ready(worker), "the worker reads")
        yield worker


@asynccontextmanager
async def timing(database: Database, log: Log) -> AsyncIterator[None]:
    """Timers that wait for the log, and not for quiet."""
    backlog = log.backlog()
    horizon = Horizon(database, backlog, log.name, log.margin)
    async with _running(Timers(database, Definitions(database, Cel()), horizon, quiet=0)):
        yield
    await backlog.stop()


@asynccontextmanager
async def _running(runner: Worker | Timers) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(runner.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


@pytest.fixture(params=["sqlite", "postgresql", "kafka"])
async def parts(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Database, Log]]:
    is_sqlite = request.param == "sqlite"
    url = request.getfixturevalue("sqlite_url" if is_sqlite else "postgres_url")
    unit = SECOND if request.param == "kafka" else TableLog.unit
    async with record(url, shop(unit)) as database:
        if request.param == "kafka":
            yield database, KafkaLog(database, request.getfixturevalue("kafka"), request.getfixturevalue("topic"))
        else:
            yield database, TableLog(database)


def shop(unit: int) -> dict[str, Any]:
    return {
        "lifecycle": "shop",
        "initial": "visitor",
        "stages": [{"key": key} for key in ("visitor", "buyer", "loyal", "lapsed")],
        "rules": [
            {"on": "buy", "to": "buyer"},
            {"on": "join", "to": "loyal"},
            {"after": f"{4 * unit // SECOND}s", "without": "buy", "from": ["buyer"], "to": "lapsed"},
        ],
    }


async def test_a_touchpoint_that_waits_in_the_log_is_waited_for(parts: tuple[Database, Log]) -> None:
    """`here` has joined before its deadline, `gone` is gone before the outage, `waits` lapses in it."""
    database, log = parts
    unit = log.unit

    async def told(who: str) -> list[tuple[Any, ...]]:
        found = await changes(database, who)
        return [(one["type"], one.get("to"), one["cause"]["kind"] if "cause" in one else None) for one in found]

    bought = ("stage.changed", "buyer", "touchpoint")
    lapsed = ("stage.changed", "lapsed", "timer")
    joined = ("stage.changed", "loyal", "touchpoint")
    async with working(database, log):
        present = await clock(database)
        began = present if log.margin else present - 8 * unit

        async def is_applied() -> bool:
            return [await told(who) for who in ("gone", "here", "waits")] == [[bought]] * 3

        await log.append(
            began,
            [
                message("t1", "buy", began - 3 * unit, "gone"),
                message("t2", "buy", began, "here"),
                message("t3", "buy", began, "waits"),
            ],
        )
        await wait_until(is_applied, "the purchases are applied")
    await log.was_applied(began)
    await log.append(began + 2 * unit, [message("t4", "join", began + unit, "here")])
    async with timing(database, log):

        async def has_lapsed() -> bool:
            return await told("gone") == [bought, lapsed]

        await wait_until(has_lapsed, "what was due before the outage fires")
        left = began + 4 * unit + log.margin - await clock(database)
        await asyncio.sleep(max(0, left) / SECOND + 1)
        assert [await told(who) for who in ("here", "waits")] == [[bought], [bought]]
        async with working(database, log):

            async def is_over() -> bool:
                return await told("waits") == [bought, lapsed]

            await wait_until(is_over, "what was due in the outage fires after it")
    assert await told("here") == [bought, joined]
    assert await told("gone") == [bought, lapsed]

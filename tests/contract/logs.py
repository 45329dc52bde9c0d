"""The logs that the contract is held against: each gives what a process needs, and breaks in the ways that it can."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from sqlalchemy import delete

from lifecycle_engine.log.database import DatabaseAppender, DatabaseBacklog, DatabaseReader
from lifecycle_engine.log.kafka import KafkaAppender, KafkaBacklog, KafkaReader
from lifecycle_engine.log.port import Appender, Backlog, Delivery, LogUnavailableError, Positions, Reader, Record
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.tables import log_record, metadata


class Stored(dict[int, int]):
    """Positions as a worker would store them, with its effects."""

    async def __call__(self, partitions: Sequence[int]) -> Mapping[int, int]:
        return {partition: self[partition] for partition in partitions if partition in self}

    def apply(self, deliveries: Sequence[Delivery]) -> None:
        """Compare-and-set of each partition's position; raises AssertionError for what was applied already."""
        for delivery in deliveries:
            assert delivery.position >= self.get(delivery.partition, 0), "handed out twice"
            self[delivery.partition] = delivery.position + 1


class Log(ABC):
    """One log, and processes that use it."""

    @abstractmethod
    def new_appender(self, **limits: Any) -> Appender: ...

    @abstractmethod
    def new_reader(self, positions: Positions, **options: Any) -> Reader: ...

    @abstractmethod
    def new_backlog(self) -> Backlog: ...

    @abstractmethod
    async def remove_before(self, position: int) -> None:
        """Loses the records of all partitions before a position, as retention would."""

    async def clock(self) -> int:
        """What the log stamps records by, as nearly as it can be read; microseconds since the epoch."""
        return time.time_ns() // 1000

    @asynccontextmanager
    async def appender(self, **limits: Any) -> AsyncIterator[Appender]:
        """One that has started and takes records."""
        appender = self.new_appender(**limits)
        await appender.start()
        try:
            await until(appender.ready)
            yield appender
        finally:
            await appender.stop()

    @asynccontextmanager
    async def reader(self, positions: Positions, **options: Any) -> AsyncIterator[Reader]:
        reader = self.new_reader(positions, **options)
        await reader.start()
        try:
            yield reader
        finally:
            await reader.stop()

    @asynccontextmanager
    async def backlog(self) -> AsyncIterator[Backlog]:
        backlog = self.new_backlog()
        try:
            yield backlog
        finally:
            await backlog.stop()

    async def close(self) -> None:
        """Lets go of what is shared by the processes."""
        return None


class DatabaseLog(Log):
    def __init__(self, url: str, *databases: Database) -> None:
        self.url = url
        self._databases = list(databases)
        self._appended = asyncio.Event()

    async def open(self) -> DatabaseLog:
        async with self.database().transaction() as connection:
            await connection.run_sync(lambda sync: metadata.create_all(sync, tables=[log_record]))
        return self

    def database(self) -> Database:
        """One pool for all on SQLite, where there is only one process; one for each process on PostgreSQL."""
        if not self._databases or not self.url.startswith("sqlite"):
            self._databases.append(Database(self.url))
        return self._databases[-1]

    def new_appender(self, **limits: Any) -> Appender:
        return DatabaseAppender(self.database(), self._appended, **limits)

    def new_reader(self, positions: Positions, **options: Any) -> Reader:
        return DatabaseReader(self.database(), positions, self._appended, **options)

    def new_backlog(self) -> DatabaseBacklog:
        return DatabaseBacklog(self.database())

    async def clock(self) -> int:
        async with self._databases[0].transaction() as connection:
            return await self._databases[0].clock(connection)

    async def remove_before(self, position: int) -> None:
        async with self.database().transaction() as connection:
            await connection.execute(delete(log_record).where(log_record.c.position < position))

    async def close(self) -> None:
        for database in self._databases:
            await database.close()


class KafkaLog(Log):
    def __init__(self, bootstrap_servers: str, topic: str, partitions: int = 4) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.topic = topic
        self.partitions = partitions

    def new_appender(self, **limits: Any) -> KafkaAppender:
        return KafkaAppender(self.bootstrap_servers, self.topic, partitions=self.partitions, **limits)

    def new_reader(self, positions: Positions, **options: Any) -> KafkaReader:
        options = {"partitions": self.partitions, "session_timeout": 6.0, **options}
        return KafkaReader(self.bootstrap_servers, self.topic, f"group-{self.topic}", positions, **options)

    def new_backlog(self) -> KafkaBacklog:
        return KafkaBacklog(self.bootstrap_servers, self.topic, partitions=self.partitions)

    async def remove_before(self, position: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        try:
            await admin.delete_records(
                {TopicPartition(self.topic, n): RecordsToDelete(before_offset=position) for n in range(self.partitions)}
            )
        finally:
            await admin.close()


async def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Waits until a coroutine function says yes."""
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


def records(count: int, keys: int = 10, prefix: str = "", size: int = 0) -> list[Record]:
    """Numbered records; the n-th is of customer n % keys."""
    return [
        Record(f"customer_id:{prefix}{n % keys}".encode(), f"{prefix}{n}".encode().ljust(size, b"."))
        for n in range(count)
    ]


async def append(appender: Appender, batch: Sequence[Record]) -> None:
    """Appends for sure, as a poster does that sends again what is unknown."""
    waiting = list(batch)
    while waiting:
        try:
            outcomes = await appender.append(waiting)
        except LogUnavailableError:
            await asyncio.sleep(0.05)
            continue
        waiting = [record for record, is_durable in zip(waiting, outcomes, strict=True) if not is_durable]


async def drain(reader: Reader, count: int, limit: int = 500, seconds: float = 30) -> list[Delivery]:
    """The next `count` deliveries of all lanes."""
    got: list[Delivery] = []
    async with asyncio.timeout(seconds):
        while len(got) < count:
            for lane in range(reader.lanes):
                got += await reader.read(lane, limit, 0.05)
    assert len(got) == count
    return got


async def nothing_more(reader: Reader) -> None:
    for lane in range(reader.lanes):
        assert await reader.read(lane, 500, 0.3) == []


def by_key(deliveries: Sequence[Delivery]) -> dict[bytes | None, list[bytes | None]]:
    found: dict[bytes | None, list[bytes | None]] = {}
    for delivery in deliveries:
        found.setdefault(delivery.key, []).append(delivery.value)
    return found


def by_key_as_sent(batch: Sequence[Record]) -> dict[bytes | None, list[bytes | None]]:
    found: dict[bytes | None, list[bytes | None]] = {}
    for key, value in batch:
        found.setdefault(key, []).append(value)
    return found

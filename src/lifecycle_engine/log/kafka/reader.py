"""The way out.

aiokafka begins to read before the listener of an assignment has said where: so only partitions that were placed at
their stored position are handed out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import IllegalStateError, KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from lifecycle_engine.log.kafka.connection import (
    CONNECT_SECONDS,
    RECONNECT_PAUSES,
    cancelled,
    ensure_topic,
    stop_within,
)
from lifecycle_engine.log.port import (
    Delivery,
    LogStalledError,
    LogUnavailableError,
    LostRecordsError,
    Positions,
)

_READ_AHEAD_RECORDS = 2_000
_READ_AHEAD_BYTES = 16 * 1024 * 1024
_PUMP_RECORDS = 1_000
_PUMP_MS = 100
_NO_POLL_LIMIT_MS = 2**31 - 1
_FEW = 100
"""Records: fewer of them wait for others to come along, since a transaction costs as much as dozens of touchpoints."""
_COMPANY = 0.005
"""Seconds for which they do."""

logger = logging.getLogger(__name__)


class KafkaReader:
    """Reads a topic as a member of a group; `partition % lanes` is a partition's lane.

    Each member gets neighbouring partitions, so that its lanes have the same share. One task reads ahead for all
    lanes, since a partition whose records nobody takes would hold up the fetches of the others. A few records are kept
    for 5 ms, so that those that come one by one are not applied one by one. `session_timeout`
    and `stalled_after` are in seconds; the latter is how long the log may grow without a record coming.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        group: str,
        positions: Positions,
        *,
        partitions: int,
        lanes: int = 2,
        session_timeout: float = 45.0,
        stalled_after: float = 60.0,
    ) -> None:
        self.lanes = lanes
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._group = group
        self._positions = positions
        self._new_topic_partitions = partitions
        self._session_timeout = session_timeout
        self._stalled_after = stalled_after
        self._consumer: AIOKafkaConsumer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._lanes = [_Lane() for _ in range(lanes)]
        self._failure: Exception | None = None
        self._assigned: frozenset[int] = frozenset()
        self._generation = 0
        self._unassigned_since: float | None = None
        self._fetched: dict[int, int] = {}
        self._handed_out: dict[int, int] = {}
        self._room = asyncio.Event()
        self._applied: dict[int, int] = {}
        self._uncommitted = asyncio.Event()
        self._placing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        try:
            async with asyncio.timeout(30):
                self._consumer = await self._connect()
        except TimeoutError:
            raise LogUnavailableError("Kafka has been out of reach for 30 s") from None
        self._consumer.subscribe([self._topic], listener=_Listener(self))
        self._unassigned_since = asyncio.get_running_loop().time()
        self._tasks = [
            asyncio.create_task(self._guarded(work), name=f"kafka {name}")
            for name, work in (("pump", self._pump()), ("commit", self._commit()), ("watchdog", self._watch()))
        ]

    async def read(self, lane: int, limit: int, wait: float) -> list[Delivery]:
        buffer = self._lanes[lane]
        buffer.idle.set()
        if not buffer.deliveries and self._failure is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await buffer.filled.wait()
        if 0 < len(buffer.deliveries) < min(limit, _FEW) and self._failure is None:
            await asyncio.sleep(_COMPANY)
        if self._failure is not None:
            raise self._failure
        deliveries = buffer.take(limit)
        for delivery in deliveries:
            self._handed_out[delivery.partition] = delivery.position + 1
        self._room.set()
        return deliveries

    def rewind(self, partition: int, position: int) -> None:
        if partition in self._fetched:
            self._displace([partition])
            self._place(partition, position)

    async def reload(self, partitions: Sequence[int]) -> None:
        partitions = [partition for partition in partitions if partition in self._assigned]
        self._displace(partitions)
        await self._place_as_stored(partitions, self._generation)

    async def applied(self, positions: Mapping[int, int]) -> None:
        self._applied.update(positions)
        self._uncommitted.set()

    async def lag(self) -> int:
        ends = await self._ends(list(self._handed_out))
        return sum(
            max(0, ends[partition] - next_) for partition, next_ in self._handed_out.items() if partition in ends
        )

    async def stop(self) -> None:
        for lane in self._lanes:
            lane.idle.set()
        await cancelled([*self._tasks, *self._placing])
        if self._consumer is not None:
            await stop_within(self._consumer.stop(), self._consumer._client, 4.0)

    async def _connect(self) -> AIOKafkaConsumer:
        tries = 0
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap_servers,
                group_id=self._group,
                enable_auto_commit=False,
                auto_offset_reset="none",
                session_timeout_ms=int(self._session_timeout * 1000),
                heartbeat_interval_ms=int(min(3.0, self._session_timeout / 5) * 1000),
                max_poll_interval_ms=_NO_POLL_LIMIT_MS,  # the watchdog below judges by progress
                partition_assignment_strategy=(RangePartitionAssignor,),
            )
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await ensure_topic(self._bootstrap_servers, self._topic, self._new_topic_partitions)
                    await consumer.start()
                    return consumer
            except (TimeoutError, KafkaError, OSError) as error:
                logger.log(logging.DEBUG if tries else logging.WARNING, "Kafka is out of reach: %r", error)
                await stop_within(consumer.stop(), consumer._client, 1.0)
            except BaseException:
                await stop_within(consumer.stop(), consumer._client, 1.0)
                raise
            await asyncio.sleep(RECONNECT_PAUSES[min(tries, len(RECONNECT_PAUSES) - 1)])
            tries += 1

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """A failure here is raised to whoever reads: the process must not stay up without it."""
        try:
            await work
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            logger.error("reading the log failed: %r", error)
            self._failure = error
        for lane in self._lanes:
            lane.filled.set()

    async def _pump(self) -> None:
        assert self._consumer is not None
        while True:
            wanted = [p for p in self._fetched if not self._lanes[p % self.lanes].is_full]
            if not wanted:
                self._room.clear()
                await self._room.wait()
                continue
            try:
                got = await self._consumer.getmany(
                    *[TopicPartition(self._topic, partition) for partition in wanted],
                    timeout_ms=_PUMP_MS,
                    max_records=_PUMP_RECORDS,
                )
            except NoOffsetForPartitionError:
                continue  # assigned, and not placed yet
            except OffsetOutOfRangeError as error:
                positions = {partition.partition: position for partition, position in error.args[0].items()}
                if any(self._fetched.get(partition) == position for partition, position in positions.items()):
                    raise LostRecordsError(
                        f"topic {self._topic} has nothing at the stored positions {positions} (partition: position): "
                        "its retention has passed them, or it is another topic than the one that they were stored for"
                    ) from None
                continue
            for partition, records in got.items():
                self._buffer(partition.partition, records)

    def _buffer(self, partition: int, records: Sequence[Any]) -> None:
        if partition not in self._fetched:
            return
        begins = [self._fetched[partition], *(record.offset + 1 for record in records)]
        self._fetched[partition] = begins.pop()
        self._lanes[partition % self.lanes].put(
            [
                Delivery(partition, follows, record.offset, record.timestamp * 1000, record.key, record.value)
                for follows, record in zip(begins, records, strict=True)
            ]
        )

    def _displace(self, partitions: Collection[int]) -> None:
        """Forgets what was fetched of these partitions and not handed out; nothing more comes until they are placed."""
        for partition in partitions:
            self._fetched.pop(partition, None)
            self._handed_out.pop(partition, None)
        for lane in self._lanes:
            lane.drop(partitions)

    def _place(self, partition: int, position: int) -> None:
        assert self._consumer is not None
        with suppress(IllegalStateError):  # taken away in this very moment
            self._consumer.seek(TopicPartition(self._topic, partition), position)
            self._fetched[partition] = self._handed_out[partition] = position
            self._room.set()

    async def _place_as_stored(self, partitions: Sequence[int], generation: int) -> None:
        if not partitions:
            return
        stored = await self._positions(sorted(partitions))
        unread = [partition for partition in partitions if partition not in stored]
        first = await self._first(unread) if unread else {}
        if generation == self._generation:
            for partition in partitions:
                self._place(partition, stored.get(partition, first.get(partition, 0)))

    async def _first(self, partitions: Sequence[int]) -> dict[int, int]:
        assert self._consumer is not None
        while True:
            try:
                found = await self._consumer.beginning_offsets([TopicPartition(self._topic, p) for p in partitions])
                return {partition.partition: position for partition, position in found.items()}
            except KafkaError as error:
                logger.warning("Kafka did not tell where its partitions begin: %r", error)
                await asyncio.sleep(RECONNECT_PAUSES[-1])

    async def _ends(self, partitions: Sequence[int]) -> dict[int, int]:
        assert self._consumer is not None
        try:
            async with asyncio.timeout(4.5):
                ends = await self._consumer.end_offsets([TopicPartition(self._topic, p) for p in partitions])
        except (TimeoutError, KafkaError, OSError):
            raise LogUnavailableError("Kafka does not answer") from None
        return {partition.partition: end for partition, end in ends.items()}

    async def revoked(self) -> None:
        """What is buffered is another's now. Waits a little for batches at hand, so that their positions are stored."""
        self._generation += 1
        self._unassigned_since = asyncio.get_running_loop().time()
        self._assigned = frozenset()
        self._displace(list(self._fetched))
        with suppress(TimeoutError):
            async with asyncio.timeout(min(10.0, self._session_timeout / 2)):
                for lane in self._lanes:
                    await lane.idle.wait()

    def assigned(self, partitions: Iterable[int]) -> None:
        """Returns at once: no heartbeat is sent while the listener runs, and the database may be away for long."""
        self._generation += 1
        self._unassigned_since = None
        self._assigned = frozenset(partitions)
        self._displace(list(self._fetched))
        task = asyncio.create_task(
            self._guarded(self._place_as_stored(sorted(self._assigned), self._generation)), name="kafka positions"
        )
        self._placing.add(task)
        task.add_done_callback(self._placing.discard)

    async def _commit(self) -> None:
        """Commits to Kafka now and then; for lag figures only, so that no failure matters."""
        assert self._consumer is not None
        while True:
            await self._uncommitted.wait()
            self._uncommitted.clear()
            offsets = {
                TopicPartition(self._topic, p): next_ for p, next_ in self._applied.items() if p in self._assigned
            }
            self._applied.clear()
            try:
                if offsets:
                    async with asyncio.timeout(5):
                        await self._consumer.commit(offsets)
            except (TimeoutError, KafkaError, OSError) as error:
                logger.debug("the committed offsets, for lag figures only, were not updated: %r", error)
            await asyncio.sleep(1)

    async def _watch(self) -> None:
        """Fails where a partition grows and yields nothing, which aiokafka gives no sign of (issues 703, 847, 1154)."""
        loop = asyncio.get_running_loop()
        standing: dict[int, tuple[int, float]] = {}
        while True:
            await asyncio.sleep(self._stalled_after / 6)
            try:
                ends = await self._ends(list(self._fetched))
            except LogUnavailableError:
                standing.clear()
                continue
            now = loop.time()
            waiting = {p: at for p, at in self._fetched.items() if ends.get(p, 0) > at and self._wants(p)}
            standing = {
                p: standing[p] if p in standing and standing[p][0] == at else (at, now) for p, at in waiting.items()
            }
            for partition, (position, since) in standing.items():
                if now - since >= self._stalled_after:
                    raise LogStalledError(
                        f"partition {partition} has had records after position {position} for {now - since:.0f} s, "
                        "and none came"
                    )
            lost = self._unassigned_since
            if lost is not None and now - lost >= self._stalled_after + 2 * self._session_timeout:
                raise LogStalledError(f"the group {self._group} has assigned nothing for {now - lost:.0f} s")

    def _wants(self, partition: int) -> bool:
        return not self._lanes[partition % self.lanes].is_full


class _Lane:
    """What was fetched for one lane and not handed out. `idle` unless a batch that was handed out is at work."""

    def __init__(self) -> None:
        self.deliveries: deque[Delivery] = deque()
        self.filled = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self.deliveries) >= _READ_AHEAD_RECORDS or self._bytes >= _READ_AHEAD_BYTES

    def put(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            self.deliveries.append(delivery)
            self._bytes += len(delivery.value or b"")
        self.filled.set()

    def take(self, limit: int) -> list[Delivery]:
        taken = [self.deliveries.popleft() for _ in range(min(limit, len(self.deliveries)))]
        self._bytes -= sum(len(delivery.value or b"") for delivery in taken)
        if taken:
            self.idle.clear()
        if not self.deliveries:
            self.filled.clear()
        return taken

    def drop(self, partitions: Collection[int]) -> None:
        self.deliveries = deque(delivery for delivery in self.deliveries if delivery.partition not in partitions)
        self._bytes = sum(len(delivery.value or b"") for delivery in self.deliveries)
        if not self.deliveries:
            self.filled.clear()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka only logs what a listener raises: neither of these does."""

    def __init__(self, reader: KafkaReader) -> None:
        self._reader = reader

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        await self._reader.revoked()

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._reader.assigned(partition.partition for partition in assigned)

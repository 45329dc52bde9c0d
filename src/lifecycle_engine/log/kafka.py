"""The log on Apache Kafka.

What aiokafka 0.14 does not do by itself is done here. Its idempotent batches never expire, and one that was given up
or refused leaves the producer unable to send to that partition again: so each append has its own deadline, and a
producer that has missed one or failed is replaced. It sets no bound on what waits in memory: so appends are counted.
It begins to read before the listener of an assignment has said where: so only partitions that were placed at their
stored position are handed out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
    for_code,
)
from aiokafka.partitioner import murmur2

from lifecycle_engine.log.port import (
    Delivery,
    LogStalledError,
    LogUnavailableError,
    LostRecordsError,
    Positions,
    Record,
)

DEADLINE = 4.5
"""Seconds after which an append that was not acknowledged is told to be unknown."""
LINGER = 0.003
"""Seconds that the first record of a batch waits for others, at most."""
BATCH_BYTES = 256 * 1024
MAX_RECORD_BYTES = 768 * 1024
"""The broker refuses more than 1 MiB (max.message.bytes) and, refused once, so would be all later batches."""
MAX_WAITING_RECORDS = 50_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
RETENTION_MS = 7 * 86_400_000
"""Of a topic that is created here: the table is the record, the topic is not."""

_CONNECT_SECONDS = 10.0
_RECONNECT_PAUSES = (0.1, 0.2, 0.5, 1.0)
_READ_AHEAD_RECORDS = 2_000
_READ_AHEAD_BYTES = 16 * 1024 * 1024
_PUMP_RECORDS = 1_000
_PUMP_MS = 100
_NO_POLL_LIMIT_MS = 2**31 - 1

logger = logging.getLogger(__name__)

_hash_of_key = lru_cache(1 << 17)(murmur2)


class KafkaAppender:
    """Appends to a topic, which it creates with `partitions` partitions where it is missing.

    Records are batched by partition here and given to the producer a batch at a time: cheaper than one by one, and a
    batch whose deadline passes before its turn has come was certainly not appended.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        *,
        partitions: int,
        deadline: float = DEADLINE,
        max_waiting_records: int = MAX_WAITING_RECORDS,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._new_topic_partitions = partitions
        self._deadline = deadline
        self._max_records = max_waiting_records
        self._max_bytes = max_waiting_bytes
        self._waiting_records = 0
        self._waiting_bytes = 0
        self._connection: _Connection | None = None
        self._partitions: list[_PartitionQueue] = []
        self._task: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def start(self) -> None:
        self._task = asyncio.create_task(self._stay_connected(), name="kafka producer")

    async def append(self, records: Sequence[Record]) -> list[bool]:
        if self._stopping or not self._partitions:
            raise LogUnavailableError("Kafka is out of reach")
        size = 0
        for record in records:
            if len(record.value) > MAX_RECORD_BYTES:
                raise ValueError(f"a record has {len(record.value)} bytes; at most {MAX_RECORD_BYTES} can be appended")
            size += len(record.value)
        if self._waiting_records + len(records) > self._max_records or self._waiting_bytes + size > self._max_bytes:
            raise LogUnavailableError("too many appends are waiting for Kafka")
        self._waiting_records += len(records)
        self._waiting_bytes += size
        try:
            outcomes = await self._outcomes(records)
        finally:
            self._waiting_records -= len(records)
            self._waiting_bytes -= size
        if records and all(outcome is None for outcome in outcomes):
            raise LogUnavailableError("Kafka does not answer")
        return [outcome is True for outcome in outcomes]

    async def _outcomes(self, records: Sequence[Record]) -> list[bool | None]:
        partitions = self._partitions
        batches: list[_Batch | None] = []
        waiters: dict[_Batch | None, asyncio.Future[bool | None]] = {}
        for record in records:
            batch = partitions[(_hash_of_key(record.key) & 0x7FFFFFFF) % len(partitions)].put(record)
            batches.append(batch)
            if batch is not None and batch not in waiters:
                waiters[batch] = batch.waiter()
        for waiter in waiters.values():
            await waiter
        return [None if batch is None else waiters[batch].result() for batch in batches]

    async def ready(self) -> bool:
        connection = self._connection
        if connection is None or connection.broken.is_set() or all(queue.is_stuck for queue in self._partitions):
            return False
        # Metadata is what any broker that is alive can give; a frozen one keeps the connection but not its word.
        update = connection.producer.client.force_metadata_update()
        done, _ = await asyncio.wait([update], timeout=0.9)
        return bool(done) and update.exception() is None and bool(update.result())

    async def ends(self) -> dict[int, int]:
        return {partition: end for partition, (_, end) in (await self.bounds()).items()}

    async def bounds(self) -> dict[int, tuple[int, int]]:
        if not self._partitions:
            raise LogUnavailableError("Kafka is out of reach")
        try:
            async with asyncio.timeout(4.5):
                return await self._bounds()
        except (TimeoutError, KafkaError, OSError) as error:
            raise LogUnavailableError(f"Kafka does not answer: {error!r}") from None

    async def _bounds(self) -> dict[int, tuple[int, int]]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap_servers, request_timeout_ms=4_000)
        try:
            await consumer.start()
            partitions = [TopicPartition(self._topic, queue.partition) for queue in self._partitions]
            begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
            return {partition.partition: (begins[partition], ends[partition]) for partition in partitions}
        finally:
            await _stop_within(consumer.stop(), consumer._client, 1.0)

    async def stop(self) -> None:
        self._stopping = True
        waiters = [waiter for queue in self._partitions for waiter in queue.waiters()]
        if waiters:
            await asyncio.wait(waiters, timeout=2.5)
        tasks = [task for task in (self._task, *(queue.task for queue in self._partitions)) if task is not None]
        await _cancelled(tasks)
        for queue in self._partitions:
            queue.give_up()
        if self._connection is not None:
            self._retire(self._connection)
        if self._closing:
            await asyncio.wait(self._closing, timeout=2.5)

    async def _stay_connected(self) -> None:
        while True:
            connection = await self._connect()
            before, self._connection = self._connection, connection
            while len(self._partitions) < connection.partitions:
                self._partitions.append(_PartitionQueue(self._topic, len(self._partitions), self._deadline, connection))
            if before is not None:
                logger.warning("the Kafka producer was replaced")
                for queue in self._partitions:
                    queue.use(connection)
                before.replaced.set_result(None)
                self._retire(before)
            await connection.broken.wait()

    async def _connect(self) -> _Connection:
        tries = 0
        while True:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap_servers,
                enable_idempotence=True,
                acks="all",
                compression_type="lz4",
                max_batch_size=BATCH_BYTES + MAX_RECORD_BYTES,
                max_request_size=BATCH_BYTES + MAX_RECORD_BYTES,
            )
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await _ensure_topic(self._bootstrap_servers, self._topic, self._new_topic_partitions)
                    await producer.start()
                    return _Connection(producer, len(await producer.partitions_for(self._topic)))
            except Exception as error:
                logger.log(logging.DEBUG if tries else logging.WARNING, "Kafka is out of reach: %r", error)
                await _close_producer(producer, 0.0)
            except BaseException:
                await _close_producer(producer, 0.0)
                raise
            await asyncio.sleep(_RECONNECT_PAUSES[min(tries, len(_RECONNECT_PAUSES) - 1)])
            tries += 1

    def _retire(self, connection: _Connection) -> None:
        task = asyncio.create_task(_close_producer(connection.producer, 1.5))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Connection:
    """A producer that has connected. `broken` is set once it has to be replaced, `replaced` is done when it was."""

    def __init__(self, producer: AIOKafkaProducer, partitions: int) -> None:
        self.producer = producer
        self.partitions = partitions
        self.broken = asyncio.Event()
        self.replaced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Ended or cancelled, it would take batches and never send them (aiokafka issue 1039).
        self._sender: asyncio.Task[None] = producer._sender.sender_task
        self._sender.add_done_callback(lambda _: self.broken.set())

    @property
    def is_dead(self) -> bool:
        return self._sender.done()


class _Batch:
    """Records of one partition that are sent together.

    Settled once: True (durable), False (unknown) or None (never sent, so certainly not appended).
    """

    def __init__(self, now: float) -> None:
        # At ticks that all partitions share, so that their batches go in one request.
        self.due_at = (now // LINGER + 1) * LINGER
        self.records: list[Record] = []
        self.bytes = 0
        self.is_sent = False
        self.is_settled = False
        self.deadline: asyncio.TimerHandle
        self._waiters: list[asyncio.Future[bool | None]] = []

    def waiter(self) -> asyncio.Future[bool | None]:
        """Of the outcome; each who waits has one of its own, so that it can be cancelled alone."""
        waiter: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def settle(self, outcome: bool | None) -> None:
        if self.is_settled:
            return
        self.is_settled = True
        self.deadline.cancel()
        self.records = []
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(outcome)

    def give_up(self) -> None:
        self.settle(False if self.is_sent else None)


class _PartitionQueue:
    """The batches of one partition, sent one at a time, so that they arrive in their order.

    `is_stuck` from the moment that a deadline passed until the partition answers or the producer has been replaced:
    what comes meanwhile is turned away at once, and memory stays flat.
    """

    def __init__(self, topic: str, partition: int, deadline: float, connection: _Connection) -> None:
        self.partition = partition
        self.is_stuck = False
        self._topic = topic
        self._deadline = deadline
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Batch] = deque()
        self._filled = asyncio.Event()
        self._sending: _Batch | None = None
        self.task = asyncio.create_task(self._run(), name=f"kafka partition {partition}")

    def waiters(self) -> list[asyncio.Future[bool | None]]:
        """Of the outcomes of everything that is queued or on its way."""
        return [batch.waiter() for batch in (self._sending, *self._queue) if batch is not None and not batch.is_settled]

    def put(self, record: Record) -> _Batch | None:
        """The batch that the record will go with, or None where the partition takes nothing now."""
        if self.is_stuck:
            return None
        size = len(record.value) + len(record.key)
        if self._queue and self._queue[-1].bytes + size <= BATCH_BYTES:
            batch = self._queue[-1]
        else:
            batch = _Batch(self._loop.time())
            batch.deadline = self._loop.call_later(self._deadline, self._expire, batch)
            self._queue.append(batch)
            self._filled.set()
        batch.records.append(record)
        batch.bytes += size
        return batch

    def use(self, connection: _Connection) -> None:
        self._connection = connection
        self.is_stuck = False

    def give_up(self) -> None:
        if self._sending is not None:
            self._sending.give_up()
        while self._queue:
            self._queue.popleft().give_up()

    def _expire(self, batch: _Batch) -> None:
        if not batch.is_sent:
            with suppress(ValueError):
                self._queue.remove(batch)
        batch.give_up()
        self.is_stuck = True
        self._connection.broken.set()

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            if self._connection.is_dead:
                await asyncio.wait([self._connection.replaced])
            if len(self._queue) == 1 and self._loop.time() < self._queue[0].due_at:
                await asyncio.sleep(self._queue[0].due_at - self._loop.time())
            self._sending = self._queue.popleft() if self._queue else None
            if not self._queue:
                self._filled.clear()
            if self._sending is not None:
                await self._send(self._sending, self._connection)
                self._sending = None

    async def _send(self, batch: _Batch, connection: _Connection) -> None:
        builder = connection.producer.create_batch()
        for key, value in batch.records:
            builder.append(timestamp=None, key=key, value=value)
        batch.is_sent = True
        try:
            sent = await connection.producer.send_batch(builder, self._topic, partition=self.partition)
            sent.add_done_callback(_looked_at)
            await asyncio.wait([sent, connection.replaced], return_when=asyncio.FIRST_COMPLETED)
            if sent.done():
                await sent
                batch.settle(True)
                self.is_stuck = False
        except Exception as error:
            # Whatever it was, the batch may have used up its sequence: the next one would be out of order.
            logger.warning("Kafka did not take a batch: %r", error)
            batch.give_up()
            connection.broken.set()
            await asyncio.wait([connection.replaced])


def _looked_at(future: asyncio.Future[Any]) -> None:
    """Takes note of an exception that perhaps nobody waits for any more."""
    if not future.cancelled():
        future.exception()


class KafkaReader:
    """Reads a topic as a member of a group; `partition % lanes` is a partition's lane.

    Each member gets neighbouring partitions, so that its lanes have the same share. One task reads ahead for all
    lanes, since a partition whose records nobody takes would hold up the fetches of the others. `session_timeout`
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
        await _cancelled([*self._tasks, *self._placing])
        if self._consumer is not None:
            await _stop_within(self._consumer.stop(), self._consumer._client, 4.0)

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
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await _ensure_topic(self._bootstrap_servers, self._topic, self._new_topic_partitions)
                    await consumer.start()
                    return consumer
            except (TimeoutError, KafkaError, OSError) as error:
                logger.log(logging.DEBUG if tries else logging.WARNING, "Kafka is out of reach: %r", error)
                await _stop_within(consumer.stop(), consumer._client, 1.0)
            except BaseException:
                await _stop_within(consumer.stop(), consumer._client, 1.0)
                raise
            await asyncio.sleep(_RECONNECT_PAUSES[min(tries, len(_RECONNECT_PAUSES) - 1)])
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
                await asyncio.sleep(_RECONNECT_PAUSES[-1])

    async def _ends(self, partitions: Sequence[int]) -> dict[int, int]:
        assert self._consumer is not None
        try:
            async with asyncio.timeout(4.5):
                ends = await self._consumer.end_offsets([TopicPartition(self._topic, p) for p in partitions])
        except (TimeoutError, KafkaError, OSError) as error:
            raise LogUnavailableError(f"Kafka does not answer: {error!r}") from None
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


async def _ensure_topic(bootstrap_servers: str, topic: str, partitions: int) -> None:
    """Creates the topic where it is missing, as safe as the number of brokers allows."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        await admin.start()
        if topic in await admin.list_topics():
            return
        replicas = min(3, len((await admin.describe_cluster())["brokers"]))
        settings = {
            "message.timestamp.type": "LogAppendTime",
            "cleanup.policy": "delete",
            "retention.ms": str(RETENTION_MS),
            "min.insync.replicas": "2" if replicas == 3 else "1",
        }
        created = await admin.create_topics([NewTopic(topic, partitions, replicas, topic_configs=settings)])
        for _, code, *detail in created.topic_errors:
            if code and for_code(code) is not TopicAlreadyExistsError:
                raise for_code(code)(f"topic {topic} could not be created: {detail}")
    finally:
        await admin.close()


async def _close_producer(producer: AIOKafkaProducer, patience: float) -> None:
    """Closes a producer; after `patience` seconds by force, since it would wait for its batches for ever."""
    stopping = asyncio.ensure_future(producer.stop())
    stopping.add_done_callback(_looked_at)
    done, _ = await asyncio.wait([stopping], timeout=patience)
    if not done:
        sender = producer._sender.sender_task
        for _ in range(3):  # cancelled once, it waits for its requests; cancelled again, they are cancelled too
            await _cancelled([stopping, *([sender] if sender is not None else ())], 0.2)
        producer._message_accumulator.fail_all(KafkaConnectionError("the producer was given up"))
    await _stop_within(producer.client.close(), None, 1.0)


async def _stop_within(stopping: Coroutine[Any, Any, None], client: Any, seconds: float) -> None:
    """Bounds a `stop()` that may wait for ever, or be cancelled by itself, when the broker is away (issue 983)."""
    task = asyncio.ensure_future(stopping)
    task.add_done_callback(_looked_at)
    done, _ = await asyncio.wait([task], timeout=seconds)
    if not done:
        await _cancelled([task])
    if client is not None and (not done or task.cancelled() or task.exception() is not None):
        await _stop_within(client.close(), None, 0.5)


async def _cancelled(tasks: Sequence[asyncio.Future[Any]], seconds: float = 1.0) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)

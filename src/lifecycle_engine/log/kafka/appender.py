"""The way in.

What aiokafka 0.14 does not do by itself is done here. Its idempotent batches never expire, and one that was given up
or refused leaves the producer unable to send to that partition again: so each append has its own deadline, and a
producer that has missed one or failed is replaced. It sets no bound on what waits in memory: so appends are counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.partitioner import murmur2

from lifecycle_engine.log.kafka.connection import (
    CONNECT_SECONDS,
    RECONNECT_PAUSES,
    cancelled,
    ensure_topic,
    looked_at,
    stop_within,
)
from lifecycle_engine.log.port import LogUnavailableError, Record

DEADLINE = 4.0
"""Seconds after which an append that was not acknowledged is told to be unknown; the answer is promised within 5."""
LINGER = 0.003
"""Seconds that the first record of a batch waits for others, at most."""
BATCH_BYTES = 256 * 1024
MAX_RECORD_BYTES = 768 * 1024
"""The broker refuses more than 1 MiB (max.message.bytes) and, refused once, so would be all later batches."""
MAX_WAITING_RECORDS = 50_000
MAX_WAITING_BYTES = 64 * 1024 * 1024

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
        if len(records) == 1:
            # What most requests bring, for which all the rest would only be in the way.
            alone = self._put(records[0])
            return [None if alone is None else await alone.waiter()]
        batches: list[_Batch | None] = []
        waiters: dict[_Batch | None, asyncio.Future[bool | None]] = {}
        for record in records:
            batch = self._put(record)
            batches.append(batch)
            if batch is not None and batch not in waiters:
                waiters[batch] = batch.waiter()
        for waiter in waiters.values():
            await waiter
        return [None if batch is None else waiters[batch].result() for batch in batches]

    def _put(self, record: Record) -> _Batch | None:
        """The batch that a record will go with; None where its partition takes nothing now."""
        hashed: int = _hash_of_key(record.key)
        return self._partitions[(hashed & 0x7FFFFFFF) % len(self._partitions)].put(record)

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
        except (TimeoutError, KafkaError, OSError):
            raise LogUnavailableError("Kafka does not answer") from None

    async def reached(self) -> dict[int, int]:
        return {queue.partition: queue.reached for queue in self._partitions if queue.reached}

    async def _bounds(self) -> dict[int, tuple[int, int]]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap_servers, request_timeout_ms=4_000)
        try:
            await consumer.start()
            partitions = [TopicPartition(self._topic, queue.partition) for queue in self._partitions]
            begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
            return {partition.partition: (begins[partition], ends[partition]) for partition in partitions}
        finally:
            await stop_within(consumer.stop(), consumer._client, 1.0)

    async def stop(self) -> None:
        self._stopping = True
        waiters = [waiter for queue in self._partitions for waiter in queue.waiters()]
        if waiters:
            await asyncio.wait(waiters, timeout=2.5)
        tasks = [task for task in (self._task, *(queue.task for queue in self._partitions)) if task is not None]
        await cancelled(tasks)
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
                async with asyncio.timeout(CONNECT_SECONDS):
                    await ensure_topic(self._bootstrap_servers, self._topic, self._new_topic_partitions)
                    await producer.start()
                    return _Connection(producer, len(await producer.partitions_for(self._topic)))
            except Exception as error:
                logger.log(logging.DEBUG if tries else logging.WARNING, "Kafka is out of reach: %r", error)
                await _close_producer(producer, 0.0)
            except BaseException:
                await _close_producer(producer, 0.0)
                raise
            await asyncio.sleep(RECONNECT_PAUSES[min(tries, len(RECONNECT_PAUSES) - 1)])
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

    `reached` is the position after the last record that the broker has acknowledged.
    `is_stuck` from the moment that a deadline passed until the partition answers or the producer has been replaced:
    what comes meanwhile is turned away at once, and memory stays flat.
    """

    def __init__(self, topic: str, partition: int, deadline: float, connection: _Connection) -> None:
        self.partition = partition
        self.is_stuck = False
        self.reached = 0
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
            sent.add_done_callback(looked_at)
            await asyncio.wait([sent, connection.replaced], return_when=asyncio.FIRST_COMPLETED)
            if sent.done():
                self.reached = max(self.reached, (await sent).offset + len(batch.records))
                batch.settle(True)
                self.is_stuck = False
        except Exception as error:
            # Whatever it was, the batch may have used up its sequence: the next one would be out of order.
            logger.warning("Kafka did not take a batch: %r", error)
            batch.give_up()
            connection.broken.set()
            await asyncio.wait([connection.replaced])


async def _close_producer(producer: AIOKafkaProducer, patience: float) -> None:
    """Closes a producer; after `patience` seconds by force, since it would wait for its batches for ever."""
    stopping = asyncio.ensure_future(producer.stop())
    stopping.add_done_callback(looked_at)
    done, _ = await asyncio.wait([stopping], timeout=patience)
    if not done:
        sender = producer._sender.sender_task
        for _ in range(3):  # cancelled once, it waits for its requests; cancelled again, they are cancelled too
            await cancelled([stopping, *([sender] if sender is not None else ())], 0.2)
        producer._message_accumulator.fail_all(KafkaConnectionError("the producer was given up"))
    await stop_within(producer.client.close(), None, 1.0)

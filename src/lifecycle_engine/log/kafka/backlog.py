"""What is between the way in and the way out: how old the first records are that were not applied yet.

aiokafka's consumer fetches in the background whatever is assigned to it. Here all partitions stay paused, and each is
let go for the one fetch that brings its first record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, UnknownTopicOrPartitionError

from lifecycle_engine.log.kafka.connection import ensure_topic, stop_within
from lifecycle_engine.log.port import LogUnavailableError

_SECONDS = 4.0
_FETCH_BYTES = 16 * 1024
"""Of each partition; the broker gives a whole batch in any case."""
_FETCH_MS = 10
"""A broker that waits for records answers nothing else on that connection."""
_LOOK_MS = 50
"""Until it is seen that a fetch brought no record."""


class KafkaBacklog:
    """Asks a topic, which it creates with `partitions` partitions where it is missing; belongs to no group.

    A consumer that has failed is replaced when the next question comes.
    """

    def __init__(self, bootstrap_servers: str, topic: str, *, partitions: int) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._new_topic_partitions = partitions
        self._consumer: AIOKafkaConsumer | None = None
        self._turn = asyncio.Lock()
        self._gaps: dict[int, range] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def oldest(self, positions: Mapping[int, int]) -> int | None:
        try:
            async with asyncio.timeout(_SECONDS), self._turn:
                try:
                    return await self._oldest(self._consumer or await self._connect(), positions)
                except BaseException:
                    self._retire()
                    raise
        except (TimeoutError, KafkaError, OSError) as error:
            raise LogUnavailableError(f"Kafka does not tell what was appended: {error!r}") from None

    async def stop(self) -> None:
        self._retire()
        if self._closing:
            await asyncio.wait(self._closing, timeout=4.5)

    async def _connect(self) -> AIOKafkaConsumer:
        await ensure_topic(self._bootstrap_servers, self._topic, self._new_topic_partitions)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_FETCH_MS,
            max_partition_fetch_bytes=_FETCH_BYTES,
            request_timeout_ms=int(_SECONDS * 1000),
        )
        await self._consumer.start()
        return self._consumer

    def _retire(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._gaps.clear()
        if consumer is not None:
            task = asyncio.create_task(stop_within(consumer.stop(), consumer._client, 2.0))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _oldest(self, consumer: AIOKafkaConsumer, positions: Mapping[int, int]) -> int | None:
        ends = await self._ends(consumer)
        lagging = {}
        for partition, end in ends.items():
            begin = self._begin(partition.partition, positions.get(partition.partition, 0), end)
            if begin < end:
                lagging[partition] = begin
        return await self._first(consumer, lagging, ends) if lagging else None

    async def _ends(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        # The partitions are asked for each time: one that was added meanwhile may have records already.
        if not await consumer._client.force_metadata_update():
            raise KafkaConnectionError("no broker tells which partitions there are")
        partitions = [TopicPartition(self._topic, p) for p in consumer.partitions_for_topic(self._topic) or ()]
        if not partitions:
            raise UnknownTopicOrPartitionError(self._topic)
        if consumer.assignment() != set(partitions):
            consumer.assign(partitions)
            consumer.pause(*partitions)
            for partition in partitions:
                consumer.seek(partition, 0)
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        return ends

    def _begin(self, partition: int, position: int, end: int) -> int:
        gap = self._gaps.get(partition, range(0))
        if position in gap and gap.stop <= end:
            return gap.stop
        return position if position <= end else 0

    async def _first(
        self, consumer: AIOKafkaConsumer, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> int | None:
        """The earliest of the first records of these partitions, if any has one before its end."""
        found: list[int] = []
        waiting = set(begins)
        for partition, begin in begins.items():
            consumer.seek(partition, begin)
        consumer.resume(*begins)
        while waiting:
            got = await consumer.getmany(*waiting, timeout_ms=_LOOK_MS, max_records=1)
            for partition in list(waiting):
                if records := got.get(partition):
                    found.append(records[0].timestamp * 1000)
                elif (reached := await consumer.position(partition)) >= ends[partition]:
                    # Only what is no record: marks of transactions, or what retention has removed.
                    self._gaps[partition.partition] = range(begins[partition], reached)
                else:
                    continue
                waiting.discard(partition)
                consumer.pause(partition)
                consumer.seek(partition, begins[partition])  # forgets what else was fetched
        return min(found, default=None)

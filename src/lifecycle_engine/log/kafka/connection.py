"""Reaching Kafka and leaving it: the topic made where it is missing, and every wait of the client bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

CONNECT_SECONDS = 10.0
RECONNECT_PAUSES = (0.1, 0.2, 0.5, 1.0)
"""Seconds between tries; the last one repeats."""
RETENTION_MS = 7 * 86_400_000
"""Of a topic that is created here: the table is the record, the topic is not."""


async def ensure_topic(bootstrap_servers: str, topic: str, partitions: int) -> None:
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


async def stop_within(stopping: Coroutine[Any, Any, None], client: Any, seconds: float) -> None:
    """Bounds a `stop()` that may wait for ever, or be cancelled by itself, when the broker is away (issue 983)."""
    task = asyncio.ensure_future(stopping)
    task.add_done_callback(looked_at)
    done, _ = await asyncio.wait([task], timeout=seconds)
    if not done:
        await cancelled([task])
    if client is not None and (not done or task.cancelled() or task.exception() is not None):
        await stop_within(client.close(), None, 0.5)


async def cancelled(tasks: Sequence[asyncio.Future[Any]], seconds: float = 1.0) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


def looked_at(future: asyncio.Future[Any]) -> None:
    """Takes note of an exception that perhaps nobody waits for any more."""
    if not future.cancelled():
        future.exception()

"""Over whatever way, on Kafka and PostgreSQL, with a process for each role: others' producers, and one identity."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from tests.processes import Service, settings_for
from tools.services import KafkaCluster

ORDER = {
    "id": "order-1001",
    "source": "webshop",
    "type": "purchase",
    "customer_id": "42",
    "occurred_at": "2026-03-01T12:30:00+01:00",
    "received_at": "2026-03-01T11:30:00.218Z",
    "properties": {"amount": 49.9},
}


@pytest.fixture
async def producer(kafka: KafkaCluster) -> AsyncIterator[AIOKafkaProducer]:
    """Another team's: no more than the documentation says."""
    started = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all", enable_idempotence=True)
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
async def client(
    installed_postgres_url: str, kafka: KafkaCluster, topic: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    directory = tmp_path_factory.mktemp("services")
    settings = settings_for(installed_postgres_url, kafka.bootstrap_servers, topic)
    async with Service(["api"], settings, directory) as api, Service(["worker"], settings, directory):
        async with api.client() as started:
            yield started


async def receipt(client: httpx.AsyncClient, id_: str, source: str, times: int = 0) -> Any:
    """The receipt, once that many repetitions have been counted."""
    for _ in range(1000):
        answer = (await client.get(f"/v1/touchpoints/{id_}", params={"source": source})).json()
        if answer.get("status", "pending") != "pending" and answer["duplicates"] + answer["conflicts"] >= times:
            return answer
        await asyncio.sleep(0.02)
    raise TimeoutError(f"{id_}: {answer}")


async def test_what_others_write_to_the_topic(
    client: httpx.AsyncClient, producer: AIOKafkaProducer, topic: str
) -> None:
    key = b"customer_id:42"
    moved = {**ORDER, "id": "moved", "corrected_at": "2026-02-01T00:00:00Z"}
    early = {**ORDER, "id": "early", "corrected_at": "1899-12-31T00:00:00Z"}
    for value in (ORDER, moved, {**moved, "corrected_at": "2026-02-02T00:00:00Z"}, early):
        await producer.send_and_wait(topic, json.dumps(value).encode(), key=key)
    await producer.send_and_wait(topic, b"\xff rubbish")
    await producer.send_and_wait(topic, None, key=key)
    await producer.send_and_wait(topic, json.dumps({**ORDER, "id": "after"}).encode(), key=key)
    assert (await receipt(client, "order-1001", "webshop"))["status"] in ("applied", "late")
    assert (await receipt(client, "after", "webshop"))["status"] in ("applied", "late")
    corrected = await receipt(client, "moved", "webshop", 1)
    assert (corrected["occurred_at"], corrected["duplicates"]) == ("2026-02-01T00:00:00Z", 1)
    refused = await receipt(client, "early", "webshop")
    assert (refused["status"], refused["problem"]["code"]) == ("dead_letter", "invalid_time")
    assert refused["problem"]["detail"].startswith("/corrected_at")
    for _ in range(500):
        letters = (await client.get("/v1/dead-letters")).json()["items"]
        if len(letters) == 3:
            break
        await asyncio.sleep(0.02)
    assert sorted(letter["code"] for letter in letters) == ["invalid_time", "malformed", "malformed"]
    rubbish = next(letter for letter in letters if letter["value"] == "\\xff rubbish")
    assert (
        await client.post(f"/v1/dead-letters/{rubbish['partition']}/{rubbish['position']}/resend")
    ).status_code == 202


async def test_one_touchpoint_over_every_way_and_at_another_process(
    client: httpx.AsyncClient, producer: AIOKafkaProducer, topic: str
) -> None:
    """The same poster says the same in five ways, some of them twice; then something else under the same id."""
    native = {
        "id": "m1",
        "type": "purchase",
        "customer_id": "42",
        "occurred_at": "2026-03-01T12:30:00Z",
        "properties": {"revenue": 49.9, "amount": 49.9},
    }
    track = {
        "type": "track",
        "messageId": "m1",
        "userId": "42",
        "event": "Order Completed",
        "properties": {"revenue": 49.9},
        "timestamp": "2026-03-01T12:30:00Z",
    }
    answer = await client.post("/v1/touchpoints", json=native, headers={"Prefer": "wait=20"})
    assert (answer.status_code, answer.json()["status"], answer.json()["duplicates"]) == (200, "applied", 0)
    assert (await client.post("/v1/touchpoints", json=[native, native])).status_code == 207
    lines = gzip.compress(json.dumps(native).encode() + b"\n")
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
    assert (await client.post("/v1/touchpoints", content=lines, headers=headers)).status_code == 207
    for second in (1, 2):
        body = {"batch": [track], "sentAt": f"2026-03-01T12:30:0{second}Z"}
        assert (await client.post("/v1/batch", json=body)).json() == {"success": True}
    message = {**native, "source": "default", "received_at": "2026-03-01T12:31:00Z"}
    await producer.send_and_wait(topic, json.dumps(message).encode(), key=b"customer_id:42")
    found = await receipt(client, "m1", "default", 6)
    assert (found["duplicates"], found["conflicts"], found["type"]) == (6, 0, "purchase")
    assert (await client.post("/v1/track", json={**track, "event": "Signed Up"})).json() == {"success": True}
    found = await receipt(client, "m1", "default", 7)
    assert (found["duplicates"], found["conflicts"], found["type"]) == (6, 1, "purchase")
    # The same id of another source is another touchpoint.
    event = {"specversion": "1.0", "id": "m1", "source": "/shop", "type": "Order Completed", "subject": "42"}
    headers = {"Prefer": "wait=20", "Content-Type": "application/cloudevents+json"}
    answer = await client.post("/v1/events", content=json.dumps(event), headers=headers)
    assert (answer.status_code, answer.json()["source"], answer.json()["duplicates"]) == (200, "/shop", 0)

"""Posts a stream of touchpoints, and keeps a journal of it: a program of its own, which no fault touches.

What was answered with "unknown" is sent again with the same id until it is accepted. Some of what was accepted is sent
again all the same. Most goes over HTTP, one or many a request; where there is Kafka, a part is written straight to the
topic, as other services may, with keys that scatter each customer over all partitions.

SIGTERM tells it that this is enough: it ends once everything that it has begun with is accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import httpx
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tests.faults.journal import HTTP, OK, REFUSED, TOPIC, UNKNOWN, Journal, Target
from tests.faults.stream import LIFECYCLES, Touchpoint, is_acceptable, touchpoints, unacceptable

LANES = 6
"""Requests that are under way at a time."""
SIZES = [1, 1, 2, 10, 30]
"""Touchpoints of one request, each as likely."""
REPEATED = 0.12
"""The share of the accepted touchpoints that is sent again."""
SOURCE = "scattered"
"""Of what is written straight to the topic."""
SECONDS = 90.0
PAUSE = 0.2
"""Seconds after which what is unknown is sent again."""


class DriverError(Exception):
    """The service answered what it must not, or did not accept everything in time."""


class Way(Protocol):
    """How touchpoints get to the service."""

    name: str

    async def send(self, batch: Sequence[Touchpoint]) -> tuple[str, list[str]]:
        """Sends them once; gives what came back, in a word, and the answer for each of them. Raises DriverError."""


class Http:
    """The way that posters go.

    Each request that is under way has a client of its own: one that has many connections looks at all of them for each
    request, and would be measured rather than the service.
    """

    name = HTTP

    def __init__(self, target: Target) -> None:
        headers = {"Authorization": f"Bearer {os.environ['LIFECYCLE_API_KEY']}"}
        self._new_client = partial(
            httpx.AsyncClient, base_url=target.url, headers=headers, timeout=10, verify=False, trust_env=False
        )
        self._idle: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._idle:
            await client.aclose()

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        client = self._idle.pop() if self._idle else self._new_client()
        try:
            yield client
        finally:
            self._idle.append(client)

    async def load(self) -> None:
        """Posts and activates the lifecycles."""
        async with self._client() as client:
            for document in LIFECYCLES:
                posted = await client.post("/v1/lifecycles", json=document)
                version = _json(posted, 201)["version"]
                path = f"/v1/lifecycles/{document['lifecycle']}/activate"
                _json(await client.post(path, json={"version": version}), 200, 202)

    async def send(self, batch: Sequence[Touchpoint]) -> tuple[str, list[str]]:
        try:
            body = batch[0] if len(batch) == 1 else batch
            async with self._client() as client:
                answer = await client.post("/v1/touchpoints", json=body)
        except httpx.TransportError as error:
            return type(error).__name__, [UNKNOWN] * len(batch)
        status = answer.status_code
        if status == 207:
            meaning = {"accepted": OK, "rejected": REFUSED, "unknown": UNKNOWN}
            return "207", [meaning[item["status"]] for item in answer.json()["items"]]
        if status not in (202, 503) and not 400 <= status < 500:
            raise DriverError(f"POST /v1/touchpoints was answered with {status}: {answer.text[:500]}")
        return str(status), [{202: OK, 503: UNKNOWN}.get(status, REFUSED)] * len(batch)


class Topic:
    """The way that services go that write the documented message themselves."""

    name = TOPIC

    def __init__(self, target: Target, chance: random.Random) -> None:
        self._topic = target.topic
        self._chance = chance
        # Not idempotent, so that what cannot be sent expires: then it is unknown, and is sent again.
        self._producer = AIOKafkaProducer(
            bootstrap_servers=target.bootstrap_servers, acks="all", enable_idempotence=False, request_timeout_ms=4_000
        )

    async def __aenter__(self) -> Topic:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.wait_for(self._producer.stop(), 10)

    async def send(self, batch: Sequence[Touchpoint]) -> tuple[str, list[str]]:
        answers = await asyncio.gather(*map(self._send, batch))
        return "acks", answers

    async def _send(self, touchpoint: Touchpoint) -> str:
        message = {**touchpoint, "source": SOURCE, "received_at": "2026-06-01T00:00:00Z"}
        key = b"%d" % self._chance.randrange(64)
        try:
            await self._producer.send_and_wait(self._topic, json.dumps(message).encode(), key=key)
        except KafkaError:
            return UNKNOWN
        return OK


class Driver:
    """Sends requests at a pace, a few at a time, until everything has been answered for good."""

    def __init__(self, journal: Journal, rate: float, lanes: int, chance: random.Random) -> None:
        self._journal = journal
        self._rate = rate
        self._lanes = lanes
        self._chance = chance
        self._paced = 0
        self._began = 0.0
        self._again: dict[str, list[Touchpoint]] = {}

    async def run(self, requests: Iterator[tuple[Way, list[Touchpoint]]], ways: Sequence[Way]) -> None:
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as lanes:
            for _ in range(self._lanes):
                lanes.create_task(self._lane(requests))
        for way in ways:
            if left := self._again.pop(way.name, []):
                await self._send(way, left)

    async def _lane(self, requests: Iterator[tuple[Way, list[Touchpoint]]]) -> None:
        for way, batch in requests:
            due = self._began + self._paced / self._rate
            self._paced += len(batch)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            waiting = self._again.get(way.name, [])
            repeated = [waiting.pop() for _ in range(min(len(waiting), 5))]
            await self._send(way, [*batch, *repeated])
            self._again.setdefault(way.name, []).extend(
                one for one in batch if is_acceptable(one) and self._chance.random() < REPEATED
            )

    async def _send(self, way: Way, batch: list[Touchpoint]) -> None:
        while batch:
            number = self._journal.sends(way.name, batch)
            began = time.monotonic()
            status, answers = await way.send(batch)
            self._journal.answered(number, answers, status, time.monotonic() - began)
            for touchpoint, answer in zip(batch, answers, strict=True):
                if answer != UNKNOWN and (answer == OK) != is_acceptable(touchpoint):
                    raise DriverError(f"the answer for {touchpoint} was {status}, {answer}")
            batch = [touchpoint for touchpoint, answer in zip(batch, answers, strict=True) if answer == UNKNOWN]
            if batch:
                await asyncio.sleep(PAUSE)


def requests(
    stream: Sequence[Touchpoint],
    ways: Sequence[Way],
    sizes: Sequence[int],
    least: int,
    enough: asyncio.Event,
    chance: random.Random,
) -> Iterator[tuple[Way, list[Touchpoint]]]:
    """Cuts the stream into requests, until `enough` is set and at least `least` touchpoints are in them.

    Each is for one of the ways and has one of the sizes, which is as likely as it is often among them.
    """
    start = 0
    while start < len(stream) and (start < least or not enough.is_set()):
        way, size = chance.choice(ways), chance.choice(sizes)
        batch = list(stream[start : start + size])
        start += size
        if way.name == HTTP and chance.random() < 0.1:
            batch.append(unacceptable(start))
        yield way, batch


async def drive(
    path: Path,
    target: Target,
    *,
    most: int,
    least: int,
    customers: int,
    rate: float,
    lanes: int,
    sizes: Sequence[int],
    scattered: int,
    seed: int,
    seconds: float,
) -> None:
    """Drives touchpoints at `rate` a second; `scattered` of four requests go straight to the topic.

    Raises TimeoutError where it takes more than `seconds`, as where something is unknown for good.
    """
    chance = random.Random(seed)
    enough = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, enough.set)
    async with asyncio.timeout(seconds), Http(target) as http:
        await http.load()
        stream = touchpoints(most, customers, seed)
        driver = Driver(Journal(path, target, LIFECYCLES), rate, lanes, chance)
        if not scattered:
            return await driver.run(requests(stream, [http], sizes, least, enough, chance), [http])
        async with Topic(target, chance) as topic:
            ways: list[Way] = [*[http] * (4 - scattered), *[topic] * scattered]
            await driver.run(requests(stream, ways, sizes, least, enough, chance), [http, topic])


def _json(answer: httpx.Response, *expected: int) -> dict[str, object]:
    if answer.status_code not in expected:
        raise DriverError(f"{answer.request.method} {answer.request.url} was answered with {answer.text[:500]}")
    return dict(answer.json())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.driver", description=drive.__doc__)
    parser.add_argument("journal", type=Path, help="must not exist yet")
    parser.add_argument("target", type=lambda text: Target(**json.loads(text)), help="the fields of Target, as JSON")
    parser.add_argument("--most", type=int, default=30_000, help="touchpoints at most")
    parser.add_argument("--least", type=int, default=1_200, help="touchpoints at least")
    parser.add_argument("--customers", type=int, default=60)
    parser.add_argument("--rate", type=float, default=500, help="touchpoints a second")
    parser.add_argument("--lanes", type=int, default=LANES, help="requests that are under way at a time")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="touchpoints of one request")
    parser.add_argument("--scattered", type=int, choices=range(5), default=0)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which it gives up")
    parser.add_argument("--seed", type=int, default=1)
    options = vars(parser.parse_args())
    failed = False
    try:
        asyncio.run(drive(options.pop("journal"), options.pop("target"), **options))
    except* (DriverError, TimeoutError, httpx.HTTPError, KafkaError) as errors:
        failed = True
        sys.stderr.write(f"driver: {errors.exceptions!r}\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

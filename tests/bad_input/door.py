"""The running service, what goes to it byte by byte, and how far its log has come."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.bad_input.requests import ADA, ONE, get, post
from tests.processes import Service, migrate, settings_for

SECONDS = 20.0
"""An answer that takes longer counts as none."""


class Answer(NamedTuple):
    """What came back; without an answer the status is 0."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Ends(Protocol):
    """How many records the log has ever had."""

    def __call__(self) -> int: ...


class Door:
    """A service that runs as people run it, on one of the databases and its log."""

    def __init__(self, service: Service, ends: Ends) -> None:
        self.service = service
        self.ends = ends
        self._taken = 0
        self._read = 0

    def send(self, sent: bytes, *, ends: bool = False) -> Answer:
        """Sends these bytes on a connection of their own, and reads the answer."""
        return exchange(self.service.port, sent, ends=ends)

    def new_output(self) -> str:
        """What it has written since this was asked last."""
        output = self.service.output()
        new, self._read = output[self._read :], len(output)
        return new

    def take(self) -> float:
        """Posts a touchpoint that must be taken; the seconds that it took."""
        self._taken += 1
        raw = json.dumps({"id": f"good-{self._taken}", "type": "visit", "customer_id": "good"}).encode()
        began = time.perf_counter()
        answer = self.send(post(ONE, raw))
        assert answer.status == 202, answer
        return time.perf_counter() - began


def exchange(port: int, sent: bytes, *, ends: bool = False) -> Answer:
    """Sends bytes, whatever they are, and reads one answer; `ends`: says then that nothing more comes."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        try:
            connection.sendall(sent)
            if ends:
                connection.shutdown(socket.SHUT_WR)
        except OSError:  # answered and closed already
            pass
        with http.client.HTTPResponse(connection, method=sent.partition(b" ")[0].decode("latin-1")) as response:
            try:
                response.begin()
                return Answer(response.status, response.headers, response.read())
            except (http.client.BadStatusLine, ConnectionError):
                return Answer(0, Message(), b"")


@contextmanager
def door_on_sqlite(directory: Path) -> Iterator[Door]:
    """One process with every role, on a SQLite file."""
    file = directory / "lifecycle.db"

    def ends() -> int:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'log_record'").fetchone()
        return int(row[0]) if row else 0

    with (
        asyncio.Runner() as runner,
        _running(runner, settings_for(f"sqlite+aiosqlite:///{file}"), directory) as service,
    ):
        yield _with_ada(Door(service, ends))


@contextmanager
def door_on_servers(directory: Path, database_url: str, bootstrap_servers: str, topic: str) -> Iterator[Door]:
    """One process with every role, on PostgreSQL and Kafka."""
    partitions = [TopicPartition(topic, number) for number in range(4)]
    settings = settings_for(database_url, bootstrap_servers, topic)
    with asyncio.Runner() as runner, _running(runner, settings, directory) as service:

        async def started() -> AIOKafkaConsumer:
            consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=None)
            await consumer.start()
            return consumer

        consumer = runner.run(started())
        try:
            yield _with_ada(Door(service, lambda: sum(runner.run(consumer.end_offsets(partitions)).values())))
        finally:
            runner.run(consumer.stop())


@contextmanager
def _running(runner: asyncio.Runner, settings: dict[str, str], directory: Path) -> Iterator[Service]:
    runner.run(migrate(settings, directory))
    service = Service(["api", "worker", "dispatcher", "timers"], settings, directory)
    runner.run(service.start())
    try:
        yield service
    finally:
        if service.running:
            runner.run(service.stop())


def _with_ada(door: Door) -> Door:
    """Once there is a customer to ask about."""
    for number, type_ in enumerate(("ad_click", "signup", "purchase")):
        raw = {"id": f"ada-{number}", "type": type_, "customer_id": "ada", "anonymous_id": f"device-{number}"}
        assert door.send(post(ONE, json.dumps(raw).encode())).status == 202
    deadline = time.monotonic() + 30
    while door.send(get(f"{ONE}/ada-2")).json().get("status") != "applied":
        assert time.monotonic() < deadline, "ada's touchpoints are not applied"
        time.sleep(0.02)
    assert door.send(get(ADA)).status == 200
    return door

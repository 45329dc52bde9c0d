"""What a load can be put on: the engine, and the two services that it is measured beside."""

from __future__ import annotations

import asyncio
import secrets
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

import asyncpg
import msgspec
from aiokafka import AIOKafkaProducer

from bench.lives import document
from bench.load import Address
from bench.processes import BenchError, Process, Servers
from lifecycle_engine.log.message import Stamp, read_submission
from lifecycle_engine.store.database import Database
from tests.record import activate
from tools.services import free_port

READY_SECONDS = 60
SECOND = "post-purchase"
"""Judges and moves at the same touchpoints as the five stages, and has a timer that each of them starts anew."""
FILL = 5_000
"""Records that are on their way to the topic at a time."""


class Service(StrEnum):
    """The services that take a load over HTTP, as the tables name them."""

    ENGINE = "Lifecycle Engine"
    TWO = "with two lifecycles"
    BARE = "bare floor"
    DAY_ONE = "day-one service"


@dataclass(frozen=True)
class Target:
    """A service that is up, on a database of its own."""

    address: Address
    database_url: str
    processes: Mapping[str, Process]

    def stored(self) -> int:
        """How many touchpoints are in its database."""
        (((count,),),) = query(self.database_url, "SELECT count(*) FROM touchpoint")
        return int(count)

    def check(self) -> None:
        """Raises BenchError if one of its processes has ended."""
        for process in self.processes.values():
            process.check()


@contextmanager
def engine(servers: Servers, template: str, also: str | None = None, source: Path | None = None) -> Iterator[Target]:
    """Lifecycle Engine, one process for the way in and the answers, one worker; `template`: a migrated database.

    `also` is a built-in lifecycle that is active besides the one that a first start makes active; `source` is where the
    code is, if it is not that of this repository.
    """
    with ExitStack() as stack:
        topic = stack.enter_context(servers.topic())
        database_url = stack.enter_context(servers.database(template))
        if also is not None:
            asyncio.run(_activate(database_url, also))
        key = secrets.token_urlsafe(24)
        port = free_port()
        environment = {
            **engine_settings(servers, database_url, topic),
            **_code_at(source),
            "LIFECYCLE_LISTEN": f"127.0.0.1:{port}",
            "LIFECYCLE_API_KEY": key,
        }
        processes = {
            role: stack.enter_context(
                Process(
                    f"the engine's {role}",
                    ["-m", "lifecycle_engine", "serve", "--role", role],
                    environment,
                    servers.directory,
                )
            )
            for role in ("api", "worker")
        }
        target = Target(Address(port, headers=[f"Authorization: Bearer {key}"]), database_url, processes)
        until_ready(target, "/readyz", 200)
        yield target


@contextmanager
def bare(servers: Servers, template: str) -> Iterator[Target]:
    """The bare floor (bare.py), in the same two processes."""
    with ExitStack() as stack:
        topic = stack.enter_context(servers.topic())
        database_url = stack.enter_context(servers.database())
        environment = {
            "BENCH_DATABASE_URL": database_url,
            "BENCH_KAFKA": servers.kafka.bootstrap_servers,
            "BENCH_TOPIC": topic,
        }
        port = free_port()
        worker = stack.enter_context(Process("the bare worker", ["-m", "bench.bare"], environment, servers.directory))
        api = stack.enter_context(
            Process("the bare api", _uvicorn("bench.bare:app", port), environment, servers.directory)
        )
        target = Target(Address(port), database_url, {"api": api, "worker": worker})
        until_ready(target, "/v1/customers/nobody", 404)
        yield target


@contextmanager
def day_one(servers: Servers, template: str) -> Iterator[Target]:
    """The day-one service (day_one.py)."""
    with ExitStack() as stack:
        database_url = stack.enter_context(servers.database())
        port = free_port()
        api = stack.enter_context(
            Process(
                "the day-one service",
                _uvicorn("bench.day_one:app", port),
                {"BENCH_DATABASE_URL": database_url},
                servers.directory,
            )
        )
        target = Target(Address(port), database_url, {"api": api})
        until_ready(target, "/v1/customers/nobody", 404)
        yield target


TARGETS: Mapping[Service, Callable[[Servers, str], AbstractContextManager[Target]]] = {
    Service.ENGINE: engine,
    Service.TWO: partial(engine, also=SECOND),
    Service.BARE: bare,
    Service.DAY_ONE: day_one,
}


def engine_settings(servers: Servers, database_url: str, topic: str) -> Mapping[str, str]:
    """What tells a process of the engine where its parts are."""
    return {
        "LIFECYCLE_DATABASE_URL": database_url,
        "LIFECYCLE_KAFKA_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
        "LIFECYCLE_KAFKA_TOPIC": topic,
        "LIFECYCLE_KAFKA_GROUP": topic,
    }


def _code_at(source: Path | None) -> Mapping[str, str]:
    """What lets a process of the engine run the code of another place than this repository's."""
    return {} if source is None else {"PYTHONPATH": str(source)}


def worker(servers: Servers, database_url: str, topic: str, source: Path | None = None) -> Process:
    """A worker of the engine, to be entered."""
    # A group of its own, or it would have to wait until another worker of the same topic is forgotten.
    group = {"LIFECYCLE_KAFKA_GROUP": f"bench-{uuid.uuid4().hex}"}
    environment = {**engine_settings(servers, database_url, topic), **_code_at(source), **group}
    arguments = ["-m", "lifecycle_engine", "serve", "--role", "worker"]
    return Process("the engine's worker", arguments, environment, servers.directory)


async def fill(
    servers: Servers,
    topic: str,
    touchpoints: Iterable[Mapping[str, object]],
    sent: Callable[[int], object] = lambda count: None,
) -> None:
    """Appends touchpoints as the way in would; `sent` hears now and then how many are there."""
    now = time.time_ns() // 1_000
    stamp = Stamp("bench", now, now)
    producer = AIOKafkaProducer(bootstrap_servers=servers.kafka.bootstrap_servers, enable_idempotence=True, linger_ms=5)
    await producer.start()
    try:
        waiting = []
        for touchpoint in touchpoints:
            record = stamp.record(read_submission(msgspec.json.encode(touchpoint)))
            waiting.append(await producer.send(topic, record.value, key=record.key))
            if len(waiting) == FILL:
                await asyncio.gather(*waiting)
                sent(len(waiting))
                waiting.clear()
        await asyncio.gather(*waiting)
        sent(len(waiting))
    finally:
        await producer.stop()


async def records_applied(connection: asyncpg.Connection) -> int:
    """How many records of the log have been applied, where there is one topic."""
    return int(await connection.fetchval("SELECT coalesce(sum(next), 0)::bigint FROM log_position"))


@contextmanager
def migrated(servers: Servers, source: Path | None = None) -> Iterator[str]:
    """The URL of a database as a first start of the engine finds it, to make copies of."""
    with servers.database() as database_url:
        arguments = ["-m", "lifecycle_engine", "migrate"]
        environment = {"LIFECYCLE_DATABASE_URL": database_url, **_code_at(source)}
        with Process("the engine's migration", arguments, environment, servers.directory, ends=True) as process:
            process.wait(READY_SECONDS)
        yield database_url


def query(database_url: str, *statements: str) -> list[list[asyncpg.Record]]:
    """The rows of each statement."""

    async def ask() -> list[list[asyncpg.Record]]:
        connection = await asyncpg.connect(driver_url(database_url))
        try:
            return [await connection.fetch(statement) for statement in statements]
        finally:
            await connection.close()

    return asyncio.run(ask())


def driver_url(database_url: str) -> str:
    """A URL as asyncpg itself wants it."""
    return database_url.replace("+asyncpg", "", 1)


async def _activate(database_url: str, lifecycle: str) -> None:
    database = Database(database_url)
    try:
        await activate(database, document(lifecycle))
    finally:
        await database.close()


def _uvicorn(app: str, port: int) -> Sequence[str]:
    return ["-m", "uvicorn", app, "--port", str(port), "--log-level", "warning", "--no-access-log"]


def until_ready(target: Target, path: str, expected: int) -> None:
    """Waits until a service answers as it should. Raises BenchError where it does not in time."""
    url = f"http://{target.address.host}:{target.address.port}{path}"
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        except OSError:
            status = None
        if status == expected:
            return
        target.check()
        if time.monotonic() > deadline:
            raise BenchError(f"{url} answered {status or 'nothing'} after {READY_SECONDS} s, not {expected}")
        time.sleep(0.05)

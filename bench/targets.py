"""What a load can be put on: the engine, and the two services that it is measured beside."""

from __future__ import annotations

import asyncio
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum

import asyncpg

from bench.load import Address
from bench.processes import BenchError, Process, Servers
from tools.services import free_port

READY_SECONDS = 60


class Service(StrEnum):
    """The services that take a load over HTTP, as the tables name them."""

    ENGINE = "Lifecycle Engine"
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
def engine(servers: Servers, template: str) -> Iterator[Target]:
    """Lifecycle Engine, one process for the way in and the answers, one worker; `template`: a migrated database."""
    with ExitStack() as stack:
        topic = stack.enter_context(servers.topic())
        database_url = stack.enter_context(servers.database(template))
        key = secrets.token_urlsafe(24)
        port = free_port()
        environment = {
            **engine_settings(servers, database_url, topic),
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
        _until_ready(target, "/readyz", 200)
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
        _until_ready(target, "/v1/customers/nobody", 404)
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
        _until_ready(target, "/v1/customers/nobody", 404)
        yield target


TARGETS: Mapping[Service, Callable[[Servers, str], AbstractContextManager[Target]]] = {
    Service.ENGINE: engine,
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


@contextmanager
def migrated(servers: Servers) -> Iterator[str]:
    """The URL of a database as a first start of the engine finds it, to make copies of."""
    with servers.database() as database_url:
        arguments = ["-m", "lifecycle_engine", "migrate"]
        environment = {"LIFECYCLE_DATABASE_URL": database_url}
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


def _uvicorn(app: str, port: int) -> Sequence[str]:
    return ["-m", "uvicorn", app, "--port", str(port), "--log-level", "warning", "--no-access-log"]


def _until_ready(target: Target, path: str, expected: int) -> None:
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

"""The servers that the other tests rely on: they answer, keep their data, and leave nothing behind."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tools.services import Kafka, KafkaCluster, Postgres, PostgresServer, ServiceError, temporary_directory

ROOT = Path(__file__).parents[1]


@pytest.fixture
def directory() -> Iterator[Path]:
    with temporary_directory() as path:
        yield path


async def query(url: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        records: list[asyncpg.Record] = await connection.fetch(statement)
        return records
    finally:
        await connection.close()


async def send(bootstrap_servers: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True) as producer:
        await producer.send_and_wait(topic, value, partition=0)


async def read(bootstrap_servers: str, topic: str, count: int) -> list[bytes]:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        return [(await consumer.getone()).value for _ in range(count)]


async def test_postgres_answers_through_sqlalchemy(postgres_url: str) -> None:
    engine = create_async_engine(postgres_url)
    async with engine.connect() as connection:
        major = int(await connection.scalar(text("SHOW server_version_num")) or "0") // 10_000
    await engine.dispose()
    assert major == 18


async def test_each_test_has_a_database_of_its_own(postgres: PostgresServer, postgres_url: str) -> None:
    await query(postgres_url, "CREATE TABLE stage (key text)")
    postgres.create_database("copied", template=postgres_url.rpartition("/")[2])
    try:
        assert await query(postgres.url("copied"), "SELECT * FROM stage") == []
    finally:
        postgres.drop_database("copied")


async def test_kafka_keeps_what_is_sent(kafka: KafkaCluster, topic: str) -> None:
    await send(kafka.bootstrap_servers, topic, b"touchpoint")
    assert await read(kafka.bootstrap_servers, topic, 1) == [b"touchpoint"]


@pytest.mark.parametrize("topic", [7], indirect=True)
async def test_a_topic_has_the_partitions_asked_for(kafka: KafkaCluster, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        (description,) = await admin.describe_topics([topic])
        assert len(description["partitions"]) == 7
        (unknown,) = await admin.describe_topics(["never-created"])
        assert unknown["error_code"] == 3, "topics must not be created by being named"
    finally:
        await admin.close()


async def test_postgres_keeps_its_data_over_a_restart_and_a_crash(directory: Path) -> None:
    with Postgres(directory) as postgres:
        url = postgres.url("postgres")
        assert [record["fsync"] for record in await query(url, "SHOW fsync")] == ["on"]
        await query(url, "CREATE TABLE stage (key text)")
        await query(url, "INSERT INTO stage VALUES ('awareness')")
        postgres.restart()
        await query(url, "INSERT INTO stage VALUES ('purchase')")
        postgres.kill()
        assert not postgres.running
        with pytest.raises(OSError, match="Connect"):
            await query(url, "SELECT 1")
        postgres.start()
        assert [record["key"] for record in await query(url, "SELECT key FROM stage")] == ["awareness", "purchase"]


async def test_kafka_keeps_its_data_over_a_crash(directory: Path) -> None:
    with Kafka(directory) as kafka:
        kafka.create_topic("stages", partitions=1)
        await send(kafka.bootstrap_servers, "stages", b"awareness")
        await send(kafka.bootstrap_servers, "stages", b"purchase")
        kafka.kill()
        assert not kafka.running
        kafka.start()
        assert await read(kafka.bootstrap_servers, "stages", 2) == [b"awareness", b"purchase"]


@pytest.mark.parametrize("service", [Postgres, Kafka])
def test_a_server_that_cannot_start_says_why(directory: Path, service: type[Postgres] | type[Kafka]) -> None:
    server = service(directory)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", server.port))
        with pytest.raises(ServiceError, match="already in use"):
            server.start()
    server.start()
    server.stop()


STARTER = """
import contextlib, signal, sys, time
from pathlib import Path
from tools.services import Kafka, Postgres
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
with contextlib.ExitStack() as servers:
    for name in sys.argv[2:]:
        servers.enter_context({"postgres": Postgres, "java": Kafka}[name](Path(sys.argv[1])))
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("number", "servers"),
    [(signal.SIGKILL, ["postgres", "java"]), (signal.SIGTERM, ["postgres"]), (signal.SIGINT, ["postgres"])],
)
def test_servers_end_with_whoever_started_them(directory: Path, number: signal.Signals, servers: list[str]) -> None:
    home = directory / "servers"
    command = [sys.executable, "-c", STARTER, str(home), *servers]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"up\n"
        family = psutil.Process(starter.pid).children(recursive=True)
        names = {process.name() for process in family}
        assert set(servers) <= names
        starter.send_signal(number)
        _, alive = psutil.wait_procs(family, timeout=30)
        assert alive == []
    if number != signal.SIGINT:  # an orderly end leaves the data to whoever made the directory
        wait_until_gone(home)


def wait_until_gone(path: Path) -> None:
    deadline = time.monotonic() + 10
    while path.exists():
        assert time.monotonic() < deadline, f"left behind: {sorted(path.iterdir())}"
        time.sleep(0.05)

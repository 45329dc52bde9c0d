"""The servers and the processes of a run, all of them gone when their `with` ends, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import psutil

from tools import kafka_runtime
from tools.services import Kafka, KafkaCluster, Postgres, PostgresServer, temporary_directory
from tools.supervisor import Supervised

REPOSITORY = Path(__file__).parents[1]
PARTITIONS = 4
CORES = 2
STOP_SECONDS = 15


class BenchError(Exception):
    """Something that was measured failed, or lost touchpoints; the text says what, and what it wrote."""


class Span(NamedTuple):
    """From the first commit to the last: how many were done after the first one, in how long, for how much CPU time."""

    done: int
    seconds: float
    cpu_seconds: float | None


class Process:
    """A Python program that is measured. It and what it writes are gone when its `with` ends."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        *,
        ends: bool = False,
    ) -> None:
        self._name = name
        self._arguments = arguments
        # Nothing of the caller's own settings, nor of a .env file, may reach what is measured.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("LIFECYCLE_")}
        self._environment = {**inherited, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", **environment}
        # Each has a directory of its own, which goes with it even if this run is killed.
        self._directory = directory / uuid.uuid4().hex
        self._log = self._directory / "output"
        self._ends = ends

    def __enter__(self) -> Self:
        self._directory.mkdir()
        with self._log.open("wb") as log:
            self._process = Supervised(
                [sys.executable, *self._arguments],
                output=log,
                cwd=self._directory,
                environment=self._environment,
                remove=self._directory,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        ended_before = self._process.poll()
        self._process.signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.signal(signal.SIGKILL)
            self._process.wait(STOP_SECONDS)
            if error is None:
                raise self._failed(f"had to be killed {STOP_SECONDS} s after SIGTERM") from None
        if error is None and ended_before is not None and not self._ends:
            raise self._failed(f"ended by itself with exit code {ended_before}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raises BenchError, with the end of what it wrote, if it has failed."""
        code = self._process.poll()
        if code is not None and not (self._ends and code == 0):
            raise self._failed(f"ended by itself with exit code {code}")

    def wait(self, seconds: float) -> None:
        """Waits for the end of a program that ends. Raises BenchError if it fails or takes longer."""
        deadline = time.monotonic() + seconds
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                raise self._failed(f"was not done after {seconds:.0f} s")
            time.sleep(0.02)
        self.check()

    def said(self) -> str:
        """The end of what it wrote, in lines to put below an error."""
        tail = self._log.read_text(errors="replace").splitlines()[-40:]
        return "\n  ".join([f"The end of what {self._name} wrote:", *(tail or ["(nothing)"])])

    def _failed(self, what: str) -> BenchError:
        return BenchError(f"{self._name} {what}\n{self.said()}")


class Servers:
    """PostgreSQL and Kafka: those that LIFECYCLE_TEST_DATABASE_URL and LIFECYCLE_TEST_KAFKA name, or fresh ones.

    `directory` is a fresh one for whatever the run writes. The user of a named database server must be allowed to
    create databases and to run CHECKPOINT.
    """

    def __init__(self, postgres: PostgresServer, kafka: KafkaCluster, directory: Path) -> None:
        self.postgres = postgres
        self.kafka = kafka
        self.directory = directory

    @property
    def kafka_version(self) -> str:
        if not isinstance(self.kafka, Kafka):
            return "as named"
        return kafka_runtime.KAFKA_COORDINATES.split("+")[0].split(":")[2]

    def cpu_seconds(self) -> float | None:
        """Processor time so far of the servers and of all that is measured; None where the servers are not ours."""
        if not (isinstance(self.postgres, Postgres) and isinstance(self.kafka, Kafka)):
            return None
        itself = psutil.Process()
        ended = itself.cpu_times()
        total = ended.children_user + ended.children_system
        for process in itself.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])  # its own and that of its children that have ended
        return total

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a fresh database, empty or a copy of the one that the URL `template` names."""
        name = f"bench_{uuid.uuid4().hex}"
        self.postgres.create_database(name, template.rpartition("/")[2])
        try:
            yield self.postgres.url(name)
        finally:
            self.postgres.drop_database(name)

    @contextmanager
    def topic(self) -> Iterator[str]:
        """The name of a fresh topic."""
        name = f"bench-{uuid.uuid4().hex}"
        self.kafka.create_topic(name, PARTITIONS)
        try:
            yield name
        finally:
            self.kafka.delete_topic(name)

    def settle(self) -> None:
        """Writes out what the last load left to write, so that the next one doesn't pay for it."""
        self.postgres.execute("CHECKPOINT")


@contextmanager
def servers() -> Iterator[Servers]:
    """PostgreSQL and Kafka for one run."""
    with ExitStack() as stack:
        directory = stack.enter_context(temporary_directory())
        database_url, bootstrap = (os.environ.get(f"LIFECYCLE_TEST_{name}") for name in ("DATABASE_URL", "KAFKA"))
        postgres = PostgresServer(database_url) if database_url else stack.enter_context(Postgres(directory))
        kafka = KafkaCluster(bootstrap) if bootstrap else stack.enter_context(Kafka(directory, is_brief=False))
        yield Servers(postgres, kafka, directory)


def share_cores() -> int:
    """Confines this process, and all that it starts, to two cores; gives how many it may use."""
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or 1
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    return len(os.sched_getaffinity(0))

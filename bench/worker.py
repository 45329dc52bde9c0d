"""The worker alone, beside its own floor: a topic that is full already, from the first commit to the last."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import ExitStack
from typing import NamedTuple

import asyncpg
import msgspec
import uvloop
from aiokafka import AIOKafkaProducer

from bench.load import CUSTOMERS, touchpoint
from bench.processes import BenchError, Process, Servers
from bench.progress import Progress
from bench.report import Section, microseconds, rate, ratio
from bench.targets import driver_url, engine_settings, query
from lifecycle_engine.log.message import Stamp, read_submission
from lifecycle_engine.log.port import Record

POLL_SECONDS = 0.01
PATIENCE_SECONDS = 60.0
"""Without any further commit, the rest counts as lost."""
_COUNTS = " UNION ALL ".join(
    f"SELECT '{table}' AS table, count(*) FROM {table}"
    for table in ("touchpoint", "customer", "history", "change", "checkpoint", "dead_letter")
)

WORKER = "the worker"
FLOOR = "its floor: the same records and rows, nothing decided"


class Span(NamedTuple):
    """From the first commit to the last: what was applied after the first one, in how long, for how much CPU time."""

    touchpoints: int
    seconds: float
    cpu_seconds: float | None


class WorkerAlone:
    """Each round runs both over the same topic, each on a fresh database; who comes first changes.

    The floor repeats what the worker of the first round wrote.
    """

    def __init__(self, servers: Servers, template: str, *, rounds: int, quick: bool) -> None:
        self._servers = servers
        self._template = template
        self._rounds = rounds
        self._touchpoints = 20_000 if quick else 50_000
        self._rates: dict[str, list[float]] = {WORKER: [], FLOOR: []}
        self._cpu: dict[str, list[float]] = {WORKER: [], FLOOR: []}

    @property
    def steps(self) -> int:
        return 2 * self._rounds

    def run(self, progress: Progress) -> Section:
        """Raises BenchError if either fails, or the floor's rows are not as many as the worker's."""
        with ExitStack() as stack:
            topic = stack.enter_context(self._servers.topic())
            recorded = stack.enter_context(self._servers.database(self._template))
            progress.doing("the worker alone: filling the topic")
            uvloop.run(_fill(self._servers.kafka.bootstrap_servers, topic, self._touchpoints))
            for number in range(self._rounds):
                if number == 0:
                    self._run_worker(recorded, topic, progress)
                    self._run_floor(recorded, topic, progress)
                    continue
                with self._servers.database(self._template) as database:
                    if number % 2:
                        self._run_floor(recorded, topic, progress)
                        self._run_worker(database, topic, progress)
                    else:
                        self._run_worker(database, topic, progress)
                        self._run_floor(recorded, topic, progress)
        return Section(
            f"The worker alone: {self._touchpoints:,} touchpoints of {CUSTOMERS:,} customers, already on the topic",
            ["", "touchpoints/s", "µs each", "time, as a multiple of the floor's", "CPU µs each"],
            [self._row(name) for name in (FLOOR, WORKER)],
        )

    def _run_worker(self, database: str, topic: str, progress: Progress) -> None:
        # A group of its own, or it would have to wait until the last round's worker is forgotten.
        group = f"bench-{uuid.uuid4().hex}"
        environment = {**engine_settings(self._servers, database, topic), "LIFECYCLE_KAFKA_GROUP": group}
        process = Process(
            "the engine's worker",
            ["-m", "lifecycle_engine", "serve", "--role", "worker"],
            environment,
            self._servers.directory,
        )
        self._measure(WORKER, process, database, progress)
        counts = _counts(database)
        if counts["touchpoint"] != self._touchpoints:
            raise BenchError(
                f"the worker, alone: {counts['touchpoint']} of {self._touchpoints} touchpoints were stored"
            )

    def _run_floor(self, recorded: str, topic: str, progress: Progress) -> None:
        with self._servers.database(self._template) as database:
            arguments = [driver_url(recorded), driver_url(database), self._servers.kafka.bootstrap_servers, topic]
            process = Process(
                "the worker's floor", ["-m", "bench.floor", *arguments], {}, self._servers.directory, ends=True
            )
            self._measure(FLOOR, process, database, progress)
            if (floor := _counts(database)) != (worker := _counts(recorded)):
                raise BenchError(f"the worker's floor wrote {floor}, the worker {worker}")

    def _measure(self, name: str, process: Process, database: str, progress: Progress) -> None:
        progress.doing(f"alone: {name}", self._touchpoints)
        self._servers.settle()
        with process:
            span = asyncio.run(self._watch(database, process, progress))
        self._rates[name].append(span.touchpoints / span.seconds)
        if span.cpu_seconds is not None:
            self._cpu[name].append(span.cpu_seconds / span.touchpoints)
        progress.done(f"alone: {name}: {span.touchpoints / span.seconds:,.0f}/s")

    async def _watch(self, database_url: str, process: Process, progress: Progress) -> Span:
        """Watches the stored positions, from the first commit to the last."""
        connection = await asyncpg.connect(driver_url(database_url))
        try:
            applied = first = 0
            began = moved = time.perf_counter()
            cpu_before = None
            while applied < self._touchpoints:
                now_applied = int(await connection.fetchval("SELECT coalesce(sum(next), 0)::bigint FROM log_position"))
                now = time.perf_counter()
                if now_applied > applied:
                    progress.advance(now_applied - applied)
                    if not applied:
                        first, began, cpu_before = now_applied, now, self._servers.cpu_seconds()
                    applied, moved = now_applied, now
                elif now - moved > PATIENCE_SECONDS:
                    raise BenchError(f"{applied} of {self._touchpoints} touchpoints were applied\n{process.said()}")
                process.check()
                await asyncio.sleep(POLL_SECONDS)
            cpu_after = self._servers.cpu_seconds()
            cpu = cpu_after - cpu_before if cpu_after is not None and cpu_before is not None else None
            return Span(self._touchpoints - first, moved - began, cpu)
        finally:
            await connection.close()

    def _row(self, name: str) -> list[str]:
        rates = self._rates[name]
        each = [1 / one for one in rates]
        return [name, rate(rates), microseconds(each), ratio(self._rates[FLOOR], rates), microseconds(self._cpu[name])]


async def _fill(bootstrap_servers: str, topic: str, touchpoints: int) -> None:
    """Appends touchpoints of a load in order, as the way in would."""
    now = time.time_ns() // 1_000
    stamp = Stamp("bench", now, now)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, enable_idempotence=True, linger_ms=5)
    await producer.start()
    try:
        sent = []
        for number in range(touchpoints):
            record: Record = stamp.record(read_submission(msgspec.json.encode(touchpoint("alone", number))))
            sent.append(await producer.send(topic, record.value, key=record.key))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


def _counts(database_url: str) -> dict[str, int]:
    return {row["table"]: row["count"] for row in query(database_url, _COUNTS)[0]}

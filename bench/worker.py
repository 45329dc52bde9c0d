"""The worker alone, beside its own floor: a topic that is full already, from the first commit to the last."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

import asyncpg
import uvloop

from bench.load import CUSTOMERS, touchpoint
from bench.processes import BenchError, Process, Servers, Span
from bench.progress import Progress
from bench.report import Section, microseconds, rate, ratio
from bench.targets import driver_url, fill, query, records_applied, worker

POLL_SECONDS = 0.01
PATIENCE_SECONDS = 60.0
"""Without any further commit, the rest counts as lost."""
_TABLES = ("touchpoint", "customer", "history", "change", "checkpoint", "wake", "ownership", "dead_letter")
_WRITTEN = " UNION ALL ".join(
    # Hashes of whole rows, so that the floor writes what the worker does also when a table gets another column; sums
    # of them, since rows have no order. The numbers of changes are given by the database as they come.
    f"SELECT '{table}' AS table, count(*), coalesce(sum(hashtextextended(({row})::text, 0)), 0)::text AS content "
    f"FROM {table}"
    for table in _TABLES
    for row in [f"to_jsonb({table})" + (" - 'id'" if table == "change" else "")]
)

WORKER = "the worker"
FLOOR = "its floor: the same records and rows, nothing decided"


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

    def run(self, progress: Progress) -> list[Section]:
        """Raises BenchError if either fails, or the floor's rows are others than the worker's."""
        with ExitStack() as stack:
            topic = stack.enter_context(self._servers.topic())
            recorded = stack.enter_context(self._servers.database(self._template))
            progress.doing("the worker alone: filling the topic")
            touchpoints = (touchpoint("alone", number) for number in range(self._touchpoints))
            uvloop.run(fill(self._servers, topic, touchpoints))
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
        title = f"The worker alone: {self._touchpoints:,} touchpoints of {CUSTOMERS:,} customers, already on the topic"
        header = ["", "touchpoints/s", "µs each", "time, as a multiple of the floor's", "CPU µs each"]
        return [Section(title, header, [self._row(name) for name in (FLOOR, WORKER)])]

    def _run_worker(self, database: str, topic: str, progress: Progress) -> None:
        process = worker(self._servers, database, topic)
        self._measure(WORKER, process, database, progress)
        stored, _ = _written(database)["touchpoint"]
        if stored != self._touchpoints:
            raise BenchError(f"the worker, alone: {stored} of {self._touchpoints} touchpoints were stored")

    def _run_floor(self, recorded: str, topic: str, progress: Progress) -> None:
        with self._servers.database(self._template) as database:
            arguments = [driver_url(recorded), driver_url(database), self._servers.kafka.bootstrap_servers, topic]
            process = Process(
                "the worker's floor", ["-m", "bench.floor", *arguments], {}, self._servers.directory, ends=True
            )
            self._measure(FLOOR, process, database, progress)
            by_floor, by_worker = _written(database), _written(recorded)
            if different := [table for table in _TABLES if by_floor[table] != by_worker[table]]:
                tables = ", ".join(f"{table} ({by_floor[table]}, {by_worker[table]})" for table in different)
                raise BenchError(f"the floor and the worker wrote different rows (their number, their hash): {tables}")

    def _measure(self, name: str, process: Process, database: str, progress: Progress) -> None:
        progress.doing(f"alone: {name}", self._touchpoints)
        self._servers.settle()
        with process:
            span = asyncio.run(watch(self._servers, database, process, self._touchpoints, progress))
        self._rates[name].append(span.done / span.seconds)
        if span.cpu_seconds is not None:
            self._cpu[name].append(span.cpu_seconds / span.done)
        progress.done(f"alone: {name}: {span.done / span.seconds:,.0f}/s")

    def _row(self, name: str) -> list[str]:
        rates = self._rates[name]
        each = [1 / one for one in rates]
        return [name, rate(rates), microseconds(each), ratio(self._rates[FLOOR], rates), microseconds(self._cpu[name])]


def _written(database_url: str) -> dict[str, tuple[int, str]]:
    """How many rows each table has, and a hash of all that stands in them."""
    return {row["table"]: (row["count"], row["content"]) for row in query(database_url, _WRITTEN)[0]}


async def watch(servers: Servers, database_url: str, process: Process, touchpoints: int, progress: Progress) -> Span:
    """Watches the stored positions of one topic, from the first commit to the last."""
    connection = await asyncpg.connect(driver_url(database_url))
    try:
        applied = first = 0
        began = moved = time.perf_counter()
        cpu_before = None
        while applied < touchpoints:
            now_applied = await records_applied(connection)
            now = time.perf_counter()
            if now_applied > applied:
                progress.advance(now_applied - applied)
                if not applied:
                    first, began, cpu_before = now_applied, now, servers.cpu_seconds()
                applied, moved = now_applied, now
            elif now - moved > PATIENCE_SECONDS:
                raise BenchError(f"{applied} of {touchpoints} touchpoints were applied\n{process.said()}")
            process.check()
            await asyncio.sleep(POLL_SECONDS)
        cpu_after = servers.cpu_seconds()
        cpu = cpu_after - cpu_before if cpu_after is not None and cpu_before is not None else None
        return Span(touchpoints - first, moved - began, cpu)
    finally:
        await connection.close()

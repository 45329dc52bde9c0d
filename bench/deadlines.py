"""Timers that are due at once: how many fire a second, from the first transaction of the role `timers` to the last."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import uvloop

from bench.lives import DAY, document
from bench.processes import BenchError, Process, Servers, Span
from bench.progress import Progress
from bench.report import Section, microseconds, rate
from bench.targets import driver_url, engine_settings, query
from tests.record import Feed, message, record

LIFECYCLE = "subscription"
OPENING = "trial_started"
OVERDUE = 20 * DAY
"""How long ago the trials began: longer than one lasts, as after an outage of days."""
BATCH = 500
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 60.0


class Deadlines:
    """Once, whatever the number of rounds: as many customers as timers, each of whose trial has lapsed."""

    def __init__(self, servers: Servers, template: str, *, rounds: int, quick: bool) -> None:
        self._servers = servers
        self._timers = 10_000 if quick else 100_000

    @property
    def steps(self) -> int:
        return 1

    def run(self, progress: Progress) -> list[Section]:
        """Raises BenchError unless each timer has fired exactly once."""
        with self._servers.database() as database_url, self._servers.topic() as topic:
            uvloop.run(self._open(database_url, progress))
            self._servers.settle()
            process = Process(
                "the engine's timers",
                ["-m", "lifecycle_engine", "serve", "--role", "timers"],
                engine_settings(self._servers, database_url, topic),
                self._servers.directory,
            )
            progress.doing("timers: firing", self._timers)
            with process:
                span = uvloop.run(self._watch(database_url, process, progress))
            self._check(database_url)
        fired = span.done / span.seconds
        cpu = [] if span.cpu_seconds is None else [span.cpu_seconds / span.done]
        progress.done(f"timers: {fired:,.0f}/s")
        title = f"{self._timers:,} timers due at once, each of a customer of its own"
        cells = ["one process with the role `timers`", rate([fired]), microseconds(cpu)]
        return [Section(title, ["", "fired/s", "CPU µs each"], [cells])]

    async def _open(self, database_url: str, progress: Progress) -> None:
        """The journeys, each with a clock that has run out."""
        began = time.time_ns() // 1_000 - OVERDUE
        progress.doing("timers: starting trials", self._timers)
        async with record(database_url, document(LIFECYCLE)) as database:
            feed = Feed(database)
            for start in range(0, self._timers, BATCH):
                numbers = range(start, min(start + BATCH, self._timers))
                properties = {"product": "news"}
                await feed.apply(
                    *[message(f"t{n}", OPENING, began + n, f"c{n}", properties=properties) for n in numbers]
                )
                progress.advance(len(numbers))

    async def _watch(self, database_url: str, process: Process, progress: Progress) -> Span:
        """What fired after the first look that saw any."""
        connection = await asyncpg.connect(driver_url(database_url))
        try:
            waiting, first = self._timers, 0
            began = moved = time.perf_counter()
            cpu_before = None
            while waiting:
                await asyncio.sleep(POLL_SECONDS)
                process.check()
                # When one has fired, nothing else is due for its customer.
                still = await connection.fetchval("SELECT count(*) FROM wake")
                now = time.perf_counter()
                if still < waiting:
                    progress.advance(waiting - still)
                    if not first:
                        first, began, cpu_before = still, now, self._servers.cpu_seconds()
                    waiting, moved = still, now
                elif now - moved > PATIENCE_SECONDS:
                    raise BenchError(f"{waiting} of {self._timers} timers have not fired\n{process.said()}")
            cpu_after = self._servers.cpu_seconds()
            cpu = cpu_after - cpu_before if cpu_after is not None and cpu_before is not None else None
            return Span(first, moved - began, cpu)
        finally:
            await connection.close()

    def _check(self, database_url: str) -> None:
        lines, told = query(
            database_url,
            "SELECT count(*) AS fired, count(DISTINCT customer) AS customers FROM history WHERE cause = 'timer'",
            "SELECT count(*) AS told FROM change WHERE type = 'stage.changed' AND sequence = 2",
        )
        counts = {**dict(lines[0]), **dict(told[0])}
        if any(count != self._timers for count in counts.values()):
            raise BenchError(f"{self._timers} timers were due once each; there are {counts}")

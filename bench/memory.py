"""The memory of a worker along a million touchpoints: flat, or the run fails."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence

import asyncpg
import psutil
import uvloop

from bench.load import CUSTOMERS, touchpoint
from bench.processes import BenchError, Process, Servers
from bench.progress import Progress
from bench.report import Section
from bench.targets import driver_url, fill, records_applied, worker

POINTS = 10
"""Figures along the way; each begins with customers that the worker has not seen."""
SETTLED = 2
"""Of these, those before the caches, the connections and the allocator's arenas have found their size."""
LATE_EVERY = 11
LATE_BY = 3 * CUSTOMERS
"""Every eleventh touchpoint comes behind some three later ones of its customer, so that re-folds have their part."""
BOUND = 24.0
"""Megabytes for a million touchpoints, 24 bytes each: a list that kept one number of each would take 36."""
ALLOWANCE = 4.0
"""Megabytes by which a worker that keeps nothing differs between two looks: batches and reads are larger or smaller."""
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 60.0


class Memory:
    """Once, whatever the number of rounds: a topic is filled part by part, and a worker reads it."""

    def __init__(self, servers: Servers, template: str, *, rounds: int, quick: bool) -> None:
        self._servers = servers
        self._template = template
        self._part = (100_000 if quick else 1_000_000) // POINTS

    @property
    def steps(self) -> int:
        return POINTS

    def run(self, progress: Progress) -> list[Section]:
        """Raises BenchError if the memory grows by more than the bound, or a touchpoint is lost."""
        with self._servers.topic() as topic, self._servers.database(self._template) as database_url:
            with worker(self._servers, database_url, topic) as process:
                figures = uvloop.run(self._watch(topic, database_url, process, progress))
        millions = self._part / 1e6
        settled = figures[SETTLED - 1 :]
        slope = statistics.linear_regression(range(len(settled)), settled).slope / millions
        most = BOUND + ALLOWANCE / (millions * (len(settled) - 1))
        if slope > most:
            looks = ", ".join(f"{figure:.1f}" for figure in figures)
            raise BenchError(
                f"the worker's memory grows by {slope:.1f} MB for a million touchpoints, more than {most:.1f}: "
                f"{looks} MB, each {self._part:,} touchpoints after the one before it"
            )
        rows = [[f"{self._part * n:,}", f"{figure:.1f}"] for n, figure in enumerate(figures, 1)]
        rows.append([f"slope after the first {self._part * SETTLED:,}, for a million", f"{slope:+.1f}"])
        rows.append(["what it may be at most", f"{most:+.1f}"])
        title = f"Memory of a worker: {self._part * POINTS:,} touchpoints of {CUSTOMERS * POINTS:,} customers"
        return [Section(title, ["touchpoints applied", "resident MB"], rows)]

    async def _watch(self, topic: str, database_url: str, process: Process, progress: Progress) -> list[float]:
        resident: list[float] = []
        connection = await asyncpg.connect(driver_url(database_url))
        try:
            for number in range(POINTS):
                progress.doing("memory: filling the topic", self._part)
                await fill(self._servers, topic, self._touchpoints(number), progress.advance)
                progress.doing("memory: the worker applies", self._part)
                await _until_applied(connection, self._part * (number + 1), process, progress)
                resident.append(psutil.Process(process.pid).memory_info().rss / 1e6)
                progress.done(f"memory: {resident[-1]:.1f} MB after {self._part * (number + 1):,} touchpoints")
            stored = await connection.fetchval("SELECT count(*) FROM touchpoint")
            if stored != self._part * POINTS:
                raise BenchError(f"memory: {stored} of {self._part * POINTS} touchpoints were stored")
        finally:
            await connection.close()
        return resident

    def _touchpoints(self, number: int) -> Iterator[dict[str, object]]:
        order: Sequence[int] = sorted(
            range(self._part), key=lambda place: place + (0 if place % LATE_EVERY else LATE_BY)
        )
        return (touchpoint(f"memory-{number}", place) for place in order)


async def _until_applied(connection: asyncpg.Connection, upto: int, process: Process, progress: Progress) -> None:
    before = await records_applied(connection)
    moved = time.monotonic()
    while before < upto:
        await asyncio.sleep(POLL_SECONDS)
        process.check()
        if (now := await records_applied(connection)) > before:
            progress.advance(now - before)
            before, moved = now, time.monotonic()
        elif time.monotonic() - moved > PATIENCE_SECONDS:
            raise BenchError(f"memory: {before} of {upto} touchpoints were applied\n{process.said()}")

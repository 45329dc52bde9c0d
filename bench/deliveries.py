"""Webhooks: how fast one dispatcher delivers beside a bare client, and what dead receivers cost the others."""

from __future__ import annotations

import asyncio
import base64
import json
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg
import psutil
import uvloop

from bench.processes import BenchError, Process, Servers
from bench.progress import Progress
from bench.report import Section, rate, ratio
from bench.sending import BODY
from bench.targets import driver_url
from lifecycle_engine.outbox.vault import MasterKey, Vault
from lifecycle_engine.store.changes import ChangeRow
from lifecycle_engine.store.database import Database
from lifecycle_engine.webhook.secrets import create_secret
from tests.hooks import Outbox, clock
from tests.receiver import Receiver, Reply, Request

ENDPOINTS = (1, 20)
TASKS = (1, 8, 32)
"""Requests that the bare client has under way; the quickest of these counts."""
LEAST = 0.5
"""Of the bare client's rate, what one dispatcher must reach."""
PACE = 50
"""Changes a second where delays are measured, to ten endpoints."""
HEALTHY = 5
HANGING, REFUSING = 3, 2
"""The dead ones: those that take a request and never answer, and those that nobody listens at."""
FIRST_ATTEMPT = 5.0
"""Seconds from the commit to the first attempt, for 99 of 100."""
DOUBLED = 2.0
"""What the dead may do to the delay of the healthy at most; a delay below `UNSEEN` seconds counts as that."""
UNSEEN = 0.25
GROWTH = 30.0
"""Megabytes by which the dispatcher may be larger at the end than when a third of the time had passed."""
PATIENCE_SECONDS = 120.0
KEY = MasterKey("k1", bytes(range(32)))
_DATA = json.loads(BODY)["data"]


class Deliveries:
    """One dispatcher, beside a bare client; then with dead receivers, beside itself without."""

    def __init__(self, servers: Servers, template: str, *, rounds: int, quick: bool) -> None:
        self._servers = servers
        self._template = template
        self._rounds = rounds
        self._count = 1_000 if quick else 4_000
        self._seconds = 20 if quick else 90

    @property
    def steps(self) -> int:
        return (len(ENDPOINTS) + len(TASKS)) * self._rounds + 2

    def run(self, progress: Progress) -> list[Section]:
        """Raises BenchError if anything does not arrive, comes too late, or the dispatcher grows."""
        return uvloop.run(self._run(progress))

    async def _run(self, progress: Progress) -> list[Section]:
        return [await self._rates(progress), await self._delays(progress)]

    # -- how fast ----

    async def _rates(self, progress: Progress) -> Section:
        bare: dict[int, list[float]] = defaultdict(list)
        ours: dict[int, list[float]] = defaultdict(list)
        for _ in range(self._rounds):
            for tasks in TASKS:
                progress.doing(f"deliveries: a bare client with {tasks} tasks", self._count)
                bare[tasks].append(await self._bare(tasks))
                progress.done(f"deliveries: {bare[tasks][-1]:,.0f}/s bare, {tasks} at a time")
            for endpoints in ENDPOINTS:
                progress.doing(f"deliveries: one dispatcher, {endpoints} endpoints", self._count)
                ours[endpoints].append(await self._dispatched(endpoints))
                progress.done(f"deliveries: {ours[endpoints][-1]:,.0f}/s to {endpoints} endpoints")
        best = max(bare.values(), key=statistics.median)
        rows = [
            [f"bare httpx client, {tasks} at a time", rate(samples), ratio(samples, best)]
            for tasks, samples in bare.items()
        ]
        for endpoints, samples in ours.items():
            rows.append(
                [f"one dispatcher, {endpoints} endpoint{'s' * (endpoints > 1)}", rate(samples), ratio(samples, best)]
            )
        slowest = min(statistics.median(samples) for samples in ours.values())
        if slowest < LEAST * statistics.median(best):
            raise BenchError(
                f"one dispatcher delivers {slowest:,.0f}/s, less than half of {statistics.median(best):,.0f}/s"
            )
        return Section(
            f"Webhooks: {self._count:,} deliveries to a receiver on the same machine",
            ["", "deliveries/s", "of the quickest bare client"],
            rows,
        )

    async def _bare(self, tasks: int) -> float:
        arrivals = _Arrivals()
        async with Receiver(arrivals.take) as receiver:
            arguments = ["-m", "bench.sending", receiver.url(), str(self._count), str(tasks)]
            with Process("the bare client", arguments, {}, self._servers.directory, ends=True) as process:
                return await arrivals.rate(self._count, process)

    async def _dispatched(self, endpoints: int) -> float:
        arrivals = _Arrivals()
        async with self._endpoints(arrivals, endpoints) as outbox:
            await outbox.record(range(self._count // endpoints), **_DATA)
            self._servers.settle()
            with self._dispatcher(outbox) as process:
                return await arrivals.rate(self._count // endpoints * endpoints, process)

    # -- how late ----

    async def _delays(self, progress: Progress) -> Section:
        alone, _ = await self._paced(progress, dead=False)
        beside, memory = await self._paced(progress, dead=True)
        p99 = [_percentile(delays, 99) for delays in (alone, beside)]
        early, late = memory[len(memory) // 3], memory[-1]
        if p99[1] > FIRST_ATTEMPT:
            raise BenchError(f"beside dead receivers the first attempt comes {p99[1]:.1f} s after the commit")
        if p99[1] > DOUBLED * max(p99[0], UNSEEN):
            raise BenchError(f"dead receivers make the others wait {p99[1]:.2f} s instead of {p99[0]:.2f} s")
        if late > early + GROWTH:
            raise BenchError(f"the dispatcher grows from {early:.0f} to {late:.0f} MB beside dead receivers")
        rows = [
            [what, f"{1000 * _percentile(delays, 50):,.0f}", f"{1000 * _percentile(delays, 99):,.0f}", size]
            for what, delays, size in (
                (f"{HEALTHY} endpoints", alone, ""),
                (f"{HEALTHY} endpoints beside {HANGING + REFUSING} dead ones", beside, f"{early:.0f} → {late:.0f}"),
            )
        ]
        return Section(
            f"Webhooks: from commit to first attempt at healthy endpoints, {PACE} changes/s for {self._seconds} s",
            ["", "median ms", "p99 ms", "resident MB"],
            rows,
        )

    async def _paced(self, progress: Progress, *, dead: bool) -> tuple[list[float], list[float]]:
        """The delay of each first arrival at a healthy endpoint, and the dispatcher's size along the way."""
        what = "beside dead receivers" if dead else "healthy receivers alone"
        progress.doing(f"deliveries: {what}", self._seconds)
        arrivals, memory = _Arrivals(), []
        committed: dict[str, float] = {}
        async with self._endpoints(arrivals, HEALTHY, HANGING * dead, REFUSING * dead) as outbox:
            with self._dispatcher(outbox) as process:
                await _is_up(outbox, process)
                began, count = time.perf_counter(), 0
                while count < PACE * self._seconds:
                    await asyncio.sleep(max(0.0, began + count / PACE - time.perf_counter()))
                    name = f"n{count}"
                    await _change(outbox, count, name)
                    committed[name] = time.perf_counter()
                    count += 1
                    if count % PACE == 0:
                        process.check()
                        memory.append(psutil.Process(process.pid).memory_info().rss / 1e6)
                        progress.advance(1)
                await arrivals.complete(HEALTHY * count, process)
        delays = [at - committed[name] for (path, name), at in arrivals.first.items() if path.startswith("/healthy")]
        progress.done(f"deliveries: {what}, p99 {_percentile(delays, 99):.2f} s")
        return delays, memory

    # -- what both need ----

    @asynccontextmanager
    async def _endpoints(
        self, arrivals: _Arrivals, healthy: int, hanging: int = 0, refusing: int = 0
    ) -> AsyncIterator[Outbox]:
        """A fresh database with endpoints, and their receiver."""
        with self._servers.database(self._template) as database_url:
            database = Database(database_url)
            try:
                async with Receiver(arrivals.take) as receiver:
                    outbox = Outbox(database)
                    urls = [receiver.url(f"/healthy{n}") for n in range(healthy)]
                    urls += [receiver.url(f"/hanging{n}") for n in range(hanging)]
                    urls += [f"http://127.0.0.1:{n + 1}/" for n in range(refusing)]
                    for url in urls:
                        row = await outbox.endpoint(url=url)
                        async with database.transaction() as connection:
                            await create_secret(connection, Vault([KEY]), row.id, "v1", clock())
                    yield outbox
            finally:
                await database.close()

    def _dispatcher(self, outbox: Outbox) -> Process:
        settings = {
            "LIFECYCLE_DATABASE_URL": outbox.database.engine.url.render_as_string(hide_password=False),
            "LIFECYCLE_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
            "LIFECYCLE_MASTER_KEYS": f"{KEY.id}:{base64.b64encode(KEY.key).decode()}",
        }
        arguments = ["-m", "lifecycle_engine", "serve", "--role", "dispatcher"]
        return Process("the dispatcher", arguments, settings, self._servers.directory)


class _Arrivals:
    """What has come to the receiver: when each event first came to each path."""

    def __init__(self) -> None:
        self.first: dict[tuple[str, str], float] = {}
        self.count: Counter[str] = Counter()
        self._began = 0.0
        self._last = 0.0

    def take(self, request: Request) -> Reply:
        self._last = time.perf_counter()
        self._began = self._began or self._last
        kind = request.path[:8]
        self.count[kind] += 1
        if kind == "/healthy":
            name = json.loads(request.body)["data"]["customer_id"]
            self.first.setdefault((request.path, name), self._last)
        return Reply(204, seconds=3600.0) if kind == "/hanging" else Reply(204)

    async def rate(self, count: int, process: Process) -> float:
        """From the first request to the last, how many a second."""
        await self._until(lambda: sum(self.count.values()) >= count, process)
        return (count - 1) / (self._last - self._began)

    async def complete(self, count: int, process: Process) -> None:
        await self._until(lambda: len(self.first) >= count, process)

    async def _until(self, condition: Callable[[], bool], process: Process) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            process.check()
            if time.monotonic() > deadline:
                raise BenchError(f"deliveries: only {dict(self.count)} have arrived\n{process.said()}")
            await asyncio.sleep(0.02)


async def _change(outbox: Outbox, customer: int, name: str) -> None:
    body = json.dumps({**_DATA, "customer_id": name}).encode()
    await outbox.add([ChangeRow(customer, "stage.changed", "five-stages", None, 1, False, clock(), body)])


async def _is_up(outbox: Outbox, process: Process) -> None:
    """Waits until the dispatcher has connected to the database."""
    url = driver_url(outbox.database.engine.url.render_as_string(hide_password=False))
    connection = await asyncpg.connect(url)
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        while not await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'lifecycle-engine' AND query LIKE '%webhook_health%'"
        ):
            process.check()
            if time.monotonic() > deadline:
                raise BenchError(f"deliveries: the dispatcher does not start\n{process.said()}")
            await asyncio.sleep(0.05)
    finally:
        await connection.close()


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]

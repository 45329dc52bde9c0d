"""The feed: how fast one dispatcher gives positions, and how fast a reader that starts at the beginning catches up."""

from __future__ import annotations

import asyncio
import http.client
import json
import secrets
import statistics
import time
from collections.abc import Mapping

import asyncpg
import uvloop

from bench.load import Address
from bench.processes import BenchError, Process, Servers
from bench.progress import Progress
from bench.report import Section, rate, ratio
from bench.targets import Target, driver_url, until_ready
from tools.services import free_port

PAGE = 5000
POLL_SECONDS = 0.02
PATIENCE_SECONDS = 60.0
BODY = (
    '{"customer_id":"customer-%s","lifecycle":"five-stages","subject":null,"from":"consideration","to":"purchase",'
    '"move":"advance","skipped":[],"occurred_at":"2026-03-05T18:00:00Z","recorded_at":"2026-03-05T18:00:00.218Z",'
    '"sequence":3,"cause":{"kind":"touchpoint","rule":3,"touchpoint":"order-1001","source":"webshop",'
    '"definition_version":1}}'
)
_FILL = """
INSERT INTO change (customer, type, lifecycle, sequence, muted, recorded_at, body)
SELECT n % 1000, 'stage.changed', 'five-stages', n / 1000 + 1, false, n, convert_to(replace($2, '%s', n::text), 'UTF8')
FROM generate_series(1, $1) AS n
"""
_BARE = "SELECT position, type, muted, body FROM change WHERE position > $1 ORDER BY position LIMIT $2"


class Feed:
    """A feed of changes is filled, given its positions, and read from its beginning; the reading takes turns."""

    def __init__(self, servers: Servers, template: str, *, rounds: int, quick: bool) -> None:
        self._servers = servers
        self._template = template
        self._rounds = rounds
        self._changes = 20_000 if quick else 200_000

    @property
    def steps(self) -> int:
        return 1 + 2 * self._rounds

    def run(self, progress: Progress) -> list[Section]:
        """Raises BenchError if a reader misses a change or sees one twice."""
        key, port = secrets.token_urlsafe(24), free_port()
        with self._servers.database(self._template) as database_url:
            settings = {
                "LIFECYCLE_DATABASE_URL": database_url,
                "LIFECYCLE_LISTEN": f"127.0.0.1:{port}",
                "LIFECYCLE_API_KEY": key,
            }
            progress.doing("feed: giving positions", self._changes)
            sequenced = uvloop.run(self._sequence(database_url, settings))
            progress.done(f"feed: {sequenced:,.0f} positions/s")
            self._servers.settle()
            read: list[float] = []
            bare: list[float] = []
            with self._serve("api", settings) as process:
                until_ready(Target(Address(port), database_url, {"api": process}), "/readyz", 200)
                for _ in range(self._rounds):
                    read.append(self._changes / self._catch_up(port, key))
                    progress.done(f"feed: {read[-1]:,.0f}/s over HTTP")
                    bare.append(self._changes / uvloop.run(self._catch_up_bare(database_url)))
                    progress.done(f"feed: {bare[-1]:,.0f}/s from the table")
        rows = [
            ["the table read in the same pages, and nothing made of it", rate(bare), "1.00"],
            [f"`GET /v1/changes?limit={PAGE}`, from the beginning", rate(read), ratio(read, bare)],
            ["one dispatcher gives positions", rate([sequenced]), f"{sequenced / statistics.median(bare):.2f}"],
        ]
        return [Section(f"The feed: {self._changes:,} changes", ["", "changes/s", "of the table's rate"], rows)]

    def _serve(self, role: str, settings: Mapping[str, str]) -> Process:
        arguments = ["-m", "lifecycle_engine", "serve", "--role", role]
        return Process(f"the engine's {role}", arguments, settings, self._servers.directory)

    async def _sequence(self, database_url: str, settings: Mapping[str, str]) -> float:
        connection = await asyncpg.connect(driver_url(database_url))
        try:
            await connection.execute(_FILL, self._changes, BODY)
            await connection.execute("ANALYZE change")
            first = 0
            began = time.perf_counter()
            with self._serve("dispatcher", settings) as process:
                while True:
                    given = await connection.fetchval("SELECT next - 1 FROM feed")
                    now = time.perf_counter()
                    if not first:
                        first, began = given, now
                    if given == self._changes:
                        return float((given - first) / (now - began))
                    process.check()
                    if now - began > PATIENCE_SECONDS:
                        raise BenchError(f"feed: {given} of {self._changes} changes have a position\n{process.said()}")
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            await connection.close()

    def _catch_up(self, port: int, key: str) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        after, seen = "0", 0
        began = time.perf_counter()
        try:
            while True:
                path = f"/v1/changes?limit={PAGE}&after={after}"
                connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    raise BenchError(f"feed: {path} is answered with {response.status}: {body[:500]!r}")
                page = json.loads(body)
                for change in page["items"]:
                    seen += 1
                    if change["position"] != seen:
                        raise BenchError(f"feed: position {change['position']} came as the {seen}th change")
                after = page["next_after"]
                if not page["has_more"]:
                    break
        finally:
            connection.close()
        if seen != self._changes:
            raise BenchError(f"feed: {seen} of {self._changes} changes were read")
        return time.perf_counter() - began

    async def _catch_up_bare(self, database_url: str) -> float:
        connection = await asyncpg.connect(driver_url(database_url))
        try:
            after = seen = 0
            began = time.perf_counter()
            while rows := await connection.fetch(_BARE, after, PAGE):
                seen += len(rows)
                after = rows[-1]["position"]
            if seen != self._changes:
                raise BenchError(f"feed: the table has {seen} of {self._changes} changes")
            return time.perf_counter() - began
        finally:
            await connection.close()

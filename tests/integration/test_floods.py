"""A flood of records that cannot be processed stops the workers, in processes of their own and on both logs."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from lifecycle_engine.log.database import DatabaseAppender
from lifecycle_engine.log.kafka import KafkaAppender
from lifecycle_engine.log.port import Appender, Record
from lifecycle_engine.store.database import Database
from tests.processes import PROGRAM, Service, settings_for, wait_until
from tools.services import KafkaCluster

LIMIT = 20
KEY = b"customer_id:c"
"""All of one partition, so that it is known what comes after what."""


class Logged:
    """A log that anyone can write to, and the settings of a service that reads it."""

    def __init__(self, appender: Appender, settings: dict[str, str]) -> None:
        self.settings = settings | {"LIFECYCLE_DEAD_LETTER_LIMIT": str(LIMIT)}
        self._appender = appender

    async def flood(self, count: int) -> None:
        assert all(await self._appender.append([Record(KEY, b"{not JSON %d" % n) for n in range(count)]))


@asynccontextmanager
async def _database_log(url: str) -> AsyncIterator[Logged]:
    database = Database(url)
    appender = DatabaseAppender(database, asyncio.Event())
    await appender.start()
    try:
        yield Logged(appender, settings_for(url))
    finally:
        await appender.stop()
        await database.close()


@asynccontextmanager
async def _kafka_log(url: str, kafka: KafkaCluster, topic: str) -> AsyncIterator[Logged]:
    appender = KafkaAppender(kafka.bootstrap_servers, topic, partitions=4)
    await appender.start()
    await wait_until(appender.ready, "the log takes records")
    try:
        yield Logged(appender, settings_for(url, kafka.bootstrap_servers, topic))
    finally:
        await appender.stop()


@pytest.fixture(params=["database", "kafka"])
async def logged(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Logged]:
    if request.param == "database":
        url = request.getfixturevalue("installed_sqlite_url")
        log = _database_log(url)
    else:
        url, kafka, topic = map(request.getfixturevalue, ("installed_postgres_url", "kafka", "topic"))
        log = _kafka_log(url, kafka, topic)
    async with log as opened:
        yield opened


async def test_a_flood_of_dead_letters_stops_the_workers(logged: Logged, tmp_path: Path) -> None:
    service = Service(["api", "worker"], logged.settings, tmp_path)
    async with service, service.client() as client:

        async def ask(path: str) -> Any:
            return (await client.get(path)).json()

        async def is_applied(id_: str) -> bool:
            return bool((await ask(f"/v1/touchpoints/{id_}")).get("status") == "applied")

        async def stands_still() -> bool:
            return bool((await ask("/v1/dead-letters/halt"))["halted"])

        async def post(id_: str) -> None:
            body = {"id": id_, "type": "purchase", "customer_id": "c"}
            assert (await client.post("/v1/touchpoints", json=body)).status_code == 202

        # A few are set aside, and their neighbours go on.
        await logged.flood(LIMIT - 5)
        await post("t1")
        await wait_until(lambda: is_applied("t1"), "the neighbour of a few dead letters is applied")
        assert (await client.get("/readyz")).status_code == 200
        # Many are not: they stay in the log, and so does what comes after them.
        await logged.flood(LIMIT + 10)
        await post("t2")
        await wait_until(stands_still, "the worker stands still")
        letters = await dead_letters(client)
        assert LIMIT - 5 <= len(letters) <= LIMIT
        halt = await ask("/v1/dead-letters/halt")
        assert halt["position"] > max(one["position"] for one in letters)
        assert (halt["code"], halt["reason"]) == (letters[0]["code"], letters[0]["reason"])
        assert letters[0]["value"].startswith("{not JSON")
        unready = await client.get("/readyz")
        assert (unready.status_code, unready.json()["checks"]["worker"]) == (503, False)
        told = unready.json()["reasons"]["worker"]
        assert f"before position {halt['position']} of partition {halt['partition']}" in told
        assert "lifecycle-engine resume" in told
        # A new process stands still as well, whatever it can't remember.
        assert await service.stop() == 0
        await service.launch()
        await wait_until(lambda: _answers(client), "the service is there again")
        await wait_until(lambda: _is_unready(client), "it is not ready")
        assert (await ask("/v1/touchpoints/t2"))["status"] == "pending"
        assert len(await dead_letters(client)) == len(letters)
        # Somebody has looked at it. The next ones are as many again, and then it is told on the command line.
        assert (await client.delete("/v1/dead-letters/halt")).status_code == 204
        await wait_until(lambda: _has(client, len(letters) + LIMIT), "it has gone on, and stands still again")
        await wait_until(stands_still, "it stands still again")
        assert await _resume(logged, tmp_path) == "the workers go on\n"
        await wait_until(lambda: is_applied("t2"), "what came after them is applied")
        assert len(await dead_letters(client)) == 2 * LIMIT + 5
        await wait_until(lambda: _is_ready(client), "it is ready")
        assert await _resume(logged, tmp_path) == "the workers were not stopped\n"
        assert (await client.delete("/v1/dead-letters/halt")).json()["code"] == "not_halted"


async def test_dead_letters_are_listed_and_sent_again(logged: Logged, tmp_path: Path) -> None:
    service = Service(["api", "worker"], logged.settings, tmp_path)
    async with service, service.client() as client:
        await logged.flood(3)
        await wait_until(lambda: _has(client, 3), "they are set aside")
        page = (await client.get("/v1/dead-letters", params={"limit": 2})).json()
        rest = (await client.get("/v1/dead-letters", params={"limit": 2, "cursor": page["next_cursor"]})).json()
        assert [one["value"] for one in page["items"] + rest["items"]] == [f"{{not JSON {n}" for n in (2, 1, 0)]
        last = page["items"][0]
        again = await client.post(f"/v1/dead-letters/{last['partition']}/{last['position']}/resend")
        assert again.status_code == 202
        await wait_until(lambda: _has(client, 4), "it has come once more")
        first, *_ = await dead_letters(client)
        assert (first["value"], first["key"]) == (last["value"], KEY.decode())
        assert first["position"] > last["position"]
        missing = await client.post(f"/v1/dead-letters/{last['partition']}/{first['position'] + 1}/resend")
        assert (missing.status_code, missing.json()["code"]) == (404, "dead_letter_not_found")


async def dead_letters(client: httpx.AsyncClient) -> list[Any]:
    items: list[Any] = (await client.get("/v1/dead-letters", params={"limit": 250})).json()["items"]
    return items


async def _has(client: httpx.AsyncClient, count: int) -> bool:
    return len(await dead_letters(client)) == count


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/livez")).status_code == 200
    except httpx.TransportError:
        return False


async def _is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def _is_unready(client: httpx.AsyncClient) -> bool:
    return "worker" in (await client.get("/readyz")).json()["reasons"]


async def _resume(logged: Logged, directory: Path) -> str:
    ended = await asyncio.to_thread(
        subprocess.run, [*PROGRAM, "resume"], cwd=directory, env=logged.settings, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout

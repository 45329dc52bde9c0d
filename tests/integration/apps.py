"""The HTTP application over a chosen log, started and stopped as a server would, and called without a socket."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from lifecycle_engine.api.app import create_app
from lifecycle_engine.api.health import Health
from lifecycle_engine.api.keys.authentication import Keys
from lifecycle_engine.api.services import Services
from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.ingest.intake import Intake
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.log.message import Fact, decode
from lifecycle_engine.log.port import Appender
from lifecycle_engine.outbox.vault import Vault
from lifecycle_engine.store.database import Database
from lifecycle_engine.webhook.sender import Sender
from tests.contract.logs import Log, Stored, drain

KEY = "a first key with every scope"
SKEW = 300_000_000


def clock() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


@dataclass(frozen=True)
class App:
    app: FastAPI
    client: httpx.AsyncClient
    services: Services


@asynccontextmanager
async def running(
    appender: Appender,
    database: Database,
    *,
    first_key: str | None = KEY,
    clock: Callable[[], int] = clock,
) -> AsyncIterator[App]:
    keys = Keys(database, first_key)
    services = Services(
        appender=appender,
        intake=Intake(appender, clock, SKEW),
        keys=keys,
        database=database,
        definitions=Definitions(database, Cel()),
        health=Health({"log": appender.ready, "keys": keys.ready}),
        log="log",
        clock=clock,
        vault=Vault([]),
        sender=Sender(),
        webhook_retention=30 * 86_400_000_000,
    )
    app = create_app(services)
    headers = {"Authorization": f"Bearer {first_key}"} if first_key else {}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://engine", headers=headers, timeout=30
        ) as client,
    ):
        yield App(app, client, services)


@dataclass(frozen=True)
class Way:
    """The way in, and what comes out of it."""

    app: App
    log: Log

    async def post(self, body: Any, path: str = "/v1/touchpoints", **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        if not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "application/json"
        return await self.app.client.post(path, content=content, headers=headers)

    async def facts(self, count: int) -> list[Fact]:
        """All that was appended, which must be that many."""
        async with self.log.reader(Stored()) as reader:
            deliveries = await drain(reader, count) if count else []
            assert await reader.lag() == 0
            for lane in range(reader.lanes):
                assert await reader.read(lane, 1, 0.1) == []
        return [decode(delivery.value or b"") for delivery in deliveries]

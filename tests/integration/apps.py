"""The HTTP application over a chosen log, started and stopped as a server would, and called without a socket."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from fastapi import FastAPI

from lifecycle_engine.api.app import create_app
from lifecycle_engine.api.authentication import Keys
from lifecycle_engine.api.health import Health
from lifecycle_engine.api.services import Services
from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.ingest.intake import Intake
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.log.port import Appender
from lifecycle_engine.store.database import Database

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

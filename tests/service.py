"""The HTTP side as a service has it, over a database whose log is a table, called without a socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from lifecycle_engine.api.app import create_app
from lifecycle_engine.api.authentication import Keys
from lifecycle_engine.api.health import Health
from lifecycle_engine.api.services import Services
from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.ingest.intake import Intake
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.log.database import DatabaseAppender
from lifecycle_engine.store.database import Database

KEY = "le_a_first_key_with_every_scope"
SOURCE = "default"
"""The name of the first key, and so the source of what it posts."""


def clock() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


@asynccontextmanager
async def service(database: Database, appended: asyncio.Event | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service with a key that may do everything; `appended` is set whenever the log has grown."""
    appender = DatabaseAppender(database, appended or asyncio.Event())
    app = create_app(
        Services(
            appender=appender,
            intake=Intake(appender, clock, future_skew=300_000_000),
            keys=Keys(database, KEY),
            database=database,
            definitions=Definitions(database, Cel()),
            health=Health({}),
            log="database",
            clock=clock,
        )
    )
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://service",
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=30,
    )
    await appender.start()
    try:
        async with client:
            yield client
    finally:
        await appender.stop()

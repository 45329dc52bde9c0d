"""The HTTP side as a service has it, over a database whose log is a table, called without a socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network

import httpx

from lifecycle_engine.api.app import create_app
from lifecycle_engine.api.health import Health
from lifecycle_engine.api.keys.authentication import Keys
from lifecycle_engine.api.services import Services
from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.ingest.intake import Intake
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.log.database import DatabaseAppender
from lifecycle_engine.outbox.vault import Vault, generate_master_key, parse_master_keys
from lifecycle_engine.store.database import Database
from lifecycle_engine.webhook.sender import Sender

KEY = "le_a_first_key_with_every_scope"
VAULT = Vault(parse_master_keys(generate_master_key()))
LOOPBACK = ip_network("127.0.0.0/8")
SOURCE = "default"
"""The name of the first key, and so the source of what it posts."""


def clock() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def lookup(host: str, port: int) -> list[str]:
    """Every name leads to one public address, and no name server is asked."""
    return ["93.184.215.14"]


@asynccontextmanager
async def service(
    database: Database, appended: asyncio.Event | None = None, vault: Vault | None = None, sender: Sender | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service with a key that may do everything; `appended` is set whenever the log has grown.

    Webhooks may go to this machine.
    """
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
            vault=vault or VAULT,
            sender=sender or Sender([LOOPBACK], lookup=lookup),
            webhook_retention=30 * 86_400_000_000,
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

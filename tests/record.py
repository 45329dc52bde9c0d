"""A migrated database with lifecycles of a test's choosing, and batches of the log as a worker gets them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import select

from lifecycle_engine import schema
from lifecycle_engine.engine.batch import Outcome, apply_batch
from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.engine.horizon import Horizon
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.log.database import DatabaseBacklog
from lifecycle_engine.log.port import Delivery
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.history import Line, line_of
from lifecycle_engine.store.lifecycles import activate_version, add_version
from lifecycle_engine.store.tables import change, customer, history

LOG = "test"


@asynccontextmanager
async def record(url: str, *documents: dict[str, Any]) -> AsyncIterator[Database]:
    """The database at `url`, migrated, in which exactly these lifecycles are active."""
    database = Database(url, by_key_only=not url.startswith("sqlite"))
    try:
        async with database.transaction() as connection:
            await connection.run_sync(schema.upgrade)
        for document in documents:
            await activate(database, document)
        yield database
    finally:
        await database.close()


async def activate(database: Database, document: dict[str, Any], since: int | None = None) -> None:
    """Adds a version of a lifecycle and makes it active, from an instant on where one is named."""
    async with database.transaction() as connection:
        now = await database.clock(connection)
        added = await add_version(connection, document["lifecycle"], json.dumps(document), "application/json", now)
        await activate_version(connection, added.key, added.version, now, since)


def horizon(database: Database) -> Horizon:
    """How far time may pass, where nothing is in the log that is not applied."""
    return Horizon(database, DatabaseBacklog(database), LOG, 0)


def message(id_: str, type_: str, at: int, customer_id: str = "c", **fields: Any) -> bytes:
    """A message of the log; `at` in microseconds since the epoch."""
    content = {
        "id": id_,
        "type": type_,
        "customer_id": customer_id,
        "source": "test",
        "occurred_at": format_instant(at),
        "received_at": "2026-01-01T00:00:00Z",
        **fields,
    }
    return json.dumps({name: value for name, value in content.items() if value is not None}).encode()


def deliveries(messages: Iterable[bytes], start: int = 0, partition: int = 0) -> list[Delivery]:
    """Messages as a worker reads them, at consecutive positions."""
    return [Delivery(partition, position, position, 0, b"", value) for position, value in enumerate(messages, start)]


class Feed:
    """Applies messages one batch after the other, each where the one before it has ended."""

    def __init__(self, database: Database, partition: int = 0) -> None:
        self.database = database
        self.definitions = Definitions(database, Cel())
        self.partition = partition
        self.next = 0

    async def apply(self, *messages: bytes) -> Outcome:
        batch = deliveries(messages, self.next, self.partition)
        outcome = await apply_batch(self.database, await self.definitions.reload(), LOG, batch)
        self.next += len(messages)
        return outcome


async def lines(database: Database, customer_id: str = "c", kind: str = "customer_id") -> list[Line]:
    """All lines of a customer's history, the superseded ones too, in the order in which they were recorded."""
    table = history.c
    query = (
        select(
            table.customer, table.recorded_at, table.number, table.lifecycle, table.subject, table.at, table.stage,
            table.origin, table.move, table.skipped, table.cause, table.rule, table.touchpoint, table.source,
            table.definition_version, table.reason, table.phase, table.superseded_at,
        )
        .join(customer, customer.c.id == table.customer)
        .where(customer.c.kind == kind, customer.c.value == customer_id)
        .order_by(table.recorded_at, table.number)
    )  # fmt: skip
    async with database.transaction() as connection:
        return [line_of(row) for row in await connection.execute(query)]


async def changes(database: Database, customer_id: str = "c") -> list[dict[str, Any]]:
    """What others are told of a customer, in the order in which it was recorded, with `type` and `muted`."""
    query = (
        select(change.c.type, change.c.muted, change.c.body)
        .join(customer, customer.c.id == change.c.customer)
        .where(customer.c.value == customer_id)
        .order_by(change.c.id)
    )
    async with database.transaction() as connection:
        rows: Sequence[Any] = (await connection.execute(query)).all()
    return [{"type": type_, "muted": muted, **json.loads(body)} for type_, muted, body in rows]

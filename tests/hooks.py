"""Endpoints, changes and the outbox as a test steps through it: every instant is the test's to choose."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import select

from lifecycle_engine.feed.sequencer import sequence_changes
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.outbox.fan_out import FanOut
from lifecycle_engine.outbox.ids import new_id
from lifecycle_engine.outbox.leftovers import end_leftovers, find_leftovers
from lifecycle_engine.outbox.policy import Policy
from lifecycle_engine.outbox.queue import Claim, Result, Written, claim_due, write_results
from lifecycle_engine.outbox.retry import Answer
from lifecycle_engine.outbox.subscriptions import Subscriptions
from lifecycle_engine.store.changes import ChangeRow, add_changes
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.deliveries import NewDelivery, add_deliveries
from lifecycle_engine.store.endpoints import EndpointRow, add_endpoint, find_endpoint
from lifecycle_engine.store.health import Health, lock_health
from lifecycle_engine.store.tables import webhook_attempt, webhook_delivery, webhook_message

SECOND = 1_000_000
_MIDDLE = 0.5
"""Delays are neither shortened nor lengthened."""


def clock() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def endpoint_row(url: str = "https://receiver.example/hook", **fields: Any) -> EndpointRow:
    """An endpoint; `filter` is plain data."""
    now = clock()
    document = fields.pop("filter", None)
    row = EndpointRow(
        new_id("ep_", now), url, "", None, None, None, "none", "v1", None, None, 1, now, now
    )._replace(**fields)  # fmt: skip
    return row if document is None else row._replace(filter=json.dumps(document))


class Outbox:
    """One dispatcher's view of the outbox, done by hand."""

    def __init__(self, database: Database, policy: Policy | None = None) -> None:
        self.database = database
        self.policy = policy or Policy()
        self._fan_out = FanOut(database)
        self._subscriptions = Subscriptions()
        self._sequences: dict[int, itertools.count[int]] = {}

    async def endpoint(self, **fields: Any) -> EndpointRow:
        row = endpoint_row(**fields)
        async with self.database.transaction() as connection:
            await add_endpoint(connection, row)
        return row

    async def record(
        self, customers: Iterable[int], *, type: str = "stage.changed", muted: bool = False, **data: Any
    ) -> None:
        """Writes a change for each of these customers, in this order, and gives them their positions."""
        now = clock()
        rows = []
        for customer in customers:
            sequence = next(self._sequences.setdefault(customer, itertools.count(1)))
            body = {"customer_id": f"c{customer}", "from": "a", "to": "b", "move": "advance", "sequence": sequence}
            body |= {"recorded_at": format_instant(now), **data}
            rows.append(ChangeRow(customer, type, "shop", None, sequence, muted, now, json.dumps(body).encode()))
        await self.add(rows)
        while await sequence_changes(self.database, self._fan_out):
            pass

    async def add(self, rows: Sequence[ChangeRow]) -> None:
        """Writes changes, which have no position yet."""
        async with self.database.transaction() as connection:
            await self.database.clock(connection)  # Rows are copied into a transaction that has begun.
            await add_changes(connection, rows)

    async def claim(self, now: int, slots: int = 200, held: Mapping[str, int] | None = None) -> list[Claim]:
        async with self.database.transaction() as connection:
            return await claim_due(connection, self.policy, now, slots, held or {})

    async def answer(self, claims: Sequence[Claim], answer: Answer, now: int) -> list[Written]:
        """Writes the same answer to these attempts."""
        results = [Result(claim, answer, now, 5, None) for claim in claims]
        async with self.database.transaction() as connection:
            return await write_results(connection, self.policy, self._subscriptions, results, now, lambda: _MIDDLE)

    async def end_leftovers(self, now: int) -> int:
        ended = 0
        async with self.database.transaction() as connection:
            for leftover in await find_leftovers(connection):
                ended += await end_leftovers(connection, self.policy, self._subscriptions, leftover, now)
        return ended

    async def send_again(self, endpoint: EndpointRow, message: str, trigger: str = "resend") -> None:
        now = clock()
        async with self.database.transaction() as connection:
            await add_deliveries(connection, [NewDelivery(endpoint.id, message, None, trigger, now, now)])

    async def health(self, endpoint: EndpointRow) -> Health:
        async with self.database.transaction() as connection:
            return (await lock_health(connection, [endpoint.id]))[endpoint.id]

    async def find(self, endpoint: EndpointRow) -> EndpointRow:
        async with self.database.transaction() as connection:
            found = await find_endpoint(connection, endpoint.id)
        assert found is not None
        return found

    async def deliveries(self, endpoint: EndpointRow) -> list[dict[str, Any]]:
        """All deliveries to an endpoint, in the order in which they were queued, with the type of their message."""
        query = (
            select(*webhook_delivery.c, webhook_message.c.type)
            .join_from(webhook_delivery, webhook_message, webhook_message.c.id == webhook_delivery.c.message)
            .where(webhook_delivery.c.endpoint == endpoint.id)
            .order_by(webhook_delivery.c.id)
        )
        async with self.database.transaction() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def attempts(self, endpoint: EndpointRow) -> list[dict[str, Any]]:
        table = webhook_attempt
        query = select(table).where(table.c.endpoint == endpoint.id).order_by(table.c.id)
        async with self.database.transaction() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def messages(self) -> list[dict[str, Any]]:
        async with self.database.transaction() as connection:
            rows = await connection.execute(select(webhook_message).order_by(webhook_message.c.id))
            return [dict(row) for row in rows.mappings()]


def sequences(claims: Iterable[Claim]) -> list[tuple[int, int]]:
    """(customer, sequence) of what these claims carry."""
    found = []
    for claim in claims:
        data = json.loads(claim.message.body or b"")["data"]
        found.append((int(data["customer_id"][1:]), data["sequence"]))
    return found

"""Who is told of changes: the endpoints, and whether they may be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.rows import Statement
from lifecycle_engine.store.tables import webhook_endpoint, webhook_health, webhook_secret

UNORDERED, PER_CUSTOMER = "none", "per_customer"


class EndpointRow(NamedTuple):
    """One endpoint; times are in microseconds since the epoch, `filter` is JSON, None for all that is about customers.

    `throttle_rate` is in attempts a second, `max_in_flight` in attempts at a time, of all dispatchers together.
    """

    id: str
    url: str
    description: str
    filter: str | None
    throttle_rate: int | None
    max_in_flight: int | None
    ordering: str
    signatures: str
    disabled_at: int | None
    disabled_reason: str | None
    version: int
    created_at: int
    updated_at: int

    @property
    def is_ordered(self) -> bool:
        """Whether a customer's later changes wait for its earlier ones."""
        return self.ordering == PER_CUSTOMER


_COLUMNS = [webhook_endpoint.c[name] for name in EndpointRow._fields]
_DISABLE = Statement(
    "UPDATE webhook_endpoint SET disabled_at = given.at, disabled_reason = given.reason, updated_at = given.at, "
    "version = version + 1 FROM {given} WHERE webhook_endpoint.id = given.id AND webhook_endpoint.disabled_at IS NULL "
    "RETURNING webhook_endpoint.id",
    webhook_endpoint,
    ["id", ("reason", "disabled_reason"), ("at", "updated_at")],
)


async def add_endpoint(connection: AsyncConnection, row: EndpointRow) -> None:
    """Adds an endpoint, of whose health nothing is known yet."""
    await connection.execute(insert(webhook_endpoint).values(row._asdict()))
    await connection.execute(insert(webhook_health).values(endpoint=row.id))


async def find_endpoint(connection: AsyncConnection, id_: str) -> EndpointRow | None:
    """The endpoint of this id, where there is one."""
    row = (await connection.execute(select(*_COLUMNS).where(webhook_endpoint.c.id == id_))).first()
    return None if row is None else EndpointRow(*row)


async def enabled_endpoints(connection: AsyncConnection) -> list[EndpointRow]:
    """All that are to be told of changes."""
    query = select(*_COLUMNS).where(webhook_endpoint.c.disabled_at.is_(None)).order_by(webhook_endpoint.c.id)
    return [EndpointRow(*row) for row in await connection.execute(query)]


async def endpoints_enabled(connection: AsyncConnection) -> dict[str, bool]:
    """Every endpoint there is, and whether it is to be told of changes."""
    query = select(webhook_endpoint.c.id, webhook_endpoint.c.disabled_at.is_(None))
    return {id_: bool(enabled) for id_, enabled in await connection.execute(query)}


async def is_enabled(connection: AsyncConnection, id_: str) -> bool:
    """Whether an endpoint is to be told of changes, which stays so until this transaction ends."""
    query = select(webhook_endpoint.c.disabled_at.is_(None)).where(webhook_endpoint.c.id == id_)
    return bool((await connection.execute(query.with_for_update(read=True))).scalar())


async def disable_endpoints(connection: AsyncConnection, reasons: Sequence[tuple[str, str]], at: int) -> list[str]:
    """Disables endpoints, each for a reason; gives those that were enabled until now."""
    return [id_ for (id_,) in await _DISABLE(connection, [(*pair, at) for pair in reasons])]


async def remove_endpoint(connection: AsyncConnection, id_: str) -> None:
    """Removes an endpoint with its health and its secrets. A dispatcher will drop what is pending for it."""
    for table, column in (
        (webhook_health, webhook_health.c.endpoint),
        (webhook_endpoint, webhook_endpoint.c.id),
        (webhook_secret, webhook_secret.c.endpoint),
    ):
        await connection.execute(delete(table).where(column == id_))


async def lock_endpoint(connection: AsyncConnection, id_: str) -> EndpointRow | None:
    """The endpoint of this id, which nobody else changes until this transaction ends."""
    query = select(*_COLUMNS).where(webhook_endpoint.c.id == id_).with_for_update()
    row = (await connection.execute(query)).first()
    return None if row is None else EndpointRow(*row)


async def newest_endpoints(connection: AsyncConnection, before: str | None, limit: int) -> list[EndpointRow]:
    """The endpoints, the newest first, from one before an id on."""
    query = select(*_COLUMNS).order_by(webhook_endpoint.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(webhook_endpoint.c.id < before)
    return [EndpointRow(*row) for row in await connection.execute(query)]


async def count_endpoints(connection: AsyncConnection) -> int:
    """How many there are."""
    return int((await connection.execute(select(func.count()).select_from(webhook_endpoint))).scalar_one())


async def change_endpoint(connection: AsyncConnection, row: EndpointRow) -> None:
    """Writes an endpoint as it is to be; the caller holds its row."""
    values = row._asdict()
    await connection.execute(update(webhook_endpoint).where(webhook_endpoint.c.id == values.pop("id")).values(values))

"""Messages on their way: one row for each message and endpoint, and each time that it is sent anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.rows import Statement
from lifecycle_engine.store.tables import webhook_delivery

PENDING, DELIVERED, FAILED, DROPPED = "pending", "delivered", "failed", "dropped"


class NewDelivery(NamedTuple):
    """A message to be sent to an endpoint from `due_at` on (microseconds since the epoch).

    `customer` is the lane in which it is ordered, by the order in which deliveries are added; None: it is in none.
    """

    endpoint: str
    message: str
    customer: int | None
    trigger: str
    due_at: int
    created_at: int


class Delivery(NamedTuple):
    """A delivery that was claimed; `attempts` of its schedule have been made."""

    id: int
    endpoint: str
    message: str
    customer: int | None
    trigger: str
    attempts: int
    due_at: int
    created_at: int


class Finish(NamedTuple):
    """What becomes of a delivery whose attempt was made under a lease; `finished_at` None: it will be tried again."""

    id: int
    lease: int
    status: str
    attempts: int
    due_at: int
    reason: str | None
    finished_at: int | None


_table = webhook_delivery.c
_CLAIMED = [_table[name] for name in Delivery._fields]
_ADD = Statement(
    "INSERT INTO webhook_delivery (endpoint, message, customer, status, trigger, due_at, created_at) "
    f"SELECT endpoint, message, customer, '{PENDING}', trigger, due_at, created_at FROM {{given}}",
    webhook_delivery,
    NewDelivery._fields,
)
_FINISH = Statement(
    "UPDATE webhook_delivery SET status = given.status, attempts = given.attempts, due_at = given.due_at, "
    "reason = given.reason, finished_at = given.finished_at, lease = NULL, leased_until = NULL FROM {given} "
    f"WHERE webhook_delivery.id = given.id AND webhook_delivery.lease = given.lease "
    f"AND webhook_delivery.status = '{PENDING}' RETURNING webhook_delivery.id",
    webhook_delivery,
    Finish._fields,
)
_GIVE_BACK = Statement(
    "UPDATE webhook_delivery SET lease = NULL, leased_until = NULL FROM {given} "
    "WHERE webhook_delivery.id = given.id AND webhook_delivery.lease = given.lease",
    webhook_delivery,
    ["id", "lease"],
)
_DEFER = Statement(
    "UPDATE webhook_delivery SET due_at = given.due_at FROM {given} WHERE webhook_delivery.endpoint = given.endpoint "
    f"AND webhook_delivery.customer = given.customer AND webhook_delivery.status = '{PENDING}' "
    "AND webhook_delivery.id > given.id AND webhook_delivery.due_at < given.due_at",
    webhook_delivery,
    ["endpoint", "customer", "id", "due_at"],
)
# From one endpoint to the next in the index, however much is pending for each.
_WAITED_FOR = f"""
    WITH RECURSIVE waited_for (endpoint) AS (
        SELECT min(endpoint) FROM webhook_delivery WHERE status = '{PENDING}'
        UNION ALL
        SELECT (
            SELECT min(webhook_delivery.endpoint) FROM webhook_delivery
            WHERE webhook_delivery.status = '{PENDING}' AND webhook_delivery.endpoint > waited_for.endpoint
        )
        FROM waited_for WHERE waited_for.endpoint IS NOT NULL
    )
    SELECT endpoint FROM waited_for WHERE endpoint IS NOT NULL
"""
_TAKEN_OR_COMING = Statement(
    "SELECT DISTINCT given.message FROM {given} JOIN webhook_delivery ON webhook_delivery.message = given.message "
    "AND webhook_delivery.endpoint = given.endpoint "
    f"WHERE webhook_delivery.status IN ('{PENDING}', '{DELIVERED}')",
    webhook_delivery,
    ["endpoint", "message"],
)


async def add_deliveries(connection: AsyncConnection, rows: Sequence[NewDelivery]) -> None:
    """Queues deliveries, in this order."""
    await _ADD(connection, rows)


async def claim(
    connection: AsyncConnection, endpoint: str, now: int, limit: int, lease: int, until: int
) -> list[Delivery]:
    """Leases at most so many of an endpoint's due deliveries until an instant, the longest due first.

    One whose lane has an earlier one still to be delivered is left. The caller holds the endpoint's health.
    """
    earlier = webhook_delivery.alias("earlier")
    is_behind = (
        select(earlier.c.id)
        .where(
            earlier.c.endpoint == endpoint,
            earlier.c.customer == _table.customer,
            earlier.c.status == PENDING,
            earlier.c.id < _table.id,
        )
        .exists()
    )
    due = (
        select(_table.id)
        .where(
            _table.endpoint == endpoint,
            _table.status == PENDING,
            _table.due_at <= now,
            (_table.leased_until.is_(None)) | (_table.leased_until <= now),
            (_table.customer.is_(None)) | ~is_behind,
        )
        .order_by(_table.due_at, _table.id)
        .limit(limit)
        .with_for_update(of=webhook_delivery, skip_locked=True)
    )
    taken = (
        update(webhook_delivery).where(_table.id.in_(due)).values(lease=lease, leased_until=until).returning(*_CLAIMED)
    )
    claimed = [Delivery(*row) for row in await connection.execute(taken)]
    return sorted(claimed, key=lambda delivery: (delivery.due_at, delivery.id))


async def in_flight(connection: AsyncConnection, endpoint: str, now: int) -> int:
    """How many of an endpoint's deliveries are leased."""
    query = select(func.count()).where(
        _table.endpoint == endpoint, _table.lease.is_not(None), _table.leased_until > now
    )
    return int((await connection.execute(query)).scalar_one())


async def finish(connection: AsyncConnection, rows: Sequence[Finish]) -> set[int]:
    """Writes what became of deliveries; gives the ids of those that are still under the lease named, and so written."""
    return {id_ for (id_,) in await _FINISH(connection, rows)}


async def defer_lanes(connection: AsyncConnection, heads: Iterable[tuple[str, int, int, int]]) -> None:
    """Lets what is behind the head of a lane wait for it; heads are (endpoint, customer, id, due_at)."""
    await _DEFER(connection, list(heads))


async def give_back(connection: AsyncConnection, leases: Sequence[tuple[int, int]]) -> None:
    """Ends leases, (id, lease), whose attempt was not made, or not to its end."""
    await _GIVE_BACK(connection, leases)


async def waiting(connection: AsyncConnection) -> Mapping[str, int]:
    """How many deliveries are pending, by their endpoints."""
    query = select(_table.endpoint, func.count()).where(_table.status == PENDING).group_by(_table.endpoint)
    return {endpoint: count for endpoint, count in await connection.execute(query)}


async def endpoints_waited_for(connection: AsyncConnection) -> list[str]:
    """The endpoints that something is pending for, also those that are no more."""
    return [endpoint for (endpoint,) in await connection.execute(text(_WAITED_FOR))]


async def end_pending(
    connection: AsyncConnection,
    endpoint: str,
    status: str,
    reason: str,
    now: int,
    limit: int,
    created_before: int | None = None,
) -> list[Delivery]:
    """Ends at most so many of an endpoint's pending deliveries without another attempt, but for what is leased."""
    found = (
        select(_table.id)
        .where(
            _table.endpoint == endpoint,
            _table.status == PENDING,
            (_table.leased_until.is_(None)) | (_table.leased_until <= now),
        )
        .order_by(_table.due_at, _table.id)
        .limit(limit)
        .with_for_update(of=webhook_delivery, skip_locked=True)
    )
    if created_before is not None:
        found = found.where(_table.created_at < created_before)
    ended = (
        update(webhook_delivery)
        .where(_table.id.in_(found))
        .values(status=status, reason=reason, finished_at=now, lease=None, leased_until=None)
        .returning(*_CLAIMED)
    )
    return [Delivery(*row) for row in await connection.execute(ended)]


async def taken_or_coming(connection: AsyncConnection, endpoint: str, messages: Iterable[str]) -> set[str]:
    """Those messages that an endpoint has taken already, or that are on their way to it."""
    rows = await _TAKEN_OR_COMING(connection, [(endpoint, message) for message in sorted(set(messages))])
    return {message for (message,) in rows}

"""Ends what is pending and will not be attempted: for endpoints that are gone, disabled, or parked for too long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.outbox import breaker
from lifecycle_engine.outbox.events import DISABLED, EXHAUSTED, Alert, Cause, is_about_an_endpoint
from lifecycle_engine.outbox.fan_out import queue_alerts
from lifecycle_engine.outbox.policy import Policy
from lifecycle_engine.outbox.subscriptions import Subscriptions
from lifecycle_engine.store.deliveries import DROPPED, FAILED, end_pending, endpoints_waited_for, waiting
from lifecycle_engine.store.endpoints import disable_endpoints, endpoints_enabled, is_enabled
from lifecycle_engine.store.health import lock_health, parked_endpoints, set_health
from lifecycle_engine.store.messages import find_messages

BATCH = 1000
"""Deliveries of one transaction at most."""


class Depth(NamedTuple):
    """How much is pending for each endpoint, and which are parked."""

    pending: Mapping[str, int]
    parked: list[str]


class Leftover(NamedTuple):
    """An endpoint for which something is pending in vain, and what becomes of that."""

    endpoint: str
    status: str
    reason: str


async def find_leftovers(connection: AsyncConnection) -> list[Leftover]:
    """The endpoints whose pending deliveries have to be ended, or, where they are parked, to be looked at."""
    enabled = await endpoints_enabled(connection)
    found = []
    for endpoint in await endpoints_waited_for(connection):
        if endpoint not in enabled:
            found.append(Leftover(endpoint, DROPPED, "removed"))
        elif not enabled[endpoint]:
            found.append(Leftover(endpoint, FAILED, "disabled"))
    return found + [Leftover(endpoint, FAILED, "exhausted") for endpoint in await parked_endpoints(connection)]


async def end_leftovers(
    connection: AsyncConnection,
    policy: Policy,
    subscriptions: Subscriptions,
    leftover: Leftover,
    now: int,
    limit: int = BATCH,
) -> int:
    """Ends at most so many deliveries of an endpoint; how many there were.

    For one that is parked, that is what has been pending for longer than its whole schedule would have taken, where
    nothing has arrived for as long; what is old for another reason, such as that no dispatcher ran, is still tried.
    """
    endpoint, status, reason = leftover
    if reason != "exhausted":
        # Enabled meanwhile, it has what was queued since, and what a recovery counts as coming.
        if await is_enabled(connection, endpoint):
            return 0
        return len(await end_pending(connection, endpoint, status, reason, now, limit))
    health = (await lock_health(connection, [endpoint])).get(endpoint)
    if health is None or health.parked_until is None or health.failing_since is None:
        return 0
    if now - health.failing_since < policy.schedule.span:
        return 0
    ended = await end_pending(connection, endpoint, status, reason, now, limit, now - policy.schedule.span)
    if not ended:
        return 0
    health, is_away = breaker.after_giving_up(health, policy.limits, now)
    await set_health(connection, [health])
    messages = await find_messages(connection, {delivery.message for delivery in ended})
    alerts = []
    for delivery in ended:
        type_ = messages[delivery.message].type
        if not is_about_an_endpoint(type_):
            cause = Cause(delivery.message, type_, delivery.attempts, None, "parked")
            alerts.append(Alert(EXHAUSTED, endpoint, now, cause))
    if is_away and await disable_endpoints(connection, [(endpoint, "failing")], now):
        alerts.append(Alert(DISABLED, endpoint, now, None, "failing"))
    await queue_alerts(connection, subscriptions, alerts, now)
    return len(ended)


async def depth(connection: AsyncConnection) -> Depth:
    """How much there is to do, for the figures."""
    return Depth(await waiting(connection), await parked_endpoints(connection))

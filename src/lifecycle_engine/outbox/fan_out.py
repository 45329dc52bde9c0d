"""Queues what others are told: for each change one message, and a delivery for each endpoint that wants it.

Runs in the transaction that gives the changes their positions in the feed, so each is queued once, in their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.outbox.events import Alert, alert_body, body
from lifecycle_engine.outbox.filters import About, about, matches
from lifecycle_engine.outbox.ids import new_ids
from lifecycle_engine.outbox.subscriptions import Subscription, Subscriptions
from lifecycle_engine.store.changes import SequencedChange
from lifecycle_engine.store.customers import traits_of
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.deliveries import NewDelivery, add_deliveries
from lifecycle_engine.store.messages import MessageRow, add_messages

_NO_TRAITS: Mapping[str, Any] = {}


class FanOut:
    """What the sequencer calls; whatever is muted goes to nobody."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._subscriptions = Subscriptions()

    async def __call__(self, connection: AsyncConnection, changes: Sequence[SequencedChange]) -> None:
        """Queues messages for changes, which come in the order of their positions."""
        told = [change for change in changes if not change.muted]
        subscriptions = await self._subscriptions.read(connection) if told else []
        if not subscriptions:
            return
        wanted = [(change, takers) for change, takers in await takers_of(connection, told, subscriptions) if takers]
        now = await self._database.clock(connection)
        ids = new_ids("msg_", now, len(wanted))
        messages = [message_of(id_, change, now) for id_, (change, _) in zip(ids, wanted, strict=True)]
        deliveries = [
            delivery_to(taker, message, "change", now)
            for message, (_, takers) in zip(messages, wanted, strict=True)
            for taker in takers
        ]
        await add_messages(connection, messages)
        await add_deliveries(connection, deliveries)


async def queue_alerts(
    connection: AsyncConnection, subscriptions: Subscriptions, alerts: Sequence[Alert], now: int
) -> None:
    """Queues what is told of endpoints, for those others that ask for it."""
    told = await subscriptions.read(connection) if alerts else []
    for alert in alerts:
        event = About(alert.type)
        takers = [one for one in told if one.endpoint.id != alert.endpoint and matches(one.filter, event, None)]
        if takers:
            (id_,) = new_ids("msg_", now, 1)
            message = MessageRow(id_, alert.type, None, None, None, None, alert.at, now, alert_body(alert))
            await add_messages(connection, [message])
            await add_deliveries(connection, [delivery_to(taker, message, "endpoint", now) for taker in takers])


async def takers_of(
    connection: AsyncConnection, changes: Sequence[SequencedChange], subscriptions: Sequence[Subscription]
) -> list[tuple[SequencedChange, list[Subscription]]]:
    """Each change, and who wants to be told of it."""
    reads_data = any(one.filter.asks_for_data for one in subscriptions)
    traits: Mapping[int, Mapping[str, Any]] = {}
    if asking := [one.filter for one in subscriptions if one.filter.asks_for_traits]:
        types = {type_ for filter_ in asking for type_ in filter_.types}
        traits = await traits_of(connection, {change.customer for change in changes if change.type in types})
    found = []
    for change in changes:
        event = (
            about(change.type, change.lifecycle, change.body) if reads_data else About(change.type, change.lifecycle)
        )
        known = traits.get(change.customer, _NO_TRAITS)
        found.append((change, [one for one in subscriptions if matches(one.filter, event, known)]))
    return found


def message_of(id_: str, change: SequencedChange, now: int) -> MessageRow:
    """The message that tells of a change, made at an instant in microseconds since the epoch."""
    return MessageRow(
        id_, change.type, change.id, change.customer, change.lifecycle, change.subject, change.recorded_at, now,
        body(change.type, change.recorded_at, change.body),
    )  # fmt: skip


def delivery_to(taker: Subscription, message: MessageRow, trigger: str, now: int) -> NewDelivery:
    """A message to be sent to somebody from now on."""
    lane = message.customer if taker.endpoint.is_ordered else None
    return NewDelivery(taker.endpoint.id, message.id, lane, trigger, now, now)

"""Sends again what an endpoint has missed: all that matches its filter within some time, and that it has not taken.

A job goes through the feed, a few hundred changes a transaction, and notes how far it has come; any dispatcher goes on
with it. Each message keeps its `webhook-id`. What nobody was told of at the time gets a message now.
"""

from __future__ import annotations

import asyncio
import logging
import random

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.outbox.fan_out import delivery_to, message_of, takers_of
from lifecycle_engine.outbox.ids import new_id, new_ids
from lifecycle_engine.outbox.subscriptions import Subscriptions
from lifecycle_engine.runners import pause
from lifecycle_engine.store.changes import SKEW, FeedFilter, SequencedChange, position_of, read_feed
from lifecycle_engine.store.database import Database, is_transient
from lifecycle_engine.store.deliveries import add_deliveries, taken_or_coming
from lifecycle_engine.store.feed import last_position
from lifecycle_engine.store.messages import add_missing_messages, find_messages, messages_of
from lifecycle_engine.store.recoveries import RecoveryRow, add_recovery, note_progress, take_recovery

BATCH = 500
"""Changes of one transaction."""
PERIOD = 0.5
"""Seconds between looks for a job."""

logger = logging.getLogger(__name__)


async def begin_recovery(connection: AsyncConnection, endpoint: str, since: int, until: int, now: int) -> RecoveryRow:
    """Adds a job for what was recorded from `since` on and before `until` (microseconds since the epoch).

    What has no position in the feed yet is told as always.
    """
    end = await last_position(connection) + 1
    first = await position_of(connection, since - SKEW, end)
    total = max(0, await position_of(connection, until + SKEW, end) - first)
    row = RecoveryRow(new_id("rec_", now), endpoint, since, until, first - 1, total, 0, 0, now, None if total else now)
    await add_recovery(connection, row)
    return row


async def recover_step(connection: AsyncConnection, subscriptions: Subscriptions, now: int, limit: int = BATCH) -> bool:
    """Goes on with a job by one batch; whether there was one. One whose endpoint is disabled or gone ends there."""
    job = await take_recovery(connection)
    if job is None:
        return False
    takers = [one for one in await subscriptions.read(connection) if one.endpoint.id == job.endpoint]
    if not takers:
        await note_progress(connection, job._replace(finished_at=now))
        return True
    upto = min(job.cursor + limit, job.last)
    changes = [
        one
        for one in await read_feed(connection, job.cursor, upto, FeedFilter(muted=False), limit)
        if job.since <= one.recorded_at < job.until
    ]
    wanted = [change for change, matching in await takers_of(connection, changes, takers) if matching]
    ids = await _messages(connection, wanted, now)
    had = await taken_or_coming(connection, job.endpoint, ids.values())
    missed = [ids[change.id] for change in wanted if ids[change.id] not in had]
    messages = await find_messages(connection, missed)
    await add_deliveries(connection, [delivery_to(takers[0], messages[id_], "recover", now) for id_ in missed])
    done = job.done + upto - job.cursor
    finished_at = now if done >= job.total else None
    job = job._replace(cursor=upto, done=done, queued=job.queued + len(missed), finished_at=finished_at)
    await note_progress(connection, job)
    return True


async def _messages(connection: AsyncConnection, changes: list[SequencedChange], now: int) -> dict[int, str]:
    """The ids of the messages of these changes, made where nobody was told of them before."""
    found = await messages_of(connection, (change.id for change in changes))
    untold = [change for change in changes if change.id not in found]
    if untold:
        ids = new_ids("msg_", now, len(untold))
        await add_missing_messages(
            connection, [message_of(id_, change, now) for id_, change in zip(ids, untold, strict=True)]
        )
        found |= await messages_of(connection, (change.id for change in untold))
    return found


class Recovery:
    """The runner."""

    name = "recovery"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._subscriptions = Subscriptions()

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set; the batch at hand is finished first."""
        while not stop.is_set():
            if not await self._step():
                await pause(stop, PERIOD * random.uniform(0.5, 1.5))

    async def _step(self) -> bool:
        try:
            async with self._database.transaction() as connection:
                now = await self._database.clock(connection)
                return await recover_step(connection, self._subscriptions, now)
        except Exception as error:
            if not is_transient(error):
                raise
            logger.warning("recovering stands still, since the database did not answer: %s", type(error).__name__)
            return False

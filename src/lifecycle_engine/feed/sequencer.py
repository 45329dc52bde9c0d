"""Gives each committed change its position in the feed, and hands it to whoever tells others of it.

Ids are taken before the commit, so a reader that goes on from the last id misses what commits late. A position is given
afterwards, to what can be seen, by one process at a time: what a reader finds up to a position stays as it is. The lead
is the lock of one row for one transaction; so any number of replicas can run, and none has to be elected or to expire.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.runners import pause
from lifecycle_engine.store.changes import SequencedChange, give_positions
from lifecycle_engine.store.database import Database, is_transient
from lifecycle_engine.store.feed import move_end, take_lead

BATCH = 1000
"""Changes of one transaction at most."""
PERIOD = 0.1
"""Seconds between looks."""

FanOut = Callable[[AsyncConnection, Sequence[SequencedChange]], Awaitable[None]]
"""Queues, in the same transaction, what others have to be told of these changes."""

logger = logging.getLogger(__name__)


async def sequence_changes(database: Database, fan_out: FanOut | None, limit: int = BATCH) -> int:
    """Gives positions to at most `limit` changes, in one transaction; how many there were.

    None at all while another process has the lead.
    """
    async with database.transaction() as connection:
        first = await take_lead(connection)
        if first is None:
            return 0
        found = await give_positions(connection, first, limit)
        if found:
            await move_end(connection, first + len(found))
            if fan_out is not None:
                await fan_out(connection, found)
    return len(found)


class Sequencer:
    """The runner."""

    name = "sequencer"

    def __init__(self, database: Database, fan_out: FanOut | None = None) -> None:
        self._database = database
        self._fan_out = fan_out
        self._is_running = False
        self.sequenced = 0

    async def ready(self) -> bool:
        """Whether it runs, and its database answers."""
        return self._is_running and await self._database.answers()

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set; the batch at hand is finished first."""
        self._is_running = True
        logger.info("the sequencer runs")
        try:
            while not stop.is_set():
                if await self._step() < BATCH:
                    await pause(stop, PERIOD * random.uniform(0.5, 1.5))  # Replicas should not look in step.
        finally:
            self._is_running = False

    async def _step(self) -> int:
        try:
            count = await sequence_changes(self._database, self._fan_out)
        except Exception as error:
            if not is_transient(error):
                raise
            logger.warning("the feed stands still, since the database did not answer: %s", type(error).__name__)
            return 0
        self.sequenced += count
        return count

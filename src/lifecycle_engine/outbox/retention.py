"""Forgets what was sent and what was answered, once it has been kept for as long as it must be; in small steps."""

from __future__ import annotations

import asyncio
import logging
import random

from lifecycle_engine.runners import pause
from lifecycle_engine.store.database import Database, is_transient
from lifecycle_engine.store.delivery_log import drop_attempts, drop_jobs, drop_messages
from lifecycle_engine.store.secrets import drop_expired_secrets

DAY = 86_400_000_000
MARGIN = DAY
"""A message is kept for longer than whatever recovers it may go back, so that it does so under the same id."""
BATCH = 500
"""Rows of one transaction, so that nobody waits for it."""
BREATH = 0.05
"""Seconds between two steps."""
PERIOD = 60.0
"""Seconds between looks."""

logger = logging.getLogger(__name__)


class Retention:
    """The runner; `keep` in microseconds."""

    name = "retention"

    def __init__(self, database: Database, keep: int) -> None:
        self._database = database
        self._keep = keep
        self.forgotten = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set; the step at hand is finished first."""
        while not stop.is_set():
            try:
                await self.forget(stop)
            except Exception as error:
                if not is_transient(error):
                    raise
                logger.warning("nothing old was forgotten, since the database did not answer: %s", type(error).__name__)
            await pause(stop, PERIOD * random.uniform(0.5, 1.5))  # Replicas should not look in step.

    async def forget(self, stop: asyncio.Event) -> None:
        """Forgets all that is old enough now, step by step."""
        for drop, keep in ((drop_attempts, self._keep), (drop_messages, self._keep + MARGIN)):
            count = BATCH
            while count == BATCH and not stop.is_set():
                async with self._database.transaction() as connection:
                    now = await self._database.clock(connection)
                    count = await drop(connection, now - keep, BATCH)
                self.forgotten += count
                await pause(stop, BREATH)
        async with self._database.transaction() as connection:
            now = await self._database.clock(connection)
            await drop_expired_secrets(connection, now - self._keep)
            await drop_jobs(connection, now - self._keep)

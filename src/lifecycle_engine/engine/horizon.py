"""How far time may pass for quiet customers: never ahead of the log."""

from __future__ import annotations

from lifecycle_engine.log.port import Backlog
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.positions import read_all_positions


class Horizon:
    """Tells up to which instant all that was appended has been applied.

    `margin`, in microseconds, is how far it keeps behind the clock: what was appended so long ago can be seen, whatever
    the machines' clocks say.
    """

    def __init__(self, database: Database, backlog: Backlog, log: str, margin: int) -> None:
        self._database = database
        self._backlog = backlog
        self._log = log
        self._margin = margin

    async def read(self) -> int:
        """What is due before this instant (microseconds since the epoch, UTC) can fire without running ahead.

        The append time of the oldest record that is not yet applied; the clock, when there is none. Raises
        LogUnavailableError where the log cannot tell.
        """
        # In this order: what is appended after the clock was read is no earlier than it.
        async with self._database.transaction() as connection:
            now = await self._database.clock(connection)
            positions = await read_all_positions(connection, self._log)
        oldest = await self._backlog.oldest(positions)
        return min(now - self._margin, now if oldest is None else oldest)

    async def stop(self) -> None:
        """Closes what asking has opened. Never raises."""
        await self._backlog.stop()

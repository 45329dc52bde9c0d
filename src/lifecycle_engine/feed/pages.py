"""The feed as readers get it: pages that end where they say, and where it ends for now."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from lifecycle_engine.store.changes import FeedFilter, SequencedChange, read_feed
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.feed import last_position

WINDOW = 100_000
"""Positions that one page looks at, at most: what is asked for may be rare."""
LOOK = 0.1
"""Seconds between two looks at the feed's end, however many readers wait for it."""


class FeedPage(NamedTuple):
    """Changes beyond a position, and the position that the page goes up to; `end` is the last one that there is."""

    changes: list[SequencedChange]
    upto: int
    end: int


class AheadOfFeedError(Exception):
    """A reader has a position that the feed has not reached: it was set back, as by a restored backup."""

    def __init__(self, end: int) -> None:
        super().__init__(f"the feed ends at {end}")
        self.end = end


async def read_page(database: Database, after: int, wanted: FeedFilter, limit: int) -> FeedPage:
    """At most `limit` changes beyond a position. Raises AheadOfFeedError.

    Every change up to `upto` that is wanted is on this page or on one before it, for ever: what is committed later gets
    a position beyond.
    """
    async with database.transaction() as connection:
        end = await last_position(connection)
        if after > end:
            raise AheadOfFeedError(end)
        upto = min(end, after + WINDOW)
        found = await read_feed(connection, after, upto, wanted, limit)
    return FeedPage(found, found[-1].position if len(found) == limit else upto, end)


class Tail:
    """Where the feed ends, looked up for all readers of a process together."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = asyncio.Lock()
        self._looked_at = 0.0
        self._end = 0

    async def end(self) -> int:
        """The last position, as it was at most `LOOK` seconds ago."""
        async with self._lock:
            if time.monotonic() - self._looked_at >= LOOK:
                async with self._database.transaction() as connection:
                    self._end = await last_position(connection)
                self._looked_at = time.monotonic()
            return self._end

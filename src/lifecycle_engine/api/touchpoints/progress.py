"""Waiting until what was appended is applied, whichever process does that: `Prefer: wait` (RFC 7240, section 4.3).

However many wait, the stored positions are asked for by one task, and only as long as somebody waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress

from lifecycle_engine.store.database import Database
from lifecycle_engine.store.positions import read_all_positions

MAX_WAIT = 30
"""Seconds that anybody is kept waiting at most."""
POLL = 0.02
"""Seconds between two looks at the stored positions."""

logger = logging.getLogger(__name__)


class Progress:
    """How far the log is applied, by the stored positions."""

    def __init__(self, database: Database, log: str) -> None:
        self._database = database
        self._log = log
        self._waiting: set[_Waiter] = set()
        self._watching: asyncio.Task[None] | None = None

    async def reaches(self, positions: Mapping[int, int], seconds: float, stop: asyncio.Event) -> bool:
        """Whether everything before these positions is applied within so many seconds, and before `stop` is set."""
        waiter = _Waiter(positions, stop)
        self._waiting.add(waiter)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), name="progress")
        try:
            async with asyncio.timeout(seconds):
                return await waiter.outcome
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiter)

    async def _watch(self) -> None:
        while self._waiting:
            applied: Mapping[int, int] = {}
            try:
                async with self._database.transaction() as connection:
                    applied = await read_all_positions(connection, self._log)
            except Exception as error:
                # Whoever waits is told in time that it is not known to be applied.
                logger.debug("the positions were not read: %s", type(error).__name__)
            for waiter in list(self._waiting):
                waiter.look(applied)
            await asyncio.sleep(POLL)


class _Waiter:
    def __init__(self, positions: Mapping[int, int], stop: asyncio.Event) -> None:
        self._positions = positions
        self._stop = stop
        self.outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def look(self, applied: Mapping[int, int]) -> None:
        is_reached = all(applied.get(partition, 0) >= next_ for partition, next_ in self._positions.items())
        if (is_reached or self._stop.is_set()) and not self.outcome.done():
            self.outcome.set_result(is_reached)


def preferred_wait(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """The seconds that a request would rather wait, at most `MAX_WAIT`; what is no such preference is none."""
    for header, value in headers:
        if header == b"prefer":
            for preference in value.split(b","):
                name, _, seconds = preference.partition(b";")[0].partition(b"=")
                if name.strip().lower() == b"wait":
                    with suppress(ValueError):
                        return min(max(0, int(seconds.strip(b' \t"')[:10])), MAX_WAIT) or None
                    return None
    return None

"""After an activation: every customer whose state is behind the active definitions is folded anew.

There is no list of what is done: a customer row says under which set of definitions it stands. So the work can stop
anywhere and go on anywhere, in any number of workers.
"""

from __future__ import annotations

import asyncio
import logging

from lifecycle_engine.engine.batch import catch_up
from lifecycle_engine.engine.definitions import Definitions, DefinitionSetMovedError
from lifecycle_engine.store.customers import customers_behind
from lifecycle_engine.store.database import Database, is_transient
from lifecycle_engine.store.lifecycles import definition_number

CUSTOMERS = 100
"""Customers of one transaction at most."""
PERIOD = 0.5
"""Seconds between looks at the number of the active set."""

logger = logging.getLogger(__name__)


class CatchUp:
    """Brings customers up to the active definitions, in the background of a worker.

    `finished` is set while nobody is known to be behind.
    """

    name = "catch-up"

    def __init__(self, database: Database, definitions: Definitions) -> None:
        self._database = database
        self._definitions = definitions
        self._reached: int | None = None
        self.finished = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Looks for a new set of definitions until `stop` is set."""
        while not stop.is_set():
            try:
                await self._look(stop)
            except DefinitionSetMovedError:
                continue
            except Exception as error:
                if not is_transient(error):
                    raise
            try:
                await asyncio.wait_for(stop.wait(), PERIOD)
            except TimeoutError:
                continue

    async def _look(self, stop: asyncio.Event) -> None:
        async with self._database.transaction() as connection:
            number = await definition_number(connection)
        if number == self._reached:
            return
        self.finished.clear()
        definitions = await self._definitions.reload()
        after = total = 0
        while not stop.is_set():
            async with self._database.transaction() as connection:
                ids = await customers_behind(connection, definitions.number, after, CUSTOMERS)
            if not ids:
                self._reached = definitions.number
                self.finished.set()
                if total:
                    logger.info("definitions %d: %d customers folded anew", definitions.number, total)
                return
            await catch_up(self._database, definitions, ids)
            after, total = ids[-1], total + len(ids)

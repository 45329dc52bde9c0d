"""After an activation: every customer whose state is behind the active definitions is folded anew.

There is no list of what is done: a customer row says under which set of definitions it stands. So the work can stop
anywhere and go on anywhere, in any number of workers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from lifecycle_engine.engine.definitions import Definitions, DefinitionSet, DefinitionSetMovedError
from lifecycle_engine.engine.horizon import Horizon
from lifecycle_engine.engine.work import QUIET, Task, Work
from lifecycle_engine.log.port import LogUnavailableError
from lifecycle_engine.runners import pause
from lifecycle_engine.store.customers import CustomerRow, customers_behind, lock_customers_by_id
from lifecycle_engine.store.database import Database, is_transient
from lifecycle_engine.store.lifecycles import (
    clock_and_definitions,
    count_customers,
    definition_number,
    finish_switches,
    hold_definitions,
)

CUSTOMERS = 100
"""Customers of one transaction at most."""
PERIOD = 0.5
"""Seconds between looks at the number of the active set."""

logger = logging.getLogger(__name__)


async def catch_up(
    database: Database, definitions: DefinitionSet, ids: Sequence[int], horizon: int, quiet: int = QUIET
) -> None:
    """Folds customers that are behind the active definitions anew; rows by id, in one transaction.

    Nobody is told of what a newly activated lifecycle makes of the past. Time passes up to the last activation that
    lies before the horizon (microseconds since the epoch, UTC), so that its switch takes place.
    """
    async with database.transaction() as connection:
        await hold_definitions(connection)
        customers = await lock_customers_by_id(connection, ids)
        now, number = await clock_and_definitions(database, connection)
        if number != definitions.number:
            raise DefinitionSetMovedError
        last = max((instant for instant in definitions.instants if instant < horizon), default=None)
        work = Work(definitions, quiet)
        tasks = [
            Task(customer, (), owns=customer.owner is None, until=last if _is_quiet(customer, now, quiet) else None)
            for customer in customers
            if customer.definitions != definitions.number
        ]
        await work.fold(connection, tasks, now)
        await work.write(connection)


def _is_quiet(customer: CustomerRow, now: int, quiet: int) -> bool:
    """Whether nothing waits for the rest of an import."""
    wake = customer.state.wake if customer.state is not None else None
    return wake is None or wake > customer.recorded_at or now >= customer.recorded_at + quiet


class CatchUp:
    """Brings customers up to the active definitions, in the background of a worker.

    `finished` is set while nobody is known to be behind.
    """

    name = "catch-up"

    def __init__(self, database: Database, definitions: Definitions, horizon: Horizon, quiet: int = QUIET) -> None:
        self._database = database
        self._quiet = quiet
        self._horizon = horizon
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
            except LogUnavailableError as error:
                logger.warning("an activation waits, since the log cannot tell how far it is applied: %s", error)
            except Exception as error:
                if not is_transient(error):
                    raise
            await pause(stop, PERIOD)

    async def _look(self, stop: asyncio.Event) -> None:
        async with self._database.transaction() as connection:
            number = await definition_number(connection)
        if number == self._reached:
            return
        self.finished.clear()
        definitions = await self._definitions.reload()
        async with self._database.transaction() as connection:
            await count_customers(connection, definitions.number)
        after = total = 0
        while not stop.is_set():
            async with self._database.transaction() as connection:
                ids = await customers_behind(connection, definitions.number, after, CUSTOMERS)
            if not ids:
                async with self._database.transaction() as connection:
                    await finish_switches(connection, definitions.number, await self._database.clock(connection))
                self._reached = definitions.number
                self.finished.set()
                if total:
                    logger.info("definitions %d: %d customers folded anew", definitions.number, total)
                return
            await catch_up(self._database, definitions, ids, await self._horizon.read(), self._quiet)
            after, total = ids[-1], total + len(ids)

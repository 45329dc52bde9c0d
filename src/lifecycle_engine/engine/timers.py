"""The role `timers`: lets time pass for customers of whom no fact comes.

Deadlines, the ends of windows and pins, switches of definitions, and announcements: whatever is due before the horizon
is worked through, the longest due first, in batches. Any number of replicas can run: whoever holds a customer's row
does what is due for it, and the others find that it is done.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import NamedTuple

from lifecycle_engine.engine.announcements import next_look
from lifecycle_engine.engine.definitions import Definitions, DefinitionSet, DefinitionSetMovedError
from lifecycle_engine.engine.horizon import Horizon
from lifecycle_engine.engine.work import QUIET, Task, Work
from lifecycle_engine.log.port import LogUnavailableError
from lifecycle_engine.runners import pause
from lifecycle_engine.store.customers import CustomerRow, lock_customers_by_id
from lifecycle_engine.store.database import Database, is_transient
from lifecycle_engine.store.lifecycles import clock_and_definitions, hold_definitions
from lifecycle_engine.store.wakes import due_customers, move_wakes

BATCH = 500
"""Customers of one transaction at most."""
PERIOD = 0.2
"""Seconds between looks."""
LATER = 60_000_000
"""Microseconds until another look at a customer with whom nothing can be done now."""

logger = logging.getLogger(__name__)


class Passed(NamedTuple):
    """What came of a batch, for the figures: customers that were looked at, and those for whom time has passed."""

    looked_at: int
    worked_through: int


async def let_time_pass(
    database: Database, definitions: DefinitionSet, ids: list[int], horizon: int, quiet: int = QUIET
) -> Passed:
    """Works through what is due before `horizon` (microseconds, UTC) for these customers, in one transaction.

    Rows that somebody else holds are left to them. Raises DefinitionSetMovedError.
    """
    async with database.transaction() as connection:
        await hold_definitions(connection)
        customers = await lock_customers_by_id(connection, ids, skip_locked=True)
        now, number = await clock_and_definitions(database, connection)
        if number != definitions.number:
            raise DefinitionSetMovedError
        tasks: list[Task] = []
        later: list[tuple[int, int | None]] = []
        for customer in customers:
            is_due, again = _look(definitions, customer, horizon, now, quiet)
            if is_due:
                tasks.append(Task(customer, (), until=horizon - 1))
            elif again != customer.wake:
                later.append((customer.id, again))
        work = Work(definitions, quiet)
        await work.fold(connection, tasks, now)
        await work.write(connection)
        await move_wakes(connection, later)
    return Passed(len(customers), len(tasks))


def _look(
    definitions: DefinitionSet, customer: CustomerRow, horizon: int, now: int, quiet: int
) -> tuple[bool, int | None]:
    """Whether something is due for a customer, as its locked row tells; if not, when to look again (None: never)."""
    if customer.state is None or customer.definitions != definitions.number:
        # Whoever brings it up to the definitions looks again at what is due.
        return False, now + LATER
    look = next_look(definitions.active, customer.state, customer.announced)
    if look is None or look >= horizon:
        return False, look
    if quiet and look <= customer.recorded_at and min(now, horizon) < customer.recorded_at + quiet:
        # It was past when it was set: the rest of an import may be on its way, or wait in the log.
        return False, customer.recorded_at + quiet
    return True, None


class Timers:
    """The runner; `quiet` is in microseconds."""

    name = "timers"

    def __init__(self, database: Database, definitions: Definitions, horizon: Horizon, quiet: int = QUIET) -> None:
        self._database = database
        self._definitions = definitions
        self._horizon = horizon
        self._quiet = quiet
        self._is_running = False
        self.worked_through = 0

    async def ready(self) -> bool:
        """Whether it runs, and its database answers."""
        return self._is_running and await self._database.answers()

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set; the batch at hand is finished first."""
        self._is_running = True
        logger.info("the timers run")
        try:
            while not stop.is_set():
                await self._round(stop)
                await pause(stop, PERIOD * random.uniform(0.5, 1.5))  # Replicas should not look in step.
        finally:
            self._is_running = False

    async def _round(self, stop: asyncio.Event) -> None:
        """Goes once through all that is due."""
        try:
            horizon = await self._horizon.read()
            await self._pass(horizon, stop)
        except LogUnavailableError as error:
            logger.warning("time stands still, since the log cannot tell how far it is applied: %s", error)
        except DefinitionSetMovedError:
            await self._reload()
        except Exception as error:
            if not is_transient(error):
                raise
            logger.warning("time stands still, since the database did not answer: %s", type(error).__name__)

    async def _pass(self, horizon: int, stop: asyncio.Event) -> None:
        definitions = await self._definitions.current()
        began, before, after = time.perf_counter(), self.worked_through, (-(1 << 62), 0)
        while not stop.is_set():
            async with self._database.transaction() as connection:
                due = await due_customers(connection, horizon, after, BATCH)
            if not due:
                break
            after = due[-1]
            self.worked_through += await self._batch(definitions, [customer for _, customer in due], horizon)
        if count := self.worked_through - before:
            logger.info("time has passed for %d customers in %.2f s", count, time.perf_counter() - began)

    async def _batch(self, definitions: DefinitionSet, ids: list[int], horizon: int) -> int:
        try:
            return (await let_time_pass(self._database, definitions, ids, horizon, self._quiet)).worked_through
        except Exception as error:
            if isinstance(error, DefinitionSetMovedError) or is_transient(error):
                raise
            if len(ids) > 1:
                logger.warning("what is due is worked through customer by customer, since a batch failed: %s", error)
                return sum([await self._batch(definitions, [id_], horizon) for id_ in ids])
            # The others' time must not stand still because of it, and what is due stays due.
            logger.exception("time stands still for the customer in row %d", ids[0])
            async with self._database.transaction() as connection:
                await move_wakes(connection, [(ids[0], await self._database.clock(connection) + LATER)])
            return 0

    async def _reload(self) -> None:
        try:
            await self._definitions.reload()
        except Exception as error:
            if not is_transient(error):
                raise

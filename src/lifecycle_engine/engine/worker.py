"""The worker: reads the log lane by lane and applies it batch by batch, for as long as it is not told to stop.

A failed batch is tried again when the failure may pass (the database restarts, a deadlock), record by record when it
may not, and a record that fails alone is set aside with its reason. A flood of these stops all workers of the log,
until somebody has looked at it. Whatever happens, the stored position tells where to go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from lifecycle_engine.engine.batch import UNPROCESSABLE, Outcome, apply_batch, set_aside
from lifecycle_engine.engine.definitions import Definitions, DefinitionSetMovedError
from lifecycle_engine.engine.flood import LIMIT, Flood, FloodError
from lifecycle_engine.engine.work import QUIET
from lifecycle_engine.log.port import Delivery, Reader
from lifecycle_engine.runners import pause
from lifecycle_engine.store.database import Database, is_transient
from lifecycle_engine.store.halts import Halt, add_halt, find_halt
from lifecycle_engine.store.positions import PositionMovedError, read_positions

BATCH = 500
"""Records of one transaction at most."""
WAIT = 0.5
"""Seconds that one read waits for records."""
LOOK = 1.0
"""Seconds between looks whether the workers stand still, or go on."""
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between tries while the database is away; the last one repeats."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Worker:
    """One worker process's share of the log. `reader` is set before `run`; it asks `positions` where to begin."""

    name = "worker"

    def __init__(
        self, database: Database, definitions: Definitions, log: str, quiet: int = QUIET, limit: int = LIMIT
    ) -> None:
        self._database = database
        self._quiet = quiet
        self._flood = Flood(limit)
        self._halt: Halt | None = None
        self._looking = asyncio.Lock()
        self._definitions = definitions
        self._log = log
        self._begun: set[int] = set()
        self._is_reading = False
        self.done = Outcome(0, 0, 0, 0)
        self.reader: Reader

    async def ready(self) -> bool | str:
        """Whether it reads the log, and its database answers; or why it stands still."""
        if self._halt is not None:
            return halted(self._halt)
        return self._is_reading and await self._database.answers()

    async def positions(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """The stored positions of partitions that are now read here; waits for the database for as long as it takes."""
        stored = await _until_it_works(lambda: self._read_positions(partitions))
        self._begun.update(stored)
        return stored

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set; the batch at hand is finished first."""
        await _until_it_works(self._definitions.reload)
        await _until_it_works(self._look)
        await self.reader.start()
        self._is_reading = True
        logger.info("the worker reads the log %s", self._log)
        try:
            async with asyncio.TaskGroup() as lanes:
                lanes.create_task(self._watch(stop), name="halt")
                for lane in range(self.reader.lanes):
                    lanes.create_task(self._run_lane(lane, stop), name=f"lane {lane}")
        finally:
            self._is_reading = False
            await self.reader.stop()

    async def _run_lane(self, lane: int, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if self._halt is not None:
                await self.reader.read(lane, 0, 0.0)  # It is known to be idle, and a failure of the log to be heard.
                await pause(stop, LOOK / 2)
            elif deliveries := await self.reader.read(lane, BATCH, WAIT):
                await self._apply(deliveries, stop)

    async def _apply(self, deliveries: Sequence[Delivery], stop: asyncio.Event) -> None:
        try:
            await self._apply_once(deliveries)
        except PositionMovedError:
            # Another worker has been here. Go on from where it has got to.
            await self.reader.reload(_partitions(deliveries))
        except DefinitionSetMovedError:
            await self._definitions.reload()
            await self._apply(deliveries, stop)
        except FloodError:
            await self._one_by_one(deliveries, stop)
        except Exception as error:
            if not is_transient(error):
                logger.warning("a batch failed and is tried record by record", exc_info=error)
                await self._one_by_one(deliveries, stop)
            elif not stop.is_set():
                logger.warning("the database did not answer: %s", _short(error))
                await asyncio.sleep(_pause(0))
                # Whether the transaction was committed is unknown; the stored position knows.
                await self.reader.reload(_partitions(deliveries))

    async def _apply_once(self, deliveries: Sequence[Delivery]) -> Outcome:
        began = time.perf_counter()
        definitions = await self._definitions.current()
        outcome = await apply_batch(
            self._database, definitions, self._log, deliveries, self._begun, self._quiet, self._flood.room
        )
        await self._applied(deliveries, outcome)
        logger.debug("applied %s in %.1f ms", outcome, (time.perf_counter() - began) * 1e3)
        return outcome

    async def _one_by_one(self, deliveries: Sequence[Delivery], stop: asyncio.Event) -> None:
        for delivery in deliveries:
            if stop.is_set():
                return
            try:
                try:
                    await self._apply_once([delivery])
                except (PositionMovedError, DefinitionSetMovedError, FloodError):
                    raise
                except Exception as error:
                    if is_transient(error):
                        raise
                    if not self._flood.room:
                        raise FloodError(UNPROCESSABLE, _short(error)) from error
                    logger.exception("a record was set aside: partition %d, position %d", *_place(delivery))
                    await set_aside(self._database, self._log, delivery, error)
                    await self._applied([delivery], Outcome(1, 0, 0, 1))
            except FloodError as error:
                await self._stop_before(delivery, error)
                await self.reader.reload(_partitions(deliveries))
                return
            except Exception as error:
                logger.warning("going on from the stored position: %s", _short(error))
                await asyncio.sleep(_pause(0))
                await _until_it_works(self._definitions.reload)
                await self.reader.reload(_partitions(deliveries))
                return

    async def _stop_before(self, delivery: Delivery, error: FloodError) -> None:
        """Lets all workers of the log stand still before a record."""

        async def note() -> None:
            async with self._looking, self._database.transaction() as connection:
                now = await self._database.clock(connection)
                await add_halt(connection, Halt(self._log, *_place(delivery), error.code, str(error)[:2000], now))
                self._halt = await find_halt(connection, self._log)

        await _until_it_works(note)
        if self._halt is not None:
            logger.error("a flood of dead letters: %s", halted(self._halt))

    async def _watch(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await pause(stop, LOOK)
            try:
                await self._look()
            except Exception as error:
                if not is_transient(error):
                    raise

    async def _look(self) -> None:
        """Whether the workers of the log stand still, whichever of them has stopped them."""
        async with self._looking:
            async with self._database.transaction() as connection:
                halt = await find_halt(connection, self._log)
            if self._halt is not None and halt is None:
                self._flood.forget()
                logger.info("the worker goes on")
            self._halt = halt

    async def _applied(self, deliveries: Sequence[Delivery], outcome: Outcome) -> None:
        self.done = Outcome(*map(sum, zip(self.done, outcome, strict=True)))
        self._flood.count(outcome.records - outcome.dead, outcome.dead)
        upto = {delivery.partition: delivery.position + 1 for delivery in deliveries}
        self._begun.update(upto)
        await self.reader.applied(upto)

    async def _read_positions(self, partitions: Sequence[int]) -> dict[int, int]:
        async with self._database.transaction() as connection:
            return await read_positions(connection, self._log, partitions)


async def _until_it_works(call: Callable[[], Awaitable[T]]) -> T:
    for tries in range(1_000_000):
        try:
            return await call()
        except Exception as error:
            if not is_transient(error):
                raise
            logger.warning("the database did not answer: %s", _short(error))
            await asyncio.sleep(_pause(tries))
    raise TimeoutError("the database has not answered for weeks")


def halted(halt: Halt) -> str:
    """Why the workers stand still, and what to do about it."""
    return (
        f"too many records in a row cannot be processed; the workers stand still before position {halt.position} of "
        f"partition {halt.partition} ({halt.code}: {halt.reason}). See GET /v1/dead-letters; when it is mended: "
        "DELETE /v1/dead-letters/halt, or lifecycle-engine resume"
    )


def _place(delivery: Delivery) -> tuple[int, int]:
    return delivery.partition, delivery.position


def _partitions(deliveries: Sequence[Delivery]) -> list[int]:
    return sorted({delivery.partition for delivery in deliveries})


def _pause(tries: int) -> float:
    return _PAUSES[min(tries, len(_PAUSES) - 1)]


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]

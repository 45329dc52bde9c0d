"""The log as a table of the database, for where there is no Kafka: one partition, 0, read by one worker process.

Whatever waits to be appended is inserted together, in one transaction of one task. On PostgreSQL an advisory lock
serialises the processes that append, so that positions become visible in their order and a reader never passes one
that commits late. Whoever asks for the backlog passes through the same lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import bindparam, case, delete, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from lifecycle_engine.log.port import Delivery, LogUnavailableError, LostRecordsError, Positions, Record
from lifecycle_engine.store.database import Database, is_transient
from lifecycle_engine.store.rows import insert
from lifecycle_engine.store.tables import log_record

DEADLINE = 4.5
"""Seconds after which an append that was not committed is told to be unknown."""
MAX_WAITING_RECORDS = 50_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
GROUP_BYTES = 8 * 1024 * 1024
"""Of one transaction, about."""
POLL = 0.1
"""Seconds after which a reader looks for what other processes have appended."""
KEPT = 1_000
"""Records that stay behind the position up to which all has been applied."""

_APPEND_LOCK = 0x4C45_4C4F
_TRIM_STEP = 1_000
_TRIM_PAUSE = 1.0
_INSERT = insert(log_record, ["key", "value", "appended_at"])
_NEXT = bindparam("next", type_=log_record.c.position.type)
_END = select(func.max(log_record.c.position) + 1).scalar_subquery()
_OLDEST = (  # A position past the end is another log's: all of this one counts then.
    select(log_record.c.appended_at)
    .where(log_record.c.position >= case((_NEXT <= _END, _NEXT), else_=0))
    .order_by(log_record.c.position)
    .limit(1)
)

T = TypeVar("T")

logger = logging.getLogger(__name__)


class DatabaseAppender:
    """Appends to the table; sets `appended` after each commit, for a reader in the same process."""

    def __init__(
        self,
        database: Database,
        appended: asyncio.Event,
        *,
        deadline: float = DEADLINE,
        max_waiting_records: int = MAX_WAITING_RECORDS,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._database = database
        self._appended = appended
        self._deadline = deadline
        self._max_records = max_waiting_records
        self._max_bytes = max_waiting_bytes
        self._waiting_records = 0
        self._waiting_bytes = 0
        self._queue: deque[_Request] = deque()
        self._taken: list[_Request] = []
        self._filled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="log appender")

    async def append(self, records: Sequence[Record]) -> list[bool]:
        if self._stopping:
            raise LogUnavailableError("the process is stopping")
        size = sum(len(record.value) for record in records)
        if self._waiting_records + len(records) > self._max_records or self._waiting_bytes + size > self._max_bytes:
            raise LogUnavailableError("too many appends are waiting for the database")
        if not records:
            return []
        request = _Request(records, size)
        self._waiting_records += len(records)
        self._waiting_bytes += size
        self._queue.append(request)
        self._filled.set()
        try:
            await asyncio.wait([request.outcome], timeout=self._deadline)
        finally:
            self._waiting_records -= len(records)
            self._waiting_bytes -= size
            with suppress(ValueError):  # its turn has come
                self._queue.remove(request)
        outcome = request.outcome.result() if request.outcome.done() else (False if request.is_sent else None)
        if outcome is None:
            raise LogUnavailableError("the database does not answer")
        return [outcome] * len(records)

    async def ready(self) -> bool:
        try:
            async with asyncio.timeout(0.9), self._database.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except (SQLAlchemyError, OSError):
            return False
        return not self._stopping

    async def ends(self) -> dict[int, int]:
        return {partition: end for partition, (_, end) in (await self.bounds()).items()}

    async def bounds(self) -> dict[int, tuple[int, int]]:
        return {0: await _answer(lambda: _bounds(self._database), 4.5)}

    async def reached(self) -> dict[int, int]:
        return await self.ends()

    async def stop(self) -> None:
        self._stopping = True
        if waiting := [request.outcome for request in (*self._taken, *self._queue)]:
            await asyncio.wait(waiting, timeout=4)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1)

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            is_written = False
            try:
                async with self._database.transaction() as connection:
                    if not self._database.is_sqlite:
                        await connection.execute(text(f"SELECT pg_advisory_xact_lock({_APPEND_LOCK})"))
                    now = await self._database.clock(connection)
                    # Only now, so that all that has come meanwhile is in the group, and nothing that has given up.
                    self._take()
                    await _INSERT(connection, [(*record, now) for request in self._taken for record in request.records])
                    is_written = True
            except Exception as error:
                logger.warning("the log was not appended to: %s", error)
                if not self._taken:
                    self._take()
                # Once the commit was asked for, nobody knows.
                self._settle(False if is_written else None)
            else:
                self._settle(True)
                self._appended.set()

    def _take(self) -> None:
        size = 0
        while self._queue and size < GROUP_BYTES:
            request = self._queue.popleft()
            request.is_sent = True
            size += request.bytes
            self._taken.append(request)
        if not self._queue:
            self._filled.clear()

    def _settle(self, outcome: bool | None) -> None:
        for request in self._taken:
            if not request.outcome.done():
                request.outcome.set_result(outcome)
        self._taken = []


class _Request:
    """One append. `outcome`: True, False (unknown) or None (nothing was appended)."""

    def __init__(self, records: Sequence[Record], size: int) -> None:
        self.records = records
        self.bytes = size
        self.is_sent = False
        self.outcome: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()


class DatabaseReader:
    """Reads the table in one lane, and removes what lies well behind what was applied."""

    lanes = 1

    def __init__(self, database: Database, positions: Positions, appended: asyncio.Event, *, kept: int = KEPT) -> None:
        self._database = database
        self._positions = positions
        self._appended = appended
        self._kept = kept
        self._next: int | None = None
        self._applied = 0
        self._trimming: asyncio.Task[None] | None = None
        self._failure: LostRecordsError | None = None

    async def start(self) -> None:
        await _answer(lambda: _bounds(self._database), 30)
        await self.reload([0])
        self._trimming = asyncio.create_task(self._trim(), name="log trimmer")

    async def read(self, lane: int, limit: int, wait: float) -> list[Delivery]:
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            if self._failure is not None:
                raise self._failure
            self._appended.clear()
            try:
                deliveries = await self._read(limit)
            except Exception as error:
                if not is_transient(error):
                    raise
                logger.warning("the log did not answer: %s", error)
                deliveries = []
            if deliveries:
                self._next = deliveries[-1].position + 1
                return deliveries
            if (left := until - loop.time()) <= 0:
                return []
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, POLL)):
                    await self._appended.wait()

    def rewind(self, partition: int, position: int) -> None:
        if partition == 0:
            self._next = position

    async def reload(self, partitions: Sequence[int]) -> None:
        if 0 not in partitions:
            return
        stored = (await self._positions([0])).get(0)
        first, end = await _answer(lambda: _bounds(self._database), None)
        if stored is not None and not first <= stored <= end:
            self._failure = LostRecordsError(
                f"the log goes from position {first} to {end - 1}, and the stored position is {stored}: "
                "records that were not applied yet are gone"
            )
        self._next = first if stored is None else stored

    async def applied(self, positions: Mapping[int, int]) -> None:
        self._applied = max(self._applied, positions.get(0, 0))

    async def lag(self) -> int:
        end = (await _answer(lambda: _bounds(self._database), 4.5))[1]
        return max(0, end - (end if self._next is None else self._next))

    async def stop(self) -> None:
        if self._trimming is not None:
            self._trimming.cancel()
            await asyncio.wait([self._trimming], timeout=1)

    async def _read(self, limit: int) -> list[Delivery]:
        query = (
            select(log_record.c.position, log_record.c.appended_at, log_record.c.key, log_record.c.value)
            .where(log_record.c.position >= self._next)
            .order_by(log_record.c.position)
            .limit(limit)
        )
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).all()
        begins = [self._next or 0, *(row.position + 1 for row in rows)]
        return [Delivery(0, follows, *row) for follows, row in zip(begins, rows, strict=False)]

    async def _trim(self) -> None:
        """Removes a few records at a time; the last ones always stay, so that the table knows its end."""
        is_behind = False
        while True:
            await asyncio.sleep(0 if is_behind else _TRIM_PAUSE)
            try:
                is_behind = await self._trim_step()
            except (SQLAlchemyError, OSError) as error:
                is_behind = False
                logger.warning("the log was not trimmed: %s", error)

    async def _trim_step(self) -> bool:
        oldest = select(func.min(log_record.c.position)).scalar_subquery()
        step = delete(log_record).where(
            log_record.c.position < self._applied - self._kept, log_record.c.position < oldest + _TRIM_STEP
        )
        async with self._database.transaction() as connection:
            return (await connection.execute(step)).rowcount > 0


class DatabaseBacklog:
    """Asks the table, after whoever was appending at that moment has committed.

    Records are stamped under the appenders' lock, which on SQLite is the connection: so what commits later than the
    answer is stamped later than the question.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def oldest(self, positions: Mapping[int, int]) -> int | None:
        return await _answer(lambda: self._oldest(positions.get(0, 0)), 4.5)

    async def stop(self) -> None:
        """The database is its owner's to close."""

    async def _oldest(self, next_: int) -> int | None:
        async with self._database.engine.connect() as connection:
            if not self._database.is_sqlite:
                # Each statement is its own transaction: the second sees what was committed while the first waited, and
                # the lock is let go of at once, whatever becomes of this process.
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(text(f"SELECT pg_advisory_xact_lock_shared({_APPEND_LOCK})"))
            return (await connection.execute(_OLDEST, {"next": next_})).scalar()


async def _bounds(database: Database) -> tuple[int, int]:
    """The first position that there is, and the one after the last."""
    query = select(func.min(log_record.c.position), func.max(log_record.c.position))
    async with database.transaction() as connection:
        first, last = (await connection.execute(query)).one()
    return (1, 1) if last is None else (first, last + 1)


async def _answer(call: Callable[[], Awaitable[T]], seconds: float | None) -> T:
    """What the database answers, asked again until it does or the time is over. Raises LogUnavailableError."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    return await call()
                except Exception as error:
                    if not is_transient(error):
                        raise
                    logger.warning("the log did not answer: %s", error)
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise LogUnavailableError(f"the database has been out of reach for {seconds} s") from None

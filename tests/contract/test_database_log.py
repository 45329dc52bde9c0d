"""What only the log in the database can do: commit late, be trimmed, and go away with the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from lifecycle_engine.log.port import Delivery, LogUnavailableError, Record
from lifecycle_engine.store.tables import log_record
from tests.contract.logs import DatabaseLog, Stored, append, by_key, by_key_as_sent, drain, nothing_more, records, until
from tools.services import Postgres, free_port

LOCKS = (
    "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_locks.database = pg_database.oid "
    "AND datname = current_database()"
)


@pytest.fixture
async def log(postgres_url: str) -> AsyncIterator[DatabaseLog]:
    log = await DatabaseLog(postgres_url).open()
    yield log
    await log.close()


@pytest.fixture
def server(services_directory: Path) -> Iterator[Postgres]:
    """A server of this test's own, to be broken."""
    directory = services_directory / f"broken-{time.monotonic_ns()}"
    directory.mkdir()
    directory.chmod(0o755)
    with Postgres(directory) as started:
        started.create_database("log")
        yield started


async def test_a_reader_never_passes_what_another_process_commits_late(log: DatabaseLog) -> None:
    got: list[Delivery] = []
    async with log.appender() as one, log.appender() as other, log.appender() as third, log.reader(Stored()) as reader:
        sent = [records(400, prefix=name, keys=5) for name in ("a", "b", "c")]

        async def post(appender: object, batch: list[Record]) -> None:
            for start in range(0, 400, 4):
                assert await appender.append(batch[start : start + 4]) == [True] * 4  # type: ignore[attr-defined]

        posting = asyncio.gather(
            *(post(appender, batch) for appender, batch in zip((one, other, third), sent, strict=True))
        )
        async with asyncio.timeout(60):
            while len(got) < 1200:
                got += await reader.read(0, 7, 0.05)
        await posting
        await nothing_more(reader)
    assert by_key(got) == by_key_as_sent([record for batch in sent for record in batch])


async def test_an_append_that_waits_behind_a_lock_is_told_within_five_seconds(log: DatabaseLog) -> None:
    async with log.appender() as appender, log.database().engine.connect() as holder:
        await holder.execute(text("BEGIN"))
        await holder.execute(text("LOCK TABLE log_record IN ACCESS EXCLUSIVE MODE"))
        began = time.perf_counter()
        outcomes = await asyncio.gather(*(appender.append([record]) for record in records(50)), return_exceptions=True)
        assert time.perf_counter() - began < 5
        assert all(outcome == [False] or isinstance(outcome, LogUnavailableError) for outcome in outcomes)
        await holder.execute(text("ROLLBACK"))
        await append(appender, records(10, prefix="after"))
    async with log.reader(Stored()) as reader:
        got = await reader.read(0, 500, 1)
    # What was unknown may be there; what was refused is not.
    unknown = sum(outcome == [False] for outcome in outcomes)
    assert 10 <= len(got) <= 10 + unknown


async def test_what_is_stamped_and_not_committed_is_waited_for(log: DatabaseLog) -> None:
    async with log.appender() as appender, log.backlog() as backlog, log.database().engine.connect() as holder:
        await holder.execute(text("LOCK TABLE log_record IN EXCLUSIVE MODE"))  # who reads passes, who inserts waits
        appending = asyncio.create_task(appender.append(records(1)))

        async def stamped() -> bool:
            return bool((await holder.execute(text(f"{LOCKS} WHERE locktype = 'relation' AND NOT granted"))).scalar())

        await until(stamped)
        clock = await log.clock()
        asking = asyncio.create_task(backlog.oldest({}))
        await asyncio.sleep(0.5)
        assert not asking.done()
        await holder.rollback()
        assert await appending == [True]
        oldest = await asking
        assert oldest is not None
        assert oldest < clock


async def test_whoever_asks_for_the_backlog_holds_nobody_up(log: DatabaseLog) -> None:
    """The appenders' lock is let go of at once, and a question that got no answer leaves nothing behind."""
    async with log.appender() as appender, log.backlog() as backlog, log.database().engine.connect() as holder:
        await holder.execute(text("LOCK TABLE log_record IN ACCESS EXCLUSIVE MODE"))
        began = time.perf_counter()
        asking = asyncio.create_task(backlog.oldest({}))
        await asyncio.sleep(0.5)
        assert (await holder.execute(text(f"{LOCKS} WHERE locktype = 'advisory'"))).scalar() == 0
        with pytest.raises(LogUnavailableError):
            await asking
        assert time.perf_counter() - began < 5
        await holder.rollback()
        assert await appender.append(records(1)) == [True]
        assert await backlog.oldest({}) is not None


async def test_what_lies_well_behind_is_removed_and_the_end_is_kept(sqlite_url: str) -> None:
    log = await DatabaseLog(sqlite_url).open()
    stored = Stored()
    async with log.appender() as appender, log.reader(stored, kept=100) as reader:
        await appender.append(records(5000))
        got = await drain(reader, 5000)
        await reader.applied({0: got[2999].position + 1})

        async def left() -> int:
            async with log.database().transaction() as connection:
                return int((await connection.execute(select(func.count()).select_from(log_record))).scalar_one())

        async def trimmed() -> bool:
            return await left() == 2100

        await until(trimmed)
        stored.apply(got)
        await reader.applied({0: got[-1].position + 1})

        async def nearly_empty() -> bool:
            return await left() == 100

        await until(nearly_empty)
        assert await appender.ends() == {0: 5001}
    async with log.reader(stored) as reader, log.appender() as appender:
        await nothing_more(reader)
        await appender.append(records(3))
        await drain(reader, 3)
    await log.close()


async def test_a_server_that_is_killed_costs_nothing_that_was_acknowledged(server: Postgres) -> None:
    log = await DatabaseLog(server.url("log")).open()
    durable: list[bytes] = []
    waits: list[float] = []
    stop = asyncio.Event()

    async def post(task: int) -> None:
        for n in range(100_000):
            if stop.is_set():
                return
            record = Record(b"customer_id:%d" % task, b"%d-%d" % (task, n))
            while True:
                began = time.perf_counter()
                try:
                    (outcome,) = await appender.append([record])
                except LogUnavailableError:
                    outcome = False
                waits.append(time.perf_counter() - began)
                if outcome:
                    durable.append(record.value)
                    break
                await asyncio.sleep(0.02)

    async def more() -> bool:
        return len(durable) > before + 200

    loop = asyncio.get_running_loop()
    values: list[bytes | None] = []

    async def read() -> None:
        while True:
            values.extend(delivery.value for delivery in await reader.read(0, 500, 0.2))

    async with log.appender() as appender, log.reader(Stored()) as reader, log.backlog() as backlog:
        reading = asyncio.create_task(read())
        posting = [asyncio.create_task(post(task)) for task in range(10)]
        await asyncio.sleep(1)
        before = len(durable)
        assert before > 0
        await loop.run_in_executor(None, server.kill)
        await asyncio.sleep(2)
        assert not await appender.ready()
        began = time.perf_counter()
        with pytest.raises(LogUnavailableError):
            await backlog.oldest({})
        assert time.perf_counter() - began < 5
        await loop.run_in_executor(None, server.start)
        await until(appender.ready)
        await until(more)
        assert await backlog.oldest({}) is not None
        stop.set()
        await asyncio.gather(*posting)

        async def all_read() -> bool:
            return set(durable) <= set(values)

        await until(all_read)
        reading.cancel()
    assert max(waits) < 5
    for task in range(10):
        mine = [value for value in dict.fromkeys(values) if value and value.startswith(b"%d-" % task)]
        assert mine == [b"%d-%d" % (task, n) for n in range(len(mine))]
    await log.close()


async def test_a_database_that_is_out_of_reach_is_told_at_once() -> None:
    log = DatabaseLog(f"postgresql+asyncpg://nobody@127.0.0.1:{free_port()}/none")
    appender = log.new_appender()
    await appender.start()
    began = time.perf_counter()
    with pytest.raises(LogUnavailableError):
        await appender.append(records(3))
    assert not await appender.ready()
    with pytest.raises(LogUnavailableError):
        await appender.ends()
    assert time.perf_counter() - began < 6
    await appender.stop()
    await log.close()

"""What was sent is forgotten once it has been kept long enough: all of it, nothing else, and a little at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import Table, func, select, update

from lifecycle_engine.outbox import retention
from lifecycle_engine.outbox.retention import DAY, MARGIN, Retention
from lifecycle_engine.outbox.retry import Answer
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.recoveries import RecoveryRow, add_recovery
from lifecycle_engine.store.tables import webhook_attempt, webhook_delivery, webhook_job, webhook_message
from tests.hooks import Outbox, clock
from tests.record import record

KEEP = 30 * DAY


@pytest.fixture(params=["sqlite", "postgres"])
async def outbox(request: pytest.FixtureRequest) -> AsyncIterator[Outbox]:
    async with record(str(request.getfixturevalue(f"{request.param}_url"))) as database:
        yield Outbox(database)


async def count(database: Database, table: Table) -> int:
    async with database.transaction() as connection:
        return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


async def age(database: Database, by: int) -> None:
    """Makes everything older; `by` is in microseconds."""
    async with database.transaction() as connection:
        for table, names in (
            (webhook_attempt, ("at",)),
            (webhook_delivery, ("created_at",)),
            (webhook_message, ("created_at",)),
        ):
            values: dict[str, Any] = {name: table.c[name] - by for name in names}
            await connection.execute(update(table).values(values))


async def kept(database: Database) -> list[int]:
    return [await count(database, table) for table in (webhook_attempt, webhook_delivery, webhook_message)]


async def test_what_is_old_is_forgotten_in_small_steps(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 7)
    monkeypatch.setattr(retention, "BREATH", 0)
    steps: list[int] = []
    for name in ("drop_attempts", "drop_messages"):
        drop = getattr(retention, name)

        async def counted(*arguments: Any, drop: Any = drop) -> int:
            steps.append(await drop(*arguments))
            return steps[-1]

        monkeypatch.setattr(retention, name, counted)
    database, stop = outbox.database, asyncio.Event()
    runner = Retention(database, KEEP)
    first, second = await outbox.endpoint(), await outbox.endpoint()
    await outbox.record(range(20))
    now = clock()
    await outbox.answer(await outbox.claim(now), Answer(204), now)
    assert await kept(database) == [40, 40, 20]
    await runner.forget(stop)
    assert await kept(database) == [40, 40, 20]
    # What was answered first; the messages are kept for longer than anybody can recover from.
    await age(database, KEEP)
    await runner.forget(stop)
    assert await kept(database) == [0, 40, 20]
    await age(database, MARGIN)
    await outbox.record([100])
    await outbox.send_again(first, (await outbox.messages())[0]["id"])
    steps.clear()
    await runner.forget(stop)
    # But for the new one, and the one that somebody wants again.
    assert await kept(database) == [0, 5, 2]
    assert max(steps) <= 7
    assert runner.forgotten == 40 + 19
    # Once that is done too, it goes as well.
    await outbox.answer(await outbox.claim(clock() + DAY), Answer(204), clock())
    await age(database, KEEP + MARGIN)
    await runner.forget(stop)
    assert await kept(database) == [0, 0, 0]
    assert [await outbox.find(one) for one in (first, second)] == [first, second]


async def test_what_is_still_to_be_sent_is_never_forgotten(outbox: Outbox) -> None:
    await outbox.endpoint()
    await outbox.record([1, 2])
    await age(outbox.database, 100 * DAY)
    runner, stop = Retention(outbox.database, KEEP), asyncio.Event()
    await runner.forget(stop)
    assert await kept(outbox.database) == [0, 2, 2]
    claims = await outbox.claim(clock())
    assert len(claims) == 2
    assert all(claim.message.body for claim in claims)


async def test_jobs_are_forgotten_when_they_are_done(outbox: Outbox) -> None:
    now = clock()
    job = RecoveryRow("rec_1", "ep_1", 0, 1, 0, 1, 1, 0, now - 40 * DAY, now - 31 * DAY)
    async with outbox.database.transaction() as connection:
        await add_recovery(connection, job)
        await add_recovery(connection, job._replace(id="rec_2", finished_at=now - 29 * DAY))
        await add_recovery(connection, job._replace(id="rec_3", done=0, finished_at=None))
    await Retention(outbox.database, KEEP).forget(asyncio.Event())
    async with outbox.database.transaction() as connection:
        assert set((await connection.execute(select(webhook_job.c.id))).scalars()) == {"rec_2", "rec_3"}

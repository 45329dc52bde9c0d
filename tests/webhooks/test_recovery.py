"""The job that sends again what was missed: in batches, by whoever comes along, and each message once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import update

from lifecycle_engine.outbox.recovery import begin_recovery, recover_step
from lifecycle_engine.outbox.retry import Answer
from lifecycle_engine.outbox.subscriptions import Subscriptions
from lifecycle_engine.store.changes import SKEW, position_of
from lifecycle_engine.store.endpoints import EndpointRow, change_endpoint
from lifecycle_engine.store.recoveries import RecoveryRow, find_recovery
from lifecycle_engine.store.tables import change
from tests.hooks import Outbox, clock, sequences
from tests.record import record


@pytest.fixture(params=["sqlite", "postgres"])
async def outbox(request: pytest.FixtureRequest) -> AsyncIterator[Outbox]:
    async with record(str(request.getfixturevalue(f"{request.param}_url"))) as database:
        yield Outbox(database)


async def begin(outbox: Outbox, endpoint: EndpointRow, since: int, until: int | None = None) -> RecoveryRow:
    async with outbox.database.transaction() as connection:
        now = clock() + 1
        return await begin_recovery(connection, endpoint.id, since, now if until is None else until, now)


async def step(outbox: Outbox, limit: int) -> bool:
    """By a process that knows nothing of the steps before."""
    async with outbox.database.transaction() as connection:
        return await recover_step(connection, Subscriptions(), clock(), limit)


async def found(outbox: Outbox, job: RecoveryRow) -> RecoveryRow:
    async with outbox.database.transaction() as connection:
        row = await find_recovery(connection, job.id)
    assert row is not None
    return row


async def test_any_replica_goes_on_with_it(outbox: Outbox) -> None:
    since = clock()
    endpoint = await outbox.endpoint(ordering="per_customer", filter={"event_types": ["stage.changed"]})
    await outbox.record(n % 3 for n in range(12))
    await outbox.record([7], type="customer.merged")
    await outbox.record([8], muted=True)
    # Some have arrived, some were given up, the others are on their way.
    now = clock()
    claims = await outbox.claim(now)
    await outbox.answer(claims[:1], Answer(204), now)
    await outbox.answer(claims[1:2], Answer(200, None, None, "abort-message"), now)
    await outbox.answer(claims[2:3], Answer(410), now)
    assert await outbox.end_leftovers(now) > 0
    await outbox_enable(outbox, endpoint)
    job = await begin(outbox, endpoint, since)
    assert (job.total, job.done, job.finished_at) == (14, 0, None)
    seen = []
    while await step(outbox, 4):
        seen.append((await found(outbox, job)).done)
    assert seen == [4, 8, 12, 14]
    delivered = sum(one["status"] == "delivered" for one in await outbox.deliveries(endpoint))
    done = await found(outbox, job)
    assert done.queued == 12 - delivered
    assert done.finished_at is not None
    pending = [one for one in await outbox.deliveries(endpoint) if one["status"] == "pending"]
    assert {one["trigger"] for one in pending} == {"recover"}
    messages = await outbox.messages()
    assert {one["message"] for one in pending} < {one["id"] for one in messages}
    # In each lane by its sequence, one after the other.
    arrived: dict[int, list[int]] = {}
    while claims := await outbox.claim(clock()):
        for customer, sequence in sequences(claims):
            arrived.setdefault(customer, []).append(sequence)
        await outbox.answer(claims, Answer(204), clock())
    assert all(one == sorted(one) for one in arrived.values())
    again = await begin(outbox, endpoint, since)
    while await step(outbox, 100):
        pass
    assert (await found(outbox, again)).queued == 0


async def outbox_enable(outbox: Outbox, endpoint: EndpointRow) -> None:
    async with outbox.database.transaction() as connection:
        await change_endpoint(connection, endpoint._replace(disabled_at=None, disabled_reason=None))


async def test_what_nobody_was_told_of_gets_one_message(outbox: Outbox) -> None:
    since = clock()
    await outbox.record(range(5))
    assert await outbox.messages() == []
    endpoints = [await outbox.endpoint() for _ in range(2)]
    jobs = [await begin(outbox, endpoint, since) for endpoint in endpoints]
    while await step(outbox, 3):
        pass
    assert [(await found(outbox, job)).queued for job in jobs] == [5, 5]
    messages = await outbox.messages()
    assert len({one["change"] for one in messages}) == len(messages) == 5
    for endpoint in endpoints:
        assert [one["message"] for one in await outbox.deliveries(endpoint)] == sorted(one["id"] for one in messages)


async def test_it_ends_where_the_endpoint_is_turned_off(outbox: Outbox) -> None:
    since = clock()
    endpoint = await outbox.endpoint()
    other = await outbox.endpoint(filter={"to": "nowhere"})
    await outbox.record(range(6))
    job = await begin(outbox, other, since)
    assert await step(outbox, 2)
    async with outbox.database.transaction() as connection:
        await change_endpoint(connection, other._replace(disabled_at=clock(), disabled_reason="gone"))
    assert await step(outbox, 2)
    assert not await step(outbox, 2)
    stopped = await found(outbox, job)
    assert (stopped.done, stopped.total, stopped.finished_at is None) == (2, 6, False)
    assert len(await outbox.deliveries(endpoint)) == 6


async def test_its_beginning_is_found_by_halving(outbox: Outbox) -> None:
    """Positions follow commits, and instants only roughly: what was recorded a little before may come after."""
    hour, first = 3_600_000_000, 1_700_000_000_000_000
    await outbox.record(range(60))
    async with outbox.database.transaction() as connection:
        for place in range(60):
            wobble = (place * 7919 % 5 - 2) * SKEW // 5
            await connection.execute(
                update(change).where(change.c.position == place + 1).values(recorded_at=first + place * hour + wobble)
            )
    async with outbox.database.transaction() as connection:
        for place in range(-1, 62):
            instant = first + place * hour
            begin_at = await position_of(connection, instant - SKEW, 61)
            end_at = await position_of(connection, instant + SKEW, 61)
            assert begin_at <= max(1, place + 1) <= 61 or begin_at == 61
            assert end_at >= min(61, max(1, place + 1))
            assert end_at - begin_at <= 2

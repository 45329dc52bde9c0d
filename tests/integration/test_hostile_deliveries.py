"""Whole deliveries while every hostile receiver that we can think of is an endpoint: the good one gets all of it."""

from contextlib import AsyncExitStack

import pytest

from lifecycle_engine.webhook.exchange import Failure
from lifecycle_engine.webhook.secrets import create_secret
from tests.egress.receivers import receiver
from tests.egress.test_hostile_receivers import HOSTILE
from tests.hooks import clock
from tests.integration.test_dispatch import VAULT, Hooks, hooks

__all__ = ["hooks"]
CHANGES = 30


@pytest.mark.parametrize("hooks", ["sqlite", "postgres"], indirect=True)
async def test_hostile_receivers_keep_nothing_from_the_good_one(hooks: Hooks) -> None:
    good = await hooks.endpoint("/good")
    hostile = {}
    async with AsyncExitStack() as listening:
        for kind, (script, _, _) in HOSTILE.items():
            bad = await listening.enter_async_context(receiver(script))
            row = await hooks.outbox.endpoint(url=bad.url(), max_in_flight=2)
            async with hooks.outbox.database.transaction() as connection:
                await create_secret(connection, VAULT, row.id, "v1", clock())
            hostile[kind] = row
        await hooks.outbox.record(range(CHANGES))
        dispatcher = hooks.dispatcher()
        async with hooks.running(dispatcher):
            await hooks.arrive("/good", CHANGES, seconds=60)
            assert await dispatcher.ready()
    assert [(d["status"], d["attempts"]) for d in await hooks.outbox.deliveries(good)] == [("delivered", 1)] * CHANGES
    known = {str(failure) for failure in Failure} - {Failure.UNEXPECTED, *{Failure.PROXY, Failure.LOCAL}}
    for kind, row in hostile.items():
        for attempt in await hooks.outbox.attempts(row):
            assert attempt["failure"] is None or attempt["failure"] in known, kind
            assert len(attempt["response"] or b"") <= 16 * 1024

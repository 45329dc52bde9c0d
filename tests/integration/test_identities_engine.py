"""Who belongs to whom, in the engine's transaction: what once went wrong, on both databases."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from lifecycle_engine.engine.batch import apply_batch
from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.engine.timers import let_time_pass
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.store.aggregates import LATEST, find_aggregate, settle
from lifecycle_engine.store.customers import Identity, find_customer
from lifecycle_engine.store.database import Database
from tests.record import LOG, Feed, changes, deliveries, lines, message, record

DAY = 86_400_000_000
START = 1_767_225_600_000_000
SHOP: dict[str, Any] = {
    "lifecycle": "shop",
    "initial": "new",
    "stages": [{"key": "new"}, {"key": "bought"}],
    "rules": [{"on": "buy", "to": "bought"}],
}


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with record(str(request.getfixturevalue(f"{request.param}_url")), SHOP) as database:
        yield database


@pytest.fixture
async def postgresql(postgres_url: str) -> AsyncIterator[Database]:
    async with record(postgres_url, SHOP) as database:
        yield database


def retraction(id_: str, of: str, **fields: Any) -> bytes:
    nobody: Any = None
    return message(id_, "$retract", START, nobody, properties={"source": "test", "id": of}, **fields)


def override(id_: str, stage: str, customer_id: str = "c", **fields: Any) -> bytes:
    properties = {"lifecycle": "shop", "stage": stage, "reason": "because", "actor": "someone"}
    if expires_at := fields.pop("expires_at", None):
        properties["expires_at"] = format_instant(expires_at)
    return message(id_, "$override", START, customer_id, properties=properties, **fields)


async def stages(database: Database, customer_id: str = "c", kind: str = "customer_id") -> list[str]:
    return [line.event.stage for line in await lines(database, customer_id, kind) if line.superseded_at is None]


async def test_an_override_that_names_both_links_nobody(database: Database) -> None:
    nobody: Any = None
    feed = Feed(database)
    await feed.apply(override("o", "bought", anonymous_id="a"), message("t", "buy", START, nobody, anonymous_id="a"))
    await feed.apply(message("l", "$link", START + 9 * DAY, "d", anonymous_id="a"))
    assert await stages(database, "c") == ["bought"]
    assert await stages(database, "d") == ["bought"]
    async with database.transaction() as connection:
        aggregate = await find_aggregate(connection, Identity("anonymous_id", "a"), LATEST)
    assert aggregate is not None
    assert aggregate.identity == Identity("customer_id", "d")


async def test_what_comes_after_it_was_retracted_was_not_known_before_it_came(database: Database) -> None:
    feed = Feed(database)
    await feed.apply(retraction("r", "t"))
    async with database.transaction() as connection:
        known_at = await settle(database, connection, Identity("customer_id", "c")) - 1
    await feed.apply(message("t", "buy", START))
    assert await stages(database) == []
    async with database.transaction() as connection:
        assert await find_aggregate(connection, Identity("customer_id", "c"), known_at) is None


async def test_a_retraction_that_was_retracted_before_it_came_holds(database: Database) -> None:
    feed = Feed(database)
    await feed.apply(message("t", "buy", START))
    await feed.apply(retraction("r2", "r1"))
    assert await stages(database) == ["bought"]
    await feed.apply(retraction("r1", "t"))
    assert await stages(database) == []


async def test_what_a_muted_retraction_changes_is_muted(database: Database) -> None:
    feed = Feed(database)
    await feed.apply(message("t", "buy", START))
    await feed.apply(retraction("r", "t", muted=True))
    told = [(one["type"], one["muted"]) for one in await changes(database)]
    assert told == [("stage.changed", False), ("history.corrected", True)]


async def test_a_journey_that_never_was_is_told_of_by_a_correction_alone(database: Database) -> None:
    feed = Feed(database)
    await feed.apply(message("t", "buy", START))
    await feed.apply(retraction("r", "t"))
    await feed.apply(message("t2", "buy", START + DAY))
    opened, corrected, again = await changes(database)
    assert (opened["type"], opened["from"], opened["to"], opened["sequence"]) == ("stage.changed", None, "bought", 1)
    assert (corrected["type"], len(corrected["replaced"]), corrected["by"]) == ("history.corrected", 1, [])
    assert (again["type"], again["from"], again["to"], again["sequence"]) == ("stage.changed", None, "bought", 2)


async def test_what_a_muted_merge_brought_along_ends_muted(database: Database) -> None:
    """The pin of an import ends though time passes only later, and for somebody of whom nothing else was known."""
    feed = Feed(database)
    await feed.apply(override("o", "bought", expires_at=START + DAY, muted=True))
    await feed.apply(message("m", "$merge", START, "c", properties={"into": "d"}, muted=True))
    async with database.transaction() as connection:
        row = await find_customer(connection, Identity("customer_id", "d"))
    assert row is not None
    await let_time_pass(database, await Definitions(database, Cel()).reload(), [row.id], START + 2 * DAY, quiet=0)
    assert await stages(database, "d") == ["bought", "new"]
    assert all(one["muted"] for one in await changes(database, "d"))


async def test_a_touchpoint_of_somebody_elses_anonymous_id_may_come_first_after_all(database: Database) -> None:
    nobody: Any = None
    feed = Feed(database)
    await feed.apply(message("t", "buy", START, nobody, anonymous_id="a"))
    await feed.apply(message("d", "look", START + 3 * DAY, "d", anonymous_id="a"))
    for number in (6, 5, 9, 4):
        await feed.apply(message(f"c{number}", "look", START + number * DAY, "c", anonymous_id="a"))
        assert (await stages(database, "d"), await stages(database, "c")) == (["bought"], ["new"])
    await feed.apply(message("c2", "look", START + 2 * DAY, "c", anonymous_id="a"))
    assert (await stages(database, "d"), await stages(database, "c")) == (["new"], ["bought"])


async def test_a_fact_that_is_retracted_while_it_is_being_stored_leaves_nothing(postgresql: Database) -> None:
    definitions = await Definitions(postgresql, Cel()).reload()

    def apply(value: bytes, position: int, partition: int) -> asyncio.Task[Any]:
        batch = deliveries([value], position, partition)
        return asyncio.create_task(apply_batch(postgresql, definitions, LOG, batch))

    await apply(message("t0", "look", START, "other"), 0, 0)
    async with postgresql.transaction() as connection:
        # The one who stores it has done everything but move the position.
        await connection.execute(text("SELECT * FROM log_position FOR UPDATE"))
        storing = apply(message("t", "buy", START, anonymous_id="a"), 1, 0)
        await _until_waiting(postgresql, 1)
        retracting = apply(retraction("r", "t"), 0, 1)
        await _until_waiting(postgresql, 2)
    await storing
    await retracting
    assert await stages(postgresql) == []
    async with postgresql.transaction() as connection:
        row = await find_customer(connection, Identity("anonymous_id", "a"))
    assert row is not None
    assert row.owner is None


async def _until_waiting(database: Database, count: int) -> None:
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    for _ in range(1000):
        async with database.transaction() as connection:
            if (await connection.execute(query)).scalar_one() >= count:
                return
        await asyncio.sleep(0.01)
    pytest.fail("nobody waits")


async def test_customers_made_and_linked_at_once_by_many_are_not_waited_for_in_a_circle(postgresql: Database) -> None:
    chance = random.Random(1)
    definitions = await Definitions(postgresql, Cel()).reload()
    positions = [0] * 4

    def batch(number: int, partition: int) -> list[bytes]:
        found = []
        for index in range(chance.randint(1, 5)):
            type_, (one, other) = (
                chance.choice(["buy", "$link", "$unlink", "$merge"]),
                chance.sample([f"{number}-{n}" for n in range(4)], 2),
            )
            fields = {"properties": {"into": other}} if type_ == "$merge" else {"anonymous_id": other}
            at = START + chance.randrange(9) * DAY
            found.append(message(f"{number}.{partition}.{index}", type_, at, one, **fields))
        return found

    async def ask(number: int) -> None:
        for value in range(4):
            async with postgresql.transaction() as connection:
                await settle(postgresql, connection, Identity("customer_id", f"{number}-{value}"))

    for number in range(40):
        batches = []
        for partition in range(4):
            messages = batch(number, partition)
            batches.append(deliveries(messages, positions[partition], partition))
            positions[partition] += len(messages)
        applying = (apply_batch(postgresql, definitions, LOG, each) for each in batches)
        ended = await asyncio.gather(*applying, ask(number), return_exceptions=True)
        assert not [each for each in ended if isinstance(each, DBAPIError)]

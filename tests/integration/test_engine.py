"""The engine's transaction, on both databases: effects once, in any order, with a history that only grows."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import func, select

from lifecycle_engine.engine.activation import CatchUp
from lifecycle_engine.engine.batch import apply_batch, set_aside
from lifecycle_engine.engine.definitions import Definitions, DefinitionSetMovedError
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.fold import fold
from lifecycle_engine.lifecycle.journeys import CustomerState, Event
from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from lifecycle_engine.log.message import decode
from lifecycle_engine.store.customers import Identity, find_customer
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.positions import PositionMovedError, read_positions
from lifecycle_engine.store.tables import conflict, dead_letter, touchpoint
from tests.record import LOG, Feed, activate, changes, deliveries, horizon, lines, message, record

DAY = 86_400_000_000
START = 1_767_225_600_000_000
LADDER: dict[str, Any] = {
    "lifecycle": "ladder",
    "initial": "a",
    "stages": [{"key": "a"}, {"key": "b"}, {"key": "c", "requires": ["measures.n >= 2"]}, {"key": "d"}],
    "measures": {"n": {"count": "buy"}, "spend": {"sum": "properties.amount", "of": "buy"}},
    "rules": [
        {"on": "buy", "when": ["measures.spend >= 50.0"], "to": "d"},
        {"on": "buy", "when": ["event.properties.amount > 10.0"], "to": "c"},
        {"on": "buy", "to": "b", "reenter": True},
        {"on": "leave", "to": "a"},
    ],
}
OTHER: dict[str, Any] = {
    "lifecycle": "other",
    "initial": "new",
    "opens": ["buy"],
    "per": "properties.line",
    "stages": [{"key": "new"}, {"key": "known"}],
    "rules": [{"on": "buy", "from": ["new"], "to": "known"}, {"on": "leave", "to": "new"}],
}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url".replace("postgresql_url", "postgres_url")))


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with record(url, LADDER, OTHER) as database:
        yield database


def some_messages(count: int, customers: int, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    return [
        message(
            f"t{number}",
            chance.choice(["buy", "buy", "leave", "look"]),
            START + chance.randrange(count) * DAY // 4,
            f"c{chance.randrange(customers)}",
            properties={"amount": chance.choice([5.5, 20.25, "x", None]), "line": chance.choice(["l1", 2, None])},
        )
        for number in range(count)
    ]


async def folded(database: Database, touchpoints: list[Touchpoint]) -> tuple[CustomerState, list[Event]]:
    events: list[Event] = []
    definitions = await Definitions(database, Cel()).reload()
    ordered = sorted(touchpoints, key=lambda one: one.place)
    return fold(definitions.active, ordered, tell=events.append), events


async def assert_converged(database: Database, messages: list[bytes]) -> None:
    """Every customer's state and visible history are those of the sorted fold; sequences have no gap."""
    by_customer: dict[str, dict[str, Touchpoint]] = {}
    for value in messages:
        one = decode(value).touchpoint
        by_customer.setdefault(one.customer_id or "", {}).setdefault(one.id, one)
    for customer_id, touchpoints in by_customer.items():
        state, events = await folded(database, list(touchpoints.values()))
        async with database.transaction() as connection:
            row = await find_customer(connection, Identity("customer_id", customer_id))
        assert row is not None
        assert row.state == state
        stored = await lines(database, customer_id)
        assert Counter(line.event for line in stored if line.superseded_at is None) == Counter(events)
        for line in stored:
            assert line.superseded_at is None or line.superseded_at > line.recorded_at
        sequences: dict[tuple[str, str | None], list[int]] = {}
        for told in await changes(database, customer_id):
            if told["type"] == "stage.changed":
                sequences.setdefault((told["lifecycle"], told["subject"]), []).append(told["sequence"])
        assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in sequences.values())


@pytest.mark.parametrize("seed", range(3))
async def test_any_order_duplication_and_batching_converges(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    messages = some_messages(300, 5, seed)
    arriving = messages + chance.sample(messages, 60)
    chance.shuffle(arriving)
    feed = Feed(database)
    while arriving:
        size = chance.choice([1, 2, 7, 40])
        await feed.apply(*arriving[:size])
        del arriving[:size]
    await assert_converged(database, messages)
    async with database.transaction() as connection:
        counted = await connection.execute(select(func.count(), func.sum(touchpoint.c.duplicates)))
        assert counted.one() == (300, 60)


async def test_a_long_history_refolds_from_a_checkpoint(database: Database) -> None:
    messages = [message(f"t{n:04}", "buy", START + n * DAY, properties={"amount": 0.1}) for n in range(200)]
    feed = Feed(database)
    await feed.apply(*messages)
    before = await lines(database)
    late = message("late", "leave", START + 190 * DAY + 1)
    assert (await feed.apply(late)).late == 1
    await assert_converged(database, [*messages, late])
    after = await lines(database)
    assert after[: len(before)][:150] == before[:150]


async def test_what_was_known_stays_known(database: Database) -> None:
    feed = Feed(database)
    answers: dict[int, list[Event]] = {}
    for value in some_messages(60, 1, seed=9):
        await feed.apply(value)
        stored = await lines(database, "c0")
        known_at = max(line.recorded_at for line in stored) if stored else 0
        answers[known_at] = [line.event for line in stored if line.superseded_at is None]
    stored = await lines(database, "c0")
    for known_at, events in answers.items():
        again = [
            line.event
            for line in stored
            if line.recorded_at <= known_at and (line.superseded_at is None or line.superseded_at > known_at)
        ]
        assert Counter(again) == Counter(events)


async def test_in_order_moves_are_told_one_by_one_and_late_ones_as_a_correction(database: Database) -> None:
    feed = Feed(database)
    await feed.apply(
        message("t1", "buy", START + 1 * DAY),
        message("t3", "leave", START + 3 * DAY),
    )
    told = await changes(database)
    assert [(one["type"], one["from"], one["to"], one["move"], one["sequence"]) for one in told] == [
        ("stage.changed", None, "b", "start", 1),
        ("stage.changed", "b", "a", "back", 2),
    ]
    await feed.apply(message("t4", "buy", START + 4 * DAY, properties={"amount": 50}), message("t0", "look", START))
    told = (await changes(database))[2:]
    assert [one["type"] for one in told] == ["history.corrected", "stage.changed"]
    assert [stay["stage"] for stay in told[0]["replaced"]] == ["b"]
    assert [stay["stage"] for stay in told[0]["by"]] == ["a", "b"]
    assert (told[1]["from"], told[1]["to"], told[1]["sequence"]) == ("a", "d", 3)
    await feed.apply(message("t5", "leave", START + 3 * DAY + 1, properties={"amount": 1}))
    assert len(await changes(database)) == 4, "nothing has changed, so nobody is told"
    await feed.apply(message("t6", "leave", START + 5 * DAY), message("t7", "buy", START + 3 * DAY + 2))
    told = (await changes(database))[4:]
    assert [(one["type"], one.get("cause", {}).get("kind")) for one in told] == [
        ("history.corrected", None),
        ("stage.changed", "touchpoint"),
    ]


async def test_a_correction_of_the_current_stage_says_so(database: Database) -> None:
    feed = Feed(database)
    await feed.apply(message("t1", "buy", START), message("t2", "buy", START + 2 * DAY, properties={"amount": 11}))
    await feed.apply(message("t3", "buy", START + DAY, properties={"amount": 45}))
    told = (await changes(database))[2:]
    assert [one["type"] for one in told] == ["history.corrected", "stage.changed"]
    assert (told[1]["from"], told[1]["to"], told[1]["cause"]["kind"]) == ("c", "d", "correction")


async def test_a_conflict_is_recorded_and_the_first_stands(database: Database) -> None:
    feed = Feed(database)
    first, second = message("t1", "buy", START), message("t1", "leave", START)
    await feed.apply(first, second)
    await feed.apply(second, first)
    await assert_converged(database, [first])
    async with database.transaction() as connection:
        row = (await connection.execute(select(touchpoint.c.duplicates, touchpoint.c.conflicts))).one()
        messages = (await connection.execute(select(conflict.c.message))).scalars().all()
    assert row == (1, 2)
    assert messages == [second]


async def test_ids_live_within_their_source(database: Database) -> None:
    await Feed(database).apply(message("t1", "buy", START), message("t1", "leave", START, source="elsewhere"))
    async with database.transaction() as connection:
        assert (await connection.execute(select(func.count()).select_from(touchpoint))).scalar_one() == 2


async def test_the_same_value_of_two_kinds_names_two_customers(database: Database) -> None:
    await Feed(database).apply(
        message("t1", "buy", START, "42"),
        message("t2", "leave", START, None, anonymous_id="42"),  # type: ignore[arg-type]
    )
    assert [line.event.stage for line in await lines(database, "42")] == ["b"]
    assert [line.event.stage for line in await lines(database, "42", "anonymous_id")] == ["a"]


async def test_an_unreadable_record_is_set_aside_and_its_neighbours_go_on(database: Database) -> None:
    good = [message("t1", "buy", START), message("t2", "leave", START + 1)]
    outcome = await Feed(database).apply(good[0], b"\xff rubbish", b"", good[1])
    assert (outcome.accepted, outcome.dead) == (2, 2)
    await assert_converged(database, good)
    async with database.transaction() as connection:
        letters = (await connection.execute(select(dead_letter.c.position, dead_letter.c.value))).all()
        assert sorted(letters) == [(1, b"\xff rubbish"), (2, b"")]
        assert await read_positions(connection, LOG, [0]) == {0: 4}


async def test_a_record_set_aside_moves_the_position_with_it(database: Database) -> None:
    (one,) = deliveries([message("t1", "buy", START)])
    await set_aside(database, LOG, one, RuntimeError("it cannot be"))
    with pytest.raises(PositionMovedError):
        await set_aside(database, LOG, one, RuntimeError("it cannot be"))
    async with database.transaction() as connection:
        row = (await connection.execute(select(dead_letter.c.id, dead_letter.c.code, dead_letter.c.reason))).one()
    assert row == ("t1", "cannot_be_processed", "it cannot be")


async def test_a_zombie_commits_nothing(database: Database) -> None:
    definitions = await Definitions(database, Cel()).reload()
    messages = some_messages(40, 3, seed=4)
    await apply_batch(database, definitions, LOG, deliveries(messages[:20]))
    with pytest.raises(PositionMovedError):
        await apply_batch(database, definitions, LOG, deliveries(messages[10:30], 10))
    async with database.transaction() as connection:
        counted = await connection.execute(select(func.count(), func.sum(touchpoint.c.duplicates)))
        assert counted.one() == (20, 0)
    await apply_batch(database, definitions, LOG, deliveries(messages[20:], 20))
    await assert_converged(database, messages)


async def test_positions_may_have_gaps(database: Database) -> None:
    """Another's transactions leave marks on a topic, which are no records."""
    definitions = await Definitions(database, Cel()).reload()
    messages = [message("t1", "buy", START), message("t2", "leave", START + 1)]
    first, second = deliveries(messages)
    await apply_batch(database, definitions, LOG, [first._replace(position=7)])
    await apply_batch(database, definitions, LOG, [second._replace(follows=8, position=12)])
    async with database.transaction() as connection:
        assert await read_positions(connection, LOG, [0]) == {0: 13}


async def test_writers_of_the_same_customers_take_turns(postgres_url: str) -> None:
    """Identities of one customer may lie on several partitions: the row lock, not the partition, is what orders."""
    async with record(postgres_url, LADDER, OTHER) as database:
        messages = some_messages(400, 4, seed=7)
        feeds = [Feed(database, partition) for partition in range(4)]

        async def run(feed: Feed) -> None:
            mine = messages[feed.partition :: 4]
            for start in range(0, len(mine), 10):
                await feed.apply(*mine[start : start + 10])

        await asyncio.gather(*(run(feed) for feed in feeds))
        await assert_converged(database, messages)


async def test_an_activated_lifecycle_is_applied_to_the_history_that_is_there(url: str) -> None:
    async with record(url, LADDER) as database:
        messages = some_messages(120, 30, seed=3)
        feed = Feed(database)
        await feed.apply(*messages[:60])
        before = {f"c{n}": len(await changes(database, f"c{n}")) for n in range(30)}
        await activate(database, OTHER)
        # One customer is met by new facts before the work in the background reaches it.
        await feed.apply(*messages[60:70])
        stop = asyncio.Event()
        catching_up = CatchUp(database, Definitions(database, Cel()), horizon(database))
        running = asyncio.create_task(catching_up.run(stop))
        await asyncio.wait_for(catching_up.finished.wait(), 30)
        stop.set()
        await running
        told = [one for n in range(30) for one in (await changes(database, f"c{n}"))[before[f"c{n}"] :]]
        past = [one for one in told if one["lifecycle"] == "other" and one["type"] == "history.corrected"]
        assert past
        assert all(one["muted"] for one in past)
        await feed.apply(*messages[70:])
        await assert_converged(database, messages)


async def test_nothing_is_committed_under_an_older_set_of_definitions(database: Database) -> None:
    definitions = await Definitions(database, Cel()).reload()
    await activate(database, {**LADDER, "lifecycle": "third"})
    with pytest.raises(DefinitionSetMovedError):
        await apply_batch(database, definitions, LOG, deliveries([message("t1", "buy", START)]))
    assert await lines(database) == []


async def test_what_a_muted_touchpoint_alone_causes_is_muted(database: Database) -> None:
    feed = Feed(database)
    await feed.apply(message("t1", "buy", START + DAY, muted=True), message("t2", "leave", START + 2 * DAY))
    await feed.apply(message("t0", "leave", START, muted=True))
    told = await changes(database)
    assert [(one["type"], one["muted"], one.get("sequence")) for one in told] == [
        ("stage.changed", True, 1),
        ("stage.changed", False, 2),
        ("history.corrected", True, None),
    ]

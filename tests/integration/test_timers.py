"""Time passes for quiet customers, on both databases: each deadline once, never early, and no longer than it is so.

Facts are near the database's clock, and the horizon is the test's to choose, also one that is yet to come.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from sqlalchemy import select, text, update

from lifecycle_engine.engine.activation import catch_up
from lifecycle_engine.engine.announcements import next_look
from lifecycle_engine.engine.definitions import Definitions, DefinitionSetMovedError
from lifecycle_engine.engine.timers import LATER, Passed, Timers, let_time_pass
from lifecycle_engine.engine.work import QUIET
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.fold import fold
from lifecycle_engine.lifecycle.instants import format_instant, parse_instant
from lifecycle_engine.lifecycle.journeys import Event
from lifecycle_engine.lifecycle.touchpoints import LINK, OVERRIDE, UNLINK, Touchpoint
from lifecycle_engine.log.message import decode
from lifecycle_engine.store.customers import CustomerRow, Identity, find_customer
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.tables import customer, wake
from lifecycle_engine.store.wakes import due_customers
from tests.processes import wait_until
from tests.record import Feed, activate, changes, horizon, lines, message, record
from tests.statements import listen

SECOND = 1_000_000
DAY = 86_400 * SECOND
CENTURY = 36_525 * DAY
SHOP: dict[str, Any] = {
    "lifecycle": "shop",
    "initial": "visitor",
    "stages": [{"key": key} for key in ("visitor", "buyer", "loyal", "lapsed", "gone")],
    "rules": [
        {"on": "buy", "from": ["visitor", "lapsed", "gone"], "to": "buyer"},
        {"on": "join", "to": "loyal"},
        {"after": "10d", "without": "buy", "from": ["buyer"], "to": "lapsed"},
        {"after": "30d", "from": ["lapsed"], "to": "gone"},
    ],
}
WARNING: dict[str, Any] = {
    **SHOP,
    "rules": [*SHOP["rules"][:2], {**SHOP["rules"][2], "warn": "2d"}, SHOP["rules"][3]],
}
OTHER: dict[str, Any] = {
    "lifecycle": "other",
    "initial": "new",
    "stages": [{"key": "new"}, {"key": "old"}],
    "rules": [{"after": "9d", "from": ["new"], "to": "old"}],
}
WINDOW: dict[str, Any] = {
    "lifecycle": "window",
    "initial": "cold",
    "stages": [{"key": "cold"}, {"key": "warm"}],
    "measures": {"recent": {"count": "buy", "within": "30d"}},
    "rules": [
        {"from": ["cold"], "when": ["measures.recent >= 2"], "to": "warm"},
        {"from": ["warm"], "when": ["measures.recent < 2"], "to": "cold"},
    ],
}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url".replace("postgresql_url", "postgres_url")))


class Deployment(Feed):
    """A worker and a timer that do one thing at a time, as they are told."""

    async def clock(self) -> int:
        async with self.database.transaction() as connection:
            return await self.database.clock(connection)

    async def due(self, horizon: int) -> list[int]:
        async with self.database.transaction() as connection:
            return [id_ for _, id_ in await due_customers(connection, horizon, (-CENTURY, 0), 10_000)]

    async def let_pass(self, ids: list[int], horizon: int, quiet: int = 0) -> Passed:
        definitions = await Definitions(self.database, Cel()).reload()
        return await let_time_pass(self.database, definitions, ids, horizon, quiet)

    async def pass_time(self, horizon: int, quiet: int = 0) -> int:
        """Looks once at everybody whose instant has come; gives for how many there was anything to do."""
        return (await self.let_pass(await self.due(horizon), horizon, quiet)).worked_through

    async def catch_up(self, ids: list[int], horizon: int) -> None:
        """Brings customers up to the active definitions, as the background of a worker does."""
        await catch_up(self.database, await Definitions(self.database, Cel()).reload(), ids, horizon, 0)

    async def row(self, customer_id: str = "c", kind: str = "customer_id") -> CustomerRow:
        async with self.database.transaction() as connection:
            row = await find_customer(connection, Identity(kind, customer_id))  # type: ignore[arg-type]
        assert row is not None
        return row

    async def told(self, customer_id: str = "c") -> list[tuple[Any, ...]]:
        """What others are told, in short."""
        return [short(one) for one in await changes(self.database, customer_id)]

    async def wakes(self) -> dict[int, int]:
        async with self.database.transaction() as connection:
            return {id_: at for id_, at in await connection.execute(select(wake.c.customer, wake.c.at))}


def short(told: dict[str, Any]) -> tuple[Any, ...]:
    if told["type"] == "stage.changed":
        return told["from"], told["to"], told["cause"]["kind"], told["sequence"]
    if told["type"] == "stage.expiring":
        return "withdrawn" if told["withdrawn"] else "expiring", told["stage"], told["to"], told["due_at"]
    if told["type"] == "history.corrected":
        return "corrected", [stay["stage"] for stay in told["replaced"]], [stay["stage"] for stay in told["by"]]
    return (told["type"],)


def expiring(due: int) -> tuple[Any, ...]:
    return "expiring", "buyer", "lapsed", format_instant(due)


def withdrawn(due: int) -> tuple[Any, ...]:
    return "withdrawn", "buyer", "lapsed", format_instant(due)


def override(id_: str, at: int, stage: str, until: int | None = None, customer_id: str = "c") -> bytes:
    properties = {"lifecycle": "shop", "stage": stage, "reason": "because", "actor": "me"}
    if until is not None:
        properties["expires_at"] = format_instant(until)
    return message(id_, OVERRIDE, at, customer_id, properties=properties)


@asynccontextmanager
async def deployment(url: str, *documents: dict[str, Any]) -> AsyncIterator[Deployment]:
    async with record(url, *(documents or (SHOP,))) as database:
        yield Deployment(database)


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collects what the database is asked."""
    asked: list[str] = []
    end = listen(lambda _, statement: asked.append(statement))
    try:
        yield asked
    finally:
        end()


@asynccontextmanager
async def running(*timers: Timers) -> AsyncIterator[None]:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(one.run(stop)) for one in timers]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


# -- deadlines -------------------------------------------------------------------------------------------------------


async def test_a_deadline_fires_once_when_the_horizon_has_passed_it(url: str) -> None:
    async with deployment(url) as shop:
        now = await shop.clock()
        await shop.apply(message("t1", "buy", now))
        due = now + 10 * DAY
        assert await shop.due(due) == []
        id_ = (await shop.row()).id
        assert await shop.let_pass([id_], due) == Passed(1, 0), "what is due at the horizon is not before it"
        assert len(await changes(shop.database)) == 1
        assert await shop.pass_time(due + 1) == 1
        assert await shop.pass_time(due + 1) == 0
        _, told = await changes(shop.database)
        recorded_at = (await shop.row()).recorded_at
        assert told == {
            "type": "stage.changed", "muted": False, "customer_id": "c", "lifecycle": "shop", "subject": None,
            "from": "buyer", "to": "lapsed", "move": "skip", "skipped": ["loyal"],
            "occurred_at": format_instant(due), "recorded_at": format_instant(recorded_at), "sequence": 2,
            "cause": {"kind": "timer", "rule": 2, "touchpoint": None, "source": None, "definition_version": 1},
        }  # fmt: skip
        assert await shop.pass_time(due + 40 * DAY) == 1
        assert (await shop.told())[2:] == [("lapsed", "gone", "timer", 3)]
        assert (await shop.row()).wake is None
        assert await shop.wakes() == {}
        assert [line.event.at for line in await lines(shop.database)] == [now, due, due + 30 * DAY]


async def test_a_long_silence_is_worked_through_at_once(url: str) -> None:
    async with deployment(url) as shop:
        now = await shop.clock()
        await shop.apply(message("t1", "buy", now - 100 * DAY))
        assert await shop.pass_time(now + DAY) == 1
        assert await shop.told() == [
            (None, "buyer", "touchpoint", 1),
            ("buyer", "lapsed", "timer", 2),
            ("lapsed", "gone", "timer", 3),
        ]


async def test_replicas_fire_each_deadline_once(postgres_url: str) -> None:
    async with deployment(postgres_url) as shop:
        now = await shop.clock()
        await shop.apply(*(message(f"t{n}", "buy", now, f"c{n}") for n in range(60)))
        due = now + 10 * DAY + 1
        ids = await shop.due(due)
        assert len(ids) == 60
        definitions = await Definitions(shop.database, Cel()).reload()

        async def replica(seed: int) -> int:
            mine = random.Random(seed).sample(ids, 60)
            parts = [mine[start : start + 15] for start in range(0, 60, 15)]
            passed = [await let_time_pass(shop.database, definitions, part, due, 0) for part in parts]
            return sum(one.worked_through for one in passed)

        done = sum(await asyncio.gather(*map(replica, range(4))))
        done += await shop.pass_time(due)
        assert done == 60
        for n in range(60):
            assert (await shop.told(f"c{n}"))[1:] == [("buyer", "lapsed", "timer", 2)]


async def test_running_replicas_fire_each_deadline_once(postgres_url: str) -> None:
    """The runners themselves, beside a worker of the same customers."""
    async with deployment(postgres_url) as shop:
        now = await shop.clock()
        count = 700
        await shop.apply(*(message(f"t{n}", "buy", now - 10 * DAY + SECOND, f"c{n}") for n in range(count)))

        def timers() -> Timers:
            return Timers(shop.database, Definitions(shop.database, Cel()), horizon(shop.database), quiet=0)

        async def all_have_lapsed() -> bool:
            return not await shop.due(now + 10 * DAY)

        async with running(timers(), timers(), timers()):
            for start in range(0, count, 100):
                now = await shop.clock()
                await shop.apply(*(message(f"l{n}", "look", now, f"c{n}") for n in range(start, start + 100)))
            await wait_until(all_have_lapsed, "all have lapsed")
        for n in range(0, count, 7):
            assert (await shop.told(f"c{n}"))[1:] == [("buyer", "lapsed", "timer", 2)]


async def test_a_transaction_that_is_rolled_back_has_fired_nothing(url: str) -> None:
    async with deployment(url) as shop:
        now = await shop.clock()
        await shop.apply(message("t1", "buy", now))
        due = now + 10 * DAY + 1
        before = await shop.row(), await shop.wakes(), await shop.told()

        def fail(info: Any, statement: str) -> None:
            if statement.startswith("UPDATE customer SET definitions"):
                raise ConnectionResetError("the network is gone")

        end = listen(fail)
        with pytest.raises(ConnectionResetError):
            await shop.pass_time(due)
        end()
        assert (await shop.row(), await shop.wakes(), await shop.told()) == before
        assert await shop.pass_time(due) == 1
        assert (await shop.told())[1:] == [("buyer", "lapsed", "timer", 2)]


async def test_a_restart_loses_no_deadline(url: str) -> None:
    async with deployment(url) as shop:
        now = await shop.clock()
        await shop.apply(message("t1", "buy", now))
    again = Database(url)
    try:
        shop = Deployment(again)
        assert await shop.pass_time(now + 10 * DAY) == 0
        assert await shop.pass_time(now + 10 * DAY + 1) == 1
        assert (await shop.told())[1:] == [("buyer", "lapsed", "timer", 2)]
    finally:
        await again.close()


async def test_a_late_touchpoint_undoes_what_the_timer_did(url: str) -> None:
    async with deployment(url) as shop:
        now = await shop.clock()
        await shop.apply(message("t1", "buy", now))
        await shop.pass_time(now + 10 * DAY + 1)
        believed = (await shop.row()).recorded_at
        await shop.apply(message("t2", "buy", now + 5 * DAY))
        told = await changes(shop.database)
        assert [short(one) for one in told[2:]] == [
            ("corrected", ["lapsed"], []),
            ("lapsed", "buyer", "correction", 3),
        ]
        assert told[2]["replaced"][0]["cause"]["kind"] == "timer"
        stored = await lines(shop.database)

        def known(at: int) -> list[str]:
            return [
                line.event.stage
                for line in stored
                if line.recorded_at <= at and (line.superseded_at is None or line.superseded_at > at)
            ]

        assert known(believed) == ["buyer", "lapsed"]
        assert known((await shop.row()).recorded_at) == ["buyer"]
        assert await shop.pass_time(now + 15 * DAY) == 0
        assert await shop.pass_time(now + 15 * DAY + 1) == 1
        assert (await shop.told())[4:] == [("buyer", "lapsed", "timer", 4)]
        await shop.apply(message("t3", "join", now + 12 * DAY))
        assert (await shop.told())[5:] == [
            ("corrected", ["lapsed"], ["loyal"]),
            ("lapsed", "loyal", "correction", 5),
        ]
        assert await shop.pass_time(now + CENTURY) == 0


async def test_a_touchpoint_that_is_not_waited_for_undoes_nothing(url: str) -> None:
    async with deployment(url) as shop:
        now = await shop.clock()
        await shop.apply(message("t1", "buy", now))
        await shop.pass_time(now + 10 * DAY + 1)
        await shop.apply(message("t2", "look", now + 5 * DAY), message("t3", "buy", now + 10 * DAY))
        assert (await shop.told())[1:] == [
            ("buyer", "lapsed", "timer", 2),
            ("lapsed", "buyer", "touchpoint", 3),
        ], "a fact at the very instant of the deadline comes too late"


async def test_what_was_past_when_it_was_set_waits_until_the_customer_is_quiet(url: str) -> None:
    async with deployment(url) as shop:
        now = await shop.clock()
        quiet = 3600 * SECOND
        await shop.apply(message("t1", "buy", now - 50 * DAY))
        first = (await shop.row()).recorded_at
        assert await shop.wakes() == {(await shop.row()).id: first + QUIET}
        assert await shop.pass_time(now + DAY, quiet) == 0
        assert (await shop.row()).wake == first + quiet
        assert len(await shop.told()) == 1
        # The import goes on: it pushes what is due, and what it brings in order corrects nothing.
        await shop.apply(message("t2", "buy", now - 45 * DAY), message("t3", "buy", now - 35 * DAY - 1))
        second = (await shop.row()).recorded_at
        assert second > first
        assert await shop.pass_time(now + DAY, quiet) == 0
        assert (await shop.row()).wake == second + quiet
        await shop.apply(message("t4", "look", now - 34 * DAY))
        assert await shop.pass_time(now + DAY, quiet) == 0
        assert await shop.told() == [(None, "buyer", "touchpoint", 1)]
        assert await shop.pass_time((await shop.row()).wake or 0, quiet) == 0
        # By the clock it has been quiet, but nobody knows what is in the log since then.
        last = await shop.row()
        since = await shop.clock()
        assert await shop.let_pass([last.id], since - 1, since - last.recorded_at) == Passed(1, 0)
        assert (await shop.row()).wake == since
        # It has been quiet.
        assert await shop.pass_time((await shop.row()).recorded_at + quiet + 1, 0) == 1
        assert (await shop.told())[1:] == [("buyer", "lapsed", "timer", 2)]
        assert (await shop.row()).wake == now - 25 * DAY - 1 + 30 * DAY, "what comes next is yet to come"


async def test_the_runner_waits_for_quiet(url: str) -> None:
    async with deployment(url) as shop:
        quiet = 600_000
        now = await shop.clock()
        timers = Timers(shop.database, Definitions(shop.database, Cel()), horizon(shop.database), quiet=quiet)
        async with running(timers):
            for n in range(8):
                await shop.apply(message(f"t{n}", "look" if n else "buy", now - 50 * DAY + n))
                # What the worker has set by its own setting, which is longer.
                async with shop.database.transaction() as connection:
                    await connection.execute(update(wake).values(at=0))
                    await connection.execute(update(customer).values(wake=0))
                await asyncio.sleep(0.2)
                assert len(await shop.told()) == 1
            last = (await shop.row()).recorded_at

            async def has_fired() -> bool:
                return len(await shop.told()) == 3

            await wait_until(has_fired, "has fired")
        assert (await shop.row()).recorded_at >= last + quiet


async def test_what_a_muted_import_left_due_tells_nobody(url: str) -> None:
    async with deployment(url) as shop:
        now = await shop.clock()
        await shop.apply(message("t1", "buy", now - 35 * DAY, muted=True))
        await shop.pass_time(now)
        assert await shop.pass_time(now + 20 * DAY) == 1
        assert [(short(one), one["muted"]) for one in await changes(shop.database)] == [
            ((None, "buyer", "touchpoint", 1), True),
            (("buyer", "lapsed", "timer", 2), True),
            (("lapsed", "gone", "timer", 3), False),
        ]


async def test_what_a_new_lifecycle_makes_of_the_past_is_no_news_whoever_gets_there_first(url: str) -> None:
    """Also where the horizon has not reached the activation yet, or a worker brings the customer up to it."""
    async with deployment(url, WINDOW) as shop:
        now = await shop.clock()
        await shop.apply(*(message(f"t{who}", "buy", now - 20 * DAY, who) for who in ("quiet", "met")))
        await activate(shop.database, SHOP)
        await shop.apply(message("u", "look", now, "met"))
        await shop.catch_up([(await shop.row("quiet")).id], now - SECOND)
        await shop.pass_time(now + 60 * SECOND)
        await shop.pass_time(now + 20 * DAY + 1)
        for who in ("quiet", "met"):
            told = [one for one in await changes(shop.database, who) if one["lifecycle"] == "shop"]
            assert [(short(one), one["muted"]) for one in told[1:]] == [
                ((None, "buyer", "correction", 1), True),
                (("buyer", "lapsed", "timer", 2), True),
                (("lapsed", "gone", "timer", 3), False),
            ], who


async def test_what_led_to_it_was_told_so_it_is_told_though_it_lies_before_the_activation(url: str) -> None:
    """Of those who came after the activation; also where the next touchpoint lets that time pass."""
    async with deployment(url, WINDOW) as shop:
        now = await shop.clock()
        await shop.apply(message("t0", "buy", now - 45 * DAY, "known"))
        await activate(shop.database, SHOP)
        await shop.catch_up([(await shop.row("known")).id], now - SECOND)
        await shop.apply(*(message(f"t{who}", "buy", now - 45 * DAY, who) for who in ("quiet", "met")))
        await shop.apply(message("u", "look", now - 4 * DAY, "met"))
        await shop.pass_time(now + 60 * SECOND)
        for who, muted in (("quiet", False), ("met", False), ("known", True)):
            told = [one for one in await changes(shop.database, who) if one["lifecycle"] == "shop"]
            assert [(short(one), one["muted"]) for one in told if one["type"] == "stage.changed"][1:] == [
                (("buyer", "lapsed", "timer", 2), muted),
                (("lapsed", "gone", "timer", 3), muted),
            ], who


# -- windows, pins, switches -----------------------------------------------------------------------------------------


async def test_a_condition_is_judged_at_a_windows_end_though_nothing_comes(url: str) -> None:
    async with deployment(url, WINDOW) as shop:
        now = await shop.clock()
        await shop.apply(message("t1", "buy", now - 2), message("t2", "buy", now))
        end = now - 2 + 30 * DAY
        assert await shop.pass_time(end) == 0
        assert await shop.pass_time(end + 1) == 1
        _, _, told = await changes(shop.database)
        assert short(told) == ("warm", "cold", "condition", 3)
        assert (told["occurred_at"], told["cause"]["touchpoint"]) == (format_instant(end), None)
        await shop.pass_time(now + CENTURY)
        assert len(await shop.told()) == 3
        await shop.apply(message("late", "buy", now + DAY))
        assert (await shop.told())[3:] == [
            ("corrected", ["cold"], ["cold"]),
        ], "the window holds two until one more has left it"


async def test_a_pin_ends_though_nothing_comes(url: str) -> None:
    async with deployment(url) as shop:
        now = await shop.clock()
        await shop.apply(message("t1", "buy", now), override("pin", now + 1, "loyal", now + 20 * DAY))
        assert await shop.pass_time(now + 20 * DAY) == 1, "beneath the pin a deadline was worked through"
        assert len(await shop.told()) == 2
        assert await shop.pass_time(now + 20 * DAY + 1) == 1
        assert (await shop.told())[1:] == [("buyer", "loyal", "override", 2), ("loyal", "lapsed", "override", 3)]
        await shop.pass_time(now + CENTURY)
        assert (await shop.told())[3:] == [("lapsed", "gone", "timer", 4)]


async def test_definitions_switch_for_quiet_customers_and_what_is_overdue_fires_then(url: str) -> None:
    first = {**SHOP, "rules": SHOP["rules"][:2]}
    renamed = {
        **SHOP,
        "stages": [{"key": key} for key in ("visitor", "buyer", "fan", "lapsed", "gone")],
        "rules": [SHOP["rules"][0], {"on": "join", "to": "fan"}, *SHOP["rules"][2:]],
        "rename": {"loyal": "fan"},
    }
    async with deployment(url, first) as shop:
        now = await shop.clock()
        switch = now + 15 * DAY
        await shop.apply(
            message("t1", "buy", now, "overdue"),
            message("t2", "buy", now + 8 * DAY, "due"),
            message("t3", "join", now, "renamed"),
        )
        assert await shop.wakes() == {}
        await activate(shop.database, renamed, switch)
        with pytest.raises(DefinitionSetMovedError):
            await let_time_pass(shop.database, await shop.definitions.current(), [1], switch, 0)
        ids = [(await shop.row(name)).id for name in ("overdue", "due", "renamed")]
        await shop.catch_up(ids, now)
        assert await shop.wakes() == dict.fromkeys(ids, switch)
        assert await shop.pass_time(switch) == 0
        assert await shop.pass_time(switch + 1) == 3
        assert (await shop.told("overdue"))[1:] == [("buyer", "lapsed", "timer", 2)]
        assert (await lines(shop.database, "overdue"))[-1].event.at == switch
        assert (await shop.told("due"))[1:] == []
        assert (await shop.told("renamed"))[1:] == [("loyal", "fan", "definition", 2)]
        assert await shop.pass_time(now + 18 * DAY + 1) == 1
        assert (await shop.told("due"))[1:] == [("buyer", "lapsed", "timer", 2)]


# -- announcements ---------------------------------------------------------------------------------------------------


async def test_a_timer_is_announced_beforehand_and_once(postgres_url: str) -> None:
    async with deployment(postgres_url, WARNING, OTHER) as shop:
        now = await shop.clock()
        await shop.apply(message("t1", "buy", now))
        due = now + 10 * DAY
        assert await shop.pass_time(due - 2 * DAY) == 0
        ids = await shop.due(due)
        passed = await asyncio.gather(*(shop.let_pass(ids, due - 2 * DAY + 1) for _ in range(4)))
        assert sum(one.worked_through for one in passed) == 1
        _, _, told = await changes(shop.database)
        assert told == {
            "type": "stage.expiring", "muted": False, "customer_id": "c", "lifecycle": "shop", "subject": None,
            "stage": "buyer", "to": "lapsed", "due_at": format_instant(due), "withdrawn": False, "rule": 2,
            "definition_version": 1, "recorded_at": format_instant((await shop.row()).recorded_at),
        }  # fmt: skip
        await shop.apply(message("t2", "look", now + DAY))
        assert (await shop.pass_time(due), await shop.pass_time(due + 1)) == (1, 1)
        assert (await shop.told())[3:] == [
            ("new", "old", "timer", 2),
            ("buyer", "lapsed", "timer", 2),
        ], "what has fired is not withdrawn"
        assert (await shop.row()).announced == {}


async def test_where_less_is_left_it_is_announced_at_once(url: str) -> None:
    async with deployment(url, WARNING) as shop:
        now = await shop.clock()
        await shop.apply(message("t1", "buy", now - 9 * DAY))
        assert await shop.pass_time(now + SECOND, 3600 * SECOND) == 0, "the rest of an import may be on its way"
        assert await shop.pass_time(now + 3601 * SECOND) == 1
        assert (await shop.told())[1:] == [expiring(now + DAY)]
        assert await shop.pass_time(now + DAY) == 0
        assert await shop.pass_time(now + DAY + 1) == 1
        assert (await shop.told())[2:] == [("buyer", "lapsed", "timer", 2)]


async def test_it_is_withdrawn_where_it_will_not_fire(url: str) -> None:
    """By a touchpoint that starts the clock anew, by leaving the stage, by an operator; in order or late."""
    async with deployment(url, WARNING) as shop:
        now = await shop.clock()

        def at(day: int) -> int:
            return now + day * DAY

        given = {
            "anew": (message("t1", "buy", at(9), "anew"), [19]),
            "anew, late": (message("t2", "buy", at(5), "anew, late"), [15]),
            "left": (message("t3", "join", at(9), "left"), []),
            "left, late": (message("t4", "join", at(5), "left, late"), []),
            "overridden": (override("t5", at(9), "loyal", customer_id="overridden"), []),
            "pinned": (override("t6", at(9), "gone", at(9) + DAY // 2, customer_id="pinned"), [10]),
        }
        await shop.apply(*(message(f"s{name}", "buy", now, name) for name in given))
        await shop.apply(*(message(f"l{name}", "look", at(7), name) for name in given))
        assert await shop.pass_time(at(8) + 1) == 6
        await shop.apply(*(fact for fact, _ in given.values()))
        for name in given:
            told = await changes(shop.database, name)
            again = [one for one in told[2:] if one["type"] == "stage.expiring"]
            assert (short(told[1]), *map(short, again)) == (expiring(at(10)), withdrawn(at(10))), name
            assert again[0]["recorded_at"] == format_instant((await shop.row(name)).recorded_at)
        for step in range(17, 60):
            await shop.pass_time(now + step * DAY // 2 + 1)
        for name, (_, days) in given.items():
            later = (await shop.told(name))[2:]
            assert [one for one in later if one[0] == "expiring"] == [expiring(at(day)) for day in days], name
            assert Counter(one[0] for one in later)["withdrawn"] == 1


async def test_a_timer_that_was_judged_in_vain_is_withdrawn(url: str) -> None:
    """Whether its guard did not hold or its move was refused."""
    guarded = {**WARNING["rules"][2], "when": ["journey.visits.gone > 0"]}
    in_vain = {**WARNING, "rules": [*WARNING["rules"][:2], guarded]}
    refused = {**WARNING, "lifecycle": "refused", "moves": {"visitor": ["buyer"], "buyer": ["loyal"]}}
    async with deployment(url, in_vain, refused) as shop:
        now = await shop.clock()
        due = now + 10 * DAY
        await shop.apply(message("t", "buy", now))
        await shop.pass_time(due - DAY)
        before = (await shop.row()).recorded_at
        assert await shop.pass_time(due + 1) == 1
        told = [one for one in await changes(shop.database) if one["type"] == "stage.expiring"]
        assert [short(one) for one in told] == [expiring(due)] * 2 + [withdrawn(due)] * 2
        assert parse_instant(told[3]["recorded_at"]) == (await shop.row()).recorded_at > before
        await shop.pass_time(now + CENTURY)
        assert [line.event.move for line in await lines(shop.database)] == ["start", "start", "refused"]


async def test_what_was_withdrawn_in_the_same_moment_as_it_is_announced_anew_comes_first(url: str) -> None:
    """A switch takes the announcement back, and the new version's timer is announced."""
    async with deployment(url, WARNING) as shop:
        now = await shop.clock()
        await shop.apply(message("t1", "buy", now))
        await shop.pass_time(now + 8 * DAY + 1)
        longer = {**WARNING["rules"][2], "after": "11d", "warn": "5d"}
        await activate(
            shop.database, {**WARNING, "rules": [*WARNING["rules"][:2], longer, SHOP["rules"][3]]}, now + 9 * DAY
        )
        await shop.catch_up([(await shop.row()).id], now)
        await shop.pass_time(now + 9 * DAY + 1)
        assert (await shop.told())[1:] == [
            expiring(now + 10 * DAY),
            withdrawn(now + 10 * DAY),
            expiring(now + 11 * DAY),
        ]
        await shop.pass_time(now + 11 * DAY + 1)
        assert (await shop.told())[4:] == [("buyer", "lapsed", "timer", 2)]


async def test_a_new_stay_in_the_same_stage_is_announced_too(url: str) -> None:
    again = {"after": "10d", "from": ["buyer"], "to": "buyer", "reenter": True, "warn": "2d"}
    async with deployment(url, {**SHOP, "rules": [SHOP["rules"][0], again]}) as shop:
        now = await shop.clock()
        await shop.apply(message("t1", "buy", now))
        await shop.pass_time(now + 9 * DAY)
        await shop.pass_time(now + 11 * DAY)
        assert (await shop.told())[1:] == [
            ("expiring", "buyer", "buyer", format_instant(now + 10 * DAY)),
            ("buyer", "buyer", "timer", 2),
        ]


async def test_of_an_import_nothing_is_announced_that_it_alone_brought_about(url: str) -> None:
    async with deployment(url, WARNING) as shop:
        now = await shop.clock()
        await shop.apply(
            message("t1", "buy", now - 9 * DAY, "late", muted=True),
            message("t2", "buy", now - 5 * DAY, "early", muted=True),
        )
        await shop.pass_time(now + 60 * SECOND)
        await shop.pass_time(now + 4 * DAY)
        assert [(short(one)[0], one["muted"]) for one in await changes(shop.database, "late")] == [
            (None, True),
            ("expiring", True),
            ("buyer", False),
        ], "it should have been told before the import came"
        early = [(short(one)[0], one["muted"]) for one in await changes(shop.database, "early")]
        assert early == [(None, True), ("expiring", False)]
        await shop.apply(message("t3", "buy", now + 4 * DAY, "early", muted=True))
        told = (await changes(shop.database, "early"))[-1]
        assert (told["withdrawn"], told["muted"]) == (True, True)


# -- whom to look at, and when ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
async def test_nobody_is_looked_at_too_late_and_all_is_as_the_sorted_fold_has_it(url: str, seed: int) -> None:
    """Random histories, late and in order, with overrides, links and time that passes in between."""
    chance = random.Random(seed)
    people, days = ("c0", "c1", "c2"), 120
    async with deployment(url, WARNING, WINDOW) as shop:
        now = await shop.clock()
        passed = now - days * DAY
        applied: list[bytes] = []

        def fact(number: int) -> bytes:
            id_, at, who = f"t{number}", now - chance.randrange(days * 24) * DAY // 24, chance.choice(people)
            kind = chance.choice(["buy", "buy", "buy", "join", "look", "pin", "override"])
            if kind in ("pin", "override"):
                end = {"expires_at": format_instant(at + chance.randrange(1, 30) * DAY)} if kind == "pin" else {}
                stage = chance.choice(["buyer", "gone", "visitor"])
                return message(id_, OVERRIDE, at, who, properties={"lifecycle": "shop", "stage": stage, **end})
            return message(id_, kind, at, who, muted=chance.random() < 0.2 or None)

        for step in range(50):
            if chance.random() < 0.7:
                batch = [fact(step * 10 + n) for n in range(chance.choice([1, 1, 3]))]
                applied += batch
                await shop.apply(*batch)
            else:
                passed = max(passed, now + chance.randrange(-days, 20) * DAY)
                await shop.pass_time(passed, chance.choice([0, 3600 * SECOND]))
            await assert_wakes_are_right(shop, people)
        end = now + CENTURY
        await shop.pass_time(end)
        assert await shop.due(end) == []
        definitions = await Definitions(shop.database, Cel()).reload()
        for who in people:
            mine = sorted(_touchpoints(applied, who), key=lambda one: one.place)
            events: list[Event] = []
            state = fold(definitions.active, mine, tell=events.append, until=end - 1)
            stored = await lines(shop.database, who)
            assert Counter(line.event for line in stored if line.superseded_at is None) == Counter(events)
            assert mine == [] or (await shop.row(who)).state == state
            told = await changes(shop.database, who)
            for lifecycle in ("shop", "window"):
                numbers = [
                    one["sequence"] for one in told if one["type"] == "stage.changed" and one["lifecycle"] == lifecycle
                ]
                assert numbers == list(range(1, len(numbers) + 1))
            standing: set[str] = set()
            for one in told:
                if one["type"] == "stage.expiring" and one["withdrawn"]:
                    standing.remove(one["due_at"])
                elif one["type"] == "stage.expiring":
                    assert one["due_at"] not in standing, "announced twice"
                    standing.add(one["due_at"])
            fired = {
                format_instant(line.event.at) for line in stored if line.event.cause == "timer" and line.event.rule == 2
            }
            assert standing <= fired, "what was announced has fired or was withdrawn"


def _touchpoints(messages: list[bytes], who: str) -> list[Touchpoint]:
    return [one for value in messages if (one := decode(value).touchpoint).customer_id == who]


async def assert_wakes_are_right(shop: Deployment, people: tuple[str, ...]) -> None:
    wakes = await shop.wakes()
    definitions = await Definitions(shop.database, Cel()).reload()
    for who in people:
        async with shop.database.transaction() as connection:
            row = await find_customer(connection, Identity("customer_id", who))
        if row is None:
            continue
        assert row.wake == wakes.get(row.id)
        assert row.state is not None
        look = next_look(definitions.active, row.state, row.announced)
        if look is not None:
            assert row.wake is not None
            assert row.wake <= (look if look > row.recorded_at else row.recorded_at + 3600 * SECOND)


async def test_a_look_that_was_too_early_is_moved_and_nobody_is_looked_at_again(url: str) -> None:
    async with deployment(url) as shop:
        now = await shop.clock()
        await shop.apply(*(message(f"t{n}", "buy", now - 9 * DAY, f"c{n}") for n in range(20)))
        await shop.apply(*(message(f"u{n}", "buy", now - 2 * DAY, f"c{n}") for n in range(20)))
        assert len(set((await shop.wakes()).values())) == 1
        before = await shop.row("c0")
        ids = await shop.due(now + 2 * DAY)
        assert len(ids) == 20
        assert await shop.let_pass(ids, now + 2 * DAY) == Passed(20, 0)
        assert set((await shop.wakes()).values()) == {now + 8 * DAY}
        assert await shop.row("c0") == before._replace(wake=now + 8 * DAY), "nothing else has changed"
        assert await shop.due(now + 8 * DAY) == []


async def test_a_round_in_which_nothing_is_due_asks_little(url: str) -> None:
    async with deployment(url) as shop:
        now = await shop.clock()
        await shop.apply(*(message(f"t{n}", "buy", now - n * DAY // 200, f"c{n}") for n in range(200)))
        # All are to be looked at, and for none there is anything to do.
        async with shop.database.transaction() as connection:
            await connection.execute(update(customer).values(wake=now - 1))
            await connection.execute(update(wake).values(at=now - 1))
        timers = Timers(shop.database, Definitions(shop.database, Cel()), horizon(shop.database), quiet=0)
        async with running(timers):

            async def are_moved() -> bool:
                return await shop.due(now) == []

            await wait_until(are_moved, "are moved")
            with statements() as asked:
                began = time.monotonic()
                await asyncio.sleep(1)
                rounds = (time.monotonic() - began) / 0.1
        assert 1 <= sum("FROM wake" in one for one in asked) <= rounds + 1
        assert [one for one in asked if "customer AS locked" in one or one.startswith(("UPDATE", "INSERT"))] == []


async def test_what_others_hold_is_left_to_them(postgres_url: str) -> None:
    async with deployment(postgres_url) as shop:
        now = await shop.clock()
        await shop.apply(*(message(f"t{n}", "buy", now, f"c{n}") for n in range(10)))
        held = (await shop.row("c3")).id
        due = now + 10 * DAY + 1
        async with shop.database.transaction() as connection:
            await connection.execute(text("SELECT 1 FROM customer WHERE id = :id FOR UPDATE"), {"id": held})
            async with asyncio.timeout(5):
                assert await shop.let_pass(await shop.due(due), due) == Passed(9, 9)
        assert await shop.due(due) == [held]
        assert await shop.pass_time(due) == 1


async def test_thousands_due_at_once_go_in_batches_while_workers_go_on(postgres_url: str) -> None:
    count = 2_000
    async with deployment(postgres_url) as shop:
        now = await shop.clock()
        for start in range(0, count, 500):
            await shop.apply(*(message(f"t{n}", "buy", now - 10 * DAY, f"c{n}") for n in range(start, start + 500)))
        waited: list[float] = []

        async def work() -> None:
            for start in range(0, count, 20):
                began = time.monotonic()
                await shop.apply(*(message(f"u{n}", "look", now, f"c{n}") for n in range(start, start + 20)))
                waited.append(time.monotonic() - began)

        timers = [
            Timers(shop.database, Definitions(shop.database, Cel()), horizon(shop.database), quiet=0) for _ in range(2)
        ]

        async def are_done() -> bool:
            return await shop.due(now + 10 * DAY) == []

        async with running(*timers):
            await work()
            await wait_until(are_done, "are done", 60)
        assert max(waited) < 5, "a worker waits for one batch of the timers at most"
        async with shop.database.transaction() as connection:
            told = await connection.execute(text("SELECT customer, count(*) FROM change GROUP BY customer"))
            assert Counter(times for _, times in told) == {2: count}


async def test_one_customer_that_fails_holds_up_nobody(url: str) -> None:
    async with deployment(url) as shop:
        now = await shop.clock()
        await shop.apply(*(message(f"t{n}", "buy", now - 10 * DAY, f"c{n}") for n in range(5)))
        broken = (await shop.row("c2")).id
        async with shop.database.transaction() as connection:
            state = (await connection.execute(select(customer.c.state).where(customer.c.id == broken))).scalar_one()
            await connection.execute(update(customer).where(customer.c.id == broken).values(state=state[:1] + b"\xc1"))
            await connection.execute(update(wake).values(at=now))
        timers = Timers(shop.database, Definitions(shop.database, Cel()), horizon(shop.database), quiet=0)
        async with running(timers):

            async def are_done() -> bool:
                return await shop.due(now + DAY) == [broken]

            await wait_until(are_done, "are done")
            assert (await shop.wakes())[broken] > now + LATER
        for n in (0, 1, 3, 4):
            assert (await shop.told(f"c{n}"))[1:] == [("buyer", "lapsed", "timer", 2)]
        async with shop.database.transaction() as connection:
            await connection.execute(update(customer).where(customer.c.id == broken).values(state=state))
        assert await shop.pass_time(now + DAY) == 1, "what is due stays due"


# -- whose time it is ------------------------------------------------------------------------------------------------


async def test_the_deadlines_of_who_belongs_to_another_are_the_others_and_come_back(url: str) -> None:
    async with deployment(url, WARNING) as shop:
        now = await shop.clock()
        nobody: Any = None
        await shop.apply(message("t1", "buy", now, nobody, anonymous_id="a"))
        await shop.pass_time(now + 9 * DAY)
        await shop.apply(
            message("t2", "join", now + 9 * DAY + 1, "c"), message("l", LINK, now + 9 * DAY + 2, "c", anonymous_id="a")
        )
        told = await shop.told("a")
        assert told[1:] == [expiring(now + 10 * DAY), ("corrected", ["buyer"], []), withdrawn(now + 10 * DAY)]
        await shop.pass_time(now + CENTURY)
        assert await shop.wakes() == {}
        assert await shop.told("a") == told, "whoever belongs to another has no time of their own"
        assert (await shop.row("c")).state.journey("shop", None).stage == "loyal"  # type: ignore[union-attr]
        await shop.apply(message("u", UNLINK, now + 9 * DAY + 3, "c", anonymous_id="a"))
        assert (await shop.row("a", "anonymous_id")).wake is not None
        assert await shop.pass_time(now + 10 * DAY + 1) == 1
        assert ("buyer", "lapsed", "timer") == (await shop.told("a"))[-1][:3]


async def test_a_link_brings_the_deadline_along(url: str) -> None:
    async with deployment(url) as shop:
        now = await shop.clock()
        nobody: Any = None
        await shop.apply(message("t1", "buy", now, nobody, anonymous_id="a"), message("t2", "look", now, "c"))
        await shop.apply(message("l", LINK, now + 1, "c", anonymous_id="a"))
        row = await shop.row("c")
        assert (await shop.wakes())[row.id] == row.wake == now + 10 * DAY
        assert await shop.pass_time(now + 10 * DAY + 1) == 1
        assert (await shop.told("c"))[-1] == ("buyer", "lapsed", "timer", 3)


# -- states of other times -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["an older format", "older definitions"])
async def test_what_is_behind_waits_until_it_is_brought_up_to_date(url: str, what: str) -> None:
    async with deployment(url, WARNING) as shop:
        now = await shop.clock()
        due = now + 10 * DAY
        await shop.apply(message("t1", "buy", now))
        await shop.pass_time(due - DAY)
        await activate(shop.database, {**WINDOW, "lifecycle": "other"})
        if what == "an older format":
            async with shop.database.transaction() as connection:
                await connection.execute(update(customer).values(state=b"\x01rubbish"))
        before, told = await shop.row(), await shop.told()
        assert await shop.pass_time(due + 1) == 0
        after = await shop.row()
        assert after == before._replace(wake=after.wake)
        assert after.wake is not None
        assert now < after.wake <= await shop.clock() + LATER, "it is looked at again"
        assert await shop.told() == told
        await shop.catch_up([before.id], now)
        assert all(one["muted"] for one in (await changes(shop.database))[len(told) :])
        assert await shop.pass_time(due + 1) == 1
        fired = [one for one in await shop.told() if one[-2:] == ("timer", 2)]
        assert fired == [("buyer", "lapsed", "timer", 2)]
        assert "withdrawn" not in [one[0] for one in await shop.told()]

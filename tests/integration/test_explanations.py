"""`…/explain` on both databases, after real messages went through the engine: what it says is what the engine did."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from lifecycle_engine.engine.timers import let_time_pass
from lifecycle_engine.lifecycle.instants import format_instant, parse_instant
from lifecycle_engine.lifecycle.touchpoints import IDENTIFY, LINK, OVERRIDE, RETRACT
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.tables import customer
from tests.record import Feed, activate, changes, horizon, lines, message, record
from tests.service import clock, service

DAY = 86_400_000_000
START = parse_instant("2026-01-01T00:00:00Z")
SHOP: dict[str, Any] = {
    "lifecycle": "shop",
    "initial": "a",
    "stages": [{"key": "a"}, {"key": "b"}, {"key": "c", "requires": ["measures.n >= 2"]}, {"key": "d"}],
    "measures": {"n": {"count": "buy"}, "recent": {"count": "buy", "within": "2d"}},
    "moves": {"a": ["b", "c"], "b": ["b", "c", "d"], "c": ["a", "b"], "d": ["b"]},
    "rules": [
        {"on": "buy", "when": ["event.properties.amount > 10.0"], "to": "c"},
        {"on": "buy", "to": "b", "reenter": True},
        {"on": "leave", "to": "a"},
        {"after": "30d", "without": "any", "from": "b", "to": "d"},
        {"from": "c", "when": ["measures.recent == 0"], "to": "b"},
    ],
}
LINES: dict[str, Any] = {
    "lifecycle": "lines",
    "initial": "new",
    "opens": ["buy"],
    "per": "properties.line",
    "stages": [{"key": "new"}, {"key": "known"}],
    "rules": [{"on": "buy", "from": ["new"], "to": "known"}, {"on": "leave", "to": "new"}],
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A service, a feed of messages into its database, and a customer to ask about."""

    database: Database
    feed: Feed
    client: httpx.AsyncClient

    async def explain(self, status: int = 200, customer_id: str = "c", **parameters: Any) -> Any:
        response = await self.client.get(f"/v1/customers/{customer_id}/explain", params=parameters)
        assert response.status_code == status, response.text
        return response.json()

    async def of(self, id_: str, lifecycle: str = "shop", **parameters: Any) -> Any:
        """The one journey that a touchpoint touched."""
        answer = await self.explain(touchpoint=id_, source="test", lifecycle=lifecycle, **parameters)
        (journey,) = answer["journeys"]
        return journey

    async def at(self, number: float, **parameters: Any) -> Any:
        parameters = {"lifecycle": "shop", "at": day(number), **parameters}
        (journey,) = (await self.explain(**parameters))["journeys"]
        return journey

    async def pass_time(self) -> None:
        """Lets everything happen that is due by now."""
        async with self.database.transaction() as connection:
            ids = list((await connection.execute(select(customer.c.id))).scalars())
        until = await horizon(self.database).read()
        await let_time_pass(self.database, await self.feed.definitions.reload(), ids, until, quiet=0)


@pytest.fixture(params=["sqlite", "postgres"])
async def shop(request: pytest.FixtureRequest) -> AsyncIterator[Asked]:
    url = str(request.getfixturevalue(f"{request.param}_url"))
    async with record(url, SHOP, LINES) as database, service(database) as client:
        yield Asked(database, Feed(database), client)


def day(number: float) -> str:
    return format_instant(START + round(number * DAY))


def some(id_: str, type_: str, number: float, **properties: Any) -> bytes:
    return message(id_, type_, START + round(number * DAY), properties=properties)


def now() -> str:
    """An instant that has passed when this returns."""
    instant = clock()
    while clock() <= instant:
        pass
    return format_instant(instant)


# -- the three questions ---------------------------------------------------------------------------------------------


async def test_what_a_touchpoint_did(shop: Asked) -> None:
    await shop.feed.apply(some("t1", "look", 0), some("t2", "buy", 1, amount=20))
    answer = await shop.explain(touchpoint="t2", source="test", lifecycle="shop")
    (journey,) = answer.pop("journeys")
    assert answer == {
        "customer_id": "c",
        "touchpoint": "t2",
        "source": "test",
        "at": day(1),
        "to": None,
        "known_at": None,
        "sentences": [],
    }
    (judgement,) = journey["judgements"]
    guard: dict[str, Any] = {"error": None, "missing": []}
    assert judgement["rules"] == [
        {
            "rule": 0,
            "to": "c",
            "outcome": "decided",
            "when": [
                {
                    "expression": "event.properties.amount > 10.0",
                    "held": True,
                    "values": {"event.properties.amount": 20},
                    **guard,
                }
            ],
            "moves": True,
            "requires": [{"expression": "measures.n >= 2", "held": False, "values": {"measures.n": 1}, **guard}],
        },
        {"rule": 1, "to": "b", "outcome": "later", "when": [], "moves": None, "requires": []},
        {"rule": 2, "to": "a", "outcome": "on", "when": [], "moves": None, "requires": []},
        {"rule": 3, "to": "d", "outcome": "timer", "when": [], "moves": None, "requires": []},
        {"rule": 4, "to": "b", "outcome": "later", "when": [], "moves": None, "requires": []},
    ]
    assert {name: value for name, value in judgement.items() if name not in ("rules", "sentences")} == {
        "at": day(1),
        "occasion": "touchpoint",
        "touchpoint": "t2",
        "source": "test",
        "definition_version": 1,
        "stage": "a",
        "verdict": "refused",
        "rule": 0,
        "reason": "requires[0]",
        "unseen": False,
    }
    assert judgement["sentences"][-1] == (
        "Rule 0 was refused at the entrance of c: measures.n >= 2 did not hold (measures.n = 1)."
    )
    assert (journey["stage"], journey["entered_at"], journey["transition"]["move"]) == ("a", day(0), "start")
    (line,) = journey["lines"]
    assert (line["at"], line["stage"], line["from"], line["move"], line["reason"]) == (
        (day(1), "c", "a", "refused", "requires[0]")
    )


async def test_a_touchpoint_is_explained_in_every_lifecycle(shop: Asked) -> None:
    await shop.feed.apply(some("t1", "buy", 1, line="x"), some("t2", "buy", 2, line=1.5))
    lines_, shop_ = (await shop.explain(touchpoint="t1", source="test"))["journeys"]
    assert (lines_["lifecycle"], lines_["subject"], lines_["stage"]) == ("lines", "x", "known")
    assert (shop_["lifecycle"], shop_["subject"], shop_["stage"]) == ("shop", None, "b")
    assert (await shop.of("t2", "lines"))["untouched"] == "no_subject"
    assert (await shop.of("t1", "lines", subject="y"))["untouched"] == "other_journey"
    assert (await shop.of("t1", "lines", subject="x"))["untouched"] is None


async def test_why_a_journey_was_where_it_was(shop: Asked) -> None:
    await shop.feed.apply(some("t1", "look", 0), some("t2", "buy", 1), some("t3", "buy", 2, amount=11))
    journey = await shop.at(3.5)
    assert journey["sentences"] == [
        f"At {day(3.5)} the journey was in c, where it had been since {day(2)}.",
        f'It moved from b to c at {day(2)} at the touchpoint "t3", by rule 0 of version 1.',
    ]
    assert journey["decided_by"]["touchpoint"] == "t3"
    assert journey["judgements"] == []
    assert (await shop.at(-1))["stage"] is None
    assert (await shop.at(2))["judgements"][0]["touchpoint"] == "t3"


async def test_why_a_journey_is_not_elsewhere(shop: Asked) -> None:
    await shop.feed.apply(some("t1", "look", 0), some("t2", "buy", 1, amount=20), some("t3", "buy", 2))
    (journey,) = (await shop.explain(lifecycle="shop", to="c", at=day(3)))["journeys"]
    (way,) = journey["ways"]
    assert (way["rule"], way["on"], way["from"], way["is_from"], way["moves"], way["due"]) == (
        (0, ["buy"], None, True, True, None)
    )
    assert [guard["held"] for guard in way["when"]] == [None]
    assert [guard["held"] for guard in way["requires"]] == [True]
    assert (way["last"]["touchpoint"], way["last"]["verdict"]) == ("t3", "moved")
    assert [refusal["at"] for refusal in journey["refusals"]] == [day(1)]
    (there,) = (await shop.explain(lifecycle="shop", to="b"))["journeys"]
    assert (there["stage"], there["ways"]) == ("b", [])
    answer = await shop.explain(422, lifecycle="shop", to="e")
    assert (answer["code"], answer["message"]) == (
        ("unknown_stage", "version 1 of 'shop' has no stage 'e'; it has a, b, c, d")
    )


# -- what it says is what the engine did -----------------------------------------------------------------------------


async def test_every_touchpoint_is_explained_by_its_lines(shop: Asked) -> None:
    chance = random.Random(7)
    ids = [f"t{number}" for number in range(40)]
    messages = [
        some(
            id_,
            chance.choice(["buy", "buy", "leave", "look"]),
            chance.randrange(40) / 4,
            amount=chance.choice([5.5, 20.25, "x", None]),
            line=chance.choice(["l1", 2, None]),
        )
        for id_ in ids
    ]
    chance.shuffle(messages)
    for at in range(0, 40, 10):
        await shop.feed.apply(*messages[at : at + 10])
    history = []
    for line in await lines(shop.database):
        if line.superseded_at is None and line.event.touchpoint is not None:
            history.append(line.event)
    explained = 0
    for id_ in ids:
        for journey in (await shop.explain(touchpoint=id_, source="test"))["journeys"]:
            name = journey["lifecycle"], journey["subject"]
            caused = [
                event for event in history if event.touchpoint == id_ and (event.lifecycle, event.subject) == name
            ]
            told = [(line["stage"], line["from"], line["move"], line["cause"]["rule"]) for line in journey["lines"]]
            assert sorted(told, key=str) == sorted(
                ((event.stage, event.origin, event.move, event.rule) for event in caused), key=str
            )
            if journey["untouched"] is None:
                (judgement,) = journey["judgements"]
                moved = [event for event in caused if event.rule is not None]
                verdicts = ["moved" if event.is_stay else "refused" for event in moved]
                assert verdicts == [judgement["verdict"]] * len(moved)
                assert [event.rule for event in moved] == [judgement["rule"]] * len(moved)
                assert moved or judgement["verdict"] in ("stayed", "unmatched")
                explained += len(moved)
    assert explained == len([event for event in history if event.rule is not None])


async def test_timers_have_run_out_once_the_engine_says_so(shop: Asked) -> None:
    await shop.feed.apply(some("t1", "buy", 1))
    (journey,) = (await shop.explain(lifecycle="shop", to="d", at=day(40)))["journeys"]
    assert (journey["stage"], journey["ways"][0]["due"]) == ("b", day(31))
    await shop.pass_time()
    journey = await shop.at(40)
    assert (journey["stage"], journey["decided_by"]["occasion"], journey["decided_by"]["rule"]) == ("d", "timer", 3)
    assert (await shop.at(31))["judgements"] == [journey["decided_by"]]
    assert (await shop.at(30.5))["stage"] == "b"


async def test_explaining_changes_nothing(shop: Asked) -> None:
    await shop.feed.apply(some("t1", "buy", 1, line="x"), some("t2", "leave", 2))
    before = await lines(shop.database), await changes(shop.database)
    await shop.explain(touchpoint="t1", source="test")
    await shop.explain(lifecycle="shop", to="d")
    await shop.explain(lifecycle="lines", at=day(3), known_at=now())
    assert (await lines(shop.database), await changes(shop.database)) == before


# -- by what was known -----------------------------------------------------------------------------------------------


async def test_what_was_known_then_is_explained_as_then(shop: Asked) -> None:
    await shop.feed.apply(some("t1", "look", 0), some("t3", "buy", 3, amount=20))
    then = now()
    questions: list[dict[str, Any]] = [
        {"touchpoint": "t3", "source": "test"},
        {"lifecycle": "shop", "at": day(3)},
        {"lifecycle": "shop", "to": "c"},
        {"lifecycle": "shop", "to": "d", "at": day(40)},
    ]
    answers = [await shop.explain(known_at=then, **question) for question in questions]
    assert answers[0]["journeys"][1]["judgements"][0]["verdict"] == "refused"
    await shop.feed.apply(
        some("t2", "buy", 2), message("r", RETRACT, START + 9 * DAY, properties={"source": "test", "id": "t1"})
    )
    await shop.pass_time()
    await activate(shop.database, {**SHOP, "rules": SHOP["rules"][1:]})
    assert [await shop.explain(known_at=then, **question) for question in questions] == answers
    assert (await shop.of("t3"))["judgements"][0]["verdict"] == "moved"
    await shop.explain(404, touchpoint="t2", source="test", known_at=then)
    early = (await shop.explain(lifecycle="shop", at=day(3)))["journeys"][0]
    assert early["definition_version"] == 1, "a version takes effect when it is activated"
    assert (await shop.explain(lifecycle="shop", to="a"))["journeys"][0]["definition_version"] == 2


async def test_what_is_no_touchpoint(shop: Asked) -> None:
    pin = {"lifecycle": "shop", "subject": None, "stage": "d", "reason": "because", "actor": "ann"}
    await shop.feed.apply(
        some("t1", "look", 0),
        message("i", IDENTIFY, START + DAY, properties={"traits": {"plan": "gold"}}),
        message("o", OVERRIDE, START + 2 * DAY, properties=pin),
        message("l", LINK, START + 3 * DAY, anonymous_id="anna"),
        message("t2", "look", START + 4 * DAY, None, anonymous_id="anna"),  # type: ignore[arg-type]
    )
    assert (await shop.of("i"))["judgements"][0]["occasion"] == "identify"
    overridden = await shop.of("o")
    assert (overridden["stage"], overridden["judgements"]) == ("d", [])
    assert overridden["lines"][0]["cause"]["kind"] == "override"
    linked = await shop.explain(touchpoint="l", source="test")
    assert linked["journeys"] == []
    assert linked["sentences"] == ["A $link decides which facts count and whose they are; no rule is judged at it."]
    answer = await shop.explain(customer_id="anna", kind="anonymous_id", touchpoint="t2", source="test")
    assert answer["customer_id"] == "c"
    await shop.feed.apply(message("r", RETRACT, START + 5 * DAY, properties={"source": "test", "id": "t2"}))
    answer = await shop.explain(touchpoint="t2", source="test")
    assert (answer["journeys"], answer["sentences"]) == ([], ["It was retracted, and counts as never accepted."])


# -- what cannot be answered -----------------------------------------------------------------------------------------


async def test_questions_that_make_no_sense(shop: Asked) -> None:
    await shop.feed.apply(some("t1", "look", 0))
    for parameters in (
        {},
        {"lifecycle": "shop"},
        {"touchpoint": "t1", "at": day(0)},
        {"touchpoint": "t1", "to": "a", "lifecycle": "shop"},
        {"at": day(0)},
        {"to": "a"},
        {"lifecycle": "shop", "at": day(0), "source": "test"},
        {"lifecycle": "shop", "at": "yesterday"},
        {"lifecycle": "shop", "at": day(0), "colour": "red"},
    ):
        assert (await shop.explain(422, **parameters))["code"] == "invalid_request", parameters
    later = format_instant(clock() + DAY)
    for parameters in ({"at": later}, {"to": "a", "known_at": later}):
        assert (await shop.explain(422, lifecycle="shop", **parameters))["code"] == "in_the_future"


async def test_what_is_not_known(shop: Asked) -> None:
    before = now()
    await shop.feed.apply(some("t1", "look", 0), message("t2", "look", START, "d"))
    codes = [
        (await shop.explain(404, **parameters))["code"]
        for parameters in (
            {"customer_id": "nobody", "lifecycle": "shop", "to": "a"},
            {"kind": "anonymous_id", "lifecycle": "shop", "to": "a"},
            {"lifecycle": "shop", "to": "a", "known_at": before},
            {"lifecycle": "garden", "to": "a"},
            {"touchpoint": "t1"},
            {"touchpoint": "t2", "source": "test"},
        )
    ]
    assert codes == ["customer_not_found"] * 3 + ["lifecycle_not_found"] + ["touchpoint_not_found"] * 2


async def test_a_lifecycle_that_was_never_activated(shop: Asked) -> None:
    await shop.feed.apply(some("t1", "look", 0))
    body = json.dumps({**LINES, "lifecycle": "draft"})
    posted = await shop.client.post("/v1/lifecycles", content=body, headers={"Content-Type": "application/json"})
    assert posted.status_code == 201
    answer = await shop.explain(lifecycle="draft", to="new")
    assert (answer["journeys"], answer["sentences"]) == ([], ["The lifecycle was never activated."])

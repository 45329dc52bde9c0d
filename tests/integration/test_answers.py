"""What the service answers about customers, on both databases, after real messages went through the engine."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text, update

from lifecycle_engine.engine.batch import set_aside
from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.engine.worker import Worker
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.instants import format_instant, parse_instant
from lifecycle_engine.log.database import DatabaseReader
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.tables import customer
from tests.record import LOG, Feed, activate, deliveries, message, record
from tests.service import SOURCE, clock, service

DAY = 86_400_000_000
START = parse_instant("2026-01-01T00:00:00Z")
SHOP: dict[str, Any] = {
    "lifecycle": "shop",
    "initial": "a",
    "stages": [{"key": "a"}, {"key": "b"}, {"key": "c", "requires": ["measures.n >= 2"]}, {"key": "d"}],
    "measures": {
        "n": {"count": "buy"},
        "spend": {"sum": "properties.amount", "of": "buy"},
        "first_buy": {"first": "occurred_at", "of": "buy"},
        "colour": {"last": "properties.colour"},
    },
    "rules": [
        {"on": "buy", "when": ["event.properties.amount > 10.0"], "to": "c"},
        {"on": "buy", "to": "b", "reenter": True},
        {"on": "love", "to": "d"},
        {"on": "leave", "to": "a"},
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
class Service:
    """A service and a feed of messages into its database."""

    database: Database
    feed: Feed
    client: httpx.AsyncClient

    async def get(self, path: str, status: int = 200, **parameters: Any) -> Any:
        """The answer to a question; `path` is percent-encoded already."""
        response = await self.client.get(path, params=parameters or None)
        assert response.status_code == status, response.text
        answer = response.json()
        if status != 200:
            assert response.headers["content-type"] == "application/problem+json"
            assert answer.pop("request_id")
        return answer

    async def history(self, customer_id: str = "c", **parameters: Any) -> list[dict[str, Any]]:
        """All items of a history, page by page."""
        items: list[dict[str, Any]] = []
        cursor: dict[str, Any] = {}
        while True:
            page = await self.get(f"/v1/customers/{part(customer_id)}/history", **parameters, **cursor)
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = {"cursor": page["next_cursor"]}


@asynccontextmanager
async def running(url: str, *documents: dict[str, Any]) -> AsyncIterator[Service]:
    async with record(url, *documents) as database, service(database) as client:
        yield Service(database, Feed(database), client)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def shop(url: str) -> AsyncIterator[Service]:
    async with running(url, SHOP, LINES) as started:
        yield started


def part(name: str) -> str:
    """A name as one part of a path; a client would walk up a path that has `..` in it."""
    return quote(name, safe="").replace(".", "%2E")


def day(number: float) -> str:
    return format_instant(START + round(number * DAY))


def buy(id_: str, number: float, customer_id: str = "c", **properties: Any) -> bytes:
    return message(id_, "buy", START + round(number * DAY), customer_id, properties=properties)


def some_messages(count: int, seed: int, customer_id: str = "c") -> list[bytes]:
    chance = random.Random(seed)
    return [
        message(
            f"t{number}",
            chance.choice(["buy", "buy", "leave", "love", "look"]),
            START + chance.randrange(count // 2) * DAY // 4,
            customer_id,
            properties={"amount": chance.choice([5.5, 20.25, "x", None]), "line": chance.choice(["l1", 2, None])},
        )
        for number in range(count)
    ]


def now() -> str:
    """An instant that has passed when this returns."""
    instant = clock()
    while clock() <= instant:
        pass
    return format_instant(instant)


# -- where a customer stands -----------------------------------------------------------------------------------------


async def test_a_customer_as_it_stands(shop: Service) -> None:
    await shop.feed.apply(
        buy("t1", 1, amount=10.25, colour="red"),
        buy("t2", 2, amount=20, line="shoes"),
        message("t3", "leave", START + 3 * DAY, properties={"line": "shoes"}),
    )
    assert await shop.get("/v1/customers/c") == {
        "customer_id": "c",
        "identities": [{"kind": "customer_id", "value": "c"}],
        "traits": {},
        "first_touchpoint_at": day(1),
        "last_touchpoint_at": day(3),
        "journeys": [
            {
                "lifecycle": "lines",
                "subject": "shoes",
                "stage": "new",
                "label": "new",
                "entered_at": day(3),
                "previous_stage": "known",
                "sequence": 2,
                "measures": {},
                "next_timer": None,
                "definition_version": 1,
            },
            {
                "lifecycle": "shop",
                "subject": None,
                "stage": "a",
                "label": "a",
                "entered_at": day(3),
                "previous_stage": "c",
                "sequence": 3,
                "measures": {"n": 2, "spend": 30.25, "first_buy": day(1), "colour": "red"},
                "next_timer": None,
                "definition_version": 1,
            },
        ],
    }


async def test_measures_without_a_value_are_null(shop: Service) -> None:
    await shop.feed.apply(
        message("t1", "look", START), buy("t2", 1, "big", amount=1.7e308), buy("t3", 2, "big", amount=1.7e308)
    )
    (journey,) = (await shop.get("/v1/customers/c"))["journeys"]
    assert journey["measures"] == {"n": 0, "spend": 0.0, "first_buy": None, "colour": None}
    (journey,) = (await shop.get("/v1/customers/big"))["journeys"]
    assert journey["measures"]["spend"] is None, "beyond a double"


async def test_the_same_value_of_two_kinds_names_two_customers(shop: Service) -> None:
    await shop.feed.apply(
        buy("t1", 1, "42"),
        message("t2", "love", START, None, anonymous_id="42"),  # type: ignore[arg-type]
    )
    known = await shop.get("/v1/customers/42")
    assert (known["customer_id"], known["journeys"][0]["stage"]) == ("42", "b")
    anonymous = await shop.get("/v1/customers/42", kind="anonymous_id")
    assert (anonymous["customer_id"], anonymous["journeys"][0]["stage"]) == (None, "d")
    assert anonymous["identities"] == [{"kind": "anonymous_id", "value": "42"}]
    moment = await shop.get("/v1/customers/42/journeys/shop", kind="anonymous_id")
    assert (moment["customer_id"], moment["stage"]) == (None, "d")
    (posted,) = (await shop.get("/v1/customers/42/touchpoints", kind="anonymous_id"))["items"]
    assert (posted["customer_id"], posted["anonymous_id"]) == (None, "42")


async def test_customers_may_be_called_anything(shop: Service) -> None:
    names = ["a/b", "a/journeys/x", "a/history", "a", "..", ".", "/", "%2F", "?", "#", "a b", "a+b", "é/😀", "history"]
    await shop.feed.apply(*(buy(f"t{number}", number, name) for number, name in enumerate(names)))
    for number, name in enumerate(names):
        found = await shop.get(f"/v1/customers/{part(name)}")
        assert (found["customer_id"], found["first_touchpoint_at"]) == (name, day(number))
        moment = await shop.get(f"/v1/customers/{part(name)}/journeys/shop")
        assert (moment["customer_id"], moment["entered_at"]) == (name, day(number))
        (stay,) = await shop.history(name)
        assert stay["entered_at"] == day(number)
        (posted,) = (await shop.get(f"/v1/customers/{part(name)}/touchpoints"))["items"]
        assert posted["id"] == f"t{number}"


async def test_touchpoints_may_be_called_anything(shop: Service) -> None:
    names = ["a/b", "..", "%2F", "é/😀", "a?b"]
    await shop.feed.apply(*(buy(name, number) for number, name in enumerate(names)))
    for number, name in enumerate(names):
        receipt = await shop.get(f"/v1/touchpoints/{part(name)}", source="test")
        assert (receipt["id"], receipt["occurred_at"]) == (name, day(number))


async def test_the_longest_name_can_be_asked_about(shop: Service) -> None:
    longest = "😀" * 256
    question = {"known_at": now()}
    await shop.get(f"/v1/customers/{part(longest)}/journeys/shop", 404, **question)
    await shop.feed.apply(buy("t1", 1, longest))
    assert (await shop.get(f"/v1/customers/{part(longest)}"))["customer_id"] == longest


@pytest.mark.parametrize("name", ["%FF", "a%00b", "%C3", "x" * 257])
async def test_what_no_customer_can_be_called_is_refused(sqlite_url: str, name: str) -> None:
    async with running(sqlite_url, SHOP) as shop:
        problem = await shop.get(f"/v1/customers/{name}", 422)
        assert problem["code"] == "invalid_request"
        assert (await shop.get("/v1/customers/c/history", 422, subject="\0"))["code"] == "invalid_request"


async def test_a_customer_of_whom_nothing_was_accepted_is_unknown(shop: Service) -> None:
    problem = await shop.get("/v1/customers/nobody", 404)
    assert problem["code"] == "customer_not_found"
    # The same id about somebody else is a conflict, and makes nobody known.
    await shop.feed.apply(buy("t1", 1), buy("t1", 1, "nobody"))
    async with shop.database.transaction() as connection:
        assert (await connection.execute(select(func.count()).select_from(customer))).scalar_one() == 2
    for path in ("", "/history", "/touchpoints", "/journeys/shop"):
        assert (await shop.get(f"/v1/customers/nobody{path}", 404))["code"] == "customer_not_found"


async def test_a_state_of_another_format_is_folded_on_the_spot(shop: Service) -> None:
    await shop.feed.apply(*some_messages(40, seed=1))
    before = await shop.get("/v1/customers/c")
    async with shop.database.transaction() as connection:
        await connection.execute(update(customer).values(state=b"\x00 of another day"))
    assert await shop.get("/v1/customers/c") == before


async def test_touchpoints_come_newest_first(shop: Service) -> None:
    await shop.feed.apply(
        message("t1", "look", START + DAY, properties={"a": [1, {"b": None}]}, context={"channel": "ads"}),
        message("t3", "look", START + 3 * DAY, muted=True),
        message("t2", "look", START + 2 * DAY, anonymous_id="cookie"),
        message("t2", "love", START + 2 * DAY, source="elsewhere"),
        buy("other", 9, "d"),
    )
    answer = await shop.get("/v1/customers/c/touchpoints")
    assert [(one["id"], one["source"]) for one in answer["items"]] == [
        ("t3", "test"),
        ("t2", "test"),
        ("t2", "elsewhere"),
        ("t1", "test"),
    ]
    assert answer["next_cursor"] is None
    recorded_at = answer["items"][3].pop("recorded_at")
    assert recorded_at < now()
    assert answer["items"][3] == {
        "id": "t1",
        "source": "test",
        "type": "look",
        "customer_id": "c",
        "anonymous_id": None,
        "occurred_at": day(1),
        "received_at": "2026-01-01T00:00:00Z",
        "properties": {"a": [1, {"b": None}]},
        "context": {"channel": "ads"},
        "muted": False,
        "retracted_at": None,
    }
    assert [one["muted"] for one in answer["items"]] == [True, False, False, False]
    assert answer["items"][1]["anonymous_id"] == "cookie"


# -- where it stood --------------------------------------------------------------------------------------------------


async def test_a_journey_as_of(shop: Service) -> None:
    await shop.feed.apply(
        buy("t1", 1),
        message("t2", "love", START + 2 * DAY),
        message("t3", "leave", START + 2 * DAY),
        buy("t4", 4, amount=20),
    )
    path = "/v1/customers/c/journeys/shop"

    async def as_of(instant: str) -> tuple[str | None, str | None, str | None]:
        moment = await shop.get(path, as_of=instant)
        assert (moment["as_of"], moment["known_at"]) == (instant, None)
        return moment["stage"], moment["entered_at"], moment["left_at"]

    assert await as_of("2025-12-31T23:59:59.999999Z") == (None, None, None)
    assert await as_of(day(1)) == ("b", day(1), day(2))
    assert await as_of("2026-01-02T23:59:59.999999Z") == ("b", day(1), day(2))
    assert await as_of(day(2)) == ("a", day(2), day(4)), "of two moves at one instant the later one answers"
    assert await as_of(day(4)) == ("c", day(4), None)
    moment = await shop.get(path)
    assert moment.pop("recorded_at") < now()
    assert moment == {
        "customer_id": "c",
        "lifecycle": "shop",
        "subject": None,
        "stage": "c",
        "label": "c",
        "entered_at": day(4),
        "left_at": None,
        "previous_stage": "a",
        "move": "skip",
        "skipped": ["b"],
        "cause": {"kind": "touchpoint", "rule": 0, "touchpoint": "t4", "source": "test", "definition_version": 1},
        "definition_version": 1,
        "as_of": None,
        "known_at": None,
    }
    zoned = await shop.get(path, as_of="2026-01-03T01:00:00+01:00")
    assert (zoned["as_of"], zoned["stage"]) == (day(2), "a")


async def test_a_journey_that_is_not_there_has_no_stage(shop: Service) -> None:
    await shop.feed.apply(buy("t1", 1, line="shoes"))
    path = "/v1/customers/c/journeys"
    assert (await shop.get(f"{path}/lines", subject="shoes"))["stage"] == "known"
    assert (await shop.get(f"{path}/lines", subject="hats"))["stage"] is None
    empty = await shop.get(f"{path}/lines", subject="hats")
    assert (empty["lifecycle"], empty["subject"]) == ("lines", "hats")
    assert not any(empty[name] for name in empty if name not in ("customer_id", "lifecycle", "subject"))
    forgotten = await shop.get(f"{path}/lines", 422)
    assert (forgotten["code"], "per properties.line" in forgotten["detail"]) == ("missing_subject", True)
    assert (await shop.get(f"{path}/shop", 422, subject="shoes"))["code"] == "superfluous_subject"
    assert (await shop.get(f"{path}/nothing", 404))["code"] == "lifecycle_not_found"
    assert (await shop.get("/v1/customers/c/history", 404, lifecycle="nothing"))["code"] == "lifecycle_not_found"


@pytest.mark.parametrize("parameter", ["as_of", "known_at"])
async def test_the_future_is_not_told(shop: Service, parameter: str) -> None:
    await shop.feed.apply(buy("t1", 1))
    for who in ("c", "nobody"):
        question = {parameter: format_instant(clock() + 60_000_000)}
        problem = await shop.get(f"/v1/customers/{who}/journeys/shop", 422, **question)
        assert problem["code"] == "in_the_future"
    if parameter == "known_at":
        assert (await shop.get("/v1/customers/c/history", 422, **question))["code"] == "in_the_future"
        # The plus sign is not encoded.
        response = await shop.client.get("/v1/customers/c/history?known_at=2026-01-01T00:00:00+01:00")
        assert (response.status_code, "%2B" in response.text) == (422, True)


@pytest.mark.parametrize(
    "question",
    [
        {"as_of": "yesterday"},
        {"as_of": "2026-01-01"},
        {"known_at": "1767225600"},
        {"asof": "2026-01-01T00:00:00Z"},
        {"kind": "email"},
        {"subject": "\0"},
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(sqlite_url: str, question: dict[str, str]) -> None:
    async with running(sqlite_url, SHOP) as shop:
        problem = await shop.get("/v1/customers/c/journeys/shop", 422, **question)
        assert problem["code"] == "invalid_request"
        assert next(iter(question)) in problem["detail"]


@pytest.mark.parametrize("seed", range(2))
async def test_the_stays_of_a_journey_follow_on_one_another(shop: Service, seed: int) -> None:
    chance = random.Random(seed)
    messages = some_messages(60, seed)
    while messages:
        size = chance.choice([1, 3, 10])
        await shop.feed.apply(*messages[:size])
        del messages[:size]
    everything = await shop.history(include="superseded")
    recorded = sorted({item["recorded_at"] for item in everything})
    for known_at in [None, *recorded]:
        items = await shop.history(**({} if known_at is None else {"known_at": known_at}))
        assert items == sorted(items, key=lambda item: (item["lifecycle"], item["subject"] or ""))
        for before, after in pairwise(items):
            if (before["lifecycle"], before["subject"]) == (after["lifecycle"], after["subject"]):
                assert before["left_at"] == after["entered_at"]
                assert after["from"] == before["stage"]
            else:
                assert before["left_at"] is None
                assert after["move"] == "start"
        assert items[-1]["left_at"] is None
        assert all(item["superseded_at"] is None for item in items)


async def test_a_superseded_stay_ends_as_it_was_believed_to(shop: Service) -> None:
    await shop.feed.apply(buy("t1", 1), message("t5", "leave", START + 5 * DAY))
    first = now()
    await shop.feed.apply(message("t3", "love", START + 3 * DAY))
    second = now()
    await shop.feed.apply(message("t0", "look", START))

    async def told(**parameters: Any) -> list[tuple[str, str, str | None, bool]]:
        items = await shop.history(lifecycle="shop", **parameters)
        return [(i["stage"], i["entered_at"], i["left_at"], i["superseded_at"] is None) for i in items]

    assert await told() == [
        ("a", day(0), day(1), True),
        ("b", day(1), day(3), True),
        ("d", day(3), day(5), True),
        ("a", day(5), None, True),
    ]
    assert await told(include="superseded") == [
        ("a", day(0), day(1), True),
        ("b", day(1), day(3), False),  # its transition, a start, was of another kind
        ("b", day(1), day(3), True),
        ("d", day(3), day(5), True),
        ("a", day(5), None, False),  # from another stage
        ("a", day(5), None, True),
    ]
    as_first_known = [("b", day(1), day(5), True), ("a", day(5), None, True)]
    assert await told(known_at=first) == as_first_known
    assert await told(known_at=first, include="superseded") == as_first_known, "it was not known then to be wrong"
    assert await told(known_at=second) == [
        ("b", day(1), day(3), True),
        ("d", day(3), day(5), True),
        ("a", day(5), None, True),
    ]


async def test_refusals_stand_among_the_stays(shop: Service) -> None:
    await shop.feed.apply(buy("t1", 1, amount=20), message("t2", "love", START + 2 * DAY))
    assert [item["move"] for item in await shop.history()] == ["start", "skip"]
    items = await shop.history(include="refusals")
    recorded_at = items[1].pop("recorded_at")
    assert recorded_at == items[0]["recorded_at"]
    assert [item["move"] for item in items] == ["start", "refused", "skip"]
    assert items[1] == {
        "lifecycle": "shop",
        "subject": None,
        "stage": "c",
        "label": "c",
        "entered_at": day(1),
        "left_at": None,
        "from": "a",
        "move": "refused",
        "reason": "requires[0]",
        "guard": "measures.n >= 2",
        "skipped": [],
        "cause": {"kind": "touchpoint", "rule": 0, "touchpoint": "t1", "source": "test", "definition_version": 1},
        "superseded_at": None,
    }
    assert (items[0]["stage"], items[0]["left_at"]) == ("a", day(2))
    await shop.feed.apply(buy("t0", 0))
    assert [item["move"] for item in await shop.history(include="refusals")] == ["start", "advance", "advance"]
    everything = await shop.history(include="refusals,superseded")
    assert "refused" in {item["move"] for item in everything if item["superseded_at"]}
    assert everything == await shop.history(include=["superseded", "refusals"])


# -- pages -----------------------------------------------------------------------------------------------------------


async def test_pages_hold_every_item_once(shop: Service) -> None:
    messages = some_messages(280, seed=5)
    for start in (0, 100, 200):
        await shop.feed.apply(*messages[start : start + 100])
    for parameters in ({}, {"include": "superseded,refusals"}, {"lifecycle": "lines"}, {"subject": "l1"}):
        whole = await shop.history(**parameters, limit=1000)
        assert len(whole) > 20
        for limit in (17, 50):
            assert await shop.history(**parameters, limit=limit) == whole
    path = "/v1/customers/c/touchpoints"
    assert len((await shop.get(path))["items"]) == 50
    first = await shop.get(path, limit=10**30)
    assert len(first["items"]) == 250
    rest = await shop.get(path, cursor=first["next_cursor"], limit=30)
    assert (len(rest["items"]), rest["next_cursor"]) == (30, None)
    ids = [item["id"] for item in first["items"] + rest["items"]]
    assert len(set(ids)) == 280
    times = [item["occurred_at"] for item in first["items"] + rest["items"]]
    assert times == sorted(times, reverse=True)


async def test_a_cursor_belongs_to_its_question(shop: Service) -> None:
    await shop.feed.apply(*some_messages(40, seed=5), *(buy(f"d{number}", number, "d") for number in range(9)))
    history, posted = "/v1/customers/c/history", "/v1/customers/c/touchpoints"
    cursor = (await shop.get(history, limit=2))["next_cursor"]
    other = (await shop.get(posted, limit=2))["next_cursor"]
    assert (await shop.get(history, cursor=cursor, limit=3))["items"]
    wrong = [
        (history, {"cursor": other}),
        (history, {"cursor": cursor, "lifecycle": "shop"}),
        (history, {"cursor": cursor, "known_at": now()}),
        (history, {"cursor": cursor, "include": "refusals"}),
        ("/v1/customers/d/history", {"cursor": cursor}),
        (posted, {"cursor": cursor}),
        (posted, {"cursor": other[:-3]}),
        (posted, {"cursor": "é"}),
        (posted, {"cursor": "-"}),
    ]
    for path, parameters in wrong:
        assert (await shop.get(path, 400, **parameters))["code"] == "invalid_cursor"
    for limit in ("0", "-1", "many", "1.5"):
        assert (await shop.get(posted, 422, limit=limit))["code"] == "invalid_request"


# -- what was known --------------------------------------------------------------------------------------------------


async def asked(shop: Service, lifecycle: str, known_at: str) -> list[Any]:
    """What is answered about a customer, and about one that is not there, as known at an instant."""
    history = {"known_at": known_at, "include": "superseded,refusals", "limit": "250"}
    questions = [("/v1/customers/c/history", history), ("/v1/customers/nobody/history", history)]
    for subject in ({}, {"subject": "shoes"}):
        for as_of in ({}, *({"as_of": format_instant(instant)} for instant in (START + 4 * DAY, START + 2 * DAY, -1))):
            questions.append((f"/v1/customers/c/journeys/{lifecycle}", {"known_at": known_at, **subject, **as_of}))
    answers = []
    for path, parameters in questions:
        response = await shop.client.get(path, params=parameters)
        can_be = "/journeys/" not in path or ("subject" in parameters) == (lifecycle == "lines")
        assert response.status_code in ((200, 404) if can_be else (422, 404))
        answer = response.json()
        answer.pop("request_id", None)
        answers.append((path, parameters, answer))
    return answers


async def assert_the_known_past_stands(shop: Service, lifecycle: str, batches: list[list[bytes]]) -> None:
    """Asks after each batch, and when all is over asks the same again."""
    told: list[tuple[str, list[Any]]] = []
    for batch in [[], *batches]:
        await shop.feed.apply(*batch)
        known_at = now()
        told.append((known_at, await asked(shop, lifecycle, known_at)))
        if told[-1][1][0][2].get("code") != "customer_not_found":
            at_present = await shop.history(include="superseded,refusals")
            assert told[-1][1][0][2]["items"] == at_present, "all that is known now was known just now"
    for known_at, answers in told:
        assert await asked(shop, lifecycle, known_at) == answers


@st.composite
def batches_of_messages(draw: st.DrawFn) -> list[list[bytes]]:
    """Touchpoints of a customer in any order, many at one instant, some of them twice, in batches."""
    properties = st.fixed_dictionaries(
        {"amount": st.sampled_from((5.5, 20.25, "x"))}, optional={"line": st.sampled_from(("shoes", "7", 7))}
    )
    one = st.builds(
        lambda id_, type_, at, properties: message(id_, type_, START + at * DAY, properties=properties),
        st.sampled_from("abcdefghij"),
        st.sampled_from(("buy", "leave", "love", "look")),
        st.integers(0, 6),
        properties,
    )
    messages = draw(st.lists(one, max_size=14))
    size = draw(st.integers(1, 5))
    return [messages[start : start + size] for start in range(0, len(messages), size)]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "lifecycle.db"

    async def migrate() -> None:
        async with record(f"sqlite+aiosqlite:///{path}"):
            pass

    asyncio.run(migrate())
    return path


@settings(max_examples=12, suppress_health_check=list(HealthCheck), deadline=None)
@given(batches=batches_of_messages(), lifecycle=st.sampled_from(("shop", "lines")))
def test_what_was_answered_for_a_past_instant_is_answered_for_ever(
    migrated: Path, tmp_path: Path, batches: list[list[bytes]], lifecycle: str
) -> None:
    path = tmp_path / "lifecycle.db"
    for leftover in tmp_path.glob("lifecycle.db*"):
        leftover.unlink()
    shutil.copy(migrated, path)

    async def play() -> None:
        async with running(f"sqlite+aiosqlite:///{path}", SHOP, LINES) as shop:
            await assert_the_known_past_stands(shop, lifecycle, batches)

    asyncio.run(play())


@pytest.mark.parametrize("lifecycle", ["shop", "lines"])
async def test_the_known_past_stands_on_both_databases(shop: Service, lifecycle: str) -> None:
    messages = some_messages(40, seed=2)
    messages += messages[::7]
    random.Random(2).shuffle(messages)
    await assert_the_known_past_stands(shop, lifecycle, [messages[n : n + 5] for n in range(0, len(messages), 5)])


async def test_a_lifecycle_that_came_later_was_not_there(url: str) -> None:
    async with running(url, SHOP) as shop:
        await shop.feed.apply(buy("t1", 1, line="shoes"))
        before = now()
        path, asked_then = "/v1/customers/c/journeys/lines", {"subject": "shoes", "known_at": before}
        assert (await shop.get(path, 404, **asked_then))["code"] == "lifecycle_not_found"
        await activate(shop.database, LINES)
        assert (await shop.get(path, 404, **asked_then))["code"] == "lifecycle_not_found"
        assert (await shop.get("/v1/customers/c/history", 404, known_at=before, lifecycle="lines"))["status"] == 404
        await shop.feed.apply(buy("t2", 2, line="shoes"))
        assert (await shop.get(path, subject="shoes"))["entered_at"] == day(1)
        assert (await shop.get(path, 404, **asked_then))["code"] == "lifecycle_not_found"


async def test_asking_about_nobody_leaves_nobody_behind(shop: Service) -> None:
    for _ in range(3):
        await shop.get("/v1/customers/nobody/journeys/shop", 404, known_at=now())
    await asyncio.gather(*(shop.get("/v1/customers/nobody/history", 404, known_at=now()) for _ in range(20)))
    async with shop.database.transaction() as connection:
        assert (await connection.execute(select(func.count()).select_from(customer))).scalar_one() == 0
    await shop.feed.apply(buy("t1", 1, "nobody"))
    assert (await shop.get("/v1/customers/nobody"))["journeys"]


@asynccontextmanager
async def held_up(database: Database) -> AsyncIterator[None]:
    """While this lasts, the engine's transactions stop where they write the history: after they have read the clock."""
    async with database.engine.connect() as connection:
        await connection.execute(text("LOCK TABLE history IN EXCLUSIVE MODE"))
        yield
        await connection.rollback()


@pytest.mark.parametrize("is_known", [True, False], ids=["known customer", "new customer"])
@pytest.mark.parametrize("commits", [True, False], ids=["commits", "rolls back"])
async def test_a_question_waits_for_the_transaction_that_may_still_record(
    postgres_url: str, is_known: bool, commits: bool
) -> None:
    async with running(postgres_url, SHOP) as shop:
        if is_known:
            await shop.feed.apply(buy("t1", 1))
        async with held_up(shop.database):
            writing = asyncio.create_task(shop.feed.apply(message("t2", "love", START + 2 * DAY)))
            await until_held_up(shop.database)
            question = {"known_at": now()}
            asking = asyncio.create_task(shop.client.get("/v1/customers/c/journeys/shop", params=question))
            also_asking = asyncio.create_task(shop.client.get("/v1/customers/c/history", params=question))
            await asyncio.wait([asking, also_asking], timeout=0.5)
            assert not asking.done()
            assert not also_asking.done()
            # Nobody else waits.
            await shop.get("/v1/customers/other/journeys/shop", 404, **question)
            assert (await shop.client.get("/v1/customers/c/journeys/shop")).status_code == (200 if is_known else 404)
            if not commits:
                writing.cancel()
                await asyncio.wait([writing])
        if commits:
            await writing
        first = await asking
        assert first.status_code == (200 if is_known or commits else 404)
        if first.status_code == 200:
            answer = first.json()
            assert answer["stage"] == ("d" if commits else "b")
            assert parse_instant(answer["recorded_at"]) <= parse_instant(question["known_at"])
        await also_asking
        await shop.feed.apply(message("t3", "leave", START + 3 * DAY))
        again = await shop.client.get("/v1/customers/c/journeys/shop", params=question)
        assert {**again.json(), "request_id": ""} == {**first.json(), "request_id": ""}


async def until_held_up(database: Database) -> None:
    """Until a transaction waits for the table of the history."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE relation = 'history'::regclass AND NOT granted")
    for _ in range(500):
        async with database.transaction() as connection:
            if (await connection.execute(waiting)).scalar_one():
                return
        await asyncio.sleep(0.01)
    raise AssertionError("the transaction did not get as far as the history")


async def test_the_known_past_stands_while_writers_race(postgres_url: str) -> None:
    """Readers ask about instants that have only just passed, while several workers write about the same customer."""
    async with running(postgres_url, SHOP) as shop:
        feeds = [Feed(shop.database, partition) for partition in range(3)]
        messages = some_messages(120, seed=8)
        told: list[tuple[str, Any]] = []
        writing = True

        async def write(feed: Feed) -> None:
            mine = messages[feed.partition :: 3]
            for start in range(0, len(mine), 4):
                await feed.apply(*mine[start : start + 4])

        async def ask() -> None:
            while writing:
                known_at = now()
                response = await shop.client.get("/v1/customers/c/history", params={"known_at": known_at, "limit": 250})
                told.append((known_at, response.json().get("items")))

        readers = [asyncio.create_task(ask()) for _ in range(3)]
        await asyncio.gather(*(write(feed) for feed in feeds))
        writing = False
        await asyncio.gather(*readers)
        assert len(told) > 20
        for known_at, items in told:
            answer = await shop.client.get("/v1/customers/c/history", params={"known_at": known_at, "limit": 250})
            assert answer.json().get("items") == items


# -- receipts --------------------------------------------------------------------------------------------------------


async def test_the_receipt_of_a_touchpoint(shop: Service) -> None:
    await shop.feed.apply(
        buy("t1", 1, line="shoes"),
        message("t4", "love", START + 4 * DAY),
        message("t4", "love", START + 4 * DAY),
        message("t4", "leave", START + 4 * DAY),
        message("t5", "look", START + 5 * DAY),
    )
    await shop.feed.apply(message("t3", "leave", START + 3 * DAY))
    first = await shop.get("/v1/touchpoints/t1", source="test")
    assert first["status"] == "applied"
    assert first["customer"] == {"kind": "customer_id", "value": "c"}
    assert (first["occurred_at"], first["duplicates"], first["conflicts"]) == (day(1), 0, 0)
    assert first["problem"] is None
    assert [(stay["lifecycle"], stay["subject"], stay["stage"], stay["left_at"]) for stay in first["transitions"]] == [
        ("lines", "shoes", "known", None),
        ("shop", None, "b", day(3)),
    ]
    repeated = await shop.get("/v1/touchpoints/t4", source="test")
    assert (repeated["status"], repeated["duplicates"], repeated["conflicts"]) == ("applied", 1, 1)
    assert [(stay["from"], stay["stage"]) for stay in repeated["transitions"]] == [("a", "d")], "only what stands"
    late = await shop.get("/v1/touchpoints/t3", source="test")
    assert (late["status"], [stay["stage"] for stay in late["transitions"]]) == ("late", ["a"])
    assert (await shop.get("/v1/touchpoints/t5", source="test"))["transitions"] == []


async def test_only_what_changed_what_was_told_is_late(shop: Service) -> None:
    """Several that come late together: whatever lies beyond the changes, or is about another journey, made none."""
    await shop.feed.apply(
        buy("t1", 1, line="shoes"),
        message("t8", "look", START + 8 * DAY),
        buy("t9", 9, line="hats"),
    )
    await shop.feed.apply(
        buy("early", 0, line="shoes"),
        message("before", "look", START - DAY),
        message("beyond", "look", START + 7 * DAY),
        message("other", "look", START + 6 * DAY, "d"),
    )
    statuses = {}
    for id_ in ("early", "before", "beyond", "other", "t1", "t8", "t9"):
        statuses[id_] = (await shop.get(f"/v1/touchpoints/{id_}", source="test"))["status"]
    assert statuses == {
        "early": "late",
        "before": "late",
        "beyond": "applied",
        "other": "applied",
        "t1": "applied",
        "t8": "applied",
        "t9": "applied",
    }


async def test_the_receipt_of_what_was_set_aside(shop: Service) -> None:
    (delivery,) = deliveries([buy("t1", 1)])
    await set_aside(shop.database, LOG, delivery, RuntimeError("it cannot be"))
    receipt = await shop.get("/v1/touchpoints/t1", source="test")
    assert (receipt["status"], receipt["customer"], receipt["transitions"]) == ("dead_letter", None, [])
    assert receipt["problem"] == {"code": "cannot_be_processed", "detail": "it cannot be"}
    shop.feed.next = 1
    await shop.feed.apply(buy("t1", 1))
    assert (await shop.get("/v1/touchpoints/t1", source="test"))["status"] == "applied", "it was sent again"


async def test_a_touchpoint_is_pending_until_the_log_has_been_applied(shop: Service) -> None:
    client, database = shop.client, shop.database
    assert (await shop.get("/v1/touchpoints/t1", 404))["code"] == "touchpoint_not_found"
    posted = await client.post(
        "/v1/touchpoints", json={"id": "t1", "type": "love", "customer_id": "c", "occurred_at": day(1)}
    )
    assert posted.status_code == 202
    receipt = await shop.get("/v1/touchpoints/t1")
    assert (receipt["status"], receipt["source"], receipt["customer"]) == ("pending", SOURCE, None)
    assert (await shop.get("/v1/touchpoints/never"))["status"] == "pending", "it may be in the log as well"
    worker = Worker(database, Definitions(database, Cel()), "database")
    worker.reader = DatabaseReader(database, worker.positions, asyncio.Event())
    stop = asyncio.Event()
    working = asyncio.create_task(worker.run(stop))
    for _ in range(500):
        if (receipt := await shop.get("/v1/touchpoints/t1"))["status"] != "pending":
            break
        await asyncio.sleep(0.01)
    stop.set()
    await working
    assert (receipt["status"], receipt["transitions"][0]["stage"]) == ("applied", "d")
    assert receipt == await shop.get("/v1/touchpoints/t1", source=SOURCE)
    assert (await shop.get("/v1/touchpoints/never", 404))["code"] == "touchpoint_not_found"
    assert (await shop.get("/v1/touchpoints/t1", 404, source="elsewhere"))["code"] == "touchpoint_not_found"


# -- who may ask, and what if the database is away -------------------------------------------------------------------

QUESTIONS = (
    "/v1/customers/c",
    "/v1/customers/c/journeys/shop",
    "/v1/customers/c/history",
    "/v1/customers/c/touchpoints",
    "/v1/touchpoints/t1",
    "/v1/lifecycles",
    "/v1/lifecycles/shop",
    "/v1/lifecycles/shop/versions",
    "/v1/lifecycles/shop/versions/1",
)


async def test_nobody_is_answered_without_a_key(sqlite_url: str) -> None:
    async with running(sqlite_url, SHOP) as shop:
        await shop.feed.apply(buy("t1", 1))
        del shop.client.headers["Authorization"]
        for path in QUESTIONS:
            assert (await shop.get(path, 401))["code"] == "key_missing"


async def test_a_database_that_is_away_is_told(postgres_url: str) -> None:
    async with running(postgres_url, SHOP) as shop:
        await shop.feed.apply(buy("t1", 1))
        await shop.get("/v1/customers/c")
        end = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        other = Database(postgres_url, pool_size=1)
        async with other.transaction() as connection:
            await connection.execute(end)
        await other.close()
        statuses = [(await shop.client.get("/v1/customers/c")).status_code for _ in range(4)]
        assert set(statuses) <= {200, 503}
        assert statuses[-1] == 200

    nowhere = Database("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    async with service(nowhere) as client:
        for path in QUESTIONS:
            response = await client.get(path)
            assert (response.status_code, response.json()["code"]) == (503, "database_unavailable"), response.text
            assert int(response.headers["retry-after"]) > 0
    await nowhere.close()


async def test_a_database_whose_connections_are_all_taken_is_told(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(postgres_url, pool_size=1)
    monkeypatch.setattr(database.engine.pool, "_timeout", 0.1)
    async with service(database) as client, database.transaction():
        response = await client.get("/v1/customers/c")
        assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
    await database.close()

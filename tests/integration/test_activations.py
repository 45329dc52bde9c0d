"""Versions that take over from one another, over HTTP: from when on, under which checks, and how far the job is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle_engine.engine.activation import CUSTOMERS, CatchUp
from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.engine.horizon import Horizon
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.instants import format_instant, parse_instant
from lifecycle_engine.log.database import DatabaseBacklog
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.lifecycles import hold_definitions
from tests.integration.whole import AUDIT, DAY, START, Whole, day, now, soon, whole
from tests.record import LOG, Feed, message, record
from tests.service import clock, service

FIRST: dict[str, Any] = {
    "lifecycle": "shop",
    "initial": "new",
    "stages": [{"key": "new"}, {"key": "bought"}],
    "rules": [{"on": "buy", "to": "bought"}],
}
SECOND: dict[str, Any] = {
    "lifecycle": "shop",
    "initial": "new",
    "stages": [{"key": "new"}, {"key": "customer"}, {"key": "loyal"}],
    "measures": {"n": {"count": "buy"}},
    "rename": {"bought": "customer"},
    "rules": [
        {"on": "buy", "when": ["measures.n >= 2"], "to": "loyal"},
        {"on": "buy", "to": "customer"},
    ],
}
ACTIVATE = "/v1/lifecycles/shop/activate"
JOURNEY = "/v1/customers/c/journeys/shop"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def shop(url: str) -> AsyncIterator[Whole]:
    async with whole(url) as started:
        yield started


async def post(shop: Whole, *documents: dict[str, Any]) -> None:
    for document in documents:
        await shop.ask("POST", "/v1/lifecycles", 201, document)


async def activate(shop: Whole, version: int, status: int = 202, **body: Any) -> Any:
    return await shop.ask("POST", ACTIVATE, status, {"version": version, **body})


async def finished(shop: Whole, activation: Any) -> Any:
    return await shop.until(f"/v1/jobs/{activation['job']['id']}", "status", "finished")


async def timeline(shop: Whole) -> list[tuple[int | None, str | None]]:
    page = await shop.get("/v1/lifecycles/shop/activations")
    return [(one["version"], one["since"]) for one in page["items"]]


async def test_a_first_version_holds_from_the_beginning(shop: Whole) -> None:
    await shop.post("t1", "buy", 1, customer_id="c")
    await post(shop, FIRST)
    assert await timeline(shop) == []
    problem = await activate(shop, 1, 422, at=soon(60))
    assert problem["code"] == "first_activation"
    assert "from the beginning of time" in problem["detail"]
    activated = await activate(shop, 1)
    job = activated.pop("job")
    assert activated == {"lifecycle": "shop", "version": 1, "since": None, "activated_at": job["created_at"]}
    assert (job["kind"], job["lifecycle"], job["version"], job["since"]) == ("activation", "shop", 1, None)
    done = await finished(shop, {"job": job})
    assert (done["customers"], done["done"]) == (1, 1)
    assert done["finished_at"] >= done["created_at"]
    moment = await shop.get(JOURNEY)
    assert (moment["stage"], moment["entered_at"]) == ("bought", day(1))
    again = await activate(shop, 1, 200)
    assert again == {**activated, "job": done}, "once more changes nothing"
    assert await timeline(shop) == [(1, None)]


async def test_a_version_takes_over_from_now_on(shop: Whole) -> None:
    await post(shop, FIRST, SECOND)
    await activate(shop, 1)
    await shop.post("t1", "buy", 1, customer_id="c")
    before = now()
    activated = await activate(shop, 2)
    await finished(shop, activated)
    assert activated["since"] == activated["activated_at"] > before
    moment = await shop.until(JOURNEY, "stage", "customer")
    assert (moment["entered_at"], moment["previous_stage"], moment["move"]) == (activated["since"], "bought", "reenter")
    assert (moment["cause"]["kind"], moment["definition_version"]) == ("definition", 2)
    await shop.do("POST", "/v1/touchpoints", {"type": "buy", "customer_id": "c"})
    assert (await shop.get(JOURNEY))["stage"] == "loyal", "its measures are over all facts"
    # What occurred before was judged by the version of then, also where it comes late.
    await shop.post("t0", "buy", 0, customer_id="d")
    await shop.until("/v1/customers/d/journeys/shop", "stage", "customer")
    assert [line[0] for line in await shop.history("d")] == ["bought", "customer"]
    assert (await shop.get("/v1/lifecycles/shop"))["active_version"] == 2
    assert await timeline(shop) == [(1, None), (2, activated["since"])]


async def test_a_version_takes_over_when_its_time_has_come(shop: Whole) -> None:
    await post(shop, FIRST, SECOND)
    await activate(shop, 1)
    await shop.post("t1", "buy", 1, customer_id="c")
    activated = await activate(shop, 2, at=(at := soon(1.5)))
    assert (activated["since"], activated["job"]["since"]) == (at, at)
    assert activated["activated_at"] < at
    await finished(shop, activated)
    assert (await shop.get("/v1/lifecycles/shop"))["active_version"] == 1
    assert (await shop.get(JOURNEY))["stage"] == "bought"
    # Until then an operator can name the stages of the old version only, and from then on those of the new one.
    unknown = await shop.ask("PUT", f"{JOURNEY}/stage", 422, {"stage": "loyal", **AUDIT})
    assert unknown["code"] == "unknown_stage"
    moment = await shop.until(JOURNEY, "stage", "customer")
    assert moment["entered_at"] == at
    assert (await shop.get("/v1/lifecycles/shop"))["active_version"] == 2
    await shop.do("PUT", f"{JOURNEY}/stage", {"stage": "loyal", **AUDIT})
    assert (await shop.get(JOURNEY))["stage"] == "loyal"


async def test_a_scheduled_switch_is_replaced_or_cancelled(shop: Whole) -> None:
    await post(shop, FIRST, SECOND, {**SECOND, "initial": "customer"})
    await activate(shop, 1)
    await shop.post("t1", "buy", 1, customer_id="c")
    far, farther = format_instant(parse_instant(now()) + DAY), format_instant(parse_instant(now()) + 2 * DAY)
    await activate(shop, 2, at=farther)
    assert await timeline(shop) == [(1, None), (2, farther)]
    await activate(shop, 3, at=far)
    assert await timeline(shop) == [(1, None), (3, far)], "it comes before, and takes its place"
    await activate(shop, 2, at=farther)
    assert await timeline(shop) == [(1, None), (3, far), (2, farther)]
    assert (await activate(shop, 2, 200, at=farther))["since"] == farther
    page = await shop.get("/v1/lifecycles/shop/activations", limit=2)
    rest = await shop.get("/v1/lifecycles/shop/activations", limit=2, cursor=page["next_cursor"])
    assert [one["version"] for one in page["items"] + rest["items"]] == [1, 3, 2]
    # The version in force goes on, undisturbed.
    await finished(shop, await activate(shop, 1))
    assert await timeline(shop) == [(1, None)]
    assert [line[0] for line in await shop.history()] == ["bought"]
    await shop.do("POST", "/v1/touchpoints", {"type": "buy", "customer_id": "c"})
    assert [line[0] for line in await shop.history()] == ["bought"]


async def test_a_version_that_cannot_take_over_is_refused(shop: Whole) -> None:
    without = {name: value for name, value in SECOND.items() if name != "rename"}
    await post(shop, FIRST, SECOND, without, {**FIRST, "per": "properties.line"})
    await activate(shop, 1)
    problem = await activate(shop, 3, 409)
    assert problem["code"] == "cannot_take_over"
    assert "stages of the active version are missing: bought" in problem["detail"]
    assert problem["problems"][0]["pointer"] == "/rename"
    problem = await activate(shop, 4, 409)
    assert (problem["code"], problem["problems"][0]["pointer"]) == ("cannot_take_over", "/per")
    problem = await activate(shop, 2, 422, at=soon(-1))
    assert problem["code"] == "in_the_past"
    assert (await activate(shop, 5, 404))["code"] == "version_not_found"
    assert (await activate(shop, 2, 422, at="tomorrow"))["code"] == "invalid_request"
    assert (await activate(shop, 2, 422, when=soon(60)))["code"] == "invalid_request"
    assert await timeline(shop) == [(1, None)]
    # It is judged by what it would replace: after the second version there is nothing to rename.
    await activate(shop, 2, at=soon(3600))
    await activate(shop, 3, at=soon(7200))
    assert (await activate(shop, 3, 409, at=soon(1800)))["code"] == "cannot_take_over"


RETIRE = "/v1/lifecycles/shop/retire"
TIMED: dict[str, Any] = {
    **FIRST,
    "stages": [{"key": "new"}, {"key": "bought"}, {"key": "gone"}],
    "measures": {"n": {"count": "buy"}},
    "rules": [
        {"on": "buy", "to": "bought"},
        {"on": "ask", "to": "new"},
        {"after": "1s", "from": "bought", "to": "gone"},
    ],
}


async def test_a_retired_lifecycle_keeps_its_history(shop: Whole) -> None:
    await post(shop, TIMED)
    assert (await shop.ask("POST", RETIRE, 409, {}))["code"] == "lifecycle_not_active"
    await activate(shop, 1)
    bought = now()
    await shop.do("POST", "/v1/touchpoints", {"type": "buy", "customer_id": "c", "occurred_at": bought})
    retired = await shop.ask("POST", RETIRE, 202, {})
    assert (retired["version"], retired["since"]) == (None, retired["activated_at"])
    assert (await finished(shop, retired))["version"] is None
    assert (await shop.get("/v1/lifecycles/shop"))["active_version"] is None
    assert await timeline(shop) == [(1, None), (None, retired["since"])]
    assert (await shop.ask("POST", RETIRE, 200, {}))["since"] == retired["since"], "once more changes nothing"
    # Neither touchpoints, nor time, nor operators move it any more; whoever comes new has no journey in it.
    await shop.do("POST", "/v1/touchpoints", {"id": "t2", "type": "ask", "customer_id": "c"})
    await shop.do("POST", "/v1/touchpoints", {"type": "buy", "customer_id": "d"})
    problem = await shop.ask("PUT", f"{JOURNEY}/stage", 409, {"stage": "gone", **AUDIT})
    assert problem["code"] == "lifecycle_retired"
    await asyncio.sleep(max(0.0, (parse_instant(bought) - clock()) / 1e6 + 2.0))
    assert [line[:2] for line in await shop.history()] == [("bought", bought)]
    (journey,) = (await shop.get("/v1/customers/c"))["journeys"]
    assert (journey["stage"], journey["measures"], journey["next_timer"]) == ("bought", {"n": 1}, None)
    assert (await shop.get("/v1/customers/d"))["journeys"] == []
    (told,) = (await shop.get("/v1/customers/c/explain", lifecycle="shop", touchpoint="t2"))["journeys"]
    assert told["untouched"] == "retired"
    assert told["sentences"] == [f"It touched no journey of shop: the lifecycle was retired at {retired['since']}."]
    (told,) = (await shop.get("/v1/customers/c/explain", lifecycle="shop", to="gone"))["journeys"]
    assert f"It stays there: the lifecycle was retired at {retired['since']}." in told["sentences"]
    # What occurred before, and comes late, belongs to its history.
    await shop.post("t0", "buy", 0, customer_id="e")
    await shop.until("/v1/customers/e/journeys/shop", "stage", "gone")


async def test_a_retired_lifecycle_is_taken_up_again(shop: Whole) -> None:
    without = {**SECOND, "rename": {}}
    await post(shop, FIRST, SECOND, without)
    await activate(shop, 1)
    await shop.do("POST", "/v1/touchpoints", {"type": "buy", "customer_id": "c"})
    await finished(shop, await shop.ask("POST", RETIRE, 202, {}))
    await shop.do("POST", "/v1/touchpoints", {"type": "buy", "customer_id": "c"})
    assert "missing: bought" in (await activate(shop, 3, 409))["detail"], "it is judged by the version before"
    taken_up = await activate(shop, 2)
    await finished(shop, taken_up)
    moment = await shop.until(JOURNEY, "stage", "customer")
    assert moment["entered_at"] == taken_up["since"]
    (journey,) = (await shop.get("/v1/customers/c"))["journeys"]
    assert journey["measures"] == {"n": 2}
    assert (await shop.get("/v1/lifecycles/shop"))["active_version"] == 2
    await shop.do("POST", "/v1/touchpoints", {"type": "buy", "customer_id": "c"})
    assert (await shop.get(JOURNEY))["stage"] == "loyal"


async def test_a_retirement_is_scheduled_and_cancelled(shop: Whole) -> None:
    await post(shop, FIRST)
    await activate(shop, 1)
    await shop.ask("POST", RETIRE, 202, {"at": (far := format_instant(parse_instant(now()) + DAY))})
    assert await timeline(shop) == [(1, None), (None, far)]
    assert (await shop.get("/v1/lifecycles/shop"))["active_version"] == 1
    assert (await shop.ask("POST", RETIRE, 422, {"at": soon(-1)}))["code"] == "in_the_past"
    assert (await shop.ask("POST", "/v1/lifecycles/nothing/retire", 404, {}))["code"] == "lifecycle_not_found"
    await activate(shop, 1)
    assert await timeline(shop) == [(1, None)]
    await shop.do("POST", "/v1/touchpoints", {"type": "buy", "customer_id": "c"})
    assert (await shop.get(JOURNEY))["stage"] == "bought"


async def test_versions_at_once_take_turns(shop: Whole) -> None:
    await post(shop, FIRST, SECOND, {**SECOND, "initial": "customer"})
    await activate(shop, 1)
    answers = await asyncio.gather(*(activate(shop, version) for version in (2, 3)))
    assert sorted(one["version"] for one in answers) == [2, 3]
    assert len({one["job"]["id"] for one in answers}) == 2
    assert [version for version, _ in await timeline(shop)] in ([1, 2, 3], [1, 3, 2])


async def test_jobs_are_listed_and_found(shop: Whole) -> None:
    await post(shop, FIRST, SECOND)
    ids = [(await activate(shop, version))["job"]["id"] for version in (1, 2)]
    page = await shop.get("/v1/jobs", limit=1)
    rest = await shop.get("/v1/jobs", limit=250, cursor=page["next_cursor"])
    assert [one["id"] for one in page["items"] + rest["items"]] == ids[::-1]
    for unknown in ("activation-99", "activation-01", "activation--1", "1", "activation-x", "activation-²", "a" * 99):
        assert (await shop.get(f"/v1/jobs/{unknown}", 404))["code"] == "job_not_found"
    assert (await shop.get("/v1/lifecycles/nothing/activations", 404))["code"] == "lifecycle_not_found"


class _Twice(Horizon):
    """Tells the time, and sets `stop` the second time that it is asked."""

    def __init__(self, database: Database, stop: asyncio.Event) -> None:
        super().__init__(database, DatabaseBacklog(database), LOG, 0)
        self._stop = stop
        self._asked = 0

    async def read(self) -> int:
        self._asked += 1
        if self._asked == 2:
            self._stop.set()
        return await super().read()


async def test_an_activation_goes_on_where_it_was_stopped(url: str) -> None:
    count = 3 * CUSTOMERS - 10
    async with record(url, FIRST) as database, service(database) as client:
        shop = Whole(database, client)
        feed = Feed(database)
        await feed.apply(*(message(f"t{n}", "buy", START, f"c{n}") for n in range(count)))
        await post(shop, SECOND)
        job = (await activate(shop, 2))["job"]
        assert (job["status"], job["customers"], job["done"]) == ("running", count, 0)
        stop = asyncio.Event()
        half = CatchUp(database, Definitions(database, Cel()), _Twice(database, stop))
        await asyncio.wait_for(half.run(stop), 30)
        job = await shop.get(f"/v1/jobs/{job['id']}")
        assert (job["status"], job["customers"], job["done"]) == ("running", count, 2 * CUSTOMERS)
        behind = [(await shop.get(f"/v1/customers/c{n}"))["journeys"][0]["definition_version"] for n in range(count)]
        assert (behind.count(2), behind.count(1)) == (2 * CUSTOMERS, CUSTOMERS - 10)
        # A customer of whom something comes meanwhile is brought up to it by that.
        await feed.apply(message("late", "buy", START - DAY, f"c{count - 1}"))
        job = await shop.get(f"/v1/jobs/{job['id']}")
        assert job["done"] == 2 * CUSTOMERS + 1
        stop = asyncio.Event()
        other = CatchUp(database, Definitions(database, Cel()), Horizon(database, DatabaseBacklog(database), LOG, 0))
        working = asyncio.create_task(other.run(stop))
        await asyncio.wait_for(other.finished.wait(), 30)
        stop.set()
        await working
        job = await shop.get(f"/v1/jobs/{job['id']}")
        assert (job["status"], job["customers"], job["done"]) == ("finished", count, count)
        for n in range(count - 1):  # for the last one, time has yet to pass up to the switch
            (journey,) = (await shop.get(f"/v1/customers/c{n}"))["journeys"]
            assert (journey["stage"], journey["definition_version"]) == ("customer", 2)


async def test_activation_waits_for_running_transactions(postgres_url: str) -> None:
    """What was begun under the older set of definitions ends first."""
    async with record(postgres_url) as database, service(database) as client:
        shop = Whole(database, client)
        await post(shop, FIRST)
        async with database.engine.connect() as other:
            await hold_definitions(other)
            activating = asyncio.create_task(activate(shop, 1))
            await asyncio.wait([activating], timeout=0.3)
            assert not activating.done()
            await other.rollback()
        await activating
        await Feed(database).apply(message("t1", "buy", START))
        assert (await shop.get(JOURNEY))["stage"] == "bought"

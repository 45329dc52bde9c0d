"""`Prefer: wait`: an answer once what was posted is applied, and one all the same where it is not in time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle_engine.api.touchpoints.progress import preferred_wait
from lifecycle_engine.store.database import Database
from tests.integration.whole import Whole, whole
from tests.service import service

VISIT: dict[str, Any] = {"id": "t1", "type": "visit", "customer_id": "c"}
SHOP = {
    "lifecycle": "shop",
    "initial": "visitor",
    "stages": [{"key": "visitor"}, {"key": "buyer"}],
    "rules": [{"on": "purchase", "to": "buyer"}],
}


@pytest.fixture(params=["sqlite", "postgresql"])
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Whole]:
    url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    async with whole(url, SHOP) as started:
        yield started


async def test_one_is_answered_with_its_receipt_once_it_is_applied(running: Whole) -> None:
    posted = {"id": "t1", "type": "purchase", "customer_id": "c"}
    answer = await running.client.post("/v1/touchpoints", json=posted, headers={"Prefer": "wait=10"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=10")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == await running.get("/v1/touchpoints/t1")
    assert (answer.json()["status"], answer.json()["duplicates"]) == ("applied", 0)
    assert [line["stage"] for line in answer.json()["transitions"]] == ["buyer"]
    again = await running.client.post("/v1/touchpoints", json=posted, headers={"Prefer": 'foo, WAIT="10";x=1'})
    assert (again.status_code, again.json()["duplicates"], again.json()["conflicts"]) == (200, 1, 0)
    other = await running.client.post("/v1/touchpoints", json={**posted, "type": "x"}, headers={"Prefer": "wait=10"})
    assert (other.json()["type"], other.json()["duplicates"], other.json()["conflicts"]) == ("purchase", 1, 1)


async def test_many_are_answered_once_all_are_applied(running: Whole) -> None:
    lines = "".join(json.dumps({**VISIT, "id": f"t{n}", "customer_id": f"c{n}"}) + "\n" for n in range(700))
    headers = {"Prefer": "wait=20", "Content-Type": "application/x-ndjson"}
    answer = await running.client.post("/v1/touchpoints", content=lines + "{}", headers=headers)
    assert (answer.status_code, answer.headers["preference-applied"]) == (207, "wait=20")
    assert answer.json()["summary"] == {"accepted": 700, "rejected": 1, "unknown": 0}
    assert (await running.get("/v1/customers/c699"))["customer_id"] == "c699"


async def test_events_can_be_waited_for(running: Whole) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "Order Completed", "subject": "c"}
    headers = {"Prefer": "wait=10", "Content-Type": "application/cloudevents+json"}
    answer = await running.client.post("/v1/events", content=json.dumps(event), headers=headers)
    assert (answer.status_code, answer.json()["status"], answer.json()["source"]) == (200, "applied", "/shop")


async def test_a_hundred_can_wait_at_once(running: Whole) -> None:
    async def post(number: int) -> int:
        body = {**VISIT, "id": f"t{number}", "customer_id": f"c{number}"}
        return (await running.client.post("/v1/touchpoints", json=body, headers={"Prefer": "wait=20"})).status_code

    assert set(await asyncio.gather(*map(post, range(100)))) == {200}


async def test_what_is_not_applied_in_time_is_only_accepted(installed_sqlite_url: str) -> None:
    """Nobody applies it here."""
    database = Database(installed_sqlite_url)
    async with service(database) as client:
        began = time.monotonic()
        answer = await client.post("/v1/touchpoints", json=VISIT, headers={"Prefer": "wait=1"})
        assert 0.9 < time.monotonic() - began < 5
        assert (answer.status_code, answer.json()) == (202, {"id": "t1", "status": "accepted"})
        assert "preference-applied" not in answer.headers
        answer = await client.post("/v1/touchpoints", json=[VISIT], headers={"Prefer": "wait=1"})
        assert (answer.status_code, answer.json()["summary"]["accepted"]) == (207, 1)
        assert "preference-applied" not in answer.headers
        began = time.monotonic()
        answer = await client.post("/v1/touchpoints", json={"type": "x"}, headers={"Prefer": "wait=10"})
        assert (answer.status_code, time.monotonic() - began < 2) == (422, True)
        assert (await client.get("/v1/touchpoints/t1")).json()["status"] == "pending"
    await database.close()


async def test_a_process_that_is_told_to_end_keeps_nobody_waiting(installed_sqlite_url: str) -> None:
    database = Database(installed_sqlite_url)
    async with service(database) as client:
        waiting = asyncio.create_task(client.post("/v1/touchpoints", json=VISIT, headers={"Prefer": "wait=20"}))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        client._transport.app.state.health.draining.set()  # type: ignore[attr-defined]
        assert (await asyncio.wait_for(waiting, 2)).status_code == 202
    await database.close()


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        (["wait=10"], 10),
        (["respond-async, wait=5"], 5),
        (["respond-async", 'Wait = "7" ; x=1'], 7),
        (["wait=30"], 30),
        (["wait=31"], 30),
        (["wait=99999999999999999999"], 30),
        (["wait=3, wait=4"], 3),
        (["wait=0"], None),
        (["wait=-1"], None),
        (["wait"], None),
        (["wait=soon"], None),
        (["wait=1.5"], None),
        (["waiting=3"], None),
        ([""], None),
        ([], None),
    ],
)
def test_a_preference_is_read_as_the_standard_has_it(values: list[str], seconds: int | None) -> None:
    assert preferred_wait([(b"prefer", value.encode()) for value in values]) == seconds
